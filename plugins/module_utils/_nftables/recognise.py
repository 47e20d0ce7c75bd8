# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules that recognise knocks, and those that forget the ones in progress. Pure."""

from typing import Dict, List

from ansible_collections.sesame.portknock.plugins.module_utils._iptables import comments
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
    NUMBERS,
    WRONG,
    Family,
    families_of,
    knocker_matches,
    open_set,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.rules import TOO_OFTEN, Chains, Rule, joined
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import PROTOCOLS, Spec, Step


class Recognition:
    """The rules that find the chain of a knock port, and those chains."""

    def __init__(self, spec: Spec, knocks: Knocks) -> None:
        """Take the Spec and its Knocks."""
        self._knocks = knocks
        self._families = families_of(spec)
        self._by_step = self._steps()
        self._watched = [protocol for protocol in PROTOCOLS if self._is_used(protocol)]
        self.chains: Chains = {}
        if self._by_step:
            self._add_chains()

    def rules(self) -> List[Rule]:
        """Return the rules for packets that begin something: they count knocks, see wrong ports, and decide nothing."""
        return [Rule(f"jump {KNOCKS}", comments.KNOCK_PORTS)] if self._by_step else []

    def _add_chains(self) -> None:
        verdicts = [self._verdict(step) for step in sorted(self._by_step)] + self._wrong_protocol()
        found = [Rule(f"meta l4proto . th dport vmap {{ {', '.join(verdicts)} }}", comments.KNOCK_PORTS)]
        # Broadcasts never count.
        which = {"tcp": "meta l4proto 6", "udp": "meta l4proto 17 meta pkttype 0"}
        wrong = [Rule(f"{which[protocol]} goto {WRONG}", comments.WRONG_PORT) for protocol in self._watched]
        self.chains[KNOCKS] = found + wrong
        if self._knocks.staged:
            self._add_forgetting()

    def _is_used(self, protocol: str) -> bool:
        return any(step.protocol == protocol for sequence in self._knocks.staged for step in sequence.steps)

    def _verdict(self, step: Step) -> str:
        name = f"knock{len(self.chains) + 1}"
        self.chains[name] = self._by_step[step]
        return f"{NUMBERS[step.protocol]} . {step.port} : goto {name}"

    def _wrong_protocol(self) -> List[str]:
        """A protocol that some knock uses is watched on all ports; on the other one only the right port over the wrong
        protocol counts, so that a client's ordinary traffic does not break its knock."""
        steps = {step for sequence in self._knocks.staged for step in sequence.steps}
        wrong = {
            Step(step.port, protocol) for step in steps for protocol in PROTOCOLS if protocol not in self._watched
        } - set(self._by_step)
        return [f"{NUMBERS[step.protocol]} . {step.port} : goto {WRONG}" for step in sorted(wrong)]

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
        elif sequence.stages:
            match = joined(who, family.unseen(PAUSED), "counter")
        if number < len(sequence.steps):
            in_progress = [family.put(name, self._knocks.timeout) for name in (PROGRESS, sequence.group) if name]
            return joined(match, *in_progress, family.put(sequence.stages[number - 1], sequence.door.step_timeout))
        name = open_set(sequence.door)
        return joined(match, family.forget(name) if sequence.closing else family.put(name, sequence.door.window))

    def _add_forgetting(self) -> None:
        self.chains[WRONG] = [
            Rule(f"{family.seen(PROGRESS)} counter goto forget{family.digit}", comments.WRONG_PORT)
            for family in self._families
        ]
        for family in self._families:
            chain = f"forget{family.digit}"
            self.chains[chain] = [Rule(family.forget(PROGRESS), comments.IN_PROGRESS)]
            for number, (group, sequences) in enumerate(self._knocks.groups.items(), 1):
                deletions = [rule for sequence in sequences for rule in self._forget(sequence, family)]
                if group:
                    target = f"{chain}_{number}"
                    text = joined(family.seen(group), family.forget(group), f"jump {target}")
                    self.chains[chain].append(Rule(text, comments.IN_PROGRESS))
                    self.chains[target] = deletions
                else:
                    self.chains[chain] += deletions
            pause = joined(BROKEN_OFTEN, "counter", family.put(PAUSED, PAUSE))
            self.chains[chain].append(Rule(pause, TOO_OFTEN))

    @staticmethod
    def _forget(sequence: Sequence, family: Family) -> List[Rule]:
        return [Rule(joined(*map(family.forget, sequence.stages)), comments.reset(sequence.door.name))]


__all__ = ("Recognition",)
