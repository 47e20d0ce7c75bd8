# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The chain that packets come to which this host sends on: to what nat publishes on it, and to hosts behind it. Pure.

It only refuses. What it lets through goes on to the chains of others, as Docker's, and nothing that these accept opens a door. A
packet comes to this chain or to that of packets to this host, never to both, so a knock for one connection is used up once.
"""

import ipaddress
from typing import Dict, List, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._names import comments
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import (
    BEHIND_CHAIN,
    FORWARD,
    REFUSE,
    Family,
    families_of,
    networks_text,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.recognise import Recognition
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.rules import (
    BEHIND,
    BEHIND_KNOCKS,
    NOT_NEW,
    NOT_SYN,
    SENT_ON,
    TO_CURRENT,
    Chains,
    Rule,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.services import (
    Services,
    cut,
    refuses_published,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import (
    Door,
    Network,
    Spec,
    family_of,
)

_KNOCKED = "forwarded"
"""The chain of packets to hosts behind this one that go to no port of a door there: they may be knocks."""


def forward_chains(spec: Spec, services: Services, recognition: Recognition, first: Sequence[Rule]) -> Chains:
    """Return the chain of packets that this host sends on, and those that only it leads to; none where it would do nothing.

    :param first: the rules for packets that need no knock.
    """
    behind = _Behind(spec, services)
    rules = behind.rules + behind.knocks(recognition) + services.published()
    rules += [TO_CURRENT] if rules else []
    if refuses_published(spec):
        rules += [Rule("ct state related accept", comments.RELATED), _refuse_rest()]
    return dict(behind.chains, **{FORWARD: [*first, *rules]}) if rules else {}


def _refuse_rest() -> Rule:
    # Errors and echoes have no port that could be published.
    return Rule(f"{SENT_ON} meta l4proto != {{ 1, 58 }} counter goto {REFUSE}", comments.REFUSE_PUBLISHED)


class _Behind:
    """The doors to hosts behind this one."""

    def __init__(self, spec: Spec, services: Services) -> None:
        self._services = services
        self._doors = [door for door in spec.doors if door.to]
        self._families = families_of(spec)
        self._names: Dict[Tuple[Door, ...], str] = {}
        self.chains: Chains = {}
        self.rules = [rule for family in self._families for rule in self._rules(family)]

    def _rules(self, family: Family) -> List[Rule]:
        spans = [
            (int(network.network_address), int(network.broadcast_address), door)
            for door in self._doors
            for network in _of(family, door.to)
        ]
        found = [f"{_span(family, first, last)} : jump {self._chain(doors)}" for first, last, doors in cut(spans)]
        address, verdicts = family.destination, ", ".join(found)
        matches = (address, f"{SENT_ON} ct original {address}") if found else ()
        return [Rule(f"{match} vmap {{ {verdicts} }}", BEHIND) for match in matches]

    def _chain(self, doors: Tuple[Door, ...]) -> str:
        if doors not in self._names:
            self._names[doors] = f"{BEHIND_CHAIN}{len(self._names) + 1}"
            self.chains[self._names[doors]] = self._services.behind(doors)
        return self._names[doors]

    def knocks(self, recognition: Recognition) -> List[Rule]:
        """Return the rules that count packets to these hosts as knocks, each packet once at most."""
        found = self._addressed()
        counted = recognition.rules() if found else []
        if not counted:
            return []
        self.chains[_KNOCKED] = [
            # Neither a knock nor a wrong port: a program of that host chose where it goes.
            Rule("ct state related return", comments.RELATED),
            Rule(f"meta l4proto 6 {NOT_SYN} return", NOT_NEW),
            *counted,
        ]
        return [Rule(f"{match} jump {_KNOCKED}", BEHIND_KNOCKS) for match in found]

    def _addressed(self) -> List[str]:
        """Return matches of packets to these hosts, of which a packet meets one at most."""
        found = []
        for family in self._families:
            networks = [network for door in self._doors for network in _of(family, door.to)]
            if networks:
                text, address = networks_text(networks), family.destination
                found += [f"{address} {text}", f"{address} != {text} {SENT_ON} ct original {address} {text}"]
        return found


def _of(family: Family, networks: Sequence[Network]) -> List[Network]:
    return [network for network in networks if family_of(network) == family.name]


def _span(family: Family, first: int, last: int) -> str:
    kind = ipaddress.IPv4Address if family.digit == "4" else ipaddress.IPv6Address
    return str(kind(first)) if first == last else f"{kind(first)}-{kind(last)}"


__all__ = ("forward_chains",)
