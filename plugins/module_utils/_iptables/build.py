# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""Our own rules: a Spec becomes chains and hooks, in the spelling of iptables-save. Pure.

The layout is "dispatch by port": find the port first, then the one list that matters, because a lookup in
xt_recent walks all lists that were made before it. In a chain of knock ports each step of a door is one rule
that asks for the stage before, forgets it and enters the next; the last step stands first, so that a packet
moves a source by one stage at the most. Any port that is nobody's asks one shared list whether the source is
on its way through a knock, and only then forgets its stages in all doors.

Where knockd recognises the knocks there are no rules for them: it puts a source on the door's own list, and the rules
that let in who is on it are the same.
"""

import hashlib
import ipaddress
import re
from typing import NamedTuple

from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import IPV4, IPV6, KNOCKD, family_of
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import (
    MULTIPORT,
    Ports,
    multiport_groups,
    multiport_text,
    port_text,
)

HEAD, DOORS, TAIL = "PORTKNOCK_HEAD", "PORTKNOCK", "PORTKNOCK_TAIL"
REFUSE, OPEN, FORGET = "PORTKNOCK_REFUSE", "PORTKNOCK_OPEN", "PORTKNOCK_FORGET"
OPEN_PREFIX, REFUSED_PREFIX = "portknock opened: ", "portknock refused: "
CHAIN = re.compile(r"^PORTKNOCK(_(HEAD|TAIL|REFUSE|OPEN|FORGET|PROBE|[DKR][1-9][0-9]*))?$")
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
        chains=written,
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

    def seen(self, name, seconds):
        """Match if the source was put on the list in the last seconds."""
        return self._match("--rcheck --seconds {0}".format(seconds), name)

    def known(self, name):
        """Match if the source is on the list."""
        return self._match("--rcheck", name)

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


def heard_by_kernel(spec):
    """Return the Spec with those doors alone whose knocks the kernel is to recognise."""
    return spec._replace(doors=()) if spec.engine == KNOCKD else spec


def _doors(spec, family, lists):
    """Return the rules of the doors' chain, and the chains it sends packets to."""
    rules = [rule for allow in spec.allow for rule in _allow(allow, family)]
    dispatch = _Dispatch(spec, family, lists)
    for protocol in ("tcp", "udp"):
        rules += dispatch.rules(protocol)
    forget = _forget(heard_by_kernel(spec), lists)
    if forget:
        dispatch.chains[FORGET] = forget
    return rules, dispatch.chains


DOOR, KNOCK, WRONG = "door", "knock", "wrong"
FEW, MANY = 3, 6
"""Up to FEW multiport rules stand in one row; more are parted into ranges of ports with MANY rules each, so that a
packet to a port that is nobody's passes tens of rules and not hundreds."""


class _Dispatch:
    """Finds the port first: rules that send a packet to the chain of its port, and those chains."""

    def __init__(self, spec, family, lists):
        self.chains = {}
        self._lists = lists
        self._log = spec.log
        self._entrances = _entrances(spec, family, lists)
        heard = heard_by_kernel(spec)
        self._knocks = knock_rules(heard, family, lists)
        self._knocked = {
            Ports(step.port, step.port, step.protocol) for door in heard.doors for step in door.knock + door.close
        }
        self._staged = {step for _door, steps, _closing in _sequences(heard) for step in steps}
        self._used = {step.protocol for step in self._staged}
        self._counts = {"D": 0, "K": 0, "R": 0}

    def rules(self, protocol):
        """Return the rules for one protocol, for the doors' chain."""
        entries = sorted(self._entries(protocol))
        reset = self._reset(protocol)
        if len(entries) <= FEW * MULTIPORT:
            return self._row(protocol, entries) + reset
        rules = []
        for block in _blocks(entries, MANY * MULTIPORT):
            name = self._name("R")
            last = max(ports.last for ports, _kind in block)
            match = "-p {0} -m {0} --dport {1}".format(protocol, port_text(Ports(block[0][0].first, last, protocol)))
            rules.append((match, "ports of this range", "-g " + name))
            self.chains[name] = self._row(protocol, block) + reset
        return rules + reset

    def _name(self, letter):
        self._counts[letter] += 1
        return "PORTKNOCK_{0}{1}".format(letter, self._counts[letter])

    def _entries(self, protocol):
        entries = {(ports, DOOR) for ports in self._entrances if ports.protocol == protocol}
        entries |= {(ports, KNOCK) for ports in self._knocked if ports.protocol == protocol}
        if self._used and protocol not in self._used:
            wrong = {Ports(step.port, step.port, protocol) for step in self._staged} - self._knocked
            entries |= {(ports, WRONG) for ports in wrong}
        return entries

    def _row(self, protocol, entries):
        rules = []
        for kind, put in ((DOOR, self._door_rule), (KNOCK, self._knock_rule), (WRONG, self._wrong_rule)):
            for group in multiport_groups(ports for ports, its in entries if its == kind):
                rules.append(put(protocol, group))
        return rules

    def _door_rule(self, protocol, group):
        name = self._name("D")
        self.chains[name] = [rule for ports in group for rule in self._entrances[ports]]
        if self._log:
            self.chains[name].append(
                (LOG_LIMIT, "log who is refused", '-j LOG --log-prefix "{0}"'.format(REFUSED_PREFIX))
            )
        self.chains[name].append(("", "who has not knocked is refused", "-g " + REFUSE))
        return _multiport(protocol, group), "ports of doors", "-g " + name

    def _knock_rule(self, protocol, group):
        name = self._name("K")
        self.chains[name] = [rule for ports in group for rule in self._knocks.get((ports.first, protocol), ())]
        return _multiport(protocol, group, new=True), "knocks", "-g " + name

    def _wrong_rule(self, protocol, group):
        match = _joined(_multiport(protocol, group, new=True), self._lists.known(self._lists.progress))
        return match, "wrong protocol: start again", "-g " + FORGET

    def _reset(self, protocol):
        """Return the rule that makes a wrong packet forget the source's progress in every door.

        A protocol that some sequence uses is watched on all ports; on the other one only the right port over
        the wrong protocol counts, so that a client's ordinary chatter does not break its knock. Broadcasts
        never count.
        """
        if protocol not in self._used:
            return []
        match = "-p tcp -m tcp " + SYN if protocol == "tcp" else "-p udp -m pkttype --pkt-type unicast"
        return [(_joined(match, self._lists.known(self._lists.progress)), "wrong port: start again", "-g " + FORGET)]


