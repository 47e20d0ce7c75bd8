# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``nft -j list`` prints: read as far as the collection needs it, and compared with what iptables-save says of it. Pure."""

import json
import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Pattern, Sequence

Item = Dict[str, Any]


class NativeRule(NamedTuple):
    """A rule that iptables does not print as it is."""

    chain: str
    """The chain that it is in."""
    handle: int
    """Its number, which nft -a shows."""


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


_OPTIONS = {
    "ip saddr": "-s", "ip6 saddr": "-s", "ip daddr": "-d", "ip6 daddr": "-d", "ip frag-off": "-f",
    "meta iif": "-i", "meta iifname": "-i", "meta oif": "-o", "meta oifname": "-o",
    "meta l4proto": "-p", "ip protocol": "-p", "ip6 nexthdr": "-p", "tcp flags": "--tcp-flags|--syn", "tcp option": "--tcp-option",
    "icmp type": r"--icmp-type (?!any)\S+", "icmp code": r"--icmp-type (?!any)\S+", "icmpv6 type": "--icmpv6-type",
    "icmpv6 code": "--icmpv6-type", "meta mark": "--mark", "meta pkttype": "--pkt-type", "ip ttl": r"--ttl\S*", "ip6 hoplimit": r"--hl\S*",
    "meta skuid": "--uid-owner", "meta skgid": "--gid-owner", "ct state": "--(ct)?state",
}  # fmt: skip
"""What iptables-nft writes as an expression of nft's own, to how iptables-save prints that."""
_ADDRESSES = ("ip saddr", "ip daddr", "ip6 saddr", "ip6 daddr")


def is_printed(rule: Item, text: Optional[str]) -> bool:
    """Return whether each condition of a rule is in what iptables-save prints of it.

    iptables-save prints a set as no condition at all, a range of addresses as its last one, and leaves out fields it does not know.

    :param text: the printed rule; None where it is not known which one that is, then only what no iptables can print is told.
    """
    matches = [each["match"] for each in expressions(rule) if isinstance(each.get("match"), dict)]
    return all(_is_match_printed(match, text) for match in matches)


def _is_match_printed(match: Item, text: Optional[str]) -> bool:
    field, right = field_of(match.get("left")), match.get("right")
    if isinstance(right, dict) and ("set" in right or (field in _ADDRESSES and "range" in right)):
        return False
    if isinstance(right, str) and right.startswith("@"):
        return False
    if text is None:
        return True
    word = field.rpartition(" ")[2] or "no such field"
    option = _OPTIONS.get(field) or (f"--{word}" if word in ("sport", "dport") else rf"--\S*{re.escape(word)}\S*")
    return bool(re.search(f"(^| )({option})( |$)", text))


def first_unprinted(
    items: Sequence[Item], family: str, table: str, printed: Callable[[], Dict[str, List[str]]]
) -> Optional[NativeRule]:
    """Return the first rule of a table that iptables-save does not print as it is, or None.

    :param items: a listing.
    :param family: as nft names it, ``ip`` or ``ip6``.
    :param printed: returns what iptables-save prints of the table, chain to rules; called only where that must be compared.
    """
    listed: Dict[str, List[Item]] = {}
    for rule in rules_in(items, family, table):
        listed.setdefault(rule["chain"], []).append(rule)
    for name, rules in listed.items():
        if all(map(_is_plain, rules)):
            continue
        texts: List[Optional[str]] = list(printed().get(name, ()))
        if len(texts) != len(rules):
            # Others have changed the chain between the two looks, or it is one that iptables-save leaves out.
            texts = [None] * len(rules) if name in printed() else []
        for rule, text in zip(rules, texts):
            if not is_printed(rule, text):
                return NativeRule(name, rule["handle"])
    return None


_PLAIN = frozenset((
    "ip saddr", "ip6 saddr", "ip daddr", "ip6 daddr", "ip frag-off", "meta iif", "meta iifname", "meta oif", "meta oifname",
    "meta l4proto", "ip protocol", "ip6 nexthdr", "tcp flags", "tcp sport", "tcp dport", "udp sport", "udp dport", "meta mark",
))  # fmt: skip
"""What every iptables-nft prints as it is."""


def _is_plain(rule: Item) -> bool:
    """Return whether every iptables-nft prints a rule as it is."""
    matches = [each["match"] for each in expressions(rule) if isinstance(each.get("match"), dict)]
    return is_printed(rule, None) and all(field_of(match.get("left")) in _PLAIN for match in matches)


_NATIVE = frozenset(("vmap", "map", "meter", "ct count", "set", "quota", "reject", "queue", "fib", "mangle"))


def first_native(items: Sequence[Item], family: str, table: str) -> Optional[NativeRule]:
    """Return the first rule of a table that iptables does not write, None where none is known as such."""
    for rule in rules_in(items, family, table):
        parts = expressions(rule)
        if any(_NATIVE & set(each) for each in parts) or not is_printed(rule, None) or any(map(_is_native, parts)):
            return NativeRule(rule["chain"], rule["handle"])
    return None


def _is_native(part: Item) -> bool:
    """Return whether an expression is one that iptables writes with an extension of its own."""
    match = part.get("match")
    if isinstance(match, dict):
        return field_of(match.get("left")) not in _OPTIONS and not field_of(match.get("left")).endswith(
            ("sport", "dport")
        )
    return "log" in part and "group" not in (part["log"] or {})


__all__ = (
    "Item",
    "NativeRule",
    "expressions",
    "field_of",
    "first_native",
    "first_unprinted",
    "jumps_in",
    "read_listing",
    "rules_in",
)
