# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of the collection read back: what doors there are, how often they were used, and how the rules drifted. Pure."""

import difflib
import ipaddress
from typing import Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import Own
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.chains import DOORS, HEAD, TAIL
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.comments import (
    ALLOWED,
    CLOSING_STEP,
    ENTRANCE,
    STEP,
    TRUSTED_SOURCE,
    UNKNOWN,
    Meaning,
    read_comment,
    rule_id,
    without_comment,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.display import readable
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.hooks import Ground, wanted_state
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import (
    ABSENT,
    State,
    foreign_rules,
    read_state,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.rule_text import options
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document, Table, parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Allow, Network, Step
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports


class InstalledDoor(NamedTuple):
    """A door as the rules of one family have it."""

    name: str
    """Its name."""
    opens: Tuple[Ports, ...]
    """The ports that it opens."""
    window: int
    """Seconds after the last step in which new connections are accepted."""
    sources: Tuple[Network, ...]
    """Who may knock, of this family; empty for everyone."""
    once: bool
    """Whether a knock is good for one connection only."""
    knock: Tuple[Step, ...]
    """The steps that open it; empty where the rules do not recognise them (engine knockd). Secret."""
    close: Tuple[Step, ...]
    """The steps that close it. Secret."""


class Installed(NamedTuple):
    """What the rules of one family do. The order of doors is that of their chains."""

    doors: Tuple[InstalledDoor, ...]
    """The doors."""
    allow: Tuple[Allow, ...]
    """Ports that need no knock."""
    trusted_sources: Tuple[Network, ...]
    """Sources that never need a knock."""
    trusted_interfaces: Tuple[str, ...]
    """Interfaces on which no packet needs a knock."""


class _InstalledRule:
    """One rule of the collection, taken apart."""

    def __init__(self, text: str) -> None:
        self.options = list(options(text))
        comment = read_comment(text)
        self.meaning = comment.meaning if comment else Meaning(UNKNOWN)
        self.protocol = self.value("-p")
        self.source = self.value("-s")

    def value(self, name: str) -> str:
        return next((values[0] for option, values, _negated in self.options if option == name and values), "")

    def ports(self) -> Ports:
        first, _colon, last = self.value("--dport").partition(":")
        return Ports(int(first), int(last or first), self.protocol)

    def removes(self) -> bool:
        return any(option == "--remove" for option, _values, _negated in self.options)


def read_installed(chains: Mapping[str, Iterable[str]]) -> Installed:
    """Return what chains of the collection do.

    :param chains: name to rules, of one family.
    """
    rules = {name: [_InstalledRule(text) for text in texts] for name, texts in chains.items()}
    head = rules.get(HEAD, [])
    return Installed(
        doors=_doors(rules),
        allow=tuple(_allow(rule) for rule in rules.get(DOORS, []) if rule.meaning.kind == ALLOWED),
        trusted_sources=tuple(
            ipaddress.ip_network(rule.source) for rule in head if rule.meaning == TRUSTED_SOURCE and rule.source
        ),
        trusted_interfaces=tuple(rule.value("-i") for rule in head if rule.value("-i")),
    )


def _allow(rule: _InstalledRule) -> Allow:
    sources = (ipaddress.ip_network(rule.source),) if rule.source else ()
    return Allow(rule.ports(), sources, rule.meaning.note)


_Steps = Dict[Tuple[str, str], Dict[int, Step]]
"""(door, STEP or CLOSING_STEP) to number to Step."""


def _doors(rules: Mapping[str, List[_InstalledRule]]) -> Tuple[InstalledDoor, ...]:
    entrances: Dict[str, List[_InstalledRule]] = {}
    steps: _Steps = {}
    for name in sorted(rules):
        for rule in rules[name]:
            kind, door, number = rule.meaning.kind, rule.meaning.door, rule.meaning.number
            if kind == ENTRANCE:
                entrances.setdefault(door, []).append(rule)
            elif kind in (STEP, CLOSING_STEP):
                steps.setdefault((door, kind), {})[number] = Step(rule.ports().first, rule.protocol)
    return tuple(_door(name, found, steps) for name, found in entrances.items())


def _door(name: str, entrances: List[_InstalledRule], steps: _Steps) -> InstalledDoor:
    def sequence(kind: str) -> Tuple[Step, ...]:
        found = steps.get((name, kind), {})
        return tuple(found[number] for number in sorted(found))

    return InstalledDoor(
        name=name,
        opens=tuple(sorted({rule.ports() for rule in entrances})),
        window=int(entrances[0].value("--seconds")),
        sources=tuple(
            ipaddress.ip_network(text) for text in sorted({rule.source for rule in entrances if rule.source})
        ),
        once=entrances[0].removes(),
        knock=sequence(STEP),
        close=sequence(CLOSING_STEP),
    )


def counters(table: Table) -> Dict[str, Dict[str, int]]:
    """Return door name to packets: ``let_in`` (new connections) and ``knocked`` (last steps), of a save with counters."""
    counted: Dict[str, Dict[str, int]] = {}
    for name, rules in table.chains.items():
        for rule in rules if name.startswith(DOORS) else ():
            comment = read_comment(rule.text)
            if comment is None:
                continue
            kind, door, number, total, _note = comment.meaning
            packets = int(rule.counters[1:].split(":")[0]) if rule.counters else 0
            if kind == ENTRANCE:
                _count(counted, door, "let_in", packets)
            elif kind == STEP and number == total:
                _count(counted, door, "knocked", packets)
    return counted


def _count(counted: Dict[str, Dict[str, int]], door: str, what: str, packets: int) -> None:
    counted.setdefault(door, dict(let_in=0, knocked=0))[what] += packets


def expected_own(fallback: str, live: State) -> Optional[Own]:
    """Return the Own that a family should have: from the file that is kept for the boot, else as it is live.

    :param fallback: the text of that file, '' where nothing is kept.
    :param live: the State of the table, or ABSENT.
    """
    state = read_state(parse(fallback).table("filter")) if fallback else live
    hooks = {hook.text.rsplit(" ", 1)[1]: hook.text for hook in state.hooks}
    if state == ABSENT or HEAD not in hooks or DOORS not in hooks:
        return None
    return Own(dict(state.chains), hooks[HEAD], hooks[DOORS], hooks.get(TAIL, ""))


def drift(document: Document, own: Optional[Own], installed: Installed, family: str) -> List[str]:
    """Return lines of a diff from the live rules to what they should be, [] where they are that.

    :param own: see expected_own; None where there are no rules of the collection.
    :param installed: what the rules of ``own`` do.
    """
    table = document.table("filter")
    now = read_state(table)
    if own is None:
        return ["- chains of ours without their hooks in INPUT"] if now != ABSENT else []
    wanted = wanted_state(own, Ground(document, installed), now)
    texts = [rule.text for rule in foreign_rules(table)]
    before, after = readable(now, texts).splitlines(), readable(wanted, texts).splitlines()
    changes = [line for line in difflib.ndiff(before, after) if line[:2] in ("- ", "+ ")]
    return changes + _edited(now, family)


def _edited(state: State, family: str) -> List[str]:
    rules = [(name, text) for name, texts in state.chains.items() for text in texts]
    rules += [("INPUT", hook.text) for hook in state.hooks]
    return [f"edited by hand: a rule in chain {name}" for name, text in rules if _is_edited(name, text, family)]


def _is_edited(chain: str, text: str, family: str) -> bool:
    comment = read_comment(text)
    return comment is None or comment.id != rule_id(family, chain, without_comment(text))


__all__ = ("Installed", "InstalledDoor", "counters", "drift", "expected_own", "read_installed")
