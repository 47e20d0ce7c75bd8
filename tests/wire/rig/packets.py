# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packets as bytes: built exactly as a test wants them, right or wrong, and read back."""

import ipaddress
import struct
from typing import NamedTuple

IPV4, IPV6 = "ipv4", "ipv6"
ETHERTYPE = {IPV4: 0x0800, IPV6: 0x86DD}
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
HOP_BY_HOP, FRAGMENT, DESTINATION, ROUTING = 0, 44, 60, 43
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128


class Seen(NamedTuple):
    """A packet that came in: for ICMP errors the ports are those of the packet they are about."""

    protocol: int
    source: str
    target: str
    sport: int
    dport: int
    flags: int
    icmp: tuple
    payload: bytes


def family_of(address: str) -> str:
    """Return the family of an address."""
    return IPV4 if ipaddress.ip_address(address).version == 4 else IPV6


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def packed(address: str) -> bytes:
    """Return an address as its bytes."""
    return ipaddress.ip_address(address).packed


def _transport_sum(source: str, target: str, protocol: int, data: bytes) -> int:
    pseudo = packed(source) + packed(target)
    if len(pseudo) == 8:
        pseudo += struct.pack("!BBH", 0, protocol, len(data))
    else:
        pseudo += struct.pack("!IHBB", len(data), 0, 0, protocol)
    return checksum(pseudo + data)


def tcp(
    source: str,
    target: str,
    sport: int,
    dport: int,
    flags: int = SYN,
    seq: int = 1000,
    ack: int = 0,
    options: bytes = b"",
    payload: bytes = b"",
) -> bytes:
    """Return a TCP segment with its checksum."""
    offset = (5 + len(options) // 4) << 4
    head = struct.pack("!HHIIBBH", sport, dport, seq, ack, offset, flags, 64240)
    total = _transport_sum(source, target, TCP, head + b"\0\0\0\0" + options + payload)
    return head + struct.pack("!HH", total, 0) + options + payload


def udp(source: str, target: str, sport: int, dport: int, payload: bytes = b"x") -> bytes:
    """Return a UDP datagram with its checksum."""
    head = struct.pack("!HHH", sport, dport, 8 + len(payload))
    total = _transport_sum(source, target, UDP, head + b"\0\0" + payload) or 0xFFFF
    return head + struct.pack("!H", total) + payload


def echo(source: str, target: str, number: int) -> tuple[int, bytes]:
    """Return a ping for either family."""
    protocol, kind = (ICMP, 8) if family_of(source) == IPV4 else (ICMPV6, 128)
    head = struct.pack("!BBHHH", kind, 0, 0, number, 1)
    total = checksum(head) if protocol == ICMP else _transport_sum(source, target, ICMPV6, head)
    return protocol, head[:2] + struct.pack("!H", total) + head[4:]


def ip(
    source: str,
    target: str,
    protocol: int,
    payload: bytes,
    fragment: int = 0,
    more: bool = False,
    ident: int = 0,
    options: bytes = b"",
) -> bytes:
    """Return an IP packet of the addresses' family. Fragment offsets are in units of 8 octets, for IPv4 only."""
    if family_of(source) == IPV6:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + packed(source) + packed(target) + payload
    length = 20 + len(options)
    bits = fragment | (0x2000 if more else 0)
    head = struct.pack("!BBHHHBB", 0x40 | length // 4, 0, length + len(payload), ident, bits, 64, protocol)
    addresses = packed(source) + packed(target) + options
    return head + struct.pack("!H", checksum(head + b"\0\0" + addresses)) + addresses + payload


def extension(next_header: int, options: bytes = b"\x01\x04\0\0\0\0") -> bytes:
    """Return an IPv6 hop-by-hop or destination options header, padding by default."""
    return struct.pack("!BB", next_header, (len(options) + 2) // 8 - 1) + options


def fragment_header(next_header: int, offset: int, more: bool, ident: int) -> bytes:
    """Return an IPv6 fragment header; offset in units of 8 octets."""
    return struct.pack("!BBHI", next_header, 0, offset << 3 | int(more), ident)


def segment_to(source: str, target: str, step: int | str, sport: int, flags: int = SYN) -> tuple[int, bytes]:
    """Return (protocol number, transport bytes) for a step such as 7000 or 53/udp."""
    port, _slash, protocol = str(step).partition("/")
    if protocol == "udp":
        return UDP, udp(source, target, sport, int(port))
    return TCP, tcp(source, target, sport, int(port), flags)


def read(frame: bytes) -> Seen | None:
    """Return a Seen for an Ethernet frame, or None for what no test looks at."""
    kind = struct.unpack_from("!H", frame, 12)[0]
    if kind == ETHERTYPE[IPV4]:
        return _read_ip(frame[14:], 4)
    return _read_ip(frame[14:], 6) if kind == ETHERTYPE[IPV6] else None


def _read_ip(data: bytes, version: int) -> Seen | None:
    if version == 4:
        protocol, start = data[9], (data[0] & 15) * 4
        source, target = data[12:16], data[16:20]
        end = struct.unpack_from("!H", data, 2)[0]
    else:
        protocol, start = data[6], 40
        source, target = data[8:24], data[24:40]
        end = 40 + struct.unpack_from("!H", data, 4)[0]
    body = data[start:end]
    names = str(ipaddress.ip_address(source)), str(ipaddress.ip_address(target))
    if protocol in (ICMP, ICMPV6) and len(body) >= 8:
        return _read_icmp(protocol, names, body, version)
    if protocol not in (TCP, UDP) or len(body) < 8:
        return None
    sport, dport = struct.unpack_from("!HH", body)
    flags = body[13] if protocol == TCP and len(body) > 13 else 0
    payload = body[8:] if protocol == UDP else body[(body[12] >> 4) * 4 :]
    return Seen(protocol, names[0], names[1], sport, dport, flags, (), payload)


def _read_icmp(protocol: int, names: tuple[str, str], body: bytes, version: int) -> Seen:
    error = body[0] in (3, 11, 12) if protocol == ICMP else body[0] < 128
    sport = dport = 0
    if error:
        inner = body[8:]
        length = (inner[0] & 15) * 4 if version == 4 and inner else 40
        if len(inner) >= length + 4:
            sport, dport = struct.unpack_from("!HH", inner, length)
    return Seen(protocol, names[0], names[1], sport, dport, 0, (body[0], body[1]), body[4:])
