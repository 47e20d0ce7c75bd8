# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The same plan on the distribution's rules file: the collection's lines come and go, every other byte stays. Pure."""

import re
from typing import Callable, Dict, List, Optional, Sequence, Set

from ansible_collections.sesame.portknock.plugins.module_utils._foreign.input_rules import ForeignRules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import BuiltRules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.hooks import wanted_state
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import (
    ABSENT,
    Hook,
    State,
    around,
    read_state,
    same_state,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.undo import state_before
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import (
    DOCKER,
    FILTER,
    NAT,
    POSTROUTING,
    PREROUTING,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import (
    Document,
    Rule,
    Table,
    parse,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Spec
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import (
    HOOKED,
    TABLES,
    foreign_rules,
    is_own_chain,
    is_own_rule,
)

MADE_HERE = "# This table was added by sesame.portknock and goes with its rules.\n"
_BUILT_IN = {FILTER: ("INPUT", "FORWARD", "OUTPUT"), NAT: (PREROUTING, "INPUT", "OUTPUT", POSTROUTING)}


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
    now = read_state(document)
    then = ABSENT if built is None or spec is None else wanted_state(built, ForeignRules(document, spec), now)
    if same_state(now, then) and not any(_is_untidy(document, table) for table in TABLES):
        return text
    return _rewritten(document, then, name)


def file_before(text: str, before: str, name: str) -> str:
    """Return a file's text with the collection's rules as they were before a change, and everything else as it is.

    :param text: the file's text, to which others have saved a ruleset meanwhile.
    :param before: its text before the change.
    :param name: the file's path, for messages.
    :raises HostError: if one of them cannot be followed.
    """
    document = parse(text, name)
    then = state_before(before, document)
    if same_state(read_state(document), then):
        return text
    return _rewritten(document, then if document.table(FILTER) else ABSENT, name)


def _rewritten(document: Document, then: State, name: str) -> str:
    """Return the text of a document with the given rules of the collection in the place of those that it has."""
    missing = [each for each in TABLES if document.table(each) is None and then.of_table(each) != ABSENT]
    if missing:
        block = "".join([MADE_HERE, *_frame(missing[0]), "COMMIT\n"])
        text = "".join(document.lines)
        # The filter in front, and nat behind all others: a kernel without it has loaded the rest by then.
        behind = missing[0] == NAT and text.endswith("\n")
        return _rewritten(parse(text + block if behind else block + text, name), then, name)
    lines = _kept_lines(document)
    before: Dict[int, List[str]] = {}
    for table in filter(None, map(document.table, TABLES)):
        wanted = then.of_table(table.name)
        if wanted == ABSENT:
            _drop_frame(document, table, lines)
        else:
            _put_own(table, wanted, lines, before)
    return "".join(part for number, line in enumerate(lines) for part in before.get(number, []) + [line])


def _frame(table: str) -> List[str]:
    """Return the lines of a table without rules, but for its end."""
    return [f"*{table}\n"] + [f":{chain} ACCEPT [0:0]\n" for chain in _BUILT_IN[table]]


def _tables(document: Document, name: str) -> List[Table]:
    """Return every table of a name; only the last one counts, but no rule of the collection may stay in the others."""
    return [table for table in document.tables if table.name == name]


def _own_lines(table: Table) -> Set[int]:
    return {rule.line for chain, rules in table.chains.items() for rule in rules if is_own_rule(chain, rule.text)}


def _is_untidy(document: Document, name: str) -> bool:
    """Return whether a chain of the collection is used but not declared, so that the file cannot load, or rules of the
    collection stand in a table that does not count."""
    *others, table = _tables(document, name) or [Table(name, 0)]
    undeclared = set(table.chains) - table.declared
    return any(is_own_chain(name, chain) for chain in undeclared) or any(
        _own_lines(other) or any(is_own_chain(name, chain) for chain in other.chains) for other in others
    )


_DECLARATION = re.compile(r"\s*(?::|(?:-N|--new-chain)\s+)(\S+)")


def _kept_lines(document: Document) -> List[str]:
    """Return the document's lines by number, those of the collection emptied."""
    lines = list(document.lines)
    for table in (each for each in document.tables if each.name in TABLES):
        ours, docker_goes = _own_lines(table), _docker_goes(table)
        for number in range(table.header + 1, table.commit):
            declared = _DECLARATION.match(lines[number])
            chain = declared.group(1) if declared else ""
            if number in ours or (chain == DOCKER and docker_goes) or is_own_chain(table.name, chain):
                lines[number] = ""
    return lines


def _docker_goes(table: Table) -> bool:
    """Return whether chain DOCKER-USER is in a table for our hook alone."""
    hooked = table.name == FILTER and any(is_own_rule(DOCKER, rule.text) for rule in table.rules(DOCKER))
    return hooked and not around(Document([], [table])).docker_is_used


def _drop_frame(document: Document, table: Table, lines: List[str]) -> None:
    """Empty the lines of a table that was made for the collection's rules, if nothing else is in it."""
    inside = [line for line in lines[table.header : table.commit] if line]
    made_here = table.header > 0 and document.lines[table.header - 1] == MADE_HERE
    if made_here and inside == _frame(table.name):
        for number in range(table.header - 1, table.commit + 1):
            lines[number] = ""


def _put_own(table: Table, then: State, lines: List[str], before: Dict[int, List[str]]) -> None:
    """Put the collection's rules for a table in front of those lines of the document that they belong to."""

    def put(number: int, text: str) -> None:
        before.setdefault(number, []).append(text + "\n")

    declared = _end_of_declarations(table, lines)
    makes_docker = then.hooks_of(DOCKER) and (DOCKER not in table.declared or _docker_goes(table))
    for name in [*then.chains, *([DOCKER] if makes_docker else [])]:
        put(declared + 1, f":{name} - [0:0]")
    appended = [
        line for chain in HOOKED for line in _put_hooks(put, then.hooks_of(chain), table, foreign_rules(table, chain))
    ]
    for name, rules in then.chains.items():
        for text in rules:
            put(table.commit, f"-A {name} {text}")
    for text in appended:
        put(table.commit, text)


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
    put: Callable[[int, str], None], hooks: Sequence[Hook], table: Table, foreign: Sequence[Rule]
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
