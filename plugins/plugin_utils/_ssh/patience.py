# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long ssh waits for each address of a host (ConnectTimeout), so that the door is still open for the last one. Pure.

ssh tries the addresses one after the other, and one that never answers takes its whole time-out, while the window runs that
the knock has opened. PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

HURRIED = 4
"""Seconds for the first tries: where a knock got lost, waiting does not help, a new knock does."""

LONGEST = 60
"""Seconds where ssh's own configuration has no limit."""

_LAST_CONNECT = 1.0
"""Seconds of the window that are left for the last address."""


def longest_patience(addresses: int, window: float, timeout: int) -> int:
    """Return the most seconds for an address, such that the last one is still tried within the window.

    :param addresses: how many ssh tries.
    :param window: the door's window in seconds, 0 where no door is in the way.
    :param timeout: ssh's own ConnectTimeout in seconds, 0 for none.
    """
    own = timeout or LONGEST
    if addresses < 2 or not window:
        return own
    return max(1, min(own, int((window - _LAST_CONNECT) / (addresses - 1))))


def hurried_patience(addresses: int, window: float, timeout: int, turn: int = 0) -> int:
    """Return the seconds for an address in a try that another one follows: twice as many in each.

    :param turn: how many tries there were before.
    """
    return min(longest_patience(addresses, window, timeout), HURRIED << min(turn, 8))


def is_too_short(addresses: int, window: float) -> bool:
    """Return whether a window ends before the last address can be tried, if the others do not answer."""
    return bool(window) and addresses > 1 and addresses - 1 + _LAST_CONNECT > window
