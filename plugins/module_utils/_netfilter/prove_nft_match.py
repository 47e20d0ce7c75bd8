# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One match of nftables as the prover reads it, from what ``nft -j`` lists: a set of packets, or a doubt. Pure.

Packets in question are unicast, of TCP or UDP, to this host, and the first of their connection.
"""

import ipaddress
import re
from typing import Any, Callable, Dict, List, Optional, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import field_of
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_nft_asking import NETWORKS, Asking
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_rules import (
    DESTINATION,
    DNAT,
    DPORT,
    FIRST_DPORT,
    FLAG_BITS,
    FLAGS,
    INTERFACE,
    MARK,
    PROTOCOL,
    SERVICES,
    SOURCE,
    SPORT,
    STATE,
    STATES,
    UNTRACKED,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4, PROTOCOLS

Range = Tuple[int, int]

_TRANSPORTS = {"tcp": "tcp", "udp": "udp", 6: "tcp", 17: "udp"}
_SEEN_LATER = frozenset(name for state in STATES for name in state) - {UNTRACKED}


class _Unknown(Exception):
    """What is asked for is not understood."""


def ask(asking: Asking, left: Any, operation: Any, right: Any) -> None:
    """Add what a match asks.

    :param left: the expression, as JSON.
    :param operation: ``==``, ``!=``, ``in``, ``<``, …
    :param right: what it is compared with, as JSON.
    """
    if isinstance(left, dict) and isinstance(left.get("concat"), list):
        values = right.get("concat") if isinstance(right, dict) else None
        if operation == "==" and isinstance(values, list) and len(values) == len(left["concat"]):
            for part, value in zip(left["concat"], values):
                ask(asking, part, "==", value)
        else:
            asking.unknown(left)
        return
    copy = asking.copy()
    asking.family_of(left)
    try:
        name = _name_of(left)
        handler = _HANDLERS.get(asking.view.get(name, name))
        if handler is None:
            raise _Unknown
        handler(asking, left, operation, right)
    except (_Unknown, AttributeError, KeyError, TypeError, ValueError):
        asking.terms, asking.doubts = copy.terms, copy.doubts
        asking.unknown(left)


def _name_of(left: Any) -> str:
    if isinstance(left, dict) and isinstance(left.get("ct"), dict) and "dir" in left["ct"]:
        return f"ct {left['ct']['dir']} {left['ct'].get('key')}"
    if isinstance(left, dict) and isinstance(left.get("fib"), dict):
        flags = left["fib"].get("flags")
        return f"fib {left['fib'].get('result')} {flags[0] if isinstance(flags, list) and len(flags) == 1 else flags}"
    inner = left["&"][0] if isinstance(left, dict) and "&" in left else left
    if "&" in inner or "tunnel" in (inner.get("payload") or ()):
        raise _Unknown
    return field_of(left)


def members(right: Any) -> Optional[List[Any]]:
    """Return the values that something is compared with, None where they are not in the rule."""
    if isinstance(right, dict) and isinstance(right.get("set"), list):
        return [
            each["elem"]["val"] if isinstance(each, dict) and isinstance(each.get("elem"), dict) else each
            for each in right["set"]
        ]
    if isinstance(right, str) and right[:1] == "@":
        return None
    return [right]


def constant(value: Any) -> int:
    """Return a number that nft prints, also where it does not know of what type it is; -1 where it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = re.match(r"(0x[0-9a-f]+|[0-9]+)(?: \[invalid type\])?\Z", str(value))
    if found:
        return int(found.group(1), 0)
    return {"tcp": 6, "udp": 17}.get(str(value), SERVICES.get(str(value), -1))


def _plain(left: Any) -> None:
    if "&" in left:
        raise _Unknown


def _values(right: Any) -> List[Any]:
    found = members(right)
    if found is None:
        raise _Unknown
    return found


def _negated(operation: Any) -> bool:
    if operation not in ("==", "!="):
        raise _Unknown
    return bool(operation == "!=")


def _transport(asking: Asking, left: Any, operation: Any, right: Any) -> None:
    _plain(left)
    named = {_TRANSPORTS.get(value) for value in _values(right) if isinstance(value, (int, str))}
    if any(not isinstance(value, (int, str)) for value in _values(right)):
        raise _Unknown
    kept = [name for name in PROTOCOLS if (name in named) != _negated(operation)]
    asking.fits(bool(kept))
    if len(kept) == 1:
        asking.ask(PROTOCOL, kept[0], False)


def _network(asking: Asking, left: Any, operation: Any, right: Any) -> None:
    _plain(left)
    asking.fits((asking.family in {NETWORKS.get(value) for value in _values(right)}) != _negated(operation))


def _interface(asking: Asking, left: Any, operation: Any, right: Any) -> None:
    _plain(left)
    names = _values(right)
    if len(names) == 1 and isinstance(names[0], str) and names[0] and "+" not in names[0] and "\\" not in names[0]:
        name = names[0][:-1] + "+" if names[0].endswith("*") else names[0]
        asking.ask(INTERFACE, name, _negated(operation))
    else:
        raise _Unknown


def _out_interface(asking: Asking, left: Any, operation: Any, _right: Any) -> None:
    # A packet that comes in has none yet.
    _plain(left)
    asking.fits(_negated(operation))


def _packet_type(asking: Asking, left: Any, operation: Any, right: Any) -> None:
    _plain(left)
    asking.fits(any(value in ("host", "unicast", 0) for value in _values(right)) != _negated(operation))


