# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A text of load_text() as ``nft -j`` would list it once it is loaded, as far as the prover reads that. Pure.

Only what such a text may hold is read; anything else is an error.
"""

import re
from typing import Any, Dict, List, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import TABLE

_FAMILY, _NAME = TABLE.split()
_RULE = re.compile(rf'add rule {TABLE} (\w+) (.*) comment "([^"]*)"\Z')
_CHAIN = re.compile(
    rf"add chain {TABLE} (\w+)( \{{ type filter hook (\w+) priority (-?\d+); policy (accept|drop); \}})?\Z"
)
_TOKEN = re.compile(r'"[^"]*"|[{}()|,]|[^\s{}()|,]+')
_PAYLOADS = frozenset(("ip", "ip6", "tcp", "udp", "th", "icmp", "icmpv6"))
_PLAIN = frozenset(("accept", "drop", "return", "counter"))


def read_items(text: str) -> Optional[List[Item]]:
    """Return a text as the objects of a listing, None where something in there is not of load_text()."""
    items: List[Item] = [{"table": {"family": _FAMILY, "name": _NAME}}]
    ours = {"family": _FAMILY, "table": _NAME}
    try:
        for line in text.splitlines():
            rule, chain = _RULE.match(line), _CHAIN.match(line)
            if rule:
                name, body, comment = rule.groups()
                items.append({"rule": dict(ours, chain=name, comment=comment, expr=_Line(body).parts())})
            elif chain:
                items.append({"chain": dict(ours, name=chain.group(1), **_hook(chain))})
            elif not line.startswith((f"add set {TABLE} ", f"add table {TABLE}", f"flush table {TABLE}")):
                return None
    except (IndexError, ValueError):
        return None
    return items


def _hook(chain: Any) -> Dict[str, Any]:
    if not chain.group(2):
        return {}
    return {"type": "filter", "hook": chain.group(3), "prio": int(chain.group(4)), "policy": chain.group(5)}


class _Line:
    """The text of one rule."""

    def __init__(self, text: str) -> None:
        self._words = _TOKEN.findall(text)
        self._place = 0

    def parts(self) -> List[Item]:
        """Return its expressions.

        :raises ValueError: if there is a word that is not understood.
        :raises IndexError: if it ends too soon.
        """
        found = []
        while self._place < len(self._words):
            found.append(self._part())
        return found

    def _next(self) -> str:
        self._place += 1
        return self._words[self._place - 1]

    def _is_next(self, word: str) -> bool:
        """Return whether a word comes next, and if so, go on behind it."""
        found = self._place < len(self._words) and self._words[self._place] == word
        self._place += found
        return found

    def _expect(self, word: str) -> None:
        if not self._is_next(word):
            raise ValueError

    def _part(self) -> Item:
        word = self._words[self._place]
        if word in _PLAIN:
            return {self._next(): None}
        if word in ("jump", "goto"):
            return {self._next(): {"target": self._next()}}
        if word in ("update", "delete"):
            return self._update()
        if word in ("limit", "log", "reject"):
            return self._other(self._next())
        return self._match()

    def _update(self) -> Item:
        operation, name = self._next(), self._next()
        self._expect("{")
        elem = self._joined()
        if self._is_next("timeout"):
            elem = {"elem": {"val": elem, "timeout": int(self._next()[:-1])}}
        self._expect("}")
        return {"set": {"op": operation, "elem": elem, "set": name}}

    def _other(self, word: str) -> Item:
        if word == "limit":
            self._expect("rate")
            found: Dict[str, Any] = {"inv": True} if self._is_next("over") else {}
            rate, _slash, per = self._next().partition("/")
            found.update(rate=int(rate), per=per)
            if self._is_next("burst"):
                found["burst"] = int(self._next())
                self._expect("packets")
            return {"limit": found}
        if word == "log":
            self._expect("prefix")
            return {"log": {"prefix": self._next()[1:-1]}}
        self._expect("with")
        kind = self._next()
        if kind == "icmpx":
            self._expect("type")
        return {"reject": {"type": kind, "expr": self._next()}}

    def _match(self) -> Item:
        left = self._joined()
        if not isinstance(left, dict) or not all(isinstance(part, dict) for part in left.get("concat", ())):
            raise ValueError
        if self._is_next("vmap"):
            self._expect("{")
            return {"vmap": {"key": left, "data": {"set": self._members(self._verdict)}}}
        operation = next((each for each in ("==", "!=") if self._is_next(each)), "in" if "ct" in left else "==")
        right = {"set": self._members(self._joined)} if self._is_next("{") else self._value()
        return {"match": {"op": operation, "left": left, "right": right}}

    def _members(self, one: Any) -> List[Any]:
        found = [one()]
        while self._is_next(","):
            found.append(one())
        self._expect("}")
        return found

    def _verdict(self) -> List[Any]:
        value = self._joined()
        self._expect(":")
        verdict = self._next()
        return [value, {verdict: None if verdict in _PLAIN else {"target": self._next()}}]

    def _joined(self) -> Any:
        """Return one value or expression, or several that are one key together."""
        found = [self._masked()]
        while self._is_next("."):
            found.append(self._masked())
        return {"concat": found} if len(found) > 1 else found[0]

    def _masked(self) -> Any:
        value = self._value()
        if self._is_next("&"):
            value = {"&": [value, self._value()]}
        return {"|": [value, self._value()]} if self._is_next("|") else value

    def _value(self) -> Any:
        word = self._next()
        if word in _PAYLOADS:
            return {"payload": {"protocol": word, "field": self._next()}}
        if word in ("meta", "ct"):
            return {word: self._key()}
        if word == "iifname":
            return {"meta": {"key": word}}
        if word == "(":
            flags = [self._next()]
            while self._is_next("|"):
                flags.append(self._next())
            self._expect(")")
            return {"|": flags}
        return _constant(word)

    def _key(self) -> Item:
        """Return what of a packet or its connection is asked for."""
        if not self._is_next("original"):
            return {"key": self._next()}
        key = self._next()
        return {"key": f"{key} {self._next()}" if key in ("ip", "ip6") else key, "dir": "original"}


def _constant(word: str) -> Any:
    if word[0] == '"':
        return word[1:-1]
    if word.isdigit() or word.startswith("0x"):
        return int(word, 0)
    first, sign, last = word.partition("-")
    if sign:
        return {"range": [_constant(first), _constant(last)]}
    address, slash, length = word.partition("/")
    if slash:
        return {"prefix": {"addr": address, "len": int(length)}}
    if not re.match(r"[@\w.:-]+\Z", word):
        raise ValueError(word)
    return word


__all__ = ("read_items",)
