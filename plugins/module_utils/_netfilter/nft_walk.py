# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the chains of nftables beside iptables do to new packets from a stranger, as far as that is known. Pure.

A condition that the ruleset alone does not decide makes what follows it possible, not certain. A stranger's address is in no set and
no network that a rule names.
"""

from operator import ge, gt, le, lt
from typing import Any, Callable, Dict, FrozenSet, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import (
    Item,
    expressions,
    field_of,
    rules_in,
)

ACCEPTED, DROPPED, POLICY_DROPPED, SENT_ELSEWHERE = "accepted", "dropped", "dropped by policy", "sent elsewhere"
UNTRACKED = "not tracked"
"""Beside another outcome: connection tracking does not see the packet."""
_GOES_ON, _RETURNS = "goes on", "returns"

_DEPTH = 16
"""The kernel follows no more jumps."""
_ELSEWHERE = ("dnat", "redirect", "tproxy", "queue")
_DOUBTFUL = ("limit", "quota", "meter", "ct count")
_NUMBERS = {6: "tcp", 17: "udp", "6": "tcp", "17": "udp"}
_ORDER: Dict[Any, Callable[[Any, Any], bool]] = {"<": lt, ">": gt, "<=": le, ">=": ge}
_STRANGER = object()
"""The value of an address that no rule names."""

Outcomes = FrozenSet[str]
"""What may become of a packet; certain where it is one."""


class NewPacket(NamedTuple):
    """A packet that begins a connection from outside, or a knock."""

    family: str
    """``ip`` or ``ip6``."""
    protocol: str
    """``tcp`` or ``udp``."""
    port: int
    """The port that it is sent to."""


class BaseChain(NamedTuple):
    """A chain that packets come to from the network."""

    family: str
    """Of its table, as nft names it."""
    table: str
    """The name of its table."""
    name: str
    """Its name."""
    policy: str
    """``accept`` or ``drop``."""


class _Unknown(Exception):
    """A condition of which it is not known whether it holds."""


_FAMILIES = {"ip": ("ip",), "ip6": ("ip6",), "inet": ("ip", "ip6"), "netdev": ("ip", "ip6")}


def base_chains(items: Sequence[Item]) -> List[BaseChain]:
    """Return the chains of a listing that see packets to this host before they are delivered."""
    chains = [item["chain"] for item in items if isinstance(item.get("chain"), dict)]
    return [
        BaseChain(chain["family"], chain["table"], chain["name"], chain.get("policy", "accept"))
        for chain in chains
        if chain.get("hook") in ("input", "prerouting", "ingress") and chain.get("family") in _FAMILIES
    ]


def families_of(chain: BaseChain) -> Tuple[str, ...]:
    """Return the IP versions, as nft names them, of which a chain sees packets."""
    return _FAMILIES[chain.family]


class NftWalker:
    """Follows packets through the chains of one table."""

    def __init__(self, items: Sequence[Item], chain: BaseChain) -> None:
        """Take a listing, and the chain that the packets come to."""
        self._base = chain
        self._chains: Dict[str, List[Item]] = {}
        for rule in rules_in(items, chain.family, chain.table):
            self._chains.setdefault(rule["chain"], []).append(rule)
        self._sets: Dict[str, List[Any]] = {}
        for item in items:
            named = item.get("set") or item.get("map") or {}
            if (named.get("family"), named.get("table")) == (chain.family, chain.table):
                self._sets[named["name"]] = named.get("elem") or []

    def outcomes(self, packet: NewPacket) -> Outcomes:
        """Return what may become of a packet in the chain."""
        found = self._chain(self._base.name, packet, 0)
        if found & {_GOES_ON, _RETURNS}:
            found = found - {_GOES_ON, _RETURNS} | {POLICY_DROPPED if self._base.policy == "drop" else ACCEPTED}
        return found

    def _chain(self, name: str, packet: NewPacket, depth: int) -> Outcomes:
        found: Outcomes = frozenset()
        for rule in self._chains.get(name, ()) if depth < _DEPTH else ():
            got = self._rule(expressions(rule), packet, depth)
            found |= got - {_GOES_ON}
            if _GOES_ON not in got:
                return found
        return found | {_GOES_ON}

    def _rule(self, parts: List[Item], packet: NewPacket, depth: int) -> Outcomes:
        certain = True
        for part in parts:
            holds = self._holds(part, packet)
            if holds is False:
                return frozenset((_GOES_ON,))
            certain = certain and holds is True
            if "notrack" in part and certain:
                return frozenset((UNTRACKED, _GOES_ON))
            got = self._verdicts(part, packet, depth)
            if got:
                return got if certain else got | {_GOES_ON}
        return frozenset((_GOES_ON,))

    def _holds(self, part: Item, packet: NewPacket) -> Optional[bool]:
        """Return whether a condition holds, None where that is not known; True for what is none."""
        if "match" not in part:
            return None if any(name in part for name in _DOUBTFUL) else True
        left, right, compare = (
            part["match"].get("left"),
            part["match"].get("right"),
            _ORDER.get(part["match"].get("op")),
        )
        try:
            if compare:
                return not _never(field_of(left), packet) and bool(compare(_value(field_of(left), packet), right))
            return self._compare(left, right, packet) != (part["match"].get("op") == "!=")
        except (_Unknown, AttributeError, KeyError, TypeError):
            return None

    def _verdicts(self, part: Item, packet: NewPacket, depth: int) -> Outcomes:
        """Return what an expression does with a packet, nothing where it lets the rule go on."""
        if "vmap" in part:
            return self._mapped(part["vmap"], packet, depth)
        if "accept" in part:
            return frozenset((ACCEPTED,))
        if "drop" in part or "reject" in part:
            return frozenset((DROPPED,))
        if "return" in part:
            return frozenset((_RETURNS,))
        if any(name in part for name in _ELSEWHERE):
            return frozenset((SENT_ELSEWHERE,))
        for verdict in ("jump", "goto"):
            if verdict in part:
                got = self._chain(part[verdict]["target"], packet, depth + 1)
                back = _GOES_ON if verdict == "jump" else _RETURNS
                return got - {_GOES_ON, _RETURNS} | {back} if got & {_GOES_ON, _RETURNS} else got
        return frozenset()

    def _mapped(self, vmap: Item, packet: NewPacket, depth: int) -> Outcomes:
        data = vmap["data"]
        pairs = self._sets.get(data[1:], []) if isinstance(data, str) else data.get("set", [])
        found: Outcomes = frozenset((_GOES_ON,))
        for key, verdict in (pair for pair in pairs if isinstance(pair, list)):
            try:
                held: Optional[bool] = self._compare(vmap["key"], key, packet)
            except (_Unknown, AttributeError, KeyError, TypeError):
                held = None
            if held is not False:
                got = self._verdicts(verdict, packet, depth) or frozenset((_GOES_ON,))
                if held:
                    return got
                found |= got
        return found

    def _compare(self, left: Any, right: Any, packet: NewPacket) -> bool:
        """Return whether a packet has a value in one field.

        :raises _Unknown: if that is not known.
        """
        if isinstance(left, dict) and "concat" in left:
            return self._compare_all(left["concat"], right, packet)
        field = field_of(left)
        if _never(field, packet):
            return False
        if field == "tcp flags":
            mask = set(_list(left["&"][1])) if "&" in left else {"syn"}
            return {"syn"} & mask == set(_list(right))
        if field in ("meta iif", "meta iifname") and right == "lo":
            return False
        return self._contains(right, _value(field, packet))

    def _compare_all(self, fields: List[Any], right: Any, packet: NewPacket) -> bool:
        """Return whether a packet has values in several fields: no, or it is not known."""
        for each in self._elements(right):
            values = each.get("concat", []) if isinstance(each, dict) else []
            if not any(self._differs(field, value, packet) for field, value in zip(fields, values)):
                raise _Unknown
        return False

    def _differs(self, field: Any, value: Any, packet: NewPacket) -> bool:
        try:
            return not self._compare(field, value, packet)
        except _Unknown:
            return False

    def _elements(self, right: Any) -> List[Any]:
        if isinstance(right, str) and right.startswith("@"):
            if right[1:] not in self._sets:
                raise _Unknown
            right = {"set": self._sets[right[1:]]}
        found = right["set"] if isinstance(right, dict) and "set" in right else _list(right)
        return [each["elem"]["val"] if isinstance(each, dict) and "elem" in each else each for each in found]

    def _contains(self, right: Any, value: Any) -> bool:
        if value is _STRANGER:
            return right == "*"
        return any(_is_in(value, each) for each in self._elements(right))


def _list(value: Any) -> List[Any]:
    return value if isinstance(value, list) else [value]


def _is_in(value: Any, element: Any) -> bool:
    if isinstance(element, dict) and "range" in element:
        first, last = element["range"]
        return isinstance(value, int) and int(first) <= value <= int(last)
    return element == "*" or _NUMBERS.get(element, element) == value


def _never(field: str, packet: NewPacket) -> bool:
    """Return whether a packet does not have a field."""
    first = field.partition(" ")[0]
    protocols = ("tcp", "udp", "icmp", "icmpv6", "sctp", "dccp", "udplite", "ah", "esp", "comp", "igmp")
    return (first in protocols and first != packet.protocol) or (first in ("ip", "ip6") and first != packet.family)


def _value(field: str, packet: NewPacket) -> Any:
    """Return the value of a packet's field.

    :raises _Unknown: if it is not known.
    """
    if field.rpartition(" ")[2] == "saddr":
        return _STRANGER
    values = {
        "th dport": packet.port, f"{packet.protocol} dport": packet.port,
        "meta l4proto": packet.protocol, "ip protocol": packet.protocol, "ip6 nexthdr": packet.protocol,
        "meta nfproto": {"ip": "ipv4", "ip6": "ipv6"}[packet.family], "meta protocol": packet.family,
        "ct state": "new", "ct status": "",
    }  # fmt: skip
    if field not in values:
        raise _Unknown
    return values[field]


__all__ = (
    "ACCEPTED", "DROPPED", "POLICY_DROPPED", "SENT_ELSEWHERE", "UNTRACKED", "BaseChain", "NewPacket", "NftWalker",
    "base_chains", "families_of",
)  # fmt: skip
