# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Steps of a knock from one secret, for each host and door others: HKDF (RFC 5869) with SHA-256. Pure.

What a secret gives must never change: hosts and clients work it out apart from each other. PRIVATE to the collection.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

MOST_STEPS = 8
LEAST_SECRET = 16
"""Characters that a secret has at least."""
FIRST, LAST = 10000, 65535
"""Above the ports that services have by habit."""
APART = 100
"""Two steps are never nearer to each other: between them is always a port that resets the knock of a scan."""
POPULAR = frozenset((
    10000, 11211, 15672, 16379, 18080, 19999, 20000, 25565, 27015, 27017, 28015, 28017, 30000, 32400, 32764, 41194, 49152,
    50000, 50070, 51820, 60000, 61616, 62201, 64738,
))  # fmt: skip
"""Ports up there on which programs listen, or for which scanners look."""
_SALT = b"sesame.portknock derived_knock 1"
_BLOCK = hashlib.sha256().digest_size
_VALUES = 1 << 16
_RANGE = LAST - FIRST + 1


def derived_steps(master: str, host: str, door: str, steps: int) -> list[int]:
    """Return the TCP ports of a knock: far apart and, from three on, neither rising nor falling.

    :param master: the secret.
    :param host: what tells the host from others.
    :param door: the door's name.
    :param steps: how many, from 1 to MOST_STEPS.
    """
    ports = _ports(hmac.digest(_SALT, master.encode(), "sha256"), _info(host, door, steps))
    found = _apart(ports, steps)
    while steps > 2 and found in (sorted(found), sorted(found, reverse=True)):
        found = _apart(ports, steps)
    return found


def _info(*words: object) -> bytes:
    """Return what the steps are bound to, in a form in which no two are the same: each word after its length."""
    encoded = [str(word).encode() for word in words]
    return b"".join(len(word).to_bytes(4, "big") + word for word in encoded)


def _apart(ports: Iterator[int], steps: int) -> list[int]:
    found: list[int] = []
    while len(found) < steps:
        port = next(ports)
        if all(abs(port - other) >= APART for other in found):
            found.append(port)
    return found


def _ports(key: bytes, info: bytes) -> Iterator[int]:
    """Yield ports, each as likely as the others."""
    block, number = b"", 0
    while True:
        # HKDF's own number is one byte, and ends with 255; this goes on as it would with a longer one.
        number += 1
        block = hmac.digest(key, block + info + number.to_bytes(1 if number < 256 else 4, "big"), "sha256")
        for at in range(0, _BLOCK, 2):
            value = int.from_bytes(block[at : at + 2], "big")
            # Of the values that do not divide evenly none is used, or low ports would come more often.
            if value < _VALUES - _VALUES % _RANGE and FIRST + value % _RANGE not in POPULAR:
                yield FIRST + value % _RANGE
