# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The text that iptables-save prints and iptables-restore reads, parsed without losing a byte. Pure.

One parser serves the live ruleset and the distribution's rules file. A file may be written by hand: blank
lines, comments, ``-I`` lines and long options are understood; what cannot be followed is refused.
"""

import re
from typing import Dict, List, NamedTuple, Optional, Set

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError

BUILT_IN = ("INPUT", "FORWARD", "OUTPUT", "PREROUTING", "POSTROUTING")


TABLES = ("filter", "nat", "mangle", "raw", "security")
"""Every table of iptables."""


class Rule(NamedTuple):
    """A rule of a chain."""

    text: str
    """The rule without ``-A CHAIN``."""
    line: int
    """Index into Document.lines."""
    counters: str
    """``[1:2]``, or ''."""


_COMMAND = re.compile(r"^(\[\d+:\d+\])?\s*(-\S+)\s+(\S+)\s*(.*)$", re.S)

_APPEND, _INSERT, _NEW = ("-A", "--append"), ("-I", "--insert"), ("-N", "--new-chain")

_POLICY = ("-P", "--policy")


class Table:
    """One table: its chains with their rules in the order in which the kernel will hold them."""

    def __init__(self, name: str, header: int) -> None:
        """Take the table's name and the line of its header."""
        self.name = name
        self.header = header
        self.commit = header
        self.complete = False
        self.declared: Set[str] = set()
        self.chains: Dict[str, List[Rule]] = {}
        self.policies: Dict[str, str] = {}
        self.inserts = False

    def rules(self, chain: str) -> List[Rule]:
        """Return the rules of a chain, an empty list where it does not exist."""
        return self.chains.get(chain, [])

    def policy(self, chain: str) -> str:
        """Return ACCEPT or DROP for a built-in chain; one that is not named accepts."""
        return self.policies.get(chain, "ACCEPT")


class Document:
    """A whole save: its lines, ends of line included, and its tables by name.

    A file may hold a table twice; each load of it empties the one before, so the last one counts.
    """

    def __init__(self, lines: List[str], tables: List[Table]) -> None:
        """Take the physical lines and the tables in their order."""
        self.lines = lines
        self.tables = tables

    def table(self, name: str) -> Optional[Table]:
        """Return the table of that name that counts, or None."""
        found = [table for table in self.tables if table.name == name]
        return found[-1] if found else None


def parse(text: str, name: str = "iptables-save") -> Document:
    """Read a save.

    :param text: the whole text; bytes that are not UTF-8 as surrogate escapes.
    :param name: where it came from, for messages.
    :raises HostError: for a line that cannot be followed, with its number.
    """
    lines = _logical_lines(text)
    tables: List[Table] = []
    current: Optional[Table] = None
    for number, line in enumerate(lines):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if stripped.startswith("*"):
            current = Table(stripped[1:].strip(), number)
            tables.append(current)
        elif current is None or current.complete:
            raise _lost(name, number, "stands outside of a table")
        elif stripped == "COMMIT":
            current.commit, current.complete = number, True
        elif stripped.startswith(":"):
            _declare(current, stripped)
        else:
            _command(current, stripped, number, name)
    if current is not None and not current.complete:
        raise _lost(name, current.header, "begins a table that no COMMIT ends")
    return Document(lines, tables)


def _logical_lines(text: str) -> List[str]:
    """Split into lines; a quoted comment may hold a newline, and then the lines belong together."""
    joined: List[str] = []
    open_quote = False
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        if open_quote:
            joined[-1] += line
        else:
            joined.append(line)
        if '"' in line and (open_quote or line.lstrip()[:1] in ("-", "[")):
            open_quote ^= len(re.findall(r'"', re.sub(r"\\.", "", line, flags=re.S))) % 2 == 1
    return joined


def _lost(name: str, number: int, what: str) -> HostError:
    return HostError(
        f"{name}, line {number + 1}: {what}, so it cannot be merged with the knock rules. Write the file in the form that "
        "iptables-save prints."
    )


def _declare(table: Table, text: str) -> None:
    words = text[1:].split()
    table.chains.setdefault(words[0], [])
    if len(words) > 1 and words[1] != "-":
        table.policies[words[0]] = words[1]
    table.declared.add(words[0])


def _command(table: Table, text: str, number: int, name: str) -> None:
    found = _COMMAND.match(text)
    if not found:
        raise _lost(name, number, "is not a rule")
    counters, command, chain, rest = found.groups()
    rules = table.chains.setdefault(chain, [])
    if command in _APPEND:
        rules.append(Rule(rest, number, counters or ""))
    elif command in _INSERT:
        table.inserts = True
        position = re.match(r"^(\d+)(?:\s+|$)", rest)
        index = int(position.group(1)) - 1 if position else 0
        rules.insert(index, Rule(rest[position.end() :] if position else rest, number, counters or ""))
    elif command in _POLICY:
        table.policies[chain] = rest.strip()
    elif command in _NEW:
        table.declared.add(chain)
    else:
        raise _lost(name, number, f"has the command {command}")


__all__ = (
    "BUILT_IN",
    "TABLES",
    "Document",
    "Rule",
    "Table",
    "parse",
)
