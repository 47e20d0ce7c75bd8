# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules of the collection on a host: how often doors were used, and how the rules drifted. Pure."""

import difflib
from typing import Dict, Iterable, Iterator, List, Optional, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._foreign.input_rules import ForeignRules, arrival_of
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import BuiltRules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.display import beside_hooks, readable
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.hooks import wanted_state
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import ABSENT, State, read_state
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import DOORS, HEAD, TAIL
from ansible_collections.sesame.portknock.plugins.module_utils._names.comments import (
    BY_NAT,
    ENTRANCE,
    FORWARDED,
    REFUSE_NOT_KNOCKED,
    STEP,
    WRONG_PORT,
    WRONG_PROTOCOL,
    Meaning,
    has_comment,
    read_comment,
    rule_id,
    without_comment,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import UNKNOWN, LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import (
    Document,
    Rule,
    Table,
    parse,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports
from ansible_collections.sesame.portknock.plugins.module_utils._tables.installed_doors import Installed, InstalledRule
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import INPUT, foreign_texts


def counters(table: Table, nat: Optional[Table] = None) -> Dict[str, Dict[str, int]]:
    """Return door name to packets, of a save with counters.

    ``let_in`` are new connections, ``knocked`` last steps, ``refused`` packets to the door's ports; that is not there where the rules
    do not tell them from those to other doors. Packets to a port of several doors count for each of them.

    :param nat: table nat, which counts what it sends on: Docker's rules in FORWARD may accept that in front of ours.
    """
    counted: Dict[str, Dict[str, int]] = {}
    for meaning, packets in _packets(table):
        kind, door, number, total, _note, panic = meaning
        if kind in (ENTRANCE, FORWARDED):
            _count(counted, door, "let_in", 0 if panic else packets)
        elif kind == STEP and number == total:
            _count(counted, door, "knocked", packets)
    for door, packets in _let_past(nat).items():
        _count(counted, door, "let_in", max(0, packets - counted.get(door, {}).get("let_in", 0)))
    unknown: Set[str] = set()
    for name, rules in table.chains.items():
        if name.startswith(DOORS):
            ours = [(InstalledRule(rule.text), _met(rule)) for rule in rules if has_comment(rule.text)]
            unknown |= _count_refused(counted, ours)
    for door in unknown:
        counted[door].pop("refused", None)
    return counted


def _let_past(nat: Optional[Table]) -> Dict[str, int]:
    """Return door name to how many connections were left to the rules of nat, or to those of INPUT if nat has none for them."""
    found: Dict[str, int] = {}
    for meaning, packets in _packets(nat) if nat is not None else ():
        if meaning.kind == BY_NAT:
            found[meaning.door] = found.get(meaning.door, 0) + packets
    return found


def _count_refused(counted: Dict[str, Dict[str, int]], rules: List[Tuple[InstalledRule, int]]) -> Set[str]:
    """Count what the rules of one chain refuse, and return the doors for which it cannot be told."""
    entrances = [(rule.ports(), rule.meaning) for rule, _packets in rules if rule.meaning.kind in (ENTRANCE, FORWARDED)]
    left = {ports for ports, _meaning in entrances}
    for rule, packets in rules:
        if rule.meaning.kind in (ENTRANCE, FORWARDED) and rule.meaning.panic:
            _count(counted, rule.meaning.door, "refused", packets)
        elif rule.meaning == REFUSE_NOT_KNOCKED:
            refused = {rule.ports()} if rule.value("--dport") or rule.value("--ctorigdstport") else left
            doors = [_doors_at(ports, entrances) for ports in refused]
            if any(each != doors[0] for each in doors):
                return set().union(*doors)
            left = left - refused
            for door in doors[0] if doors else ():
                _count(counted, door, "refused", packets)
    return set()


def _doors_at(ports: Ports, entrances: Iterable[Tuple[Ports, Meaning]]) -> List[str]:
    return sorted(
        {meaning.door for each, meaning in entrances if each.first <= ports.first and ports.last <= each.last}
    )


def refusals(table: Table) -> Dict[str, int]:
    """Return how many packets of a save with counters were ``refused`` at ports of doors, and how many were ``wrong_knocks``."""
    counted = dict(refused=0, wrong_knocks=0)
    for meaning, packets in _packets(table):
        if meaning == REFUSE_NOT_KNOCKED or meaning.panic:
            counted["refused"] += packets
        elif meaning in (WRONG_PORT, WRONG_PROTOCOL):
            counted["wrong_knocks"] += packets
    return counted


def _packets(table: Table) -> Iterator[Tuple[Meaning, int]]:
    """Return what each rule of ours is for, and how many packets it has met."""
    for name, rules in table.chains.items():
        for rule in rules if name.startswith(DOORS) else ():
            comment = read_comment(rule.text)
            if comment is not None:
                yield comment.meaning, _met(rule)


def _met(rule: Rule) -> int:
    """Return how many packets a rule has met, of a save with counters."""
    return int(rule.counters[1:].split(":")[0]) if rule.counters else 0


def _count(counted: Dict[str, Dict[str, int]], door: str, what: str, packets: int) -> None:
    found = counted.setdefault(door, dict(let_in=0, knocked=0))
    found[what] = found.get(what, 0) + packets


def expected_rules(fallback: str, live: State) -> Optional[BuiltRules]:
    """Return the rules that a family should have: from the file that is kept for the boot, else as it is live.

    :param fallback: the text of that file, '' where nothing is kept.
    :param live: the State of the table, or ABSENT.
    """
    state = read_state(parse(fallback)) if fallback else live
    hooks = {hook.text.rsplit(" ", 1)[1]: hook.text for hook in state.hooks_of(INPUT)}
    forward = tuple((hook.chain, hook.text) for hook in state.hooks if hook.chain != INPUT)
    if state == ABSENT or HEAD not in hooks or DOORS not in hooks:
        return None
    return BuiltRules(dict(state.chains), hooks[HEAD], hooks[DOORS], hooks.get(TAIL, ""), forward)


def drift(
    document: Document, expected: Optional[BuiltRules], installed: Installed, family: str, local: LocalNetwork = UNKNOWN
) -> List[str]:
    """Return lines of a diff from the live rules to what they should be, [] where they are that.

    :param expected: see expected_rules; None where there are no rules of the collection.
    :param installed: what the rules of ``expected`` do.
    :param local: what is known of the host's network.
    """
    now = read_state(document)
    if expected is None:
        return ["- chains of the collection without their hooks in INPUT"] if now != ABSENT else []
    wanted = wanted_state(expected, ForeignRules(document, installed, arrival_of(local, family)), now)
    texts = beside_hooks(foreign_texts(document), now, wanted)
    before, after = readable(now, texts).splitlines(), readable(wanted, texts).splitlines()
    changes = [line for line in difflib.ndiff(before, after) if line[:2] in ("- ", "+ ")]
    return changes + _edited(now, family)


def _edited(state: State, family: str) -> List[str]:
    rules = [(name, text) for name, texts in state.chains.items() for text in texts]
    rules += [(hook.chain, hook.text) for hook in state.hooks]
    return [f"edited by hand: a rule in chain {name}" for name, text in rules if _is_edited(name, text, family)]


def _is_edited(chain: str, text: str, family: str) -> bool:
    comment = read_comment(text)
    return comment is None or comment.id != rule_id(family, chain, without_comment(text))


__all__ = ("counters", "drift", "expected_rules", "refusals")
