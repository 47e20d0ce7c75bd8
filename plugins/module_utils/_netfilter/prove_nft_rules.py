# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One rule of nftables as the prover reads it, from what ``nft -j`` lists: every match as a set of packets, or as a doubt. Pure.

A rule with a verdict map, or one that asks for several values together, is several rules here, of which a packet meets one at most.
"""

import re
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item, expressions
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_nft_match import (
    ARRIVING,
    Asking,
    View,
    ask,
    members,
)
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
_NOTHING = frozenset(
    ("counter", "log", "comment", "continue", "ct helper", "ct timeout", "ct expectation", "last", "dup")
)
"""Statements after which a packet goes on as it was."""
_DOUBTS = frozenset(("limit", "quota", "ct count", "meter", "xt", "connlimit"))
_FEW = 64


class Lists(NamedTuple):
    """The sets of a table that its rules put sources into."""

    source: Any
    """The expression for the source as it is remembered, as JSON."""
    seconds: Mapping[str, Tuple[int, int]]
    """Name of a set to how long a source stays there, at least and at most, as rules differ; 0 for ever. Only sets that nothing but
    sources are put into are there."""


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
        if value != source or operation not in ("add", "update", "delete"):
            spoiled.add(name)
        elif operation != "delete":
            seconds.setdefault(name, []).append(timeout)
    return Lists(
        source,
        {
            name: (min(filter(None, some), default=0), max(some) if all(some) else 0)
            for name, some in seconds.items()
            if name not in spoiled
        },
    )


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

    def read(self, rule: Item) -> List[ReadRule]:
        """Return what a rule does, as rules one behind the other; none where no packet in question meets it, or it does nothing."""
        draft = _Draft(Asking(self._family, self._view))
        if self._doubts:
            draft.asking.doubt()
        found = self._lines(expressions(rule), draft)
        return [line for line in found if not line.never and (line.target or line.lists)]

    def _lines(self, parts: Sequence[Item], draft: "_Draft") -> List[ReadRule]:
        before: List[ReadRule] = []
        for number, part in enumerate(parts):
            kind, what = next(iter(part.items()))
            split = self._split(kind, what, draft)
            if split is not None:
                return before + [line for each in split for line in self._lines(parts[number + 1 :], each)]
            if draft.target:
                break
            before += self._read(kind, what, draft)
        return before + [draft.line()]

    def _split(self, kind: str, what: Any, draft: "_Draft") -> Optional[List["_Draft"]]:
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

    def _mapped(self, what: Item, draft: "_Draft") -> Optional[List["_Draft"]]:
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
    def _verdict(verdict: Any, draft: "_Draft") -> bool:
        """Give a draft its verdict, and return whether it is one."""
        kind, what = next(iter(verdict.items())) if isinstance(verdict, dict) and verdict else ("", None)
        if kind in ("jump", "goto"):
            draft.target, draft.goto = CHAIN + str((what or {}).get("target")), kind == "goto"
        elif kind != "continue":
            draft.target = _VERDICTS.get(kind, UNKNOWN)
        return bool(draft.target)

    def _read(self, kind: str, what: Any, draft: "_Draft") -> List[ReadRule]:
        """Read one expression into a draft, and return the rules that it is besides."""
        if kind == "match":
            self._matched(what, draft)
        elif kind in _VERDICTS or kind in ("jump", "goto"):
            self._verdict({kind: what}, draft)
        elif kind == "set" and isinstance(what, dict):
            self._updated(what, draft)
        elif kind in _DOUBTS:
            draft.asking.doubt()
            if kind == "xt" and (not isinstance(what, dict) or what.get("type") != "match"):
                draft.target = UNKNOWN if not isinstance(what, dict) or what.get("name") not in _XT_GO_ON else ""
        elif kind in ("dnat", "redirect"):
            draft.divert(kind, what)
        elif kind in ("mangle", "notrack"):
            return self._changed(kind, what, draft)
        elif kind not in _NOTHING:
            draft.asking.doubt()
            draft.target = UNKNOWN
        return []

    def _matched(self, what: Item, draft: "_Draft") -> None:
        left, right, operation = what.get("left"), what.get("right"), what.get("op")
        if isinstance(right, str) and right[:1] == "@":
            name = right[1:]
            if left == self._lists.source and name in self._lists.seconds and operation in ("==", "!="):
                least, most = self._lists.seconds[name]
                draft.lists.append(ListMatch("--rcheck", operation == "!=", name, most, True, least))
                draft.asking.family_of(left)
            else:
                draft.asking.unknown(left)
        else:
            ask(draft.asking, left, operation, right)

    def _updated(self, what: Item, draft: "_Draft") -> None:
        name = str(what.get("set", ""))[1:]
        value, timeout = _value_and_timeout(what.get("elem"))
        draft.asking.family_of(value)
        if what.get("stmt"):
            # As a limit of each source has it: what comes behind is for those that exceed it.
            draft.asking.doubt()
        if value != self._lists.source or name not in self._lists.seconds:
            return
        if what.get("op") == "delete":
            draft.lists.append(ListMatch(FORGET, False, name, 0, True))
        else:
            draft.lists.append(ListMatch("--set", False, name, timeout, True))

    def _changed(self, kind: str, what: Any, draft: "_Draft") -> List[ReadRule]:
        """Return a rule that changes packets; what the rest of the rule asks is in doubt where it is about that."""
        changed = what.get("key") if isinstance(what, dict) else None
        if kind == "notrack":
            line, about = draft.line("NOTRACK"), STATE
        elif changed == {"meta": {"key": "mark"}}:
            value = what.get("value")
            line, about = draft.line("MARK", {"--set-mark": str(value)} if isinstance(value, int) else {}), MARK
        elif isinstance(changed, dict) and changed.get("payload", {}).get("field", "saddr") in _ASKED_FIELDS:
            self.unfollowed = self.unfollowed or "payload" in changed
            return []
        else:
            return []
        draft.asking.soften(about)
        return [line]


_ASKED_FIELDS = frozenset(("saddr", "daddr", "sport", "dport", "flags", "protocol", "nexthdr"))
_XT_GO_ON = frozenset(("LOG", "NFLOG", "MASQUERADE", "SNAT", "CT", "CHECKSUM", "TCPMSS", "CONNMARK", "comment"))


class _Draft:
    """What has been read of a rule so far."""

    def __init__(self, asking: Asking) -> None:
        self.asking = asking
        self.lists: List[ListMatch] = []
        self.target, self.goto = "", False
        self.values: Dict[str, str] = {}

    def copy(self) -> "_Draft":
        copy = _Draft(self.asking.copy())
        copy.lists = list(self.lists)
        return copy

    def asked(self, left: Any, value: Any) -> "_Draft":
        """Return a copy that asks for a value besides."""
        copy = self.copy()
        ask(copy.asking, left, "==", value)
        return copy

    def divert(self, kind: str, what: Any) -> None:
        """Have it send packets elsewhere."""
        fields = what if isinstance(what, dict) else {}
        port, address = fields.get("port"), fields.get("addr")
        ports = "-".join(map(str, port["range"])) if isinstance(port, dict) and "range" in port else port
        known = ports is None or bool(re.match(r"[0-9]+(-[0-9]+)?\Z", str(ports)))
        if kind == "redirect" and known:
            self.target, self.values = "REDIRECT", {} if ports is None else {"--to-ports": str(ports)}
        elif kind == "dnat" and known and isinstance(address, str):
            host = f"[{address}]" if ":" in address and ports is not None else address
            self.target = "DNAT"
            self.values = {"--to-destination": host if ports is None else f"{host}:{ports}"}
        else:
            self.asking.doubt()
            self.target = "NETMAP"

    def line(self, target: str = "", values: Optional[Dict[str, str]] = None) -> ReadRule:
        """Return it as a rule, with a target of its own or another one."""
        asking, own = self.asking, not target
        return ReadRule(
            tuple(asking.terms),
            tuple(asking.doubts),
            tuple(self.lists) if own else tuple(each for each in self.lists if each.verb == "--rcheck"),
            asking.never,
            self.target if own else target,
            self.goto if own else False,
            self.values if own else values or {},
        )


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
