# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""Our own rules: a Spec becomes chains and hooks, in the spelling of iptables-save. Pure.

The layout is "dispatch by port": find the port first, then the one list that matters, because a lookup in
xt_recent walks all lists that were made before it. In a chain of knock ports each step of a door is one rule
that asks for the stage before, forgets it and enters the next; the last step stands first, so that a packet
moves a source by one stage at the most. Any port that is nobody's forgets the source in one shared list.
"""

import hashlib
import ipaddress
import re
from typing import NamedTuple

from ansible_collections.sesame.portknock.plugins.module_utils._ports import (
    Ports,
    multiport_groups,
    multiport_text,
    port_text,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec import IPV4, IPV6, family_of

HEAD, DOORS, TAIL = "PORTKNOCK_HEAD", "PORTKNOCK", "PORTKNOCK_TAIL"
REFUSE, OPEN = "PORTKNOCK_REFUSE", "PORTKNOCK_OPEN"
OPEN_PREFIX, REFUSED_PREFIX = "portknock opened: ", "portknock refused: "
CHAIN = re.compile(r"^PORTKNOCK(_(HEAD|TAIL|REFUSE|OPEN|PROBE|[DK][1-9][0-9]*))?$")
SECRET_CHAIN = re.compile(r"^PORTKNOCK_K[1-9][0-9]*$")
COMMENT = re.compile(r'-m comment --comment "portknock:([0-9a-f]{8}) ([^"]*)"')

SYN = "--tcp-flags FIN,SYN,RST,ACK SYN"
FULL_MASK = {IPV4: "255.255.255.255", IPV6: "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}
LOG_LIMIT = "-m limit --limit 10/min"

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
        chains={name: rules for name, rules in written.items() if rules or name in (HEAD, DOORS)},
        head=_hook(family, "sessions that run, trusted sources, ICMP", HEAD),
        doors=_hook(family, "doors, knocks and allowed ports", DOORS),
        tail=_hook(family, "refuse the rest, keep this last", TAIL) if tail else "",
    )


class Lists:
    """Names and lookups of xt_recent's lists for one family.

    A list takes the mask of the rule that made it and keeps it, so the families never share a name, nor do
    two IPv6 prefixes. A door's name cannot hold a dot, so no stage is ever named as a door.
    """

    def __init__(self, family, ipv6_prefix):
        """Take the family and the leading bits of an IPv6 source that must match."""
        self.mask = FULL_MASK[family]
        self.prefix = "pk4_"
        if family == IPV6:
            self.prefix = "pk6_"
            if ipv6_prefix != 128:
                self.prefix = "pk6.{0}_".format(ipv6_prefix)
                self.mask = _ipv6_mask(ipv6_prefix)
        self.progress = self.prefix + ".progress"

    def door(self, door):
        """Return the name of the list that holds who has knocked."""
        return self.prefix + door.name

    def stage(self, door, number, closing=False):
        """Return the name of the list that holds who has done the given number of steps."""
        return "{0}{1}.{2}{3}".format(self.prefix, door.name, "c" if closing else "", number)

    def put(self, name):
        """Match always, and put the source on the list."""
        return self._match("--set", name)

    def forget(self, name):
        """Match if the source was on the list, and take it off."""
        return self._match("--remove", name)

    def seen(self, name, seconds, negated=False):
        """Match if the source was put on the list in the last seconds."""
        return self._match("{0}--rcheck --seconds {1}".format("! " if negated else "", seconds), name)

    def _match(self, what, name):
        return "-m recent {0} --name {1} --mask {2} --rsource".format(what, name, self.mask)


def _ipv6_mask(prefix):
    return str(ipaddress.ip_network("::/{0}".format(prefix)).netmask)


def _written(family, chain, rule):
    matches, comment, target = rule
    return with_comment(family, chain, matches, comment, target)


def with_comment(family, chain, matches, comment, target):
    """Return the rule's text, its comment with an id that is a digest of all the rest."""
    digest = rule_id(family, chain, " ".join(part for part in (matches, target) if part))
    marked = '-m comment --comment "portknock:{0} {1}"'.format(digest, comment)
    return " ".join(part for part in (matches, marked, target) if part)


