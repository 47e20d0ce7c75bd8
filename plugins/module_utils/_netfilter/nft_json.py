# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``nft -j list`` prints: read as far as the collection needs it. Pure."""

import json
from typing import Any, Dict, List, Optional, Pattern, Sequence

Item = Dict[str, Any]


def read_listing(text: str) -> Optional[List[Item]]:
    """Return the objects of a listing, each ``{kind: fields}``, None where the text is not one."""
    try:
        return [item for item in json.loads(text)["nftables"] if isinstance(item, dict)]
    except (KeyError, TypeError, ValueError):
        return None


def rules_in(items: Sequence[Item], family: str = "", table: str = "") -> List[Item]:
    """Return the fields of the rules of a listing, of all tables or of one."""
    rules = [item["rule"] for item in items if "rule" in item]
    return [rule for rule in rules if not table or (rule.get("family"), rule.get("table")) == (family, table)]


def expressions(rule: Item) -> List[Item]:
    """Return the expressions of a rule."""
    return [each for each in rule.get("expr", ()) if isinstance(each, dict)]


def jumps_in(items: Sequence[Item], names: Pattern[str]) -> List[int]:
    """Return the handles of the rules that jump or go to a chain of some name."""
    return [
        rule["handle"]
        for rule in rules_in(items)
        for each in expressions(rule)
        for verdict in ("jump", "goto")
        if verdict in each and names.match(str((each[verdict] or {}).get("target", "")))
    ]


def field_of(left: Any) -> str:
    """Return what a match looks at, as ``tcp dport`` or ``meta iifname``; '' where that is no single field."""
    if isinstance(left, dict) and isinstance(left.get("&"), list):
        return field_of(left["&"][0])
    if not isinstance(left, dict) or len(left) != 1:
        return ""
    kind, what = next(iter(left.items()))
    if isinstance(what, str):
        return f"{kind} {what}"
    if not isinstance(what, dict):
        return ""
    if kind == "payload" and "field" in what:
        return f"{what.get('protocol')} {what['field']}"
    return f"{kind} {what['key']}" if "key" in what else ""


__all__ = ("Item", "expressions", "field_of", "jumps_in", "read_listing", "rules_in")
