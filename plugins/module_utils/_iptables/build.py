# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Spec becomes chains and hooks, in the spelling of iptables-save. Pure.

The layout is "dispatch by port": find the port first, then the one list that matters, because a lookup in
xt_recent walks all lists that were made before it. In a chain of knock ports each step of a door is one rule
that asks for the stage before, forgets it and sets the next; the last step stands first, so that a packet
moves a source by one stage at the most. A port that belongs to nothing asks one shared list whether the source is
on its way through a knock, and only then forgets its stages in all doors.

Where knockd recognises the knocks there are no rules for them: it puts a source on the door's own list, and the rules
that let in who is on it are the same.
"""

from typing import NamedTuple

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.chains import (
    CHAIN,
    DOORS,
    FORGET,
    HEAD,
    OPEN,
    OPEN_PREFIX,
    REFUSE,
    TAIL,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.comments import COMMENT, rule_id, with_comment
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.dispatch import Dispatch
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.knocks import forget_rules, heard_by_kernel
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.match_text import (
    LOG_LIMIT,
    joined,
    knockers,
    of_family,
    source_match,
)
from ansible_collections.sesame.portknock.plugins.module_utils._redact import SECRET_CHAIN
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4, IPV6
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import port_text

NEEDED_ICMPV6 = (1, 2, 3, 4, 130, 131, 132, 133, 134, 135, 136, 141, 142, 143, 148, 149, 151, 152, 153)
"""Types that must not be dropped on a host: errors, multicast listeners, neighbours (RFC 4890, section 4.4)."""

REJECTS = {
    ("icmp-port-unreachable", IPV4): "-j REJECT --reject-with icmp-port-unreachable",
    ("icmp-port-unreachable", IPV6): "-j REJECT --reject-with icmp6-port-unreachable",
    ("icmp-admin-prohibited", IPV4): "-j REJECT --reject-with icmp-admin-prohibited",
    ("icmp-admin-prohibited", IPV6): "-j REJECT --reject-with icmp6-adm-prohibited",
    ("drop", IPV4): "-j DROP",
    ("drop", IPV6): "-j DROP",
}

Own = NamedTuple("Own", [("chains", dict), ("head", str), ("doors", str), ("tail", str)])
"""chains: name to a tuple of rules; head, doors, tail: the three rules for INPUT, '' where there is none."""


def own_rules(spec, family):
    """Return the Own of a Spec for one family (``ipv4`` or ``ipv6``).

    Rules are texts without ``-A CHAIN``, spelled as iptables-save spells them, each with a comment that
    holds its id and says what it is for.
    """
    lists = Lists(family, spec.ipv6_prefix)
    chains = {HEAD: _head(spec, family)}
    chains[DOORS], more = _doors(spec, family, lists)
    chains.update(more)
    chains[REFUSE] = _refuse(spec, family)
    if spec.log:
        chains[OPEN] = [
            (LOG_LIMIT, "log who comes in", '-j LOG --log-prefix "{0}"'.format(OPEN_PREFIX)),
            ("", "let in", "-j ACCEPT"),
        ]
    tail = spec.policy == "reject"
    if tail:
        chains[TAIL] = [("", "everything else is refused", "-j " + REFUSE)]
    written = {name: tuple(_written(family, name, rule) for rule in rules) for name, rules in chains.items()}
    return Own(
        chains=written,
        head=_hook(family, "sessions that run, trusted sources, ICMP", HEAD),
        doors=_hook(family, "doors, knocks and allowed ports", DOORS),
        tail=_hook(family, "refuse the rest, keep this last", TAIL) if tail else "",
    )


def _written(family, chain, rule):
    matches, comment, target = rule
    return with_comment(family, chain, matches, comment, target)


def _hook(family, comment, chain):
    return with_comment(family, "INPUT", "", comment, "-j " + chain)


def _head(spec, family):
    rules = [("-m conntrack --ctstate RELATED,ESTABLISHED", "sessions that run live on", "-j ACCEPT")]
    for name in ("lo",) + tuple(name for name in spec.trusted_interfaces if name != "lo"):
        what = "the host itself" if name == "lo" else "trusted interface"
        rules.append(("-i " + name, what, "-j ACCEPT"))
    for network in of_family(spec.trusted_sources, family):
        rules.append((source_match(network), "trusted source", "-j ACCEPT"))
    return rules + (_icmp(spec) if family == IPV4 else _icmpv6(spec))


def _icmp(spec):
    return [("-p icmp", "ping and other ICMP", "-j ACCEPT")] if spec.icmp else []


def _icmpv6(spec):
    dhcp = (
        "-s fe80::/10 -d fe80::/10 -p udp -m udp --sport 547 --dport 546",
        "DHCPv6, answers come from another address",
        "-j ACCEPT",
    )
    if spec.icmp:
        return [("-p ipv6-icmp", "ping and other ICMPv6", "-j ACCEPT"), dhcp]
    needed = [
        ("-p ipv6-icmp -m icmp6 --icmpv6-type {0}".format(number), "ICMPv6 that IPv6 needs to live", "-j ACCEPT")
        for number in NEEDED_ICMPV6
    ]
    return needed + [dhcp]


def _refuse(spec, family):
    if spec.reject_with == "tcp-reset":
        return [
            ("-p tcp", "refuse with a reset", "-j REJECT --reject-with tcp-reset"),
            ("", "refuse", REJECTS["icmp-port-unreachable", family]),
        ]
    return [("", "refuse", REJECTS[spec.reject_with, family])]


def _doors(spec, family, lists):
    """Return the rules of the doors' chain, and the chains it sends packets to."""
    rules = [rule for allow in spec.allow for rule in _allow(allow, family)]
    dispatch = Dispatch(spec, family, lists)
    for protocol in ("tcp", "udp"):
        rules += dispatch.rules(protocol)
    forget = forget_rules(heard_by_kernel(spec), lists)
    if forget:
        dispatch.chains[FORGET] = forget
    return rules, dispatch.chains


def _allow(allow, family):
    sources = of_family(allow.sources, family)
    if allow.sources and not sources:
        return []
    ports = "-p {0} -m {0} --dport {1}".format(allow.ports.protocol, port_text(allow.ports))
    what = "allowed: " + (allow.comment or "port {0}/{1}".format(port_text(allow.ports), allow.ports.protocol))
    return [(joined(source_match(network), ports), what, "-j ACCEPT") for network in sources] or [
        (ports, what, "-j ACCEPT")
    ]


__all__ = (
    "CHAIN",
    "COMMENT",
    "HEAD",
    "NEEDED_ICMPV6",
    "REFUSE",
    "REJECTS",
    "SECRET_CHAIN",
    "Lists",
    "Own",
    "knockers",
    "own_rules",
    "rule_id",
)
