# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One rule of nftables as the prover reads it, from what ``nft -j`` lists: every match as a set of packets, or as a doubt. Pure.

A rule with a verdict map, or one that asks for several values together, is several rules here, of which a packet meets one at most.
"""

from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item, expressions
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_nft_asking import ARRIVING, Asking, View
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_nft_draft import Draft
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_nft_match import ask, members
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_rules import (
    FORGET,
    MARK,
    STATE,
    ListMatch,
    ReadRule,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4

CHAIN = "chain "
"""How the name of a chain begins, so that none is that of a verdict."""
UNKNOWN = "?"
"""The target of which nothing is known: it may let in and refuse."""
_VERDICTS = {"accept": "ACCEPT", "drop": "DROP", "reject": "REJECT", "return": "RETURN"}
_NOTHING = frozenset(("counter", "log", "comment", "continue", "ct helper", "ct timeout", "ct expectation", "last"))
"""Statements after which a packet goes on as it was."""
_DOUBTS = frozenset(("limit", "quota", "ct count", "meter", "xt", "connlimit", "dup"))
_FEW = 64


class Lists(NamedTuple):
    """The sets of a table that its rules put sources into."""

    source: Any
    """The expression for the source as it is remembered, as JSON."""
    seconds: Mapping[str, Tuple[int, int]]
    """Name of a list to how long a source stays there, at least and at most, as rules differ; 0 for ever. A set that nothing but
    sources are put into is one; where a number that is always the same stands beside the source, each number is one."""

    def named(self, name: str, value: Any) -> str:
        """Return the name of the list that a value is on in a set, '' where it is none.

        :param value: the expression for it, as JSON.
        """
        found = _name_of_list(name, value, self.source)
        return found if found in self.seconds else ""


NO_LISTS = Lists(None, {})


def source_of(family: str, mask: str) -> Item:
    """Return the expression for a source.

    :param mask: of an IPv6 source, '' for all bits.
    """
    plain = {"payload": {"protocol": "ip" if family == IPV4 else "ip6", "field": "saddr"}}
    return {"&": [plain, mask]} if mask and family != IPV4 else plain


def lists_of(rules: Sequence[Item], source: Item) -> Lists:
    """Return the Lists of a table.

    :param rules: the fields of its rules.
    """
    seconds: Dict[str, List[int]] = {}
    spoiled = set()
    for update in _updates(rules):
        name, operation = str(update.get("set", ""))[1:], update.get("op")
        value, timeout = _value_and_timeout(update.get("elem"))
        found = _name_of_list(name, value, source)
        if not found or operation not in ("add", "update", "delete"):
            spoiled.add(name)
        elif operation != "delete":
            seconds.setdefault(found, []).append(timeout)
    return Lists(
        source,
        {
            name: (min(filter(None, some), default=0), max(some) if all(some) else 0)
            for name, some in seconds.items()
            if name.split()[0] not in spoiled
        },
    )


def _name_of_list(name: str, value: Any, source: Any) -> str:
    """Return the name of the list that a value is on, '' where it is not the source, nor the source and a number."""
    if value == source:
        return name
    parts = value.get("concat") if isinstance(value, dict) else None
    number = _number(parts[1]) if isinstance(parts, list) and len(parts) == 2 and parts[0] == source else None
    return f"{name} {number}" if number is not None else ""


def _number(expression: Any) -> Optional[int]:
    """Return what an expression is of every packet, None where that is not known: ``meta mark & 6 | 6`` is 6."""
    if not isinstance(expression, dict):
        return expression if isinstance(expression, int) else None
    pair = expression.get("|")
    if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[1], int):
        return None
    kept = pair[0].get("&") if isinstance(pair[0], dict) else None
    mask = kept[1] if isinstance(kept, list) and len(kept) == 2 else None
    return pair[1] if isinstance(mask, int) and not mask & ~pair[1] else None


def _updates(rules: Sequence[Item]) -> Iterator[Item]:
    for rule in rules:
        for part in expressions(rule):
            for kind in ("set", "map"):
                if isinstance(part.get(kind), dict) and "op" in part[kind]:
                    yield part[kind]


def _value_and_timeout(elem: Any) -> Tuple[Any, int]:
    """Return what a packet puts into a set, and for how many seconds; 0 where that is not said."""
    fields = elem.get("elem") if isinstance(elem, dict) else None
    if not isinstance(fields, dict):
        return elem, 0
    timeout = fields.get("timeout")
    return fields.get("val"), timeout if isinstance(timeout, int) else 0


class RuleReader:
    """Reads the rules of one table."""

    def __init__(
        self, family: str, lists: Lists, maps: Mapping[str, List[Any]], doubts: bool = False, view: View = ARRIVING
    ) -> None:
        """Take the family, the sets that rules put sources into, and the elements of named maps.

        :param doubts: whether of no rule it is known whether a packet comes to it.
        :param view: how fields are seen that nat may change.
        """
        self._view = view
        self._family, self._lists, self._maps, self._doubts = family, lists, maps, doubts
        self.unfollowed = False
        """Whether some rule may change packets in a way that is not followed."""

    def read(self, rule: Item, tracked: Optional[bool] = True, doubts: bool = False) -> List[ReadRule]:
        """Return what a rule does, as rules one behind the other; none where no packet in question meets it, or it does nothing.

        :param tracked: whether connection tracking has seen the packets that come to it, None where it may have or not.
        :param doubts: whether it is not known if a packet comes to it.
        """
        draft = Draft(Asking(self._family, self._view, tracked))
        if self._doubts or doubts:
            draft.asking.doubt()
        found = self._lines(expressions(rule), draft)
        return [line for line in found if not line.never and (line.target or line.lists)]

    def _lines(self, parts: Sequence[Item], draft: Draft) -> List[ReadRule]:
        before: List[ReadRule] = []
        for number, part in enumerate(parts):
            kind, what = next(iter(part.items()))
            if draft.adds and kind != "set":
                # A set that is full takes nothing in, and the rule ends there.
                draft.asking.doubt()
            split = self._split(kind, what, draft)
            if split is not None:
                return before + self._one_of(split, parts[number + 1 :], len(draft.asking.terms))
            if draft.target:
                break
            before += self._read(kind, what, draft)
        return before + [draft.line()]

    def _one_of(self, split: Sequence[Draft], parts: Sequence[Item], common: int) -> List[ReadRule]:
        """Return the rules of drafts of which a packet meets one at most, also where that changes what the next one asks for.

        :param common: how many of their terms they have in common.
        """
        found: List[ReadRule] = []
        for draft in split:
            if any(line.target in _CHANGES or (line.target.startswith(CHAIN) and not line.goto) for line in found):
                draft.asking.soften(MARK, common)
                draft.asking.soften(STATE, common)
            found += self._lines(parts, draft)
        return found

    def _split(self, kind: str, what: Any, draft: Draft) -> Optional[List[Draft]]:
        """Return the drafts that a rule parts into here, None where it does not."""
        if draft.target:
            return None
        if kind == "vmap" and isinstance(what, dict):
            return self._mapped(what, draft)
        if kind == "match" and what.get("op") == "==":
            left = what.get("left")
            if isinstance(left, dict) and "concat" in left:
                found = members(what.get("right"))
                if found is not None and len(found) <= _FEW:
                    return [draft.asked(left, value) for value in found]
        return None

    def _mapped(self, what: Item, draft: Draft) -> Optional[List[Draft]]:
        data = what.get("data")
        named = isinstance(data, str) and data[:1] == "@"
        elements = self._maps.get(str(data)[1:]) if named else members(data)
        if elements is None:
            draft.asking.doubt()
            draft.target = UNKNOWN
            return None
        found = []
        for verdict, values in _grouped(elements):
            copy = draft.asked(what.get("key"), {"set": values} if len(values) > 1 else values[0])
            if named:
                copy.asking.doubt()
            if self._verdict(verdict, copy):
                found.append(copy)
        return found

    @staticmethod
    def _verdict(verdict: Any, draft: Draft) -> bool:
        """Give a draft its verdict, and return whether it is one."""
        kind, what = next(iter(verdict.items())) if isinstance(verdict, dict) and verdict else ("", None)
        if kind in ("jump", "goto"):
            draft.target, draft.goto = CHAIN + str((what or {}).get("target")), kind == "goto"
        elif kind != "continue":
            draft.target = _VERDICTS.get(kind, UNKNOWN)
        return bool(draft.target)

    def _read(self, kind: str, what: Any, draft: Draft) -> List[ReadRule]:
        """Read one expression into a draft, and return the rules that it is besides."""
        if kind == "match":
            self._matched(what, draft)
        elif kind == "reject" and isinstance(what, dict):
            return draft.reject(str(what.get("type")))
        elif kind in _VERDICTS or kind in ("jump", "goto"):
            self._verdict({kind: what}, draft)
        elif kind == "set" and isinstance(what, dict):
            self._updated(what, draft)
        elif kind in _DOUBTS:
            draft.asking.doubt()
            if kind == "xt":
                draft.target = _of_extension(what if isinstance(what, dict) else {})
        elif kind in ("dnat", "redirect"):
            draft.divert(kind, what)
        elif kind in ("mangle", "notrack"):
            return self._changed(kind, what, draft)
        elif kind not in _NOTHING:
            draft.asking.doubt()
            draft.target = UNKNOWN
        else:
            _by_map(what, draft)
        return []

    def _matched(self, what: Item, draft: Draft) -> None:
        left, right, operation = what.get("left"), what.get("right"), what.get("op")
        if isinstance(right, str) and right[:1] == "@":
            name = self._lists.named(right[1:], left)
            if name and operation in ("==", "!="):
                least, most = self._lists.seconds[name]
                draft.lists.append(ListMatch("--rcheck", operation == "!=", name, most, True, least))
                draft.asking.family_of(left)
            else:
                draft.asking.unknown(left)
        else:
            ask(draft.asking, left, operation, right)

    def _updated(self, what: Item, draft: Draft) -> None:
        value, timeout = _value_and_timeout(what.get("elem"))
        name = self._lists.named(str(what.get("set", ""))[1:], value)
        draft.asking.family_of(value)
        if what.get("stmt"):
            # As a limit of each source has it: what comes behind is for those that exceed it.
            draft.asking.doubt()
        if what.get("op") == "delete":
            draft.lists += [ListMatch(FORGET, False, name, 0, True)] if name else []
            return
        draft.adds = True
        if name:
            draft.lists.append(ListMatch("--set", False, name, timeout, True))

    def _changed(self, kind: str, what: Any, draft: Draft) -> List[ReadRule]:
        """Return a rule that changes packets; what the rest of the rule asks is in doubt where it is about that."""
        changed, value = (what.get("key"), what.get("value")) if isinstance(what, dict) else (None, 0)
        field = next(iter(changed.items())) if isinstance(changed, dict) and changed else ("", None)
        if field[0] not in ("", "meta", "ct"):
            # The rule ends there for a packet that does not have the field.
            draft.asking.unknown(changed)
        if isinstance(value, (dict, list)):
            draft.asking.unknown(value)
        if kind == "notrack":
            return draft.notrack()
        if field == ("meta", {"key": "mark"}):
            line = draft.line("MARK", {"--set-mark": str(value)} if isinstance(value, int) else {})
            draft.asking.soften(MARK)
            return [line]
        if field == ("ct", {"key": "mark"}):
            return [draft.line("CONNMARK")]
        asked = isinstance(field[1], dict) and field[1].get("field", "saddr") in _ASKED_FIELDS
        self.unfollowed = self.unfollowed or field == ("meta", {"key": "pkttype"}) or (field[0] == "payload" and asked)
        return []


_ASKED_FIELDS = frozenset(("saddr", "daddr", "sport", "dport", "flags", "protocol", "nexthdr"))
_CHANGES = frozenset(("MARK", "NOTRACK"))
_XT_GO_ON = frozenset(("LOG", "NFLOG", "MASQUERADE", "SNAT", "CT", "CHECKSUM", "TCPMSS", "CONNMARK", "comment"))


def _by_map(what: Any, draft: Draft) -> None:
    # What its map does not have, ends the rule.
    if isinstance(what, dict) and "map" in what:
        draft.asking.unknown(what)


def _of_extension(what: Item) -> str:
    return "" if what.get("type") == "match" or what.get("name") in _XT_GO_ON else UNKNOWN


def _grouped(elements: Sequence[Any]) -> List[Tuple[Any, List[Any]]]:
    """Return (verdict, values) of a verdict map: those of one verdict, and of concatenations also of one first part, are together."""
    found: Dict[str, Tuple[Any, List[Any]]] = {}
    for element in elements:
        if not isinstance(element, list) or len(element) != 2:
            found.setdefault("", ({"?": None}, []))[1].append({"?": None})
            continue
        value, verdict = element
        value = value["elem"].get("val") if isinstance(value, dict) and isinstance(value.get("elem"), dict) else value
        parts = value.get("concat") if isinstance(value, dict) else None
        together = repr((verdict, parts[0] if parts else None, len(parts or ())))
        found.setdefault(together, (verdict, []))[1].append(value)
    return [(verdict, _joined(values)) for verdict, values in found.values()]


def _joined(values: List[Any]) -> List[Any]:
    """Return concatenations of two parts, of which the first is the same, as one."""
    parts = [value.get("concat") if isinstance(value, dict) else None for value in values]
    if len(values) > 1 and all(isinstance(each, list) and len(each) == 2 for each in parts):
        return [{"concat": [parts[0][0], {"set": [each[1] for each in parts if each]}]}]  # type: ignore[index]
    return values


__all__ = (
    "CHAIN", "NO_LISTS", "UNKNOWN", "Lists", "RuleReader", "lists_of", "source_of",
)  # fmt: skip
