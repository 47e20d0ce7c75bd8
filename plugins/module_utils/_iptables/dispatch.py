# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finds the port first: rules that send a packet to the chain of its port, and those chains. Pure."""

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.chains import (
    FORGET,
    OPEN,
    REFUSE,
    REFUSED_PREFIX,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.knocks import (
    heard_by_kernel,
    knock_rules,
    staged_sequences,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.match_text import (
    LOG_LIMIT,
    SYN,
    joined,
    knockers,
    multiport_match,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import (
    MULTIPORT,
    Ports,
    multiport_groups,
    port_text,
)

DOOR, KNOCK, WRONG = "door", "knock", "wrong"

FEW, MANY = 3, 6
"""Up to FEW multiport rules stand in one row; more are parted into ranges of ports with MANY rules each, so that a
packet to a port that is nobody's passes tens of rules and not hundreds."""


class Dispatch:
    """Finds the port first: rules that send a packet to the chain of its port, and those chains."""

    def __init__(self, spec, family, lists):
        self.chains = {}
        self._lists = lists
        self._log = spec.log
        self._entrances = entrances(spec, family, lists)
        heard = heard_by_kernel(spec)
        self._knocks = knock_rules(heard, family, lists)
        self._knocked = {
            Ports(step.port, step.port, step.protocol) for door in heard.doors for step in door.knock + door.close
        }
        self._staged = {step for _door, steps, _closing in staged_sequences(heard) for step in steps}
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
        return multiport_match(protocol, group), "ports of doors", "-g " + name

    def _knock_rule(self, protocol, group):
        name = self._name("K")
        self.chains[name] = [rule for ports in group for rule in self._knocks.get((ports.first, protocol), ())]
        return multiport_match(protocol, group, new=True), "knocks", "-g " + name

    def _wrong_rule(self, protocol, group):
        match = joined(multiport_match(protocol, group, new=True), self._lists.known(self._lists.progress))
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
        return [(joined(match, self._lists.known(self._lists.progress)), "wrong port: start again", "-g " + FORGET)]


def _blocks(entries, size):
    """Split sorted entries into blocks of about that size whose ranges of ports do not overlap."""
    blocks, last = [], 0
    for entry in entries:
        if not blocks or (len(blocks[-1]) >= size and entry[0].first > last):
            blocks.append([])
        blocks[-1].append(entry)
        last = max(last, entry[0].last)
    return blocks


def entrances(spec, family, lists):
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
        known = joined(known, lists.forget(lists.door(door)))
        syn = SYN if ports.protocol == "tcp" else ""
    match = joined("-p {0} -m {0} --dport {1}".format(ports.protocol, port_text(ports)), syn, known)
    what = "door {0}: let in who has knocked".format(door.name)
    return [(joined(source, match), what, target) for source in knockers(door, family)]


__all__ = ("DOOR", "FEW", "KNOCK", "MANY", "WRONG", "Dispatch", "entrances")
