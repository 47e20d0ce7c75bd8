# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a new packet to this host has what a rule of nftables asks for, as far as that is known. Pure.

A stranger's address is in no set and no network that a rule names, unless the network is a large part of all there are.
"""

import ipaddress
from operator import ge, gt, le, lt
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.condition import (
    BROAD_PREFIX,
    NOWHERE,
    Arrival,
    is_interface,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item, field_of

_DOUBTFUL = ("limit", "quota", "meter", "ct count", "xt")
_NUMBERS = {6: "tcp", 17: "udp", "6": "tcp", "17": "udp"}
_ORDER: Dict[Any, Callable[[Any, Any], bool]] = {"<": lt, ">": gt, "<=": le, ">=": ge}
EPHEMERAL = 40000
"""Stands for the port that the side which begins a connection has."""
_DONT_FRAGMENT = 0x4000
_NOT_UNICAST = [
    ipaddress.ip_network(text) for text in ("127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "::1/128", "ff00::/8")
]
_VERSIONS = {"ip": 4, "ip6": 6}


class NewPacket(NamedTuple):
    """A packet that begins a connection from outside, or a knock."""

    family: str
    """``ip`` or ``ip6``."""
    protocol: str
    """``tcp`` or ``udp``."""
    port: int
    """The port that it is sent to."""
    source_port: int = EPHEMERAL
    """The port that it comes from."""


class Sender(NamedTuple):
    """What is known of who sends the packets in question."""

    source: Any = None
    """The ``ipaddress`` address that they come from, None for that of a stranger."""
    anybody: bool = False
    """Whether they may come from anybody, so that any network and any set of sources may hold the source; but for who is trusted."""
    arrival: Arrival = NOWHERE
    """How they come in."""
    trusted_interfaces: Sequence[str] = ()
    """Interfaces that they do not come in by, beside ``lo``."""
    trusted_sources: Sequence[Any] = ()
    """``ipaddress`` networks that they do not come from."""


STRANGER = Sender()


class UnknownError(Exception):
    """It is not known whether a condition holds."""


class Conditions:
    """The conditions of the rules of one table, for packets of one sender."""

    def __init__(self, sets: Dict[str, List[Any]], sender: Sender) -> None:
        """Take the sets of the table, name to elements, and the Sender."""
        self._sets = sets
        self._sender = sender

    def holds(self, part: Item, packet: NewPacket) -> Optional[bool]:
        """Return whether a condition holds, None where that is not known; True for what is none."""
        if "match" not in part:
            return None if any(name in part or name in _statements(part) for name in _DOUBTFUL) else True
        match = part["match"]
        try:
            if field_of(match.get("left")) == "tcp flags":
                return packet.protocol == "tcp" and _has_flags(match)
            compare = _ORDER.get(match.get("op"))
            if compare:
                field = field_of(match.get("left"))
                return not _never(field, packet) and bool(compare(self._value(field, packet), match.get("right")))
            return self.equals(match.get("left"), match.get("right"), packet) != (match.get("op") == "!=")
        except (UnknownError, AttributeError, KeyError, TypeError, ValueError):
            return None

    def equals(self, left: Any, right: Any, packet: NewPacket) -> bool:
        """Return whether a packet has a value, or one of several, in a field.

        :raises UnknownError: if that is not known; AttributeError, KeyError, TypeError, ValueError: if the form is not.
        """
        if isinstance(left, dict) and "concat" in left:
            return self._equals_all(left["concat"], right, packet)
        if isinstance(left, dict) and "fib" in left:
            return _looked_up(left["fib"], right)
        if isinstance(left, dict) and "exthdr" in left:
            # A first packet has none, whether that is what is asked or what would be in one.
            return right is False
        field = field_of(left)
        if _never(field, packet):
            return False
        if field == "tcp flags":
            return _has_flags({"left": left, "right": right})
        if "&" in left:
            return self._masked(field, left["&"][1], right, packet)
        if field.endswith(" saddr"):
            return self._is_source(right, packet)
        if field.endswith(" daddr") and self._sender.arrival.own:
            return self._is_own(right, packet)
        if field in ("meta iif", "meta iifname"):
            return self._comes_by(right)
        return any(_is_in(self._value(field, packet), each) for each in self._elements(right))

    def _masked(self, field: str, mask: Any, right: Any, packet: NewPacket) -> bool:
        """Return whether those bits of a field that a mask leaves have a value."""
        sender = self._sender
        if field == "meta mark":
            return bool(self._value(field, packet) == right)
        if field == "ip frag-off" and isinstance(mask, int) and not mask & _DONT_FRAGMENT:
            return bool(right == 0)
        if field.endswith(" saddr") and sender.source is None and not sender.anybody:
            return self._is_source(right, packet)
        raise UnknownError

    def _equals_all(self, fields: List[Any], right: Any, packet: NewPacket) -> bool:
        """Return whether a packet has values in several fields."""
        unknown = False
        for each in self._elements(right):
            values = each.get("concat", []) if isinstance(each, dict) else []
            found = [self._tried(field, value, packet) for field, value in zip(fields, values)]
            if len(found) == len(fields) and all(found):
                return True
            unknown = unknown or False not in found
        if unknown:
            raise UnknownError
        return False

    def _tried(self, field: Any, value: Any, packet: NewPacket) -> Optional[bool]:
        try:
            return self.equals(field, value, packet)
        except UnknownError:
            return None

    def _elements(self, right: Any) -> List[Any]:
        """Return the values that a condition names.

        :raises UnknownError: for a set that is not listed.
        """
        if isinstance(right, str) and right.startswith("@"):
            if right[1:] not in self._sets:
                raise UnknownError
            right = {"set": self._sets[right[1:]]}
        found = right["set"] if isinstance(right, dict) and "set" in right else _list(right)
        return [each["elem"]["val"] if isinstance(each, dict) and "elem" in each else each for each in found]

    def _is_source(self, right: Any, packet: NewPacket) -> bool:
        """Return whether the source is one of those that a condition names."""
        sender, is_set = self._sender, isinstance(right, str) and right.startswith("@")
        if right == "*":
            return True
        if is_set and (sender.anybody or right[1:] not in self._sets):
            if sender.anybody or sender.source is not None:
                raise UnknownError
            return False
        networks = [network for each in self._elements(right) for network in _networks(each)]
        networks = [network for network in networks if network.version == _VERSIONS[packet.family]]
        if sender.source is not None:
            return any(sender.source in network for network in networks)
        if any(network.prefixlen == 0 for network in networks):
            return True
        if sender.anybody:
            networks = [network for network in networks if not _inside(network, sender.trusted_sources)]
        else:
            networks = [network for network in networks if network.prefixlen < BROAD_PREFIX[network.version]]
            networks = [network for network in networks if not _inside(network, _NO_SOURCES)]
        if networks:
            raise UnknownError
        return False

    def _is_own(self, right: Any, packet: NewPacket) -> bool:
        """Return whether the addresses of this host are those that a condition names; what is sent to others is not in question."""
        own = [each for each in self._sender.arrival.own if each.version == _VERSIONS[packet.family]]
        if right == "*":
            return True
        networks = [network for each in self._elements(right) for network in _networks(each)]
        networks = [network for network in networks if not _inside(network, _NOT_UNICAST)]
        inside = {_inside(each, networks) for each in own}
        touched = any(_inside(network, own) for network in networks)
        if inside == {True}:
            return True
        if not own or True in inside or touched:
            raise UnknownError
        return False

    def _comes_by(self, right: Any) -> bool:
        """Return whether packets come in by an interface that a condition names."""
        sender = self._sender
        inner = ("lo", *sender.trusted_interfaces)
        names = [str(each) for each in self._elements(right)]
        left = [name for name in names if not any(is_interface(each, name) for each in inner)]
        if not left:
            return False
        if "*" in left:
            return True
        known = {any(is_interface(_pattern(name), interface) for name in left) for interface in sender.arrival.outside}
        if len(known) != 1 or sender.anybody:
            raise UnknownError
        return known.pop()

    def _value(self, field: str, packet: NewPacket) -> Any:
        """Return the value of a packet's field.

        :raises UnknownError: if it is not known.
        """
        values = {
            "th dport": packet.port, f"{packet.protocol} dport": packet.port,
            "th sport": packet.source_port, f"{packet.protocol} sport": packet.source_port,
            "meta l4proto": packet.protocol, "ip protocol": packet.protocol, "ip6 nexthdr": packet.protocol,
            "meta nfproto": {"ip": "ipv4", "ip6": "ipv6"}[packet.family], "meta protocol": packet.family,
            "ether type": packet.family, "meta pkttype": "host", "ct state": "new", "ct status": "", "ct direction": "original",
        }  # fmt: skip
        if field == "meta mark" and self._sender.arrival.unmarked:
            return 0
        if field not in values:
            raise UnknownError
        return values[field]


_NO_SOURCES = [ipaddress.ip_network(text) for text in ("224.0.0.0/3", "ff00::/8")]
"""Multicast and reserved addresses, which rules against forged sources name however broad they are."""


def _statements(part: Item) -> List[str]:
    """Return the names of what stands inside of a statement, such as the limit with which a source is put into a set."""
    inner = next((value for value in part.values() if isinstance(value, dict)), {})
    return [name for each in inner.get("stmt") or () if isinstance(each, dict) for name in each]


def _has_flags(match: Item) -> bool:
    """Return whether a packet that has SYN and no other flag has those that a condition names."""
    left, wanted = match["left"], _flags(match["right"])
    if match.get("op") in ("in", "!"):
        # Any of them, none of them.
        return ("syn" in wanted) == (match["op"] == "in")
    has = {"syn"} & _flags(left["&"][1]) if "&" in left else {"syn"}
    return (has == wanted) != (match.get("op") == "!=")


def _flags(value: Any) -> Set[str]:
    """Return the names of flags, as releases of nft list them: one, several, or several with ``|`` between."""
    if isinstance(value, dict):
        value = value["|"]
    found: Set[str] = set()
    for each in _list(value):
        found |= _flags(each) if isinstance(each, dict) else {each} - {0}
    return found


def _list(value: Any) -> List[Any]:
    return value if isinstance(value, list) else [value]


def _is_in(value: Any, element: Any) -> bool:
    if isinstance(element, dict) and "range" in element:
        first, last = element["range"]
        return isinstance(value, int) and int(first) <= value <= int(last)
    return element == "*" or _NUMBERS.get(element, element) == value


def _networks(element: Any) -> List[Any]:
    """Return the ``ipaddress`` networks of an address, a prefix or a range of addresses.

    :raises UnknownError: for what is none of these.
    """
    if isinstance(element, dict) and "prefix" in element:
        element = f"{element['prefix']['addr']}/{element['prefix']['len']}"
    if isinstance(element, dict) and "range" in element:
        first, last = (ipaddress.ip_address(each) for each in element["range"])
        return list(ipaddress.summarize_address_range(first, last))  # type: ignore[type-var]
    if not isinstance(element, str):
        raise UnknownError
    return [ipaddress.ip_network(element, strict=False)]


def _inside(network: Any, others: Sequence[Any]) -> bool:
    return any(
        other.version == network.version and other.prefixlen <= network.prefixlen and network.network_address in other
        for other in others
    )


def _pattern(name: str) -> str:
    """Return a name of interfaces as iptables writes it."""
    return name[:-1] + "+" if name.endswith("*") else name


def _looked_up(fib: Item, right: Any) -> bool:
    """Return what the routing table says of a packet of a stranger to this host: that both ways are there, and none is odd.

    :raises UnknownError: if it is not known.
    """
    flags = _list(fib.get("flags"))
    if fib.get("result") == "type":
        kind = "local" if "daddr" in flags else "unicast"
        return kind in (right["set"] if isinstance(right, dict) else _list(right))
    if "saddr" in flags and right in (True, False, 0, "0"):
        return right is True
    raise UnknownError


def _never(field: str, packet: NewPacket) -> bool:
    """Return whether a packet does not have a field."""
    first = field.partition(" ")[0]
    protocols = ("tcp", "udp", "icmp", "icmpv6", "sctp", "dccp", "udplite", "ah", "esp", "comp", "igmp")
    return (first in protocols and first != packet.protocol) or (first in ("ip", "ip6") and first != packet.family)


__all__ = ("EPHEMERAL", "STRANGER", "Conditions", "NewPacket", "Sender", "UnknownError")
