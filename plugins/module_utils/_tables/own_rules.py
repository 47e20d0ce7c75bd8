# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which rules and chains of iptables' tables are the collection's, and which are foreign. Pure."""

from typing import Dict, List, Optional, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import (
    CHAIN,
    FILTER,
    NAT,
    POSTROUTING,
    PREROUTING,
    SENT_ON,
    table_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.rule_text import options
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document, Rule, Table

INPUT = "INPUT"

HOOKED = (INPUT, *SENT_ON, PREROUTING, POSTROUTING)
"""The chains that may have hooks, in their order."""

TABLES = (FILTER, NAT)
"""The tables that hold rules of the collection. Each is loaded in one step of its own."""


def is_own_rule(chain: str, text: str) -> bool:
    """Return whether a rule is the collection's: it is in one of its chains, or hooks one into another."""
    return bool(CHAIN.match(chain)) or (chain in HOOKED and _is_hook(text))


def _is_hook(text: str) -> bool:
    if "PORTKNOCK" not in text and "portknock:" not in text:
        return False
    return any(
        option in ("-j", "-g") and values and CHAIN.match(values[0]) for option, values, _negated in options(text)
    )


def foreign_rules(table: Optional[Table], chain: str = INPUT) -> List[Rule]:
    """Return the rules of a chain that are not the collection's, in their order."""
    return [rule for rule in table.rules(chain) if not is_own_rule(chain, rule.text)] if table else []


def foreign_in(document: Document, chain: str) -> List[Rule]:
    """Return the foreign rules of a chain that may have hooks, in their order."""
    return foreign_rules(document.table(table_of(chain)), chain)


def foreign_texts(document: Document) -> Dict[str, Tuple[str, ...]]:
    """Return each chain that may have hooks to the texts of its foreign rules."""
    return {chain: tuple(rule.text.rstrip() for rule in foreign_in(document, chain)) for chain in HOOKED}


def without_own(document: Document) -> Document:
    """Return the Document of a ruleset as it is without the collection's rules."""
    return Document(document.lines, [_without_own(table) for table in document.tables])


def _without_own(table: Table) -> Table:
    found = Table(table.name, table.header)
    found.policies = table.policies
    for name, rules in table.chains.items():
        if not is_own_chain(table.name, name):
            hooked = table_of(name) == table.name
            found.chains[name] = [rule for rule in rules if not (hooked and is_own_rule(name, rule.text))]
    return found


def is_own_chain(table: str, chain: str) -> bool:
    """Return whether a chain of a table is the collection's."""
    return bool(CHAIN.match(chain)) and table_of(chain) == table


__all__ = (
    "HOOKED",
    "INPUT",
    "TABLES",
    "foreign_in",
    "foreign_rules",
    "foreign_texts",
    "is_own_chain",
    "is_own_rule",
    "without_own",
)
