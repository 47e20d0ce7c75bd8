# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ping the address given, once, as root: not every image has the command."""

import os
import socket
import struct
import sys

address = sys.argv[1]
IPV6 = ":" in address
REQUEST, REPLY = (128, 129) if IPV6 else (8, 0)


def checksum(packet: bytes) -> int:
    total = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def request(identity: int) -> bytes:
    blank = struct.pack("!BBHHH", REQUEST, 0, 0, identity, 1)
    # The kernel fills the checksum in for IPv6 alone.
    return struct.pack("!BBHHH", REQUEST, 0, checksum(blank), identity, 1)


identity = os.getpid() & 0xFFFF
family, protocol = (socket.AF_INET6, 58) if IPV6 else (socket.AF_INET, 1)
with socket.socket(family, socket.SOCK_RAW, protocol) as sock:
    sock.settimeout(3)
    sock.sendto(request(identity), (address, 0))
    for _packet in range(20):
        data, sender = sock.recvfrom(2048)
        message = data if IPV6 else data[(data[0] & 15) * 4 :]
        kind, _code, _sum, number = struct.unpack("!BBHH", message[:6])
        if sender[0] == address and kind == REPLY and number == identity:
            sys.exit(0)
sys.exit("no reply from " + address)
