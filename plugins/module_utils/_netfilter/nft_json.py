# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``nft -j list`` prints, read as far as the collection needs it. Pure."""

import json
from typing import Any, Dict, List, Pattern

Item = Dict[str, Any]


def read_listing(text: str) -> List[Item]:
    """Return the objects of a listing, each ``{kind: fields}``; an empty list where it is not one."""
    try:
        return [item for item in json.loads(text)["nftables"] if isinstance(item, dict)]
    except (KeyError, TypeError, ValueError):
        return []


def rules_in(items: List[Item]) -> List[Item]:
    """Return the fields of the rules of a listing."""
    return [item["rule"] for item in items if "rule" in item]


def expressions(rule: Item) -> List[Item]:
    """Return the expressions of a rule."""
    return [each for each in rule.get("expr", ()) if isinstance(each, dict)]


def jumps_in(items: List[Item], names: Pattern[str]) -> List[int]:
    """Return the handles of the rules that jump or go to a chain of some name."""
    return [
        rule["handle"]
        for rule in rules_in(items)
        for each in expressions(rule)
        for verdict in ("jump", "goto")
        if verdict in each and names.match(str((each[verdict] or {}).get("target", "")))
    ]


__all__ = ("Item", "expressions", "jumps_in", "read_listing", "rules_in")
