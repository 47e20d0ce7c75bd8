# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Knock at an address from here, and tell whether a port of it is open before and after: visit.py ADDRESS PORT STEP...

Runs on the other machine, with nothing but its Python.
"""

import contextlib
import socket
import sys
import time

address, port, steps = sys.argv[1], int(sys.argv[2]), sys.argv[3:]


def finds() -> str:
    try:
        socket.create_connection((address, port), timeout=0.4).close()
    except OSError:
        return "shut"
    return "open"


def send(step: str) -> None:
    number, _slash, protocol = step.partition("/")
    if protocol == "udp":
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"knock", (address, int(number)))
        return
    # The first packet is the step, whatever the answer; a second one would break the knock.
    with contextlib.suppress(OSError):
        socket.create_connection((address, int(number)), timeout=0.05).close()


print(finds())
if steps:
    for each in steps:
        send(each)
    time.sleep(0.25)
    print(finds())
