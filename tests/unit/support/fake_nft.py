# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for the command nft that holds one table, as far as the collection's own texts go."""

import json
from typing import Any, Callable, Dict, List, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._nftables.prove_text import read_items

Item = Dict[str, Any]
FAMILY = {"family": "inet", "table": "portknock"}


class FakeNft:
    """Takes the words of the command; a text is loaded whole or not at all."""

    def __init__(self, version: str = "1.0.6", refuses: str = "") -> None:
        """Take the version that it says it has, and a word that it refuses in a text."""
        self._version, self.refuses = version, refuses
        self.chains: Dict[str, List[str]] = {}
        self.sets: Dict[str, str] = {}
        self.sizes: Dict[str, int] = {}
        self._hooks: Dict[str, Item] = {}
        self._items: Dict[Tuple[str, str], Item] = {}
        self.elements: Dict[str, Dict[str, int]] = {}
        self.exists = False
        self.loaded: List[str] = []
        self.others: Dict[str, List[Dict[str, Any]]] = {}
        """Family and name of tables of others to what is listed of them."""
        self.now: Callable[[], float] = lambda: 0.0
        self._since: Dict[Tuple[str, str], float] = {}

    def forget_all(self) -> None:
        """Be as after a boot."""
        self.chains, self.sets, self.elements, self.exists = {}, {}, {}, False

    def state(self) -> Tuple[Any, ...]:
        """Return the table as it is."""
        return self.exists, self.chains, self.sets, self.elements

    def find(self, name: str) -> str:
        """Return where the command is."""
        return f"/usr/sbin/{name}"

    def run(self, words: Sequence[str], text: str = "") -> Tuple[int, str, str]:
        """Do what the words say."""
        verb = [word for word in words[1:] if word not in ("-s", "-t")]
        if verb == ["--version"]:
            return 0, f"nftables v{self._version} (Some Name)\n", ""
        if verb[:2] == ["-j", "list"]:
            return 0, json.dumps({"nftables": self._listing(*verb[2:])}), ""
        if self.refuses and self.refuses in text:
            return 1, "", self._error(text)
        if "-c" not in verb:
            self.loaded.append(text)
            for line in text.splitlines():
                self._do(line.split(" ", 5), line)
        return 0, "", ""

    def _listed(self, name: str) -> List[Dict[str, Any]]:
        held = self.elements.get(name, {})
        left = {source: int(each - self.now() + self._since[name, source]) for source, each in held.items()}
        self.elements[name] = {source: each for source, each in held.items() if left[source] > 0}
        return [
            {"elem": {"val": source, "timeout": each, "expires": left[source]}}
            for source, each in self.elements[name].items()
        ]

    def _error(self, text: str) -> str:
        number, quoted = next(item for item in enumerate(text.splitlines(), 1) if self.refuses in item[1])
        return f"/dev/stdin:{number}:1-9: Error: Could not process rule: Operation not supported\n{quoted}\n^^^\n"

    def _do(self, words: List[str], line: str) -> None:
        verb, kind, name = words[0], words[1], words[4] if len(words) > 4 else ""
        if kind == "table":
            if verb == "delete":
                self.forget_all()
            else:
                self.exists = True
            if verb == "flush":
                self.chains = {chain: [] for chain in self.chains}
        elif kind == "element":
            self._element(verb, name, words[5])
        elif verb == "delete":
            del (self.chains if kind == "chain" else self.sets)[name]
        elif kind == "chain":
            self.chains.setdefault(name, [])
            self._hooks[name] = (read_items(line) or [{}, {}])[1]
        elif kind == "set" and verb == "flush":
            self.elements.pop(name, None)
        elif kind == "set":
            self.sets[name] = words[5].split(";")[0].replace("{ type ", "")
            self.sizes.setdefault(name, int(words[5].split(" size ")[1].split(";")[0]))
        elif kind == "rule":
            comment = words[5].rsplit(' comment "', 1)[1][:-1]
            self.chains[name].append(comment)
            self._items[name, comment] = (read_items(line) or [{}, {}])[1]

    def _element(self, verb: str, name: str, text: str) -> None:
        held = self.elements.setdefault(name, {})
        for each in text.strip("{} ").split(", "):
            source, _word, seconds = each.partition(" timeout ")
            if verb == "add":
                if source not in held:
                    held[source], self._since[name, source] = int(seconds.rstrip("s") or 0), self.now()
            else:
                del held[source]

    def _listing(self, what: str, *name: str) -> List[Dict[str, Any]]:
        items: List[Dict[str, Any]] = [{"metainfo": {"version": self._version}}]
        if what == "table" and " ".join(name) in self.others:
            return items + self.others[" ".join(name)]
        items += [{"table": {"family": "inet", "name": "portknock"}}] if self.exists else []
        if what == "tables":
            return items + [{"table": dict(zip(("family", "name"), each.split()))} for each in self.others]
        if not self.exists:
            return items
        items += [
            {"set": dict(FAMILY, name=name, type=kind.split(" . "), size=self.sizes[name], elem=self._listed(name))}
            for name, kind in self.sets.items()
        ]
        items += [self._hooks[name] for name in self.chains]
        by_hand = {"rule": dict(FAMILY, chain="", comment="", expr=[])}
        return items + [
            self._items.get((name, comment)) or {"rule": dict(by_hand["rule"], chain=name, comment=comment)}
            for name, comments in self.chains.items()
            for comment in comments
        ]
