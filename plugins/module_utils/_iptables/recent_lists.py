# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""What xt_recent remembers, read from the kernel's proc files. Pure.

The kernel prints jiffies since boot (counted from five minutes before zero, include/linux/jiffies.h), not
seconds. It does not say how many jiffies a second has, so the usual values are tried: only the right one
puts the newest entry into the recent past.
"""

import ipaddress
import re
from typing import NamedTuple

HERTZ = (100, 250, 300, 1000)
_WRAP = 2**32
_ENTRY = re.compile(r"^src=(\S+) .*?last_seen: (\d+)", re.M)

Entry = NamedTuple("Entry", [("source", str), ("last_seen", int)])


def read_list(text):
    """Return the entries of a list: source address and the jiffies when it was last put on."""
    return [Entry(source, int(stamp)) for source, stamp in _ENTRY.findall(text)]


def network_of(source, ipv6_prefix):
    """Return the address under which a list of the kernel holds a source."""
    bits = 32 if source.version == 4 else ipv6_prefix
    return ipaddress.ip_network("{0}/{1}".format(source, bits), strict=False).network_address


def guess_hertz(entries, uptime):
    """Return the jiffies of a second that fit the entries, or None where there are none.

    :param uptime: seconds since boot.
    """
    stamps = [entry.last_seen for entry in entries]
    if not stamps:
        return None
    ages = {hertz: min(abs(_age(stamp, hertz, uptime)) for stamp in stamps) for hertz in HERTZ}
    return min(HERTZ, key=lambda hertz: ages[hertz])


def _age(stamp, hertz, uptime):
    now = int((uptime - 300) * hertz) % _WRAP
    difference = (now - stamp) % _WRAP
    return (difference - _WRAP if difference > _WRAP // 2 else difference) / float(hertz)


def seconds_left(entries, window, uptime, hertz):
    """Return source to the whole seconds for which the door stays open to it, those already shut left out."""
    left = {}
    for entry in entries:
        seconds = window - max(0.0, _age(entry.last_seen, hertz, uptime))
        if seconds > 0:
            left[entry.source] = int(seconds + 0.999)
    return left


__all__ = ("guess_hertz", "network_of", "read_list", "seconds_left")
