# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What xt_recent remembers, read from the kernel's proc files. Pure.

The kernel prints jiffies since boot (counted from five minutes before zero, include/linux/jiffies.h), not
seconds. It does not say how many jiffies a second has, so the usual values are tried: only the right one
puts the newest entry into the recent past.
"""

import ipaddress
import re
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence

from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Address

HERTZ = (100, 250, 300, 1000)
_WRAP = 2**32
_ENTRY = re.compile(r"^src=(\S+) .*?last_seen: (\d+)", re.M)


class Entry(NamedTuple):
    """A source on a list."""

    source: str
    """Its address as the kernel prints it."""
    last_seen: int
    """The jiffies when it was last put on the list."""


def read_list(text: str) -> List[Entry]:
    """Return the entries of a list: source address and the jiffies when it was last put on."""
    return [Entry(source, int(stamp)) for source, stamp in _ENTRY.findall(text)]


def network_of(source: Address, ipv6_prefix: int) -> Address:
    """Return the address under which a list of the kernel holds a source."""
    bits = 32 if source.version == 4 else ipv6_prefix
    return ipaddress.ip_network(f"{source}/{bits}", strict=False).network_address


def guess_hertz(entries: Sequence[Entry], uptime: float) -> Optional[int]:
    """Return the jiffies of a second that fit the entries, or None where there are none.

    :param uptime: seconds since boot.
    """
    stamps = [entry.last_seen for entry in entries]
    if not stamps:
        return None
    ages = {hertz: min(abs(_age(stamp, hertz, uptime)) for stamp in stamps) for hertz in HERTZ}
    return min(HERTZ, key=lambda hertz: ages[hertz])


def _age(stamp: int, hertz: int, uptime: float) -> float:
    now = int((uptime - 300) * hertz) % _WRAP
    difference = (now - stamp) % _WRAP
    return (difference - _WRAP if difference > _WRAP // 2 else difference) / float(hertz)


def seconds_left(entries: Iterable[Entry], window: int, uptime: float, hertz: int) -> Dict[str, int]:
    """Return source to the whole seconds for which the door stays open to it, those already closed left out."""
    left: Dict[str, int] = {}
    for entry in entries:
        seconds = window - max(0.0, _age(entry.last_seen, hertz, uptime))
        if seconds > 0:
            left[entry.source] = int(seconds + 0.999)
    return left


__all__ = ("guess_hertz", "network_of", "read_list", "seconds_left")
