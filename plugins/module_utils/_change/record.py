# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""A change that waits to be confirmed: what is written down about it, and where.

The record lies in /run, so a reboot ends it; the rules files are not touched before it is confirmed, so a reboot is
a rollback as well. Whoever reads or changes it holds the lock of the host.
"""

import contextlib
import json
import time
from typing import NamedTuple

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError

RUN = "/run/portknock"
MARK = "portknock-guard: "
"""What stands before an answer that the controller reads, among whatever else a login prints."""

PENDING = RUN + "/pending.json"
LAST = RUN + "/last.json"

ARMED, APPLIED, CONFIRMING, UNDOING = "armed", "applied", "confirming", "undoing"
CONFIRMED, ROLLED_BACK = "confirmed", "rolled_back"
EXACT, SNAPSHOT = "exact", "snapshot"


class Record(
    NamedTuple(
        "Record",
        [
            ("id", str),
            ("owner", str),
            ("begun", float),
            ("boot", str),
            ("deadline", float),
            ("state", str),
            ("agent", str),
            ("module", list),
            ("session", list),
            ("applied", float),
            ("saves", dict),
            ("changed", list),
            ("expected", dict),
            ("before", dict),
            ("staged", list),
            ("gone", list),
            ("unit", str),
            ("unit_was", bool),
            ("directory_goes", bool),
            ("doorman", str),
            ("doorman_was", dict),
            ("proof", dict),
        ],
    )
):
    """One change.

    id: names it; owner: who makes it, for people; begun: when, seconds since 1970, for people only; boot: of which
    boot; deadline: CLOCK_MONOTONIC seconds until which it can be confirmed; agent: ``systemd`` or ``process``;
    module: process id and start of the run that makes it; session: SSH_CONNECTION of that run, or empty; applied:
    when the rules were in force, seconds since boot; saves: family to the ruleset before; changed: the families that
    are changed; expected: family to our rules as they read afterwards; before: path to [text, mode] of the files before;
    staged, gone, unit, directory_goes: what is left to do to keep it (see _keeping); unit_was: whether our unit
    was enabled; doorman: what is left to do for knockd, '' where it is not touched; doorman_was: how it was; proof: the
    knock that must have been heard before the change is confirmed, as family to list, with ``ipv6_prefix``, or empty.
    """

    __slots__ = ()

    def described(self):
        """Return who made it and how long ago, for a message."""
        return "{0}, {1} s ago".format(self.owner or "somebody", max(0, int(time.time() - self.begun)))


class PendingError(HostError):
    """Another change waits to be confirmed."""

    def __init__(self, record, left):
        """Take its Record and the seconds left until it is undone."""
        super().__init__(
            "another change of the knock ruleset is pending: made by {0}, it is undone in {1} s unless that run confirms it. "
            "Wait and run this again, or end it on the host: sh {2}/confirm keeps it, sh {2}/rollback undoes it.".format(
                record.described(), max(0, int(left)), RUN
            )
        )
        self.pending = dict(id=record.id, owner=record.owner, seconds_left=max(0, int(left)))


class Store:
    """Reads and writes the record; everything is done under the lock of the host."""

    def __init__(self, host):
        """Take a Host."""
        self._host = host

    def read(self):
        """Return the Record of the change that is pending, or None."""
        text = self._host.read(PENDING)
        try:
            return Record(**json.loads(text)) if text else None
        except (TypeError, ValueError) as error:
            raise HostError(
                "{0} was written by another version, or by hand, so the change that is pending cannot be read. End it on the host "
                "with the program of its own version: sh {1}/rollback, or sh {1}/confirm.".format(PENDING, RUN)
            ) from error

    def write(self, record):
        """Write the record, whole or not at all.

        :raises HostError: if that is not possible.
        """
        self._host.replace_files({PENDING: (json.dumps(record._asdict()), 0o600)})

    def end(self, record, outcome, undo="", why="", connection=""):
        """Forget the record; what came of it is kept for whoever asks late."""
        last = dict(id=record.id, owner=record.owner, outcome=outcome, undo=undo, why=why, ended=time.time())
        last["connection"] = connection
        # A full /run must not keep a rolled back change alive.
        with contextlib.suppress(HostError):
            self._host.replace_files({LAST: (json.dumps(last), 0o600)})
        self._host.replace_files({PENDING: (None, 0)})

    def last(self):
        """Return how the last change ended, or an empty dictionary."""
        return json.loads(self._host.read(LAST) or "{}")


__all__ = (
    "APPLIED",
    "ARMED",
    "CONFIRMED",
    "CONFIRMING",
    "EXACT",
    "MARK",
    "ROLLED_BACK",
    "RUN",
    "SNAPSHOT",
    "UNDOING",
    "PendingError",
    "Record",
    "Store",
)
