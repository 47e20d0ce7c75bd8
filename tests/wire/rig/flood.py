# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sends SYN packets from forged sources, each to the same ports, at a rate, until its standard input ends.

Usage: flood.py TARGET_MAC TARGET PORT,... SOURCES RATE [INTERFACE]. Prints how many packets it has sent, in how many seconds,
and for how many of these it had a processor: the target is on the same machine, and takes each packet in while it is sent.
"""

import os
import select
import socket
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rig.packets import TCP, ip, tcp

FIRST, NETWORK = "100.64.0.0", "100.64.0.0/10"
"""The first of the forged sources, and the network of all."""
_BURST = 100
_SOURCE, _IP_SUM, _TCP_SUM = 26, 24, 50
"""Where a frame has its source, and the two checksums that depend on it."""


def frames(target_mac: str, target: str, port: int, sources: int) -> list[bytes]:
    """Return an Ethernet frame with a SYN from each source."""
    head = bytes.fromhex(target_mac.replace(":", "")) + bytes.fromhex("02000000000f") + b"\x08\x00"
    template = bytearray(head + ip(FIRST, target, TCP, tcp(FIRST, target, 40000, port)))
    first = int.from_bytes(template[_SOURCE : _SOURCE + 4], "big")
    sums = [struct.unpack_from("!H", template, place)[0] for place in (_IP_SUM, _TCP_SUM)]
    made = []
    for number in range(sources):
        struct.pack_into("!I", template, _SOURCE, first + number)
        for place, before in zip((_IP_SUM, _TCP_SUM), sums, strict=True):
            struct.pack_into("!H", template, place, _without(before, number))
        made.append(bytes(template))
    return made


def _without(checksum: int, number: int) -> int:
    """Return a checksum for a source that is higher by a number (RFC 1624)."""
    total = (~checksum & 0xFFFF) + (number >> 16) + (number & 0xFFFF)
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def main() -> None:
    """Send."""
    target_mac, target, ports, sources, rate, interface = [*sys.argv[1:], "eth0"][:6]
    each = [frames(target_mac, target, int(port), int(sources)) for port in ports.split(",")]
    made = [frame for of_source in zip(*each, strict=True) for frame in of_source]
    made *= -(-_BURST // len(made))
    out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    out.bind((interface, 0))
    print("ready", flush=True)
    sent, begun, worked = 0, time.monotonic(), time.process_time()
    while not select.select([0], [], [], 0)[0] or os.read(0, 1):
        for frame in made[sent % len(made) : sent % len(made) + _BURST]:
            out.send(frame)
            sent += 1
        time.sleep(max(0.0, begun + sent / int(rate) - time.monotonic()))
    print(sent, time.monotonic() - begun, time.process_time() - worked, flush=True)


if __name__ == "__main__":
    main()
