# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Our own rules read back: what doors there are, how often they were used, and how they drifted. Pure."""

import difflib
import ipaddress

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import Own
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.chains import DOORS, HEAD, OPEN, TAIL
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.comments import (
    COMMENT,
    ENTRANCE,
    STEP,
    rule_id,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.display import readable
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.hooks import Ground, wanted_state
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import (
    ABSENT,
    foreign_rules,
    read_state,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.rule_text import options
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Allow, Door, Spec, Step
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import DEFAULTS
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports


class _Found:
    """One rule of ours, taken apart."""

    def __init__(self, text):
        self.options = list(options(text))
        self.text = text
        found = COMMENT.search(text)
        self.comment = found.group(2) if found else ""
        self.protocol = self.value("-p")
        self.source = self.value("-s")

    def value(self, name):
        return next((values[0] for option, values, _negated in self.options if option == name and values), "")

    def ports(self):
        first, _colon, last = self.value("--dport").partition(":")
        return Ports(int(first), int(last or first), self.protocol)

    def removes(self):
        return any(option == "--remove" for option, _values, _negated in self.options)


def recover_spec(chains, family):
    """Return a Spec that says what chains of ours do, for one family.

    It serves to find ports, sources and names again; the order of doors and comments may differ.

    :param chains: name to a list of rules.
    """
    rules = {name: [_Found(text) for text in texts] for name, texts in chains.items()}
    head = rules.get(HEAD, [])
    return Spec(
        doors=_doors(rules),
        policy="reject" if TAIL in rules else "accept",
        reject_with=DEFAULTS["reject_with"],
        allow=tuple(_allow(rule) for rule in rules.get(DOORS, []) if rule.comment.startswith("allowed: ")),
        trusted_sources=tuple(
            ipaddress.ip_network(rule.source) for rule in head if rule.comment == "trusted source" and rule.source
        ),
        trusted_interfaces=tuple(rule.value("-i") for rule in head if rule.value("-i")),
        icmp=any(rule.comment.startswith("ping") for rule in head),
        ip_versions=(family,),
        ipv6_prefix=128,
        list_size=DEFAULTS["list_size"],
        log=OPEN in rules,
        engine=DEFAULTS["engine"],
        knockd_interface=DEFAULTS["knockd_interface"],
    )


def _allow(rule):
    sources = (ipaddress.ip_network(rule.source),) if rule.source else ()
    return Allow(rule.ports(), sources, rule.comment.partition(": ")[2])


def _doors(rules):
    doors, steps = {}, {}
    for name in sorted(rules):
        for rule in rules[name]:
            entrance, step = ENTRANCE.match(rule.comment), STEP.match(rule.comment)
            if entrance:
                doors.setdefault(entrance.group(1), []).append(rule)
            elif step:
                key = (step.group(1), bool(step.group(2)))
                steps.setdefault(key, {})[int(step.group(3))] = Step(rule.ports().first, rule.protocol)
    return tuple(_door(name, found, steps) for name, found in doors.items())


def _door(name, entrances, steps):
    def sequence(closing):
        found = steps.get((name, closing), {})
        return tuple(found[number] for number in sorted(found))

    sources = {rule.source for rule in entrances if rule.source}
    return Door(
        name=name,
        knock=sequence(False),
        opens=tuple(sorted({rule.ports() for rule in entrances})),
        window=int(entrances[0].value("--seconds")),
        step_timeout=5,
        sources=tuple(ipaddress.ip_network(source) for source in sorted(sources)),
        close=sequence(True),
        once=entrances[0].removes(),
    )


def counters(table):
    """Return door name to packets: ``let_in`` (new connections) and ``knocked`` (last steps), of a save with counters."""
    counted = {}
    for name, rules in table.chains.items():
        for rule in rules if name.startswith(DOORS) else ():
            comment = COMMENT.search(rule.text)
            entrance = comment and ENTRANCE.match(comment.group(2))
            step = comment and STEP.match(comment.group(2))
            packets = int(rule.counters[1:].split(":")[0]) if rule.counters else 0
            if entrance:
                _count(counted, entrance.group(1), "let_in", packets)
            elif step and not step.group(2) and step.group(3) == step.group(4):
                _count(counted, step.group(1), "knocked", packets)
    return counted


def _count(counted, door, what, packets):
    counted.setdefault(door, dict(let_in=0, knocked=0))[what] += packets


def expected_own(fallback, live):
    """Return the Own that a family should have: from the file that is kept for the boot, else as it is live.

    :param fallback: the text of that file, '' where nothing is kept.
    :param live: the State of the table, or ABSENT.
    """
    state = read_state(parse(fallback).table("filter")) if fallback else live
    hooks = {hook.text.rsplit(" ", 1)[1]: hook.text for hook in state.hooks}
    if state == ABSENT or HEAD not in hooks or DOORS not in hooks:
        return None
    return Own(state.chains, hooks[HEAD], hooks[DOORS], hooks.get(TAIL, ""))


def drift(document, own, spec, family):
    """Return lines of a diff from the live rules to what they should be, [] where they are that.

    :param own: see expected_own; None where there are no rules of ours.
    """
    table = document.table("filter")
    now = read_state(table)
    if own is None:
        return ["- chains of ours without their hooks in INPUT"] if now != ABSENT else []
    wanted = wanted_state(own, Ground(document, spec), now)
    texts = [rule.text for rule in foreign_rules(table)]
    before, after = readable(now, texts).splitlines(), readable(wanted, texts).splitlines()
    changes = [line for line in difflib.ndiff(before, after) if line[:2] in ("- ", "+ ")]
    return changes + _edited(now, family)


def _edited(state, family):
    rules = [(name, text) for name, texts in state.chains.items() for text in texts]
    rules += [("INPUT", hook.text) for hook in state.hooks]
    return [
        "edited by hand: a rule in chain {0}".format(name) for name, text in rules if _is_edited(name, text, family)
    ]


def _is_edited(chain, text, family):
    found = COMMENT.search(text)
    if not found:
        return True
    plain = " ".join(text.replace(found.group(0), " ").split())
    return found.group(1) != rule_id(family, chain, plain)


__all__ = (
    "counters",
    "drift",
    "expected_own",
    "recover_spec",
)
