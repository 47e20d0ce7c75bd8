# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules for packets that the host sends on: to what nat publishes, and to hosts behind. Pure.

The port that counts is the one that the packet was sent to, before nat. These chains never accept anything: what a door lets
in goes on to the rules of others, which decide as if the door were not there.

They are called at the head of FORWARD, and of DOCKER-USER as well: Docker puts its own rules in front of others' whenever it starts,
and leaves them that chain. What is published at addresses of this host is guarded before that, in nat itself (by_nat.py); here it is
also what rules send on that was for other addresses, what nat chains of others in nftables send on, and hosts behind. So a packet may
pass twice. The answer is the same, but for a door whose knock is good for one connection: there the first pass leaves a note for the
second, on a list of its own, and each of the two has a chain of its own.
"""

from typing import Dict, List, NamedTuple, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.dispatch import DOOR, blocks
from ansible_collections.sesame.portknock.plugins.module_utils._names import comments
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import (
    DOCKER,
    FORWARD,
    FORWARD_KNOCK,
    FORWARD_OPEN,
    FORWARD_REFUSE,
    FORWARD_USER,
    OPEN_PREFIX,
    REFUSE,
    REFUSED_PREFIX,
)
from ansible_collections.sesame.portknock.plugins.module_utils._names.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import (
    IPV4,
    PROTOCOLS,
    PUBLISHED_NONE,
    PUBLISHED_POLICY,
    Door,
    Network,
    Spec,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports, port_text
from ansible_collections.sesame.portknock.plugins.module_utils._tables.rule_parts import (
    LOG_LIMIT,
    SYN,
    Chains,
    RuleParts,
    joined,
    knocker_matches,
    of_family,
    source_match,
    trusted_rules,
)

FEW = 10
"""Up to so many ports stand in one row, and in each range of more."""
NOT_ESTABLISHED = "-m conntrack ! --ctstate ESTABLISHED"
"""What the hooks ask, so that a packet of a running connection passes one rule and no chain."""
NOTE_SECONDS = 1
"""How long the note for the second pass is good."""
STATE = "-m conntrack --ctstate "
SYN_OF = {"tcp": "-m tcp " + SYN}
"""Protocol to the match of a packet that begins a connection."""


class Guarded(NamedTuple):
    """A door with the ports of it that are guarded, and how a packet to each of them looks."""

    door: Door
    """The door."""
    matches: Tuple[Tuple[Ports, str], ...]
    """Ports, and a match of packets to them."""


def guarded_behind(spec: Spec, family: str) -> List[Guarded]:
    """Return the doors to hosts behind this one, for one family."""
    found = []
    for door in spec.doors:
        networks = of_family(door.to, family)
        matches = [(ports, match) for ports in door.opens for each in networks for match in _behind(each, ports)]
        found += [Guarded(door, tuple(matches))] if matches else []
    return found


def guarded_published(spec: Spec) -> List[Guarded]:
    """Return the doors that guard what nat publishes."""
    if spec.published == PUBLISHED_NONE:
        return []
    return [Guarded(door, tuple((ports, _published(ports)) for ports in door.here)) for door in spec.doors if door.here]


def _original(ports: Ports) -> str:
    return f"--ctorigdstport {port_text(ports)}"


def _published(ports: Ports) -> str:
    return f"-p {ports.protocol} {STATE}DNAT {_original(ports)}"


def _behind(network: Network, ports: Ports) -> List[str]:
    """Return matches of packets to a host behind, as they are after nat or were before it."""
    before = network.network_address if network.num_addresses == 1 else network
    return [
        f"-d {network} -p {ports.protocol} -m conntrack {_original(ports)}",
        f"-p {ports.protocol} {STATE}DNAT --ctorigdst {before} {_original(ports)}",
    ]


class Forward:
    """The chains for packets that are sent on, of one family."""

    def __init__(self, spec: Spec, family: str, lists: Lists, knocks: Sequence[RuleParts]) -> None:
        """Take the Spec, the family with its Lists, and the rules that recognise and reset knocks."""
        self._spec, self._family, self._lists = spec, family, lists
        self._behind, self._guarded = guarded_behind(spec, family), guarded_published(spec)
        self._knocks = list(knocks) if self._behind else []
        self._policy = spec.published == PUBLISHED_POLICY and spec.policy == "reject"
        self._ranges: Chains = {}
        both = self._behind + self._guarded
        second = FORWARD_USER if any(each.door.once for each in both) else FORWARD
        self.hooks = (("FORWARD", FORWARD), (DOCKER, second)) if both or self._policy else ()
        """Each chain that is hooked with ours; none where there is nothing to guard."""

    def chains(self) -> Chains:
        """Return the chains, none where there is nothing to guard."""
        if not self.hooks:
            return {}
        found: Chains = {target: self._pass(target) for target in dict.fromkeys(dict(self.hooks).values())}
        found.update(self._ranges)
        if self._knocks:
            found[FORWARD_KNOCK] = self._knocks
        if self._spec.log:
            found[FORWARD_OPEN] = [
                RuleParts(LOG_LIMIT, comments.LOG_OPENED, f'-j LOG --log-prefix "{OPEN_PREFIX}"'),
            ]
            found[FORWARD_REFUSE] = [
                RuleParts(LOG_LIMIT, comments.LOG_REFUSED, f'-j LOG --log-prefix "{REFUSED_PREFIX}"'),
                RuleParts("", comments.REFUSE, "-g " + REFUSE),
            ]
        return found

    def _pass(self, name: str) -> List[RuleParts]:
        rules = (
            trusted_rules(self._spec, self._family, "-j RETURN") + self._doors(self._behind, name) + self._knock_rules()
        )
        return rules + self._published(name) + self._rest()

    def _published(self, name: str) -> List[RuleParts]:
        """Return the rules for doors of published ports; of many each range of ports has a chain of its own, so that few are walked."""
        ports = sorted({ports for each in self._guarded for ports, _match in each.matches})
        if len(ports) <= FEW:
            return self._doors(self._guarded, name)
        rules = []
        openers: Dict[Ports, List[int]] = {}
        for number, each in enumerate(self._guarded):
            for one, _match in each.matches:
                openers.setdefault(one, []).append(number)
        for protocol in PROTOCOLS:
            entries = [(one, DOOR) for one in ports if one.protocol == protocol]
            for span, block in blocks(entries, FEW):
                inside = {one for one, _kind in block}
                some = [
                    Guarded(each.door, tuple(pair for pair in each.matches if pair[0] in inside))
                    for number in sorted({number for one in inside for number in openers[one]})
                    for each in [self._guarded[number]]
                ]
                chain = FORWARD + str(len(self._ranges) + 1)
                self._ranges[chain] = self._doors(some, name) + self._rest()
                rules.append(RuleParts(_published(span), comments.PORT_RANGE, "-g " + chain))
        return rules

    def _doors(self, guarded: Sequence[Guarded], name: str) -> List[RuleParts]:
        """Return the rules that send on who has knocked at any of the doors, then those that refuse the others."""
        rules = [
            rule
            for each in guarded
            for ports, match in each.matches
            for rule in self._entrance(each.door, ports, match, name)
        ]
        refuse = "-g " + (FORWARD_REFUSE if self._spec.log else REFUSE)
        matches = dict.fromkeys(match for each in guarded for _ports, match in each.matches)
        return rules + [RuleParts(match, comments.REFUSE_NOT_KNOCKED, refuse) for match in matches]

    def _entrance(self, door: Door, ports: Ports, match: str, name: str) -> List[RuleParts]:
        panic = self._spec.panic
        target = "-g " + REFUSE if panic else "-g " + FORWARD_OPEN if self._spec.log else "-j RETURN"
        known = self._lists.seen(self._lists.door(door), door.window)
        rules = []
        if door.once:
            match = joined(match, SYN_OF.get(ports.protocol, ""))
            known = joined(known, self._lists.forget(self._lists.door(door)))
        if door.once:
            mine, other = self._notes(door, name)
            known = joined(known, self._lists.put(mine))
            note = joined(self._lists.seen(other, NOTE_SECONDS), self._lists.forget(other))
            rules = [RuleParts(joined(match, note), comments.PASSED, "-g " + REFUSE if panic else "-j RETURN")]
        meaning = comments.forwarded(door.name, panic)
        return rules + [
            RuleParts(joined(source, match, known), meaning, target) for source in knocker_matches(door, self._family)
        ]

    def _notes(self, door: Door, name: str) -> Tuple[str, str]:
        """Return the names of the list that a chain puts notes on, and of the one that it finds them on."""
        first, second = self._lists.notes(door)
        return (first, second) if name == FORWARD else (second, first)

    def _knock_rules(self) -> List[RuleParts]:
        networks = dict.fromkeys(each for guarded in self._behind for each in of_family(guarded.door.to, self._family))
        if not self._knocks:
            return []
        return [RuleParts(f"-d {network}", comments.FORWARD_KNOCKS, "-j " + FORWARD_KNOCK) for network in networks]

    def _rest(self) -> List[RuleParts]:
        """Return the rules for published ports without a door: what is allowed, and the refusal of the rest."""
        spec, rules = self._spec, []
        if spec.published == PUBLISHED_NONE or not (self._policy or spec.panic):
            return []
        for allow in spec.allow:
            meaning = comments.allowed(
                allow.comment or f"port {port_text(allow.ports)}/{allow.ports.protocol}", spec.panic
            )
            if spec.panic:
                rules.append(RuleParts(_published(allow.ports), meaning, "-g " + REFUSE))
                continue
            for network in of_family(allow.sources, self._family) if allow.sources else [None]:
                source = source_match(network) if network else ""
                rules.append(RuleParts(joined(source, _published(allow.ports)), meaning, "-j RETURN"))
        if self._policy:
            icmp = "-p icmp" if self._family == IPV4 else "-p ipv6-icmp"
            rules += [
                RuleParts(STATE + "RELATED", comments.RELATED, "-j RETURN"),
                RuleParts(icmp, comments.ICMP if self._family == IPV4 else comments.ICMPV6, "-j RETURN"),
                RuleParts(STATE + "DNAT", comments.REFUSE_PUBLISHED, "-g " + REFUSE),
            ]
        return rules


__all__ = ("NOT_ESTABLISHED", "Forward", "Guarded", "guarded_behind", "guarded_published")
