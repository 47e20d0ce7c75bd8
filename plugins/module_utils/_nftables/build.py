# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection's table of nftables for a Spec. Pure."""

import hashlib
from typing import Dict, List

from ansible_collections.sesame.portknock.plugins.module_utils._names import comments
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import OPEN_PREFIX
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.icmp import ICMP_ERRORS, NEEDED_ICMPV6
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.forward import forward_chains
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.knocks import (
    AT_ONCE,
    PAUSED,
    PROGRESS,
    Knocks,
    knocks_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import (
    BEGINNING,
    INPUT,
    OPENED,
    REFUSE,
    SERVICES,
    STAGES,
    Family,
    families_of,
    open_set,
    sizes_of,
    unmanaged,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.recognise import Recognition
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.rules import (
    CURRENT,
    LOG_LIMIT,
    NOT_NEW,
    NOT_SYN,
    TO_CURRENT,
    UNMANAGED,
    Chains,
    Rule,
    Set,
    Table,
    current_rules,
    with_comment,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.services import Services
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4, IPV6, Spec, family_of

REJECTS = {
    "icmp-port-unreachable": "reject with icmpx type port-unreachable",
    "icmp-admin-prohibited": "reject with icmpx type admin-prohibited",
    "drop": "drop",
}

# A reply comes from another address than the request went to, so conntrack does not know it.
_DHCPV6 = Rule("ip6 saddr fe80::/10 ip6 daddr fe80::/10 udp sport 547 udp dport 546 accept", comments.DHCPV6)


def build_table(spec: Spec) -> Table:
    """Return the Table of a Spec. Whichever engine it names, all its knocks are recognised."""
    knocks = knocks_of(spec.doors)
    services, recognition = Services(spec), Recognition(spec, knocks)
    rest = f"goto {REFUSE}" if spec.policy == "reject" else "accept"
    forward = forward_chains(spec, services, recognition, [*_everywhere(spec), *_trusted(spec)])
    chains: Chains = dict(services.chains, **recognition.chains, **forward)
    chains[REFUSE] = _refuse(spec)
    if spec.log and spec.doors and not spec.panic:
        chains[OPENED] = [
            Rule(f'{LOG_LIMIT} log prefix "{OPEN_PREFIX}"', comments.LOG_OPENED),
            Rule("accept", comments.ACCEPT),
        ]
    # What has no port comes last: the others need not pass its rules.
    last = [*_without_ports(spec), Rule(rest, comments.REFUSE_REST if spec.policy == "reject" else comments.ACCEPT)]
    found = services.rules()
    by_port = [*found, *([TO_CURRENT] if found else []), Rule("ct state related accept", comments.RELATED)]
    beginning = recognition.beginning(services)
    if beginning:
        chains.update({SERVICES: [*by_port, *last], BEGINNING: beginning})
        by_port = _parted()
    chains[INPUT] = [*_head(spec), *services.published(), *by_port, *last]
    if any(TO_CURRENT in rules for rules in chains.values()):
        chains[CURRENT] = current_rules()
    return Table(
        _sets(spec, knocks),
        {name: tuple(with_comment(name, rule) for rule in rules) for name, rules in chains.items()},
        _digest(repr((STAGES, knocks.parts, knocks.timeout, spec.ipv6_prefix))),
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def _head(spec: Spec) -> List[Rule]:
    rules = [*_everywhere(spec), Rule('iifname "lo" accept', comments.LOOPBACK), *_trusted(spec)]
    return [*rules, _DHCPV6] if IPV6 in spec.ip_versions else rules


def _parted() -> List[Rule]:
    """Part the packets that may be knocks, or wrong ports, from those that are neither."""
    return [
        Rule(f"meta l4proto 6 {NOT_SYN} goto {SERVICES}", NOT_NEW),
        # A program of this host chose where it goes.
        Rule(f"ct state related goto {SERVICES}", comments.RELATED),
        Rule(f"jump {BEGINNING}", comments.KNOCK_PORTS),
    ]


def _everywhere(spec: Spec) -> List[Rule]:
    rules = [Rule(f"{packet} accept", UNMANAGED) for packet in unmanaged(spec)]
    return [*rules, Rule("ct state established accept", comments.ESTABLISHED)]


def _trusted(spec: Spec) -> List[Rule]:
    names = [name[:-1] + "*" if name.endswith("+") else name for name in spec.trusted_interfaces if name != "lo"]
    rules = [Rule(f'iifname "{name}" accept', comments.TRUSTED_INTERFACE) for name in names]
    for family in families_of(spec):
        networks = tuple(network for network in spec.trusted_sources if family_of(network) == family.name)
        if networks:
            rules.append(Rule(f"{family.within(networks)} accept", comments.TRUSTED_SOURCE))
    return rules


def _without_ports(spec: Spec) -> List[Rule]:
    return [_icmp(spec, family) if family.name == IPV4 else _icmpv6(spec, family) for family in families_of(spec)]


def _icmp(spec: Spec, family: Family) -> Rule:
    if spec.icmp:
        return Rule(f"{family.packet} meta l4proto 1 accept", comments.ICMP)
    types = ", ".join(map(str, ICMP_ERRORS))
    return Rule(f"{family.packet} icmp type {{ {types} }} ct state related accept", comments.ICMP_ERROR)


def _icmpv6(spec: Spec, family: Family) -> Rule:
    if spec.icmp:
        return Rule(f"{family.packet} meta l4proto 58 accept", comments.ICMPV6)
    types = ", ".join(map(str, NEEDED_ICMPV6))
    return Rule(f"{family.packet} icmpv6 type {{ {types} }} accept", comments.NEEDED_ICMPV6)


def _refuse(spec: Spec) -> List[Rule]:
    if spec.reject_with == "tcp-reset":
        return [
            Rule("meta l4proto 6 reject with tcp reset", comments.REFUSE_TCP),
            Rule(REJECTS["icmp-port-unreachable"], comments.REFUSE),
        ]
    return [Rule(REJECTS[spec.reject_with], comments.REFUSE)]


def _sets(spec: Spec, knocks: Knocks) -> Dict[str, Set]:
    in_progress, opened = sizes_of(spec)
    # The kernel walks through them to find one by its name, so those that most rules name come first.
    named = (
        {PAUSED.name: in_progress, PROGRESS.name: in_progress, STAGES: in_progress * AT_ONCE} if knocks.staged else {}
    )
    sizes = dict(named, **{open_set(door): opened for door in spec.doors})
    return {
        family.set(name): Set(f"{family.kind} . mark" if name == STAGES else family.kind, size)
        for name, size in sizes.items()
        for family in families_of(spec)
    }


__all__ = ("REJECTS", "build_table")
