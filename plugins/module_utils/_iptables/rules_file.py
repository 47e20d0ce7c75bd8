# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""The same plan on the distribution's rules file: our lines come and go, every other byte stays. Pure."""

import re

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.hooks import Ground, wanted_state
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import (
    ABSENT,
    foreign_rules,
    is_ours,
    read_state,
    same_state,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse

MADE_HERE = "# This table was added by sesame.portknock and goes with its rules.\n"
_FRAME = ("*filter\n", ":INPUT ACCEPT [0:0]\n", ":FORWARD ACCEPT [0:0]\n", ":OUTPUT ACCEPT [0:0]\n")


def merged_file(text, own, spec, name):
    """Return the file's text with our rules as ``own`` has them, or without any where ``own`` is None.

    A file that needs nothing comes back as it was, to the byte.

    :param text: the file's text, '' where there is none.
    :param own: the Own of the Spec for the file's family, or None.
    :param name: the file's path, for messages.
    :raises HostError: if the file holds what cannot be followed.
    """
    document = parse(text, name)
    table = document.table("filter")
    now = read_state(table)
    then = ABSENT if own is None else wanted_state(own, Ground(document, spec), now)
    if same_state(now, then) and not _is_untidy(document, table):
        return text
    if own is None:
        return "".join(_without_ours(document, table))
    if table is None:
        block = MADE_HERE + "".join(_FRAME) + "COMMIT\n"
        return merged_file(block + text, own, spec, name)
    return "".join(_with_ours(document, table, then))


def _filter_tables(document):
    """Return every filter table of a file; only the last one counts, but ours must not be left in the others."""
    return [table for table in document.tables if table.name == "filter"]


def _our_lines(table):
    return {rule.line for chain, rules in table.chains.items() for rule in rules if is_ours(chain, rule.text)}


def _is_untidy(document, table):
    """Tell whether a chain of ours is used but not declared, so that the file cannot load, or ours stand in a table that
    does not count."""
    return any(is_ours(chain, "") and chain not in table.declared for chain in (table.chains if table else ())) or any(
        _our_lines(other) or any(is_ours(chain, "") for chain in other.chains)
        for other in _filter_tables(document)[:-1]
    )


_DECLARATION = re.compile(r"\s*(?::|(?:-N|--new-chain)\s+)(\S+)")


def _is_declaration(line):
    found = _DECLARATION.match(line)
    return bool(found) and is_ours(found.group(1), "")


def _kept_lines(document):
    """Return the document's lines by number, ours emptied."""
    lines = list(document.lines)
    for table in _filter_tables(document):
        ours = _our_lines(table)
        for number in range(table.header + 1, table.commit):
            if number in ours or _is_declaration(lines[number]):
                lines[number] = ""
    return lines


def _without_ours(document, table):
    lines = _kept_lines(document)
    inside = [line for line in lines[table.header : table.commit] if line]
    made_here = table.header > 0 and document.lines[table.header - 1] == MADE_HERE
    if made_here and inside == list(_FRAME):
        lines[table.header - 1 : table.commit + 1] = []
    return lines


def _with_ours(document, table, then):
    lines = _kept_lines(document)
    before = {}

    def put(number, text):
        before.setdefault(number, []).append(text + "\n")

    foreign = foreign_rules(table)
    declared = _end_of_declarations(table, lines)
    for name in then.chains:
        put(declared + 1, ":{0} - [0:0]".format(name))
    appended = _place_hooks(put, table, then.hooks, foreign)
    for name, rules in then.chains.items():
        for text in rules:
            put(table.commit, "-A {0} {1}".format(name, text))
    for text in appended:
        put(table.commit, text)
    return [part for number, line in enumerate(lines) for part in before.get(number, []) + [line]]


def _end_of_declarations(table, lines):
    """Return the number of the line behind which our chains are declared: before any rule can name them."""
    declared = table.header
    for number in range(table.header + 1, table.commit):
        start = lines[number].lstrip()[:1]
        if start == ":":
            declared = number
        elif start in ("-", "["):
            break
    return declared


def _place_hooks(put, table, hooks, foreign):
    """Put each hook in front of the foreign rule it belongs to; return the lines that go to the end.

    Where the file inserts rules, lines do not stand in the kernel's order: then the hooks are inserted by
    number after all others.
    """
    appended = []
    for number, hook in enumerate(hooks):
        if hook.place >= len(foreign):
            appended.append("-A INPUT " + hook.text)
        elif table.inserts:
            appended.append("-I INPUT {0} {1}".format(hook.place + number + 1, hook.text))
        else:
            put(foreign[hook.place].line, "-A INPUT " + hook.text)
    return appended


__all__ = ("MADE_HERE", "merged_file")
