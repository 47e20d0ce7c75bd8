# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decoys: ports that nothing uses, named in sections of knockd's configuration that do nothing. Pure.

knockd looks at packets to the ports of its own sections alone, so a wrong port breaks a knock only where some section names it.
"""

import hashlib
import itertools
from typing import Any, Iterator, List, Sequence, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ranges
from ansible_collections.sesame.portknock.plugins.module_utils._spec.sequences import sequences_of

DECOYS = 64
"""Decoy ports per protocol, all over the range. Of scans that take all ports in a random order, one in (DECOYS + 1)(DECOYS + 2)
at the most opens a door of three steps by chance, one in DECOYS + 2 a door of two."""
_POPULAR = {
    "tcp": (
        7, 26, 79, 81, 88, 106, 113, 144, 179, 199, 427, 444, 465, 513, 514, 515, 543, 544, 548, 554, 631, 646, 990, 1026, 1027,
        1029, 1110, 1433, 1720, 1900, 2000, 2001, 2121, 5000, 5009, 5101, 5190, 5357, 5631, 5666, 5800, 6000, 6001, 7070, 8008,
        8009, 32768, 49152, 49153, 49154, 49155, 49156,
    ),
    "udp": (),
}  # fmt: skip
"""More decoys, for scanners that look at popular ports alone (of nmap's hundred most frequent, nmap-services), in a random order
but for the first 25; those that clients of a real service come to all the time are left out."""
_DECOY_PORTS = {"tcp": (1024, 65535), "udp": (1024, 32767)}
"""Where decoys are. Not among the ports that Linux sends datagrams from: an answer is no knock at a wrong port."""

_LAST = 65535
_TURNS = 4096
"""Ends the search for a free port where all of them are taken."""


def decoy_ports(spec: Any, protocol: str) -> Tuple[int, ...]:
    """Return ports that nothing uses: all over the range, and one at least between every two steps, where there is room.

    They follow from the steps, so that they are as secret and as lasting as these.
    """
    seed = _seed(spec)
    used = _used(spec, protocol)
    chosen = list(itertools.islice(_candidates(seed, used, *_DECOY_PORTS[protocol]), DECOYS))
    chosen += [port for port in _POPULAR[protocol] if port not in chosen and not used.overlaps(port, port)]
    between = _used(spec, protocol, (protocol,))
    for gap in _gaps(spec, protocol):
        if not any(low <= port <= high for low, high in gap for port in chosen):
            found = (port for low, high in gap for port in _candidates(seed, between, low, high))
            chosen += itertools.islice(found, 1)
    return tuple(chosen)


def _used(spec: Any, protocol: str, of_steps: Sequence[str] = ("tcp", "udp")) -> Ranges:
    """Return Ranges of the ports that mean something; a step's over either protocol, so that none is given away.

    :param of_steps: over which protocols a step counts, where there may be no other room.
    """
    ranges = [(step.port, step.port) for step in steps_in(spec) if step.protocol in of_steps]
    ranges += [(each.first, each.last) for door in spec.doors for each in door.opens if each.protocol == protocol]
    ranges += [(each.ports.first, each.ports.last) for each in spec.allow if each.ports.protocol == protocol]
    return Ranges(ranges)


def _gaps(spec: Any, protocol: str) -> List[Tuple[Tuple[int, int], ...]]:
    """Return the ports that a scan may pass from each step to the next, as tuples of (first, last).

    It passes those between the two; where it begins again at its end, those around them; and where it goes on with another
    protocol, all behind the one and in front of the other.
    """
    gaps: Set[Tuple[Tuple[int, int], ...]] = set()
    for _index, _key, steps in sequences_of(spec.doors):
        for one, other in zip(steps, steps[1:]):
            if protocol not in (one.protocol, other.protocol):
                continue
            low, high = sorted((one.port, other.port))
            gaps |= {((low + 1, high - 1),), ((high + 1, _LAST), (1, low - 1))}
            if one.protocol != other.protocol:
                port = one.port if one.protocol == protocol else other.port
                gaps |= {((port + 1, _LAST),), ((1, port - 1),)}
    return sorted(tuple((low, high) for low, high in gap if low <= high) for gap in gaps)


def _seed(spec: Any) -> Any:
    return hashlib.sha256(" ".join("{0}/{1}".format(*step) for step in steps_in(spec)).encode("ascii"))


def steps_in(spec: Any) -> List[Any]:
    """Return the steps of all sequences."""
    return [step for _index, _key, steps in sequences_of(spec.doors) for step in steps]


def _candidates(seed: Any, used: Ranges, low: int, high: int) -> Iterator[int]:
    """Yield different ports from low to high that are not used, in an order that follows from the steps."""
    seen: Set[int] = set()
    for turn in range(_TURNS if used.first_outside(low, high) else 0):
        digest = seed.copy()
        digest.update(f" {low} {high} {turn}".encode("ascii"))
        start = low + int.from_bytes(digest.digest()[:4], "big") % (high - low + 1)
        port = used.first_outside(start, high) or used.first_outside(low, start)
        if port is not None and port not in seen:
            seen.add(port)
            yield port


__all__ = ("DECOYS", "decoy_ports", "steps_in")
