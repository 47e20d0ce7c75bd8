# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules for ports that nat publishes, in front of those that send them on. Pure.

Table nat sees the first packet of each connection alone. One to a door's port whose source has not knocked ends its way through
PREROUTING before any rule that would redirect it, so it goes on to INPUT, and is refused there as at any closed port. Nothing is
accepted here: in nat, ACCEPT says that a packet keeps its destination. Docker takes its rules in FORWARD out and puts them in again
whenever it starts, in front of all others; these here stay.

Where a knock is good for one connection, it is used up behind nat, by what nat has sent on: only there it is known that the
packet does not pass INPUT, where it would need the knock itself.
"""

from typing import Dict, List

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.dispatch import Reaching
from ansible_collections.sesame.portknock.plugins.module_utils._names import comments
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import (
    BY_NAT,
    BY_NAT_SENT,
    OPEN_PREFIX,
    POSTROUTING,
    PREROUTING,
)
from ansible_collections.sesame.portknock.plugins.module_utils._names.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import (
    IPV4,
    PROTOCOLS,
    PUBLISHED_NONE,
    PUBLISHED_POLICY,
    Allow,
    Door,
    Spec,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import (
    PortIndex,
    Ports,
    multiport_groups,
    port_text,
)
from ansible_collections.sesame.portknock.plugins.module_utils._tables.rule_parts import (
    LOG_LIMIT,
    Chains,
    RuleParts,
    joined,
    knocker_matches,
    multiport_match,
    of_family,
    port_match,
    source_match,
    trusted_rules,
)

STATE = "-m conntrack --ctstate "
KEEP = "-j ACCEPT"
"""Leaves a packet's destination as it is."""


class ByNat:
    """The chains of table nat, of one family."""

    def __init__(self, spec: Spec, family: str, lists: Lists) -> None:
        """Take the Spec, and the family with its Lists."""
        self._spec, self._family, self._lists = spec, family, lists
        self._doors = [door for door in spec.doors if door.here] if spec.published != PUBLISHED_NONE else []
        self._openers: Dict[Ports, List[Door]] = {}
        for door in self._doors:
            for ports in dict.fromkeys(door.here):
                self._openers.setdefault(ports, []).append(door)
        self._reaching = Reaching(self._openers)
        self._policy = spec.published == PUBLISHED_POLICY and spec.policy == "reject"

    def chains(self) -> Chains:
        """Return the chains, none where nothing is guarded."""
        if not (self._doors or self._policy):
            return {}
        rules = [*trusted_rules(self._spec, self._family, "-j RETURN"), *self._allowed()]
        chains: Chains = {BY_NAT: rules}
        for protocol in PROTOCOLS:
            ports = {each for door in self._doors for each in door.here if each.protocol == protocol}
            for group in multiport_groups(ports):
                name = BY_NAT + str(len(chains))
                chains[name] = self._group(group)
                rules.append(RuleParts(multiport_match(protocol, group), comments.DOOR_PORTS, "-g " + name))
        rules += self._rest()
        sent = self._sent()
        if sent:
            chains[BY_NAT_SENT] = sent
        return chains

    def _allowed(self) -> List[RuleParts]:
        """Return the rules for allowed ports: all of them under the policy, else those that are the ports of a door as well."""
        doors = PortIndex((ports, True) for door in self._doors for ports in door.here)
        return [
            rule
            for allow in self._spec.allow
            if self._policy or doors.find(allow.ports) or self._spec.panic
            for rule in self._allow(allow)
        ]

    def _allow(self, allow: Allow) -> List[RuleParts]:
        panic, ports = self._spec.panic, allow.ports
        meaning = comments.allowed(allow.comment or f"port {port_text(ports)}/{ports.protocol}", panic)
        sources = of_family(allow.sources, self._family)
        if panic:
            return [RuleParts(port_match(ports), meaning, KEEP)]
        if allow.sources and not sources:
            return []
        matches = [source_match(network) for network in sources] or [""]
        return [RuleParts(joined(source, port_match(ports)), meaning, "-j RETURN") for source in matches]

    def _group(self, group: List[Ports]) -> List[RuleParts]:
        found = [(door, ports) for ports in self._reaching.of(group) for door in self._openers[ports]]
        rules = [rule for door, ports in found if not self._spec.panic for rule in self._entrance(door, ports)]
        return [*rules, RuleParts("", comments.NOT_BY_NAT, KEEP)]

    def _entrance(self, door: Door, ports: Ports) -> List[RuleParts]:
        known = self._lists.seen(self._lists.door(door), door.window)
        meaning = comments.by_nat(door.name)
        return [
            RuleParts(joined(source, port_match(ports), known), meaning, "-j RETURN")
            for source in knocker_matches(door, self._family)
        ]

    def _rest(self) -> List[RuleParts]:
        if not self._policy:
            return []
        icmp = "-p icmp" if self._family == IPV4 else "-p ipv6-icmp"
        return [
            RuleParts(STATE + "RELATED", comments.RELATED, "-j RETURN"),
            RuleParts(icmp, comments.ICMP if self._family == IPV4 else comments.ICMPV6, "-j RETURN"),
            RuleParts("", comments.REST_NOT_BY_NAT, KEEP),
        ]

    def _sent(self) -> List[RuleParts]:
        """Return the rules for what nat has sent on: they log it, and use up knocks that are good for one connection."""
        if self._spec.panic:
            return []
        rules = []
        for door in self._doors:
            listed = self._lists.door(door)
            for ports in door.here:
                match = f"-p {ports.protocol} -m conntrack --ctorigdstport {port_text(ports)}"
                if self._spec.log:
                    known = joined(match, self._lists.seen(listed, door.window), LOG_LIMIT)
                    rules.append(RuleParts(known, comments.LOG_OPENED, f'-j LOG --log-prefix "{OPEN_PREFIX}"'))
                if door.once:
                    rules.append(RuleParts(joined(match, self._lists.forget(listed)), comments.used(door.name), ""))
        return rules


HOOKS = {
    PREROUTING: ("-m addrtype --dst-type LOCAL", comments.HOOK_BY_NAT, BY_NAT),
    POSTROUTING: (STATE + "DNAT", comments.HOOK_SENT, BY_NAT_SENT),
}
"""Each chain that is hooked to what a packet must meet there, what for, and our chain."""


def hooks_into(chains: Chains) -> List[str]:
    """Return the chains of table nat that are to be hooked, where these chains of ours are there."""
    return [chain for chain, (_match, _meaning, target) in HOOKS.items() if target in chains]


__all__ = ("HOOKS", "ByNat", "hooks_into")