def _states(asking: Asking, left: Any, operation: Any, right: Any) -> None:
    _plain(left)
    listed = right if isinstance(right, list) else _values(right)
    if operation not in ("in", "==", "!=") or (operation != "in" and isinstance(right, list) and len(right) > 1):
        raise _Unknown
    names = [str(name).upper() for name in listed if isinstance(name, str)]
    if len(names) != len(listed) or asking.tracked is None:
        raise _Unknown
    found = frozenset(names)
    if not asking.tracked:
        # Of a packet that connection tracking is yet to see, the kernel says that it is invalid.
        found = found & {UNTRACKED} | (_SEEN_LATER if "INVALID" in found else frozenset())
    asking.ask(STATE, found, operation == "!=")


def _status(asking: Asking, left: Any, operation: Any, right: Any) -> None:
    _plain(left)
    if operation != "in" or right not in ("dnat", ["dnat"]):
        raise _Unknown
    asking.ask(STATE, frozenset((DNAT,)), False)


def _ports(kind: str) -> Callable[[Asking, Any, Any, Any], None]:
    def handler(asking: Asking, left: Any, operation: Any, right: Any) -> None:
        _plain(left)
        if operation in _ORDER:
            low, high = _ORDER[operation](_port(right))
            asking.fits(low <= high)
            asking.ask(kind, ((low, high),), False)
        else:
            asking.ask(kind, tuple(_span(value, _port) for value in _values(right)), _negated(operation))

    return handler


_ORDER: Dict[Any, Callable[[int], Range]] = {
    "<": lambda port: (0, port - 1),
    "<=": lambda port: (0, port),
    ">": lambda port: (port + 1, 65535),
    ">=": lambda port: (port, 65535),
}


def _port(value: Any) -> int:
    found = constant(value)
    if not 0 <= found < 65536:
        raise _Unknown
    return found


def _span(value: Any, one: Callable[[Any], int]) -> Range:
    if isinstance(value, dict) and isinstance(value.get("range"), list):
        low, high = value["range"]
        return one(low), one(high)
    if isinstance(value, dict):
        raise _Unknown
    return one(value), one(value)


def _addresses(kind: str) -> Callable[[Asking, Any, Any, Any], None]:
    def handler(asking: Asking, left: Any, operation: Any, right: Any) -> None:
        if asking.never:
            return
        mask = left["&"][1] if "&" in left else ""
        ranges = tuple(_within(asking, value, mask) for value in _values(right))
        asking.ask(kind, ranges, _negated(operation))

    return handler


def _within(asking: Asking, value: Any, mask: Any) -> Range:
    def one(text: Any) -> int:
        found = ipaddress.ip_address(text)
        if (found.version == 4) != (asking.family == IPV4):
            raise _Unknown
        return int(found)

    if isinstance(value, dict) and isinstance(value.get("prefix"), dict):
        if mask:
            raise _Unknown
        network = ipaddress.ip_network(f"{value['prefix']['addr']}/{value['prefix']['len']}", strict=False)
        return one(str(network.network_address)), int(network.broadcast_address)
    if mask:
        network = ipaddress.ip_network(f"{value}/{_length(mask)}")
        return one(str(network.network_address)), int(network.broadcast_address)
    return _span(value, one)


def _length(mask: Any) -> int:
    address = ipaddress.ip_address(mask)
    bits = bin(int(address))[2:].zfill(address.max_prefixlen)
    if "01" in bits:
        raise _Unknown
    return bits.count("1")


def _flags(asking: Asking, left: Any, operation: Any, right: Any) -> None:
    if "&" not in left or len(left["&"]) != 2:
        raise _Unknown
    mask, wanted = _flag_bits(left["&"][1]), _flag_bits(right)
    asking.ask(FLAGS, (mask, wanted), _negated(operation))


def _flag_bits(value: Any) -> int:
    if isinstance(value, dict) and set(value) == {"|"}:
        value = value["|"]
    if isinstance(value, list):
        found = 0
        for each in value:
            found |= _flag_bits(each)
        return found
    bits = value if isinstance(value, int) else FLAG_BITS[str(value).upper()]
    if not 0 <= bits < 64:
        raise _Unknown
    return bits


def _mark(asking: Asking, left: Any, operation: Any, right: Any) -> None:
    mask = left["&"][1] if "&" in left else 0xFFFFFFFF
    if not isinstance(mask, int) or not isinstance(right, int):
        raise _Unknown
    asking.ask(MARK, (right, mask), _negated(operation))


def _local(asking: Asking, _left: Any, operation: Any, right: Any) -> None:
    if right != "local":
        raise _Unknown
    asking.fits(not _negated(operation))


_HANDLERS: Dict[str, Callable[[Asking, Any, Any, Any], None]] = {
    "meta l4proto": _transport,
    "ip protocol": _transport,
    "meta nfproto": _network,
    "meta protocol": _network,
    "ether type": _network,
    "meta iifname": _interface,
    "meta iif": _interface,
    "meta oifname": _out_interface,
    "meta oif": _out_interface,
    "meta pkttype": _packet_type,
    "meta mark": _mark,
    "ct state": _states,
    "ct status": _status,
    "tcp flags": _flags,
    "fib type daddr": _local,
    "first dport": _ports(FIRST_DPORT),
}
_HANDLERS.update(
    {
        f"{name} {field}": _ports(kind)
        for name in ("tcp", "udp", "th")
        for field, kind in (("dport", DPORT), ("sport", SPORT))
    }
)
_HANDLERS.update(
    {
        f"{name} {field}": _addresses(kind)
        for name in ("ip", "ip6")
        for field, kind in (("saddr", SOURCE), ("daddr", DESTINATION))
    }
)

__all__ = ("ask", "members")
