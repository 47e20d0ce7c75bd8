# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host in memory with both backends of iptables, alternatives that can be switched, and native rules that iptables cannot print."""

import json
from typing import Any, Dict, List, Optional, Sequence, Set

from fake_host import FakeHost, Output
from fake_iptables import FakeIptables

INCOMPATIBLE = "# Table `{0}' is incompatible, use 'nft' tool.\n"
"""What iptables-nft-save prints, with exit code 0, where a table holds what it does not know (1.8.7 to 1.8.11)."""
CUT_SHORT = "iptables-nft-save v1.8.9 (nf_tables): Parsing nftables rule failed\n"
NAMES = {"ipv4": "iptables", "ipv6": "ip6tables"}


class TwoBackends(FakeHost):
    """``native`` holds IP versions whose filter table iptables-nft cannot print; ``native_nat`` the same for nat.

    ``listing`` is what nft lists, None where it cannot.
    """

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        for name in NAMES.values():
            for backend in ("nft", "legacy"):
                self.rules[name + "-" + backend] = FakeIptables()
                self.tools |= {"{0}-{1}{2}".format(name, backend, tail) for tail in ("", "-save", "-restore")}
            self.rules[name + "-nft"] = self.rules[name]
        self.native: Set[str] = set()
        self.native_nat: Set[str] = set()
        self.cut_short: Set[str] = set()
        self.files["/proc/modules"] = ("nf_tables 1 0 - Live 0x0\n", 0o444)
        self.listing: Optional[List[Dict[str, Any]]] = []
        self.has_nft()

    def has_nft(self, has: bool = True) -> None:
        """Have the command nft, or not."""
        self.tools = self.tools | {"nft"} if has else self.tools - {"nft"}

    def switch(self, backend: str) -> None:
        """Switch the alternatives."""
        self.version = "iptables v1.8.9 ({0})\n".format({"nft": "nf_tables"}.get(backend, backend))
        for name in NAMES.values():
            self.rules[name] = self.rules["{0}-{1}".format(name, backend)]
        for family in ("ip", "ip6"):
            self.files["/proc/net/{0}_tables_names".format(family)] = ("filter\n", 0o444)

    def ours(self) -> Dict[str, List[str]]:
        """Return the lines of ours in each backend and family that holds any."""
        saves = {name: rules.save() for name, rules in self.rules.items() if "-" in name}
        found = {name: [line for line in save.split("\n") if "PORTKNOCK" in line] for name, save in saves.items()}
        return {name: lines for name, lines in found.items() if lines}

    def run(self, words: Sequence[str], data: str = "") -> Output:
        command = words[0].rsplit("/", 1)[1]
        if command == "nft":
            self.commands.append(tuple(words))
            return self._nft(list(words[1:]))
        if command.endswith("-save") and self._talks_to(command) == "nft":
            family = "ipv6" if command.startswith("ip6") else "ipv4"
            if family in self.native:
                return 0, INCOMPATIBLE.format("filter"), ""
            code, out, err = super().run(words, data)
            if family in self.cut_short:
                return 0, out.partition("COMMIT")[0], CUT_SHORT
            return code, out + (INCOMPATIBLE.format("nat") if family in self.native_nat else ""), err
        return super().run(words, data)

    def _talks_to(self, command: str) -> str:
        if "-legacy" in command or "-nft" in command:
            return "legacy" if "-legacy" in command else "nft"
        return "nft" if "nf_tables" in self.version else "legacy"

    def _nft(self, words: List[str]) -> Output:
        """Know what the collection asks nft for: the rules of INPUT, and to delete one by its handle."""
        family = words[-3] if "list" in words else words[2]
        rules = self.rules["ip6tables-nft" if family == "ip6" else "iptables-nft"]
        chain = rules.tables["filter"].chains["INPUT"] if "filter" in rules.tables else []
        if "ruleset" in words:
            return (1, "", "no JSON") if self.listing is None else (0, json.dumps({"nftables": self.listing}), "")
        if words[0] == "delete":
            self._change("nft", *words)
            del chain[int(words[-1]) - 1]
            return 0, "", ""
        listed = []
        for number, text in reversed(list(enumerate(chain, 1))):
            verdict = {"jump": {"target": text.rsplit(" ", 1)[1]}} if " -j PORT" in text else {"accept": None}
            listed.append({"rule": {"handle": number, "expr": [verdict]}})
        return 0, json.dumps({"nftables": listed}), ""
