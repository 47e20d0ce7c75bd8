# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The same plan on the distribution's rules file: the collection's lines come and go, every other byte stays. Pure."""

import re
from typing import Callable, Dict, List, Optional, Sequence, Set

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import BuiltRules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.chains import DOCKER
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.hooks import ForeignRules, wanted_state
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import (
    ABSENT,
    HOOKED,
    Hook,
    State,
    around,
    foreign_rules,
    is_own_rule,
    read_state,
    same_state,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.undo import state_before
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import (
    Document,
    Rule,
    Table,
    parse,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Spec

MADE_HERE = "# This table was added by sesame.portknock and goes with its rules.\n"
_FRAME = ("*filter\n", ":INPUT ACCEPT [0:0]\n", ":FORWARD ACCEPT [0:0]\n", ":OUTPUT ACCEPT [0:0]\n")


def merged_file(text: str, built: Optional[BuiltRules], spec: Optional[Spec], name: str) -> str:
    """Return the file's text with the collection's rules, or without any where ``built`` is None.

    A file that needs nothing comes back as it was, to the byte.

    :param text: the file's text, '' where there is none.
    :param built: the rules of the Spec for the file's family, or None.
    :param name: the file's path, for messages.
    :raises HostError: if the file holds what cannot be followed.
    """
    if built is None and "PORTKNOCK" not in text and MADE_HERE not in text:
        # Whatever else it is: there is nothing of ours in it.
        return text
    document = parse(text, name)
    table = document.table("filter")
    now = read_state(table)
    then = ABSENT if built is None or spec is None else wanted_state(built, ForeignRules(document, spec), now)
    if same_state(now, then) and not _is_untidy(document, table):
        return text
    if built is None:
        return "".join(_without_own(document, table))
    if table is None:
        block = MADE_HERE + "".join(_FRAME) + "COMMIT\n"
        return merged_file(block + text, built, spec, name)
    return "".join(_with_own(document, table, then))


def file_before(text: str, before: str, name: str) -> str:
    """Return a file's text with the collection's rules as they were before a change, and everything else as it is.

    :param text: the file's text, to which others have saved a ruleset meanwhile.
    :param before: its text before the change.
    :param name: the file's path, for messages.
    :raises HostError: if one of them cannot be followed.
    """
    document = parse(text, name)
    table = document.table("filter")
    then = state_before(before, table)
    if same_state(read_state(table), then):
        return text
    lines = _without_own(document, table) if table is None or then == ABSENT else _with_own(document, table, then)
    return "".join(lines)


def _filter_tables(document: Document) -> List[Table]:
    """Return every filter table of a file; only the last one counts, but no rule of the collection may stay in the others."""
    return [table for table in document.tables if table.name == "filter"]


def _own_lines(table: Table) -> Set[int]:
    return {rule.line for chain, rules in table.chains.items() for rule in rules if is_own_rule(chain, rule.text)}


def _is_untidy(document: Document, table: Optional[Table]) -> bool:
    """Return whether a chain of the collection is used but not declared, so that the file cannot load, or rules of the
    collection stand in a table that does not count."""
    undeclared = set(table.chains) - table.declared if table else set()
    return any(is_own_rule(chain, "") for chain in undeclared) or any(
        _own_lines(other) or any(is_own_rule(chain, "") for chain in other.chains)
        for other in _filter_tables(document)[:-1]
    )


_DECLARATION = re.compile(r"\s*(?::|(?:-N|--new-chain)\s+)(\S+)")


def _is_declaration(line: str) -> bool:
    found = _DECLARATION.match(line)
    return found is not None and is_own_rule(found.group(1), "")


def _kept_lines(document: Document) -> List[str]:
    """Return the document's lines by number, those of the collection emptied."""
    lines = list(document.lines)
    for table in _filter_tables(document):
        ours, docker_goes = _own_lines(table), _docker_goes(table)
        for number in range(table.header + 1, table.commit):
            declared = _DECLARATION.match(lines[number])
            made_here = declared is not None and declared.group(1) == DOCKER and docker_goes
            if number in ours or made_here or _is_declaration(lines[number]):
                lines[number] = ""
    return lines


def _docker_goes(table: Table) -> bool:
    """Return whether chain DOCKER-USER is in a table for our hook alone."""
    hooked = any(is_own_rule(DOCKER, rule.text) for rule in table.rules(DOCKER))
    return hooked and not around(table).docker_is_used


def _without_own(document: Document, table: Optional[Table]) -> List[str]:
    lines = _kept_lines(document)
    if table is None:
        return lines
    inside = [line for line in lines[table.header : table.commit] if line]
    made_here = table.header > 0 and document.lines[table.header - 1] == MADE_HERE
    if made_here and inside == list(_FRAME):
        lines[table.header - 1 : table.commit + 1] = []
    return lines


def _with_own(document: Document, table: Table, then: State) -> List[str]:
    lines = _kept_lines(document)
    before: Dict[int, List[str]] = {}

    def put(number: int, text: str) -> None:
        before.setdefault(number, []).append(text + "\n")

    declared = _end_of_declarations(table, lines)
    makes_docker = then.hooks_of(DOCKER) and (DOCKER not in table.declared or _docker_goes(table))
    for name in [*then.chains, *([DOCKER] if makes_docker else [])]:
        put(declared + 1, f":{name} - [0:0]")
    appended = [
        line for chain in HOOKED for line in _put_hooks(put, table, then.hooks_of(chain), foreign_rules(table, chain))
    ]
    for name, rules in then.chains.items():
        for text in rules:
            put(table.commit, f"-A {name} {text}")
    for text in appended:
        put(table.commit, text)
    return [part for number, line in enumerate(lines) for part in before.get(number, []) + [line]]


def _end_of_declarations(table: Table, lines: List[str]) -> int:
    """Return the number of the line behind which the collection's chains are declared: before any rule can name them."""
    declared = table.header
    for number in range(table.header + 1, table.commit):
        start = lines[number].lstrip()[:1]
        if start == ":":
            declared = number
        elif start in ("-", "["):
            break
    return declared


def _put_hooks(
    put: Callable[[int, str], None], table: Table, hooks: Sequence[Hook], foreign: Sequence[Rule]
) -> List[str]:
    """Put each hook in front of the foreign rule it belongs to; return the lines that go to the end.

    Where the file inserts rules, lines do not stand in the kernel's order: then the hooks are inserted by
    number after all others.
    """
    appended = []
    for number, hook in enumerate(hooks):
        if hook.position >= len(foreign):
            appended.append(f"-A {hook.chain} {hook.text}")
        elif table.inserts:
            appended.append(f"-I {hook.chain} {hook.position + number + 1} {hook.text}")
        else:
            put(foreign[hook.position].line, f"-A {hook.chain} {hook.text}")
    return appended


__all__ = ("MADE_HERE", "file_before", "merged_file")
