# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where our three hooks belong among the foreign rules of INPUT, and what that does to those. Pure.

The doors' hook stands in front of the first foreign rule that could decide the packets of a door or a
knock for everyone, and behind those that only refuse particular sources. The tail stands behind every
foreign exception, in front of a foreign catch-all. A hook that already stands right is left where it is.
"""

import re
from typing import NamedTuple

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.access import door_for, lets_in, may_knock
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import (
    ABSENT,
    Hook,
    State,
    foreign_rules,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.match import SERVICES
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.packet_walk import (
    ANY_STATE,
    EVERYTHING,
    REFUSE,
    Walker,
    packets_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import port_samples
from ansible_collections.sesame.portknock.plugins.module_utils._spec.sequences import SilentPorts, guard_port

Interest = NamedTuple("Interest", [("doors", object), ("allowed", object), ("opened", object)])
"""Packets that our doors' chain must see first, those it must let in, and those to the doors' own ports."""


def interest_of(spec, borders=()):
    """Return the Interest of a Spec.

    For a knock whose steps only rise or fall one port between two steps belongs to it: a foreign rule that
    took that port first would let a linear scan through without a reset.

    :param borders: ports that any foreign rule names, see port_samples.
    """
    opened = {
        (port, ports.protocol) for door in spec.doors for ports in door.opens for port in port_samples(ports, borders)
    }
    knocked = {(step.port, step.protocol) for door in spec.doors for step in door.knock + door.close}
    allowed = {(port, allow.ports.protocol) for allow in spec.allow for port in port_samples(allow.ports, borders)}
    silent = SilentPorts(spec)
    guards = set()
    for door in spec.doors:
        if len(door.knock) > 1:
            port = guard_port(door.knock, silent)
            guards |= {(port, step.protocol) for step in door.knock} if port else set()
    return Interest(packets_of(opened | knocked | guards), packets_of(allowed), packets_of(opened))


_NUMBER = re.compile(r"\b\d{1,5}\b")


def _borders(document):
    """Return the ports that rules name."""
    texts = [
        rule.text
        for table in document.tables
        for rules in table.chains.values()
        for rule in rules
        if "port" in rule.text
    ]
    return {int(number) for text in texts for number in _NUMBER.findall(text)} | set(SERVICES.values())


class Ground:
    """The foreign rules of INPUT, each with what it may do to our packets."""

    def __init__(self, document, spec):
        """Take the Document of a ruleset, and the Spec."""
        table = document.table("filter")
        self.rules = foreign_rules(table)
        borders = _borders(document)
        self.interest = interest_of(spec, borders)
        self._effects = []
        if table is None or not self.rules:
            return
        walker = Walker(table, spec.trusted_interfaces, spec.trusted_sources)
        running = Walker(table, spec.trusted_interfaces, spec.trusted_sources, ANY_STATE)
        sessions = packets_of((port, protocol) for port in borders | set(EVERYTHING.tcp) for protocol in ("tcp", "udp"))
        sessions = sessions._replace(other=True)
        self._effects = [_RuleEffects(walker, running, rule.text, self.interest, sessions) for rule in self.rules]

    def first_decisive(self):
        """Return the place of the first rule that could decide a door's or knock's packets for everyone."""
        return self._first(lambda effects: effects.decisive)

    def behind_blocks(self, before):
        """Return the place behind the last rule ahead of ``before`` that only refuses particular sources."""
        return 1 + max([index for index in range(before) if self._effects[index].blocks] or [-1])

    def first_harm_to_sessions(self):
        """Return the place of the first rule that could refuse running sessions for everyone."""
        return self._first(lambda effects: effects.harms_sessions)

    def catch_all(self):
        """Return the place of the first rule that decides every packet."""
        return self._first(lambda effects: effects.catch_all)

    def behind_exceptions(self, before):
        """Return the place behind the last rule ahead of ``before`` that decides anything at all."""
        return 1 + max([index for index in range(before) if self._effects[index].acts] or [-1])

    def decisions(self, place):
        """Return the decisions on doors' and allowed ports by the rules from a place on."""
        return [decision for effects in self._effects[place:] for decision in effects.decisions]

    def _first(self, test):
        return next((index for index, effects in enumerate(self._effects) if test(effects)), len(self.rules))


class _RuleEffects:
    """What one foreign rule of INPUT may do, as plain answers."""

    def __init__(self, walker, running, text, interest, sessions):
        condition = walker.condition(text)
        doors = walker.rule_effect("INPUT", text, interest.doors)
        allowed = walker.rule_effect("INPUT", text, interest.allowed)
        self.decisive = doors.accepts or doors.refuses_everyone or allowed.refuses_everyone
        self.blocks = not self.decisive and (doors.refuses_some or allowed.refuses_some)
        self.decisions = doors.decisions + [item for item in allowed.decisions if item.verdict == REFUSE]
        self.harms_sessions = running.rule_effect("INPUT", text, sessions).refuses_everyone
        self.catch_all = condition.sure and walker.rule_effect("INPUT", text, EVERYTHING).terminal
        self.acts = not condition.never and bool(condition.target) and condition.target not in ("LOG", "NFLOG", "ULOG")


def wanted_state(own, ground, now):
    """Return the State that a table should have.

    :param own: the Own of a Spec (see _rules), or None where all of ours is to go.
    :param ground: the Ground of the table.
    :param now: its State.
    """
    if own is None:
        return ABSENT
    here = {text: [hook.place for hook in now.hooks if hook.text == text] for text in (own.head, own.doors, own.tail)}
    end = ground.catch_all()
    decisive = min(ground.first_decisive(), end)
    doors = _kept(here[own.doors], ground.behind_blocks(decisive), decisive)
    head = _kept(here[own.head], 0, min(ground.first_harm_to_sessions(), doors), otherwise=0)
    hooks = [Hook(head, own.head), Hook(doors, own.doors)]
    if own.tail:
        hooks.append(Hook(_kept(here[own.tail], max(ground.behind_exceptions(end), doors), end), own.tail))
    return State(own.chains, tuple(hooks))


def _kept(places, least, most, otherwise=None):
    """Return the place a hook has if it has just one and that is right, else the last that is right."""
    if len(places) == 1 and least <= places[0] <= most:
        return places[0]
    return most if otherwise is None else otherwise


__all__ = (
    "Ground",
    "Interest",
    "door_for",
    "interest_of",
    "lets_in",
    "may_knock",
    "wanted_state",
)
