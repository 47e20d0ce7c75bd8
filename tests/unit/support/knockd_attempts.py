# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""knockd as a knocker sees it: what it makes of one source's packets."""

from typing import Any, List, Tuple


class Knockd:
    """What knockd 0.8 makes of one source's packets (sniff() in its knockd.c)."""

    def __init__(self, *doors: Tuple[Any, ...]) -> None:
        self._doors = doors
        self._attempts: List[List[Any]] = []
        self.opened: List[Tuple[Any, ...]] = []

    def hear(self, step: Any) -> None:
        """Take a packet, unless it is to a port of no door: its filter drops that."""
        if not any(step in door for door in self._doors):
            return
        # What ended is forgotten when the next packet comes; and with the first of them all that came after it.
        running = [each for each in self._attempts if 0 <= each[1] < len(each[0])]
        self._attempts = running if running[:1] == self._attempts[:1] else []
        if not self._attempts:
            self._attempts = [[door, 1] for door in self._doors if door[0] == step]
        else:
            for each in self._attempts:
                each[1] = each[1] + 1 if each[0][each[1]] == step else -1
        self.opened += [door for door, stage in self._attempts if stage == len(door)]
