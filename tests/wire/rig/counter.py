# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Counts knocks and new connections on the target, in front of every rule that could decide."""

import re

from rig.network import Rig
from rig.target import COMMANDS, FAMILIES


class Counter:
    """Counts the SYN to two ports: that of a knock's last step, and the one behind the door."""

    def __init__(self, rig: Rig, last: int, port: int = 22) -> None:
        """Put counting rules where nothing decides."""
        self._run, self._ports = rig.target.namespace.run, (str(last), str(port))
        for family in FAMILIES:
            for each in self._ports:
                self._run(COMMANDS[family], "-t", "raw", "-I", "PREROUTING", "-p", "tcp", "--syn", "--dport", each)
        self._before = self._read()

    def _read(self) -> tuple[int, ...]:
        counts = dict.fromkeys(self._ports, 0)
        for family in FAMILIES:
            text = self._run(COMMANDS[family] + "-save", "-c", "-t", "raw").stdout
            for packets, port in re.findall(r"^\[(\d+):\d+\] -A PREROUTING .*--dport (\d+) ", text, re.M):
                if port in counts:
                    counts[port] += int(packets)
        return tuple(counts[port] for port in self._ports)

    def take(self) -> tuple[int, ...]:
        """Return (knocks, new connections) since the last time."""
        now = self._read()
        counts = tuple(new - old for new, old in zip(now, self._before, strict=True))
        self._before = now
        return counts


def close_doors(rig: Rig) -> None:
    """Forget who has knocked."""
    if rig.target.table:
        rig.target.table.forget()
        return
    rig.target.namespace.run("sh", "-c", "for list in /proc/net/xt_recent/pk*; do echo / >$list; done")