def rule_id(family, chain, text):
    """Return the id of a rule: eight hex digits over family, chain and the rule without its comment."""
    return hashlib.sha256(" ".join((family, chain, text)).encode("utf-8")).hexdigest()[:8]


def _hook(family, comment, chain):
    return with_comment(family, "INPUT", "", comment, "-j " + chain)


def _of_family(networks, family):
    return [network for network in networks if family_of(network) == family]


def _from(network):
    """Return the source match; iptables-save prints none for the whole internet and always a prefix length."""
    return "" if network.prefixlen == 0 else "-s {0}".format(network)


def _joined(*parts):
    return " ".join(part for part in parts if part)


def _head(spec, family):
    rules = [("-m conntrack --ctstate RELATED,ESTABLISHED", "sessions that run live on", "-j ACCEPT")]
    for name in ("lo",) + tuple(name for name in spec.trusted_interfaces if name != "lo"):
        what = "the host itself" if name == "lo" else "trusted interface"
        rules.append(("-i " + name, what, "-j ACCEPT"))
    for network in _of_family(spec.trusted_sources, family):
        rules.append((_from(network), "trusted source", "-j ACCEPT"))
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
    chains = {}
    rules = [rule for allow in spec.allow for rule in _allow(allow, family)]
    entrances = _entrances(spec, family, lists)
    for number, (protocol, group) in enumerate(_grouped(entrances), 1):
        name = "PORTKNOCK_D{0}".format(number)
        rules.append((_multiport(protocol, group), "ports of doors", "-g " + name))
        chains[name] = _door_group(spec, group, entrances)
    by_port = knock_rules(spec, family, lists)
    for number, (protocol, group) in enumerate(_grouped(_knocked(spec)), 1):
        name = "PORTKNOCK_K{0}".format(number)
        rules.append((_multiport(protocol, group, new=True), "knocks", "-g " + name))
        chains[name] = [rule for ports in group for rule in by_port.get((ports.first, protocol), ())]
    return rules + _resets(spec, lists), chains


def _allow(allow, family):
    sources = _of_family(allow.sources, family)
    if allow.sources and not sources:
        return []
    ports = "-p {0} -m {0} --dport {1}".format(allow.ports.protocol, port_text(allow.ports))
    what = "allowed: " + (allow.comment or "port {0}/{1}".format(port_text(allow.ports), allow.ports.protocol))
    return [(_joined(_from(network), ports), what, "-j ACCEPT") for network in sources] or [(ports, what, "-j ACCEPT")]


def _knocked(spec):
    return {Ports(step.port, step.port, step.protocol) for door in spec.doors for step in door.knock + door.close}


def _grouped(ports):
    """Return (protocol, group) pairs; a group fits one multiport match."""
    return [
        (protocol, group)
        for protocol in ("tcp", "udp")
        for group in multiport_groups(item for item in ports if item.protocol == protocol)
    ]


def _multiport(protocol, group, new=False):
    syn = "-m tcp {0} ".format(SYN) if new and protocol == "tcp" else ""
    return "-p {0} {1}-m multiport --dports {2}".format(protocol, syn, multiport_text(group))


def _door_group(spec, group, entrances):
    rules = [rule for ports in group for rule in entrances.get(ports, ())]
    if spec.log:
        rules.append((LOG_LIMIT, "log who is refused", '-j LOG --log-prefix "{0}"'.format(REFUSED_PREFIX)))
    return rules + [("", "who has not knocked is refused", "-g " + REFUSE)]


def _entrances(spec, family, lists):
    """Return Ports to the rules that let in who has knocked for them."""
    by_ports = {}
    for door in spec.doors:
        for ports in door.opens:
            by_ports.setdefault(ports, []).extend(_entrance(spec, door, family, lists, ports))
    return by_ports


