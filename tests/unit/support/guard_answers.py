# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host answers to a confirm, and a clock that is made up."""

from typing import List

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible_collections.sesame.portknock.plugins.module_utils._change import record as _transaction
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard import answers

IDENT = "0123456789abcdef"
CONFIRMED = {"outcome": "confirmed", "connection": "192.0.2.7 50001 192.0.2.1 22"}
LATE = {"outcome": "rolled_back", "undo": "exact", "why": _transaction.NOT_CONFIRMED, "id": IDENT}
STALE = {"outcome": "stale", "connection": "192.0.2.7 50000 192.0.2.1 22"}
UNKNOWN = {"outcome": "unknown"}
PENDING = {"outcome": "pending", "owner": "me@here", "age": 31, "left": 0}
UNHEARD = {"outcome": "unheard", "why": "no knock of 192.0.2.7 at door ssh was seen"}
LOCKED = {"outcome": "error", "why": "another run has held the lock for 10 s."}
NOT_RUN = {"outcome": answers.NOT_RUN, "why": f"{answers.PROGRAM_NOT_RUN} (sh: 3: exec: /usr/bin/python3: not found)"}
TIMED_OUT = "ssh: connect to host h port 22: Connection timed out"


class Clock:
    """Time that passes only in sleep()."""

    def __init__(self) -> None:
        self.now = 5000.0
        self.slept: List[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.slept.append(seconds)
        self.now += seconds
