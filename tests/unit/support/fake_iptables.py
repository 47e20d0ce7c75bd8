# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""iptables-restore and iptables-save without a kernel, as strict as the real ones.

What it refuses was measured on 1.8.7, 1.8.9 and 1.8.11, nft and legacy. It takes only what our texts
hold, so a text that strays is refused as well.
"""

import copy
import re
from typing import Dict, List, Optional

BUILT_IN = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "raw": ("PREROUTING", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}
TARGETS = frozenset(
    "ACCEPT DROP REJECT RETURN LOG NFLOG MARK CONNMARK QUEUE NFQUEUE TPROXY DNAT SNAT MASQUERADE REDIRECT SET TRACE "
    "CT NOTRACK TCPMSS TARPIT CHECKSUM TEE".split()
)
NAME_LIMIT = 28


_EMPTY_NAT = re.compile(
    r"^(?:# This table was added .*\n|# Generated .*\n)?\*nat\n(?::[A-Z]+ ACCEPT .*\n)*COMMIT\n(?:# Completed .*\n)?",
    re.M,
)
"""Loading rules of ours makes the table, which cannot be removed."""


def without_empty_nat(save: str) -> str:
    """Return a save without table nat, if no rule is in it."""
    return _EMPTY_NAT.sub("", save)


class Refused(Exception):
    """What the real one says, with its line."""


class FakeTable:
    """Chains with their rules, and policies of the built-in ones."""

    def __init__(self, name: str) -> None:
        self.chains: Dict[str, List[str]] = {chain: [] for chain in BUILT_IN[name]}
        self.policies = dict.fromkeys(BUILT_IN[name], "ACCEPT")

    def target(self, text: str) -> str:
        found = re.search(r"(?:^| )-[jg] (\S+)", re.sub(r'"(?:\\.|[^"\\])*"', '""', text))
        return found.group(1) if found else ""

    def referenced(self, chain: str) -> bool:
        return any(self.target(text) == chain for rules in self.chains.values() for text in rules)


class FakeIptables:
    """The ruleset of one family."""

    def __init__(self, save: str = "") -> None:
        self.tables: Dict[str, FakeTable] = {}
        if save:
            self.restore(save, noflush=False)

    def restore(self, text: str, noflush: bool = True, test: bool = False) -> None:
        """Load a text whole or not at all."""
        tables = copy.deepcopy(self.tables)
        table: Optional[FakeTable] = None
        complete = True
        for number, line in enumerate(text.split("\n"), 1):
            if not line or line.startswith("#"):
                continue
            try:
                if line.startswith("*"):
                    assert complete, "a table begins inside of another"
                    if not noflush or line[1:] not in tables:
                        tables[line[1:]] = FakeTable(line[1:])
                    table, complete = tables[line[1:]], False
                elif line == "COMMIT":
                    assert not complete, "COMMIT outside of a table"
                    complete = True
                else:
                    assert table and not complete, "outside of a table"
                    self._line(table, line)
            except AssertionError as error:
                raise Refused("iptables-restore: line {0} failed: {1} ({2})".format(number, error, line)) from error
        if not complete:
            raise Refused("iptables-restore: COMMIT expected at line {0}".format(number))
        if not text.endswith("\n"):
            raise Refused("iptables-restore: Bad argument `COMMIT'")
        if not test:
            self.tables = tables

    def _line(self, table: FakeTable, line: str) -> None:
        if line.startswith(":"):
            name, policy = line[1:].split()[:2]
            assert len(name) <= NAME_LIMIT, "chain name too long"
            table.chains[name] = table.chains.get(name, []) if name in table.policies else []
            if name in table.policies:
                if policy != "-":
                    table.policies[name] = policy
            else:
                assert policy == "-", "policy of a user-defined chain"
            return
        line = re.sub(r"^\[\d+:\d+\] ", "", line)
        found = re.match(r"^-([AIDX]) (\S+)(?: (.*))?$", line, re.S)
        assert found, "not understood"
        command, chain, rest = found.groups()
        assert chain in table.chains, "no chain of that name"
        getattr(self, "_" + command)(table, chain, rest or "")

    def _check_rule(self, table: FakeTable, text: str) -> None:
        target = table.target(text)
        assert not target or target in table.chains or target in TARGETS, "no chain or target {0}".format(target)
        assert target not in table.policies, "jump to a built-in chain"
        if re.search(r"(--dports?|--sports?|--tcp-flags) ", text):
            assert re.search(r"(^| )-p (tcp|udp|sctp|6|17)\b", text), "ports without a protocol"
        for ports in re.findall(r"--dports (\S+)", text):
            assert sum(2 if ":" in item else 1 for item in ports.split(",")) <= 15, "too many ports"

    def _A(self, table: FakeTable, chain: str, text: str) -> None:
        self._check_rule(table, text)
        table.chains[chain].append(text.rstrip())

    def _I(self, table: FakeTable, chain: str, text: str) -> None:
        found = re.match(r"^(\d+)(?: |$)", text)
        place, rule = (int(found.group(1)), text[found.end() :]) if found else (1, text)
        assert 1 <= place <= len(table.chains[chain]) + 1, "index of insertion too big"
        self._check_rule(table, rule)
        table.chains[chain].insert(place - 1, rule.rstrip())

    def _D(self, table: FakeTable, chain: str, text: str) -> None:
        assert text.rstrip() in table.chains[chain], "does a matching rule exist in that chain?"
        table.chains[chain].remove(text.rstrip())

    def _X(self, table: FakeTable, chain: str, text: str) -> None:
        assert not text and chain not in table.policies, "built-in chain"
        assert not table.chains[chain], "directory not empty"
        assert not table.referenced(chain), "device or resource busy"
        del table.chains[chain]

    def without(self, mark: str) -> None:
        """Take every rule out that holds a text, as the firewall does that wrote them."""
        for table in self.tables.values():
            for chain, rules in table.chains.items():
                table.chains[chain] = [rule for rule in rules if mark not in rule]

    def save(self) -> str:
        """Print all tables."""
        lines = []
        for name, table in self.tables.items():
            lines += ["# Generated by iptables-save v1.8.9 (nf_tables) on Mon Nov  2 10:00:00 2026", "*" + name]
            lines += [":{0} {1} [0:0]".format(chain, table.policies.get(chain, "-")) for chain in table.chains]
            lines += ["-A {0} {1}".format(chain, text) for chain, rules in table.chains.items() for text in rules]
            lines += ["COMMIT", "# Completed on Mon Nov  2 10:00:00 2026"]
        return "\n".join(lines + [""]) if lines else ""
