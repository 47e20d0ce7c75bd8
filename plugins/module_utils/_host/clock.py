# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clocks of a host."""

import time

_CLOCK_BOOTTIME = 7
"""CLOCK_BOOTTIME of clock_gettime(2); Python has no name for it before 3.7."""


class Clock:
    """The clocks that cannot be set."""

    def monotonic(self) -> float:
        """Return CLOCK_MONOTONIC, in seconds: all processes of a boot share it, and xt_recent's ticks follow it."""
        return time.monotonic()

    def since_boot(self) -> float:
        """Return the seconds since boot, suspend included, as a process's start is counted."""
        return time.clock_gettime(_CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


__all__ = ("Clock",)