def _blocks(entries, size):
    """Split sorted entries into blocks of about that size whose ranges of ports do not overlap."""
    blocks, last = [], 0
    for entry in entries:
        if not blocks or (len(blocks[-1]) >= size and entry[0].first > last):
            blocks.append([])
        blocks[-1].append(entry)
        last = max(last, entry[0].last)
    return blocks


def _allow(allow, family):
    sources = _of_family(allow.sources, family)
    if allow.sources and not sources:
        return []
    ports = "-p {0} -m {0} --dport {1}".format(allow.ports.protocol, port_text(allow.ports))
    what = "allowed: " + (allow.comment or "port {0}/{1}".format(port_text(allow.ports), allow.ports.protocol))
    return [(_joined(_from(network), ports), what, "-j ACCEPT") for network in sources] or [(ports, what, "-j ACCEPT")]


def _multiport(protocol, group, new=False):
    syn = "-m tcp {0} ".format(SYN) if new and protocol == "tcp" else ""
    return "-p {0} {1}-m multiport --dports {2}".format(protocol, syn, multiport_text(group))


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
    return [(_joined(source, match), what, target) for source in knockers(door, family)]


def knockers(door, family):
    """Return the source matches of those who may knock: one empty match for everyone."""
    if not door.sources:
        return [""]
    return [_from(network) for network in _of_family(door.sources, family)]


def knock_rules(spec, family, lists):
    """Return (port, protocol) to the rules for that knock port, a door's last step first."""
    by_port = {}
    for door in spec.doors:
        sources = knockers(door, family)
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
            yield step, [(_joined(source, _to(step), *done), what, "") for source in sources]


def _to(step):
    return "-p {0} -m {0} --dport {1}".format(step.protocol, step.port)


def _arrival(door, number, last, closing, lists):
    """Return what a right step does: enter the next stage, or at the end open (or shut) the door."""
    if number < last:
        return [lists.put(lists.stage(door, number, closing)), lists.put(lists.progress)]
    return [lists.forget(lists.door(door)) if closing else lists.put(lists.door(door))]


def _sequences(spec):
    """Yield (door, steps, closing) for every sequence of more than one step: those that have stages."""
    for door in spec.doors:
        for steps, closing in ((door.knock, False), (door.close, True)):
            if len(steps) > 1:
                yield door, steps, closing


def _forget(spec, lists):
    """Return the rules that forget every stage of a source.

    All of them, for a stage that was left would count again as soon as any door's first step is hit. They
    cost a lookup each, but only a source that has done a step comes here.
    """
    names = [
        (door.name, lists.stage(door, number, closing))
        for door, steps, closing in _sequences(spec)
        for number in range(1, len(steps))
    ]
    rules = [(lists.forget(name), "door {0}: forget a step".format(door), "") for door, name in names]
    return rules + [(lists.forget(lists.progress), "no longer on its way", "")] if rules else []


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
    "knockers",
    "own_rules",
    "rule_id",
)
