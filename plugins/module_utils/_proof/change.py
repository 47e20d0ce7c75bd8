# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the prover says of a change, what of it is remembered, and of which text. Pure."""

from typing import Any, Dict, List, NamedTuple, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import (
    BUILT_IN,
    TABLES,
    Document,
)

LIVE, BOOT = "live", "boot"

REMEMBERED = "proved"
"""Under which key it is remembered what was proved."""


class Proven(NamedTuple):
    """What the prover says of a change."""

    words: List[Dict[str, Any]]
    """An entry for each door, IP version and ruleset, as modules return them."""
    findings: Tuple[Finding, ...]
    """What an operator should know of it."""
    remembered: Dict[str, Dict[str, Any]]
    """What is to be remembered of it for later changes; JSON."""


NOTHING_PROVEN = Proven([], (), {})
"""Of a change that leaves no door."""


def canonical(document: Document) -> List[Any]:
    """Return all rules and policies, without what differs in two texts of the same ruleset: counters, and the order of chains."""
    found: List[Any] = []
    for table in filter(None, map(document.table, TABLES)):
        for chain, rules in sorted(table.chains.items()):
            policy = table.policy(chain) if chain in BUILT_IN else ""
            if rules or policy != "ACCEPT":
                found.append([table.name, chain, policy, [rule.text.strip() for rule in rules]])
    return found


__all__ = ("BOOT", "LIVE", "NOTHING_PROVEN", "REMEMBERED", "Proven", "canonical")
