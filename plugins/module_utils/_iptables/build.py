# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Spec becomes chains and hooks, in the spelling of iptables-save. Pure.

The layout is "dispatch by port": find the port first, then the one list that matters, because a lookup in
xt_recent walks all lists that were made before it. In a chain of knock ports each step of a door is one rule
that asks for the stage before, forgets it and sets the next; the last step stands first, so that a packet
moves a source by one stage at the most. A port that belongs to nothing asks one shared list whether the source is
in the middle of a knock, and only then forgets its stages in all doors.

What a connection tracking helper calls related is not let in to a door's port: the head sends it to the doors' own
rules first, whatever foreign rules between head and doors would accept.

Where knockd recognises the knocks there are no rules for them: it puts a source on the door's own list, and the rules
that accept the sources on it are the same.
"""

from typing import Dict, List, NamedTuple, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.by_nat import HOOKS, ByNat, hooks_into
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.catalog import Catalog
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.dispatch import Dispatch
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.forward import NOT_ESTABLISHED, Forward
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.knocks import kernel_doors
from ansible_collections.sesame.portknock.plugins.module_utils._names import comments
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import (
    DOORS,
    HEAD,
    OPEN,
    OPEN_PREFIX,
    REFUSE,
    RELATED,
    TAIL,
)
from ansible_collections.sesame.portknock.plugins.module_utils._names.comments import Meaning, with_comment
from ansible_collections.sesame.portknock.plugins.module_utils._names.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.icmp import ICMP_ERRORS, NEEDED_ICMPV6
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4, IPV6, PROTOCOLS, Allow, Spec
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import port_text
from ansible_collections.sesame.portknock.plugins.module_utils._tables.rule_parts import (
    LOG_LIMIT,
    Chains,
    RuleParts,
    joined,
    of_family,
    port_match,
    source_match,
    trusted_rules,
)

STATE = "-m conntrack --ctstate "

REJECTS = {
    ("icmp-port-unreachable", IPV4): "-j REJECT --reject-with icmp-port-unreachable",
    ("icmp-port-unreachable", IPV6): "-j REJECT --reject-with icmp6-port-unreachable",
    ("icmp-admin-prohibited", IPV4): "-j REJECT --reject-with icmp-admin-prohibited",
    ("icmp-admin-prohibited", IPV6): "-j REJECT --reject-with icmp6-adm-prohibited",
    ("drop", IPV4): "-j DROP",
    ("drop", IPV6): "-j DROP",
}


class BuiltRules(NamedTuple):
    """The rules of the collection for one family."""

    chains: Dict[str, Tuple[str, ...]]
    """Name of a chain to its rules."""
    head: str
    """The rule for INPUT that jumps to HEAD."""
    doors: str
    """The rule for INPUT that jumps to DOORS."""
    tail: str
    """The rule for INPUT that jumps to TAIL, '' under policy ``accept``."""
    forward: Tuple[Tuple[str, str], ...] = ()
    """Each chain of packets that are sent on, or that nat may send on, with the rule for it that jumps to ours; none where nothing of
    them is guarded."""


def build_rules(spec: Spec, family: str, nat: bool = True) -> BuiltRules:
    """Return the BuiltRules of a Spec for one family (``ipv4`` or ``ipv6``).

    :param nat: whether the kernel has table nat for it.

    Rules are texts without ``-A CHAIN``, spelled as iptables-save spells them, each with a comment that
    holds its id and says what it is for.
    """
    lists = Lists(family, spec.ipv6_prefix)
    doors, dispatch = _doors(spec, family, lists)
    by_nat = ByNat(spec, family, lists).chains() if nat else {}
    forward = Forward(spec, family, lists, dispatch.knocks())
    chains: Chains = {HEAD: _head(spec, family, RELATED in doors)}
    chains.update(doors)
    chains.update(forward.chains())
    chains.update(by_nat)
    chains[REFUSE] = _refuse(spec, family)
    if spec.log:
        chains[OPEN] = [
            RuleParts(LOG_LIMIT, comments.LOG_OPENED, f'-j LOG --log-prefix "{OPEN_PREFIX}"'),
            RuleParts("", comments.ACCEPT, "-j ACCEPT"),
        ]
    tail = spec.policy == "reject"
    if tail:
        chains[TAIL] = [RuleParts("", comments.REFUSE_REST, "-j " + REFUSE)]
    return BuiltRules(
        chains={name: tuple(with_comment(family, name, *rule) for rule in rules) for name, rules in chains.items()},
        head=_hook(family, comments.HOOK_HEAD, HEAD),
        doors=_hook(family, comments.HOOK_DOORS, DOORS),
        tail=_hook(family, comments.HOOK_TAIL, TAIL) if tail else "",
        forward=(
            *(
                (chain, _hook(family, comments.HOOK_FORWARD, target, chain, NOT_ESTABLISHED))
                for chain, target in forward.hooks
            ),
            *((chain, _nat_hook(family, chain)) for chain in hooks_into(by_nat)),
        ),
    )


def _hook(family: str, meaning: Meaning, target: str, chain: str = "INPUT", match: str = "") -> str:
    return with_comment(family, chain, match, meaning, "-j " + target)


def _nat_hook(family: str, chain: str) -> str:
    match, meaning, target = HOOKS[chain]
    return _hook(family, meaning, target, chain, match)


def _head(spec: Spec, family: str, guards_related: bool) -> List[RuleParts]:
    rules = [
        RuleParts(STATE + "ESTABLISHED", comments.ESTABLISHED, "-j ACCEPT"),
        RuleParts("-i lo", comments.LOOPBACK, "-j ACCEPT"),
        *trusted_rules(spec, family, "-j ACCEPT"),
    ]
    if guards_related:
        rules.append(RuleParts(STATE + "RELATED", comments.RELATED_TO_DOORS, "-j " + RELATED))
    return rules + (_icmp(spec) if family == IPV4 else _icmpv6(spec))


def _icmp(spec: Spec) -> List[RuleParts]:
    if spec.icmp:
        return [RuleParts("-p icmp", comments.ICMP, "-j ACCEPT")]
    return [
        RuleParts(f"-p icmp -m icmp --icmp-type {number} {STATE}RELATED", comments.ICMP_ERROR, "-j ACCEPT")
        for number in ICMP_ERRORS
    ]


def _icmpv6(spec: Spec) -> List[RuleParts]:
    # A reply comes from another address than the request went to, so conntrack does not know it.
    dhcp = RuleParts("-s fe80::/10 -d fe80::/10 -p udp -m udp --sport 547 --dport 546", comments.DHCPV6, "-j ACCEPT")
    if spec.icmp:
        return [RuleParts("-p ipv6-icmp", comments.ICMPV6, "-j ACCEPT"), dhcp]
    needed = [
        RuleParts(f"-p ipv6-icmp -m icmp6 --icmpv6-type {number}", comments.NEEDED_ICMPV6, "-j ACCEPT")
        for number in NEEDED_ICMPV6
    ]
    return needed + [dhcp]


def _refuse(spec: Spec, family: str) -> List[RuleParts]:
    if spec.reject_with == "tcp-reset":
        return [
            RuleParts("-p tcp", comments.REFUSE_TCP, "-j REJECT --reject-with tcp-reset"),
            RuleParts("", comments.REFUSE, REJECTS["icmp-port-unreachable", family]),
        ]
    return [RuleParts("", comments.REFUSE, REJECTS[spec.reject_with, family])]


def _doors(spec: Spec, family: str, lists: Lists) -> Tuple[Chains, Dispatch]:
    """Return the doors' chain with the chains that it sends packets to, and what has made them."""
    catalog = Catalog(kernel_doors(spec), lists)
    dispatch = Dispatch(spec, family, lists, catalog)
    rules = [rule for allow in spec.allow for rule in _allow(allow, family, spec.panic)]
    # Neither a knock nor a wrong port: a program of this host chose where it goes.
    rules.append(RuleParts(STATE + "RELATED", comments.RELATED, "-j ACCEPT"))
    for protocol in PROTOCOLS:
        rules += dispatch.rules(protocol)
    chains: Chains = {DOORS: rules}
    for more in (catalog.chains(), dispatch.chains, dispatch.related()):
        chains.update(more)
    return chains, dispatch


def _allow(allow: Allow, family: str, panic: bool) -> List[RuleParts]:
    sources = of_family(allow.sources, family)
    meaning = comments.allowed(allow.comment or f"port {port_text(allow.ports)}/{allow.ports.protocol}", panic)
    if panic:
        # Whoever it would be open to: the policy may be to accept the others.
        return [RuleParts(port_match(allow.ports), meaning, "-g " + REFUSE)]
    if allow.sources and not sources:
        return []
    matches = [source_match(network) for network in sources] or [""]
    return [RuleParts(joined(source, port_match(allow.ports)), meaning, "-j ACCEPT") for source in matches]


__all__ = ("BuiltRules", "build_rules")