def _entrance(spec, door, family, lists, ports):
    """Let in who has knocked; for ``once`` the knock is forgotten by the packet that uses it."""
    target = "-g " + OPEN if spec.log else "-j ACCEPT"
    known = lists.seen(lists.door(door), door.window)
    syn = ""
    if door.once:
        known = _joined(known, lists.forget(lists.door(door)))
        syn = SYN if ports.protocol == "tcp" else ""
    match = _joined("-p {0} -m {0} --dport {1}".format(ports.protocol, port_text(ports)), syn, known)
    what = "door {0}: let in who has knocked".format(door.name)
    return [(_joined(source, match), what, target) for source in _knockers(door, family)]


def _knockers(door, family):
    """Return the source matches of those who may knock: one empty match for everyone."""
    if not door.sources:
        return [""]
    return [_from(network) for network in _of_family(door.sources, family)]


def knock_rules(spec, family, lists):
    """Return (port, protocol) to the rules for that knock port, a door's last step first."""
    by_port = {}
    for door in spec.doors:
        sources = _knockers(door, family)
        if not sources:
            continue
        for steps, closing in ((door.knock, False), (door.close, True)):
            for step, rules in _sequence(door, steps, closing, sources, lists):
                by_port.setdefault((step.port, step.protocol), []).extend(rules)
    return by_port


def _sequence(door, steps, closing, sources, lists):
    """Yield (step, rules) from the last step to the first."""
    last = len(steps)
    for number in range(last, 0, -1):
        step = steps[number - 1]
        what = "door {0}: {1} {2} of {3}".format(door.name, "closing step" if closing else "step", number, last)
        done = _arrival(door, number, last, closing, lists)
        if number > 1:
            before = lists.stage(door, number - 1, closing)
            known = [
                lists.seen(lists.progress, door.step_timeout),
                lists.seen(before, door.step_timeout),
                lists.forget(before),
            ]
            yield step, [(_joined(_to(step), *(known + done)), what, "")]
        else:
            stale = [
                (
                    _joined(
                        _to(step),
                        lists.seen(lists.progress, door.step_timeout, True),
                        lists.forget(lists.stage(door, stage, closing)),
                    ),
                    "door {0}: a new start forgets old steps".format(door.name),
                    "",
                )
                for stage in range(2, last)
            ]
            yield step, stale + [(_joined(source, _to(step), *done), what, "") for source in sources]


def _to(step):
    return "-p {0} -m {0} --dport {1}".format(step.protocol, step.port)


def _arrival(door, number, last, closing, lists):
    """Return what a right step does: enter the next stage, or at the end open (or shut) the door."""
    if number < last:
        return [lists.put(lists.stage(door, number, closing)), lists.put(lists.progress)]
    return [lists.forget(lists.door(door)) if closing else lists.put(lists.door(door))]


def _resets(spec, lists):
    """Return the rules that make a wrong packet forget the source's progress in every door.

    A protocol that some sequence uses is watched on all ports; on the other one only the right port over
    the wrong protocol counts, so that a client's ordinary chatter does not break its knock. Broadcasts
    never count.
    """
    sequences = [steps for door in spec.doors for steps in (door.knock, door.close) if len(steps) > 1]
    used = {step.protocol for steps in sequences for step in steps}
    rules = []
    for protocol in ("tcp", "udp") if used else ():
        if protocol in used:
            match = "-p tcp -m tcp " + SYN if protocol == "tcp" else "-p udp -m pkttype --pkt-type unicast"
            rules.append((_joined(match, lists.forget(lists.progress)), "wrong port: start again", ""))
            continue
        wrong = {Ports(step.port, step.port, protocol) for steps in sequences for step in steps}
        for group in multiport_groups(wrong):
            match = _joined(_multiport(protocol, group, new=True), lists.forget(lists.progress))
            rules.append((match, "wrong protocol: start again", ""))
    return rules


__all__ = (
    "CHAIN",
    "COMMENT",
    "DOORS",
    "HEAD",
    "OPEN",
    "REFUSE",
    "SECRET_CHAIN",
    "TAIL",
    "Lists",
    "Own",
    "own_rules",
    "rule_id",
    "with_comment",
)
