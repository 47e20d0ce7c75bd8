# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the chains of nftables beside iptables do to new packets from a stranger, as far as that is known. Pure.

A condition that the ruleset alone does not decide makes what follows it possible, not certain.
"""

from bisect import bisect_left, bisect_right
from typing import Any, Dict, FrozenSet, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_condition import (
    STRANGER,
    Conditions,
    NewPacket,
    Sender,
    UnknownError,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import (
    Item,
    expressions,
    rules_in,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.packet_walk import DIVERT, REFUSE, VERDICTS

ACCEPTED, DROPPED, POLICY_DROPPED, SENT_ELSEWHERE = "accepted", "dropped", "dropped by policy", "sent elsewhere"
UNTRACKED = "not tracked"
"""Beside another outcome: connection tracking does not see the packet."""
_GOES_ON, _RETURNS = "goes on", "returns"

_DEPTH = 16
"""The kernel follows no more jumps."""
_ELSEWHERE = ("dnat", "redirect", "tproxy", "fwd")

Outcomes = FrozenSet[str]
"""What may become of a packet; certain where it is one."""


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
    hook: str = "input"
    """``input``, ``prerouting``, ``ingress`` or ``forward``."""
    priority: int = 0
    """The lower, the sooner packets come to it; of chains of one hook alone."""
    devices: Tuple[str, ...] = ()
    """The interfaces whose packets it sees; empty for all."""
    kind: str = "filter"
    """``filter``, ``nat`` or ``route``."""


_FAMILIES = {"ip": ("ip",), "ip6": ("ip6",), "inet": ("ip", "ip6"), "netdev": ("ip", "ip6")}


ARRIVING = ("input", "prerouting", "ingress")
"""The hooks that see packets to this host before they are delivered."""


def base_chains(items: Sequence[Item], hooks: Sequence[str] = ARRIVING) -> List[BaseChain]:
    """Return the chains of a listing that packets come to at some hooks; none of a table that is dormant."""
    tables = [item["table"] for item in items if isinstance(item.get("table"), dict)]
    dormant = {(each.get("family"), each.get("name")) for each in tables if "dormant" in _list(each.get("flags"))}
    chains = [item["chain"] for item in items if isinstance(item.get("chain"), dict)]
    return [
        BaseChain(
            chain["family"],
            chain["table"],
            chain["name"],
            chain.get("policy", "accept"),
            chain["hook"],
            int(chain.get("prio", 0)),
            tuple(map(str, _list(chain["dev"]))) if chain.get("dev") else (),
            chain.get("type", "filter"),
        )
        for chain in chains
        if chain.get("hook") in hooks
        and chain.get("family") in _FAMILIES
        and (chain["family"], chain["table"]) not in dormant
    ]


def families_of(chain: BaseChain) -> Tuple[str, ...]:
    """Return the IP versions, as nft names them, of which a chain sees packets."""
    return _FAMILIES[chain.family]


class NftWalker:
    """Follows packets through the chains of one table."""

    def __init__(self, items: Sequence[Item], chain: BaseChain, sender: Sender = STRANGER) -> None:
        """Take a listing, the chain that the packets come to, and who sends them."""
        self._base = chain
        self._chains: Dict[str, List[Item]] = {}
        for rule in rules_in(items, chain.family, chain.table):
            self._chains.setdefault(rule["chain"], []).append(rule)
        self._sets: Dict[str, List[Any]] = {}
        for item in items:
            named = item.get("set") or item.get("map") or {}
            if (named.get("family"), named.get("table")) == (chain.family, chain.table):
                self._sets[named["name"]] = named.get("elem") or []
        self._conditions = Conditions(self._sets, sender)
        self._named = sorted(_numbers([self._chains, self._sets]))

    def ports_named(self) -> List[int]:
        """Return the numbers in the table that may be ports: between two of them all ports meet the same rules."""
        return self._named

    def alike(self, port: int) -> Tuple[int, int]:
        """Return a key that two ports share if they meet the same rules."""
        return bisect_left(self._named, port), bisect_right(self._named, port)

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
            holds = self._conditions.holds(part, packet)
            if holds is False:
                return frozenset((_GOES_ON,))
            certain = certain and holds is True
            if "notrack" in part and certain:
                return frozenset((UNTRACKED, _GOES_ON))
            got = self._verdicts(part, packet, depth)
            if got:
                return got if certain else got | {_GOES_ON}
        return frozenset((_GOES_ON,)) | (_by_extension(parts[-1]["xt"]) if parts and "xt" in parts[-1] else frozenset())

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
        if "queue" in part:
            # To a program that may drop it, change it, or let it go on.
            return frozenset((SENT_ELSEWHERE, ACCEPTED))
        for verdict in _ELSEWHERE:
            if verdict in part:
                return self._sent(part[verdict], packet)
        for verdict in ("jump", "goto"):
            if verdict in part:
                got = self._chain(part[verdict]["target"], packet, depth + 1)
                back = _GOES_ON if verdict == "jump" else _RETURNS
                return got - {_GOES_ON, _RETURNS} | {back} if got & {_GOES_ON, _RETURNS} else got
        return frozenset()

    def _sent(self, target: Any, packet: NewPacket) -> Outcomes:
        """Return whether a packet is sent elsewhere: where a map says whereto, those alone are that it knows."""
        fields = target.values() if isinstance(target, dict) else ()
        maps = [each["map"] for each in fields if isinstance(each, dict) and isinstance(each.get("map"), dict)]
        found = {held for each in maps for held, _answer in self._matching(each, packet)} if maps else {True}
        if found == {False} or not found:
            return frozenset()
        return frozenset((SENT_ELSEWHERE,)) if True in found else frozenset((SENT_ELSEWHERE, _GOES_ON))

    def _mapped(self, vmap: Item, packet: NewPacket, depth: int) -> Outcomes:
        found: Outcomes = frozenset() if _exhausts(vmap) else frozenset((_GOES_ON,))
        for held, verdict in self._matching(vmap, packet):
            if held is not False:
                got = self._verdicts(verdict, packet, depth) or frozenset((_GOES_ON,))
                if held:
                    return got
                found |= got
        return found

    def _matching(self, found: Item, packet: NewPacket) -> Iterator[Tuple[Optional[bool], Any]]:
        """Yield for each entry of a map whether a packet has its key, None where that is not known, and what it maps to."""
        data = found["data"]
        pairs = self._sets.get(data[1:], []) if isinstance(data, str) else data.get("set", [])
        for key, answer in (pair for pair in pairs if isinstance(pair, list)):
            try:
                held: Optional[bool] = self._conditions.equals(found["key"], key, packet)
            except (UnknownError, AttributeError, KeyError, TypeError, ValueError):
                held = None
            yield held, answer


def _exhausts(found: Item) -> bool:
    """Return whether a map has an answer for every value, as one that shares packets out among many."""
    key, data = found["key"], found["data"]
    shared = (key.get("numgen") or key.get("jhash") or {}) if isinstance(key, dict) else {}
    return "mod" in shared and isinstance(data, dict) and len(data.get("set", ())) >= int(shared["mod"])


def _by_extension(xt: Any) -> Outcomes:
    """Return what an extension of iptables that stands in a table of nftables may do."""
    if not isinstance(xt, dict):
        # Releases of nft that do not say which one it is.
        return frozenset((DROPPED, SENT_ELSEWHERE, _GOES_ON))
    verdict = VERDICTS.get(str(xt.get("name"))) if xt.get("type") == "target" else None
    return {REFUSE: frozenset((DROPPED,)), DIVERT: frozenset((SENT_ELSEWHERE,))}.get(str(verdict), frozenset())


def _list(value: Any) -> List[Any]:
    return value if isinstance(value, list) else [value]


def _numbers(value: Any) -> Set[int]:
    """Return the numbers in a part of a listing."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return {value} if isinstance(value, int) and 0 <= value <= 65535 else set()
    found: Set[int] = set()
    return found.union(*map(_numbers, value))


__all__ = (
    "ACCEPTED", "DROPPED", "POLICY_DROPPED", "SENT_ELSEWHERE", "UNTRACKED", "BaseChain", "NewPacket", "NftWalker",
    "base_chains", "families_of",
)  # fmt: skip
