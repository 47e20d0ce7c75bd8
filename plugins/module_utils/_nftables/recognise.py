# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules that recognise knocks, and those that forget the ones in progress. Pure."""

from typing import Dict, List

from ansible_collections.sesame.portknock.plugins.module_utils._names import comments
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.knocks import (
    BROKEN_OFTEN,
    PAUSE,
    PAUSED,
    PROGRESS,
    Knocks,
    Sequence,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import (
    KNOCKS,
    SERVICES,
    WRONG,
    Entry,
    Family,
    families_of,
    knocker_matches,
    open_set,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.rules import (
    TO_CURRENT,
    TOO_OFTEN,
    Chains,
    Rule,
    joined,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.services import Found, Services, by_port
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import PROTOCOLS, Spec, Step
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports


class Recognition:
    """The rules that find the chain of a knock port, and those chains."""

    def __init__(self, spec: Spec, knocks: Knocks) -> None:
        """Take the Spec and its Knocks."""
        self._knocks = knocks
        self._families = families_of(spec)
        self._by_step = self._steps()
        self._watched = [protocol for protocol in PROTOCOLS if self._is_used(protocol)]
        self.chains: Chains = {}
        self._ports = [self._verdict(step) for step in sorted(self._by_step)] + self._wrong_protocol()
        if self._knocks.staged:
            self._add_forgetting()

    def rules(self) -> List[Rule]:
        """Return the rules for packets that begin something: they count knocks, see wrong ports, and decide nothing."""
        if not self._by_step:
            return []
        found = by_port(self._ports, comments.KNOCK_PORTS)
        self.chains[KNOCKS] = self._paused("return") + [*found, TO_CURRENT] + self._others()
        return [Rule(f"jump {KNOCKS}", comments.KNOCK_PORTS)]

    def beginning(self, services: Services) -> List[Rule]:
        """Return the same with the ports of services, for packets to this host: one look-up finds either; none without knocks.

        Nobody's port is that of a step and of a service; over the wrong protocol it may be, and then the service comes first.
        """
        if not self._by_step:
            return []
        alone = [each for each in self._ports if not services.has(each[0])]
        late = [each for each in self._ports if services.has(each[0])]
        found = services.rules(alone) + by_port(late, comments.WRONG_PORT)
        return self._paused(f"goto {SERVICES}") + [*found, TO_CURRENT] + self._others()

    def _paused(self, verdict: str) -> List[Rule]:
        """Return the rules that let pass by who is to begin no knock: asked once here, that costs least."""
        if not self._knocks.staged:
            return []
        return [Rule(f"{family.seen(PAUSED)} {verdict}", TOO_OFTEN) for family in self._families]

    def _others(self) -> List[Rule]:
        # Broadcasts never count.
        which = {"tcp": "meta l4proto 6", "udp": "meta l4proto 17 meta pkttype 0"}
        return [Rule(f"{which[protocol]} goto {WRONG}", comments.WRONG_PORT) for protocol in self._watched]

    def _is_used(self, protocol: str) -> bool:
        return any(step.protocol == protocol for sequence in self._knocks.staged for step in sequence.steps)

    def _verdict(self, step: Step) -> Found:
        name = f"knock{len(self.chains) + 1}"
        self.chains[name] = self._by_step[step]
        return _port(step), f"goto {name}"

    def _wrong_protocol(self) -> List[Found]:
        """A protocol that some knock uses is watched on all ports; on the other one only the right port over the wrong
        protocol counts, so that a client's ordinary traffic does not break its knock."""
        steps = {step for sequence in self._knocks.staged for step in sequence.steps}
        wrong = {
            Step(step.port, protocol) for step in steps for protocol in PROTOCOLS if protocol not in self._watched
        } - set(self._by_step)
        return [(_port(step), f"goto {WRONG}") for step in sorted(wrong)]

    def _steps(self) -> Dict[Step, List[Rule]]:
        """Return each step to the rules for its port, a door's last step first."""
        by_step: Dict[Step, List[Rule]] = {}
        for sequence in self._knocks.sequences:
            last = len(sequence.steps)
            for number in range(last, 0, -1):
                rules = by_step.setdefault(sequence.steps[number - 1], [])
                meaning = comments.step(sequence.door.name, number, last, sequence.closing)
                for family in self._families:
                    for who in knocker_matches(sequence.door, family):
                        rules.append(Rule(self._step(sequence, number, family, who), meaning))
        return by_step

    def _step(self, sequence: Sequence, number: int, family: Family, who: str) -> str:
        """Return the rule for the step of that number; ``who`` matches the sources that may begin."""
        match = joined(who or family.packet, "counter")
        if number > 1:
            before = sequence.stages[number - 2]
            match = joined(family.seen(before), "counter", family.forget(before))
        if number < len(sequence.steps):
            marks = [family.put(mark, self._knocks.timeout) for mark in sequence.marks]
            return joined(match, *marks, family.put(sequence.stages[number - 1], sequence.door.step_timeout))
        opened = Entry(open_set(sequence.door))
        return joined(match, family.forget(opened) if sequence.closing else family.put(opened, sequence.door.window))

    def _add_forgetting(self) -> None:
        wrong = self.chains[WRONG] = []
        for family in self._families:
            forget = f"forget{family.digit}"
            wrong.append(Rule(f"{family.seen(PROGRESS)} counter goto {forget}", comments.WRONG_PORT))
            self.chains[forget] = [Rule(family.forget(PROGRESS), comments.IN_PROGRESS)]
            for number, (group, sequences) in enumerate(self._knocks.groups.items(), 1):
                deletions = [rule for sequence in sequences for rule in self._forget(sequence, family)]
                if group != PROGRESS:
                    target = f"{forget}_{number}"
                    text = joined(family.seen(group), family.forget(group), f"jump {target}")
                    self.chains[forget].append(Rule(text, comments.IN_PROGRESS))
                    self.chains[target] = deletions
                else:
                    self.chains[forget] += deletions
            pause = joined(BROKEN_OFTEN, "counter", family.put(PAUSED, PAUSE))
            self.chains[forget].append(Rule(pause, TOO_OFTEN))

    @staticmethod
    def _forget(sequence: Sequence, family: Family) -> List[Rule]:
        return [Rule(joined(*map(family.forget, sequence.stages)), comments.reset(sequence.door.name))]


def _port(step: Step) -> Ports:
    return Ports(step.port, step.port, step.protocol)


__all__ = ("Recognition",)
