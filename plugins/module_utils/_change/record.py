# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A change that waits to be confirmed: what is written down about it, and where.

The record lies in /run, and a copy of it on the disk, for when /run was emptied, by hand or by a reboot. The rules files
are not touched before a change is confirmed, so a reboot is a rollback as well: what others saved meanwhile is undone at the
next boot, as the copy says. Whoever reads or changes the record holds the lock of the host.
"""

import base64
import contextlib
import json
import os
import time
from typing import Any, Dict, List, NamedTuple, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError, PendingError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import (
    LAST,
    PENDING,
    RUN,
    SPARE,
    SPARE_RECORD,
    UNDO_UNIT,
    UNDO_WANTS,
)

VERSION = 7
"""Of the record's form. The first release wrote records without a version."""

MARK = "portknock-guard: "
"""What stands before an answer that the controller reads, among whatever else a login prints."""

ARMED, APPLIED, CONFIRMING, UNDOING = "armed", "applied", "confirming", "undoing"
CONFIRMED, ROLLED_BACK = "confirmed", "rolled_back"

NOT_CONFIRMED = "it was not confirmed in time"
"""Why a change is undone at its deadline. The controller, which reads it, then says why it could not confirm."""


class Record(NamedTuple):
    """One change."""

    version: int
    """Of the record's form."""
    id: str
    """Names the change."""
    owner: str
    """Who makes it, for people."""
    begun: float
    """When it began, in seconds since 1970, for people only."""
    boot: str
    """Of which boot it is."""
    deadline: float
    """CLOCK_MONOTONIC seconds until which it can be confirmed."""
    state: str
    """ARMED, APPLIED, CONFIRMING or UNDOING."""
    agent: str
    """What undoes it at the deadline: ``systemd``, ``process``, or '' for a change without a guard."""
    module: List[Any]
    """Process id and start of the run that makes it."""
    session: List[str]
    """SSH_CONNECTION of that run, or empty."""
    applied: float
    """When it was in force, in seconds since boot."""
    parts: Dict[str, Dict[str, Any]]
    """Part to ``before`` and ``expected``, which mean something to the part alone."""
    proof: Dict[str, Any]
    """The knock that must have been recognised before the change is confirmed, or empty."""
    door: str
    """The door that lets in new connections to the port of that session, or empty; running ones must then be tracked."""
    before: Dict[str, List[Any]]
    """Path to [text or None, as kept_text() returns it, mode] of the files before the change."""
    early: List[str]
    """Paths of files that are written before the confirmation."""
    staged: List[List[str]]
    """[temporary path, path] of files that the confirmation moves into place."""
    gone: List[str]
    """Paths of files that it removes."""
    unit: str
    """What it does with our unit: ``enable``, ``disable`` or ''."""
    unit_was: bool
    """Whether our unit was enabled before."""
    directory_goes: bool
    """Whether it removes /etc/portknock."""

    def description(self) -> str:
        """Return who made it and how long ago, for a message."""
        return _description(self.owner, self.begun)


class OtherVersion(NamedTuple):
    """What is understood of the record of another version of this collection."""

    id: str
    """Names the change."""
    owner: str
    """Who makes it, for people."""
    begun: float
    """When it began, in seconds since 1970."""
    boot: str
    """Of which boot it is."""
    deadline: float
    """CLOCK_MONOTONIC seconds until which it can be confirmed."""
    state: str
    """As in a Record."""
    staged: List[List[str]]
    """As in a Record."""

    def description(self) -> str:
        """Return who made it and how long ago, for a message."""
        return _description(self.owner, self.begun)


def _description(owner: str, begun: float) -> str:
    return "{}, {} s ago".format(owner or "an unnamed run", max(0, int(time.time() - begun)))


def kept_text(text: Optional[str]) -> Any:
    """Return a file's text as it is kept in a record: one that is no UTF-8 would become three times as long in JSON.

    :returns: a text, or a list of one text, which read_text() understands.
    """
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        return [base64.b64encode((text or "").encode("utf-8", "surrogateescape")).decode()]
    return text


def read_text(kept: Any) -> Optional[str]:
    """Return the text that kept_text() was given."""
    return base64.b64decode(kept[0]).decode("utf-8", "surrogateescape") if isinstance(kept, list) else kept


def pending_error(record: Any, left: float) -> PendingError:
    """Return the error that another change waits to be confirmed.

    :param record: its Record, or OtherVersion.
    :param left: the seconds left until it is undone.
    """
    seconds = max(0, int(left))
    message = (
        f"another change of the knock ruleset is pending: made by {record.description()}, it is undone in {seconds} s unless "
        f"that run confirms it. Wait and run this again, or end it on the host: 'portknock confirm' keeps it, 'portknock "
        "rollback' undoes it."
    )
    return PendingError(message, dict(id=record.id, owner=record.owner, seconds_left=seconds))


class OtherVersionError(HostError):
    """The pending change is of another version of this collection."""

    def __init__(self, record: Optional[OtherVersion]) -> None:
        """Take what is understood of it, None where that is nothing."""
        super().__init__(
            f"{PENDING} was written by another version, or by hand, so the change that is pending cannot be read. End it on "
            f"the host: portknock rollback, or portknock confirm; release 1.0.0 has its own, sh {RUN}/rollback and sh {RUN}/confirm."
        )
        self.record = record


class Store:
    """Reads and writes the record; everything is done under the lock of the host."""

    def __init__(self, filesystem: Any) -> None:
        """Take the host's files."""
        self._filesystem = filesystem

    def read(self) -> Optional[Record]:
        """Return the Record of the change that is pending, or None.

        :raises OtherVersionError: if it is not one of this version.
        """
        text = self._filesystem.read(PENDING) or self._filesystem.read(SPARE_RECORD)
        if not text:
            return None
        try:
            fields = json.loads(text)
            if fields.get("id") == self.last().get("id") and not self._filesystem.read(PENDING):
                # It ended; the disk became read-only before its copy could go.
                return None
            if fields.get("version") != VERSION:
                raise OtherVersionError(_understood(fields))
            return Record(**fields)
        except (AttributeError, TypeError, ValueError):
            raise OtherVersionError(None) from None

    def is_lost(self, before: str) -> bool:
        """Return whether a change is no longer pending although it has not ended: its record was removed.

        :param before: the id of the change that had ended last when it was armed, '' for none.
        """
        return self.read() is None and self.last().get("id", "") in ("", before)

    def write(self, record: Record) -> None:
        """Write the record, whole or not at all.

        :raises HostError: if that is not possible.
        """
        text = json.dumps(record._asdict())
        self._filesystem.replace_files({PENDING: (text, 0o600)})
        # On a full or read-only disk nothing can be saved that would have to be undone at the next boot.
        with contextlib.suppress(HostError):
            self._filesystem.replace_files({SPARE_RECORD: (text, 0o600)})

    def end(self, record: Any, outcome: str, undo: str = "", why: str = "", connection: str = "") -> None:
        """Forget the record; what came of it is kept for whoever asks late."""
        last = dict(id=record.id, owner=record.owner, outcome=outcome, undo=undo, why=why, ended=time.time())
        last["connection"] = connection
        # A full /run must not keep a rolled back change alive.
        with contextlib.suppress(HostError):
            self._filesystem.replace_files({LAST: (json.dumps(last), 0o600)})
        # The copy first: as long as the record is there, whoever finds it ends the change in the same way again.
        self._forget_copy()
        self._filesystem.replace_files({PENDING: (None, 0)})

    def _forget_copy(self) -> None:
        """Remove what lies on the disk of a pending change."""
        with contextlib.suppress(HostError):
            there = [path for path in (UNDO_WANTS, UNDO_UNIT) if self._filesystem.mode(path) is not None]
            self._filesystem.replace_files(dict.fromkeys(there, (None, None)))
        self._filesystem.remove_directory(SPARE)
        for directory in (os.path.dirname(UNDO_WANTS), os.path.dirname(SPARE)):
            self._filesystem.remove_if_empty(directory)

    def last(self) -> Dict[str, Any]:
        """Return how the last change ended, or an empty dictionary."""
        return json.loads(self._filesystem.read(LAST) or "{}")


def _understood(fields: Dict[str, Any]) -> Optional[OtherVersion]:
    try:
        return OtherVersion(**{name: fields[name] for name in OtherVersion._fields})
    except KeyError:
        return None


__all__ = (
    "APPLIED",
    "ARMED",
    "CONFIRMED",
    "CONFIRMING",
    "MARK",
    "ROLLED_BACK",
    "UNDOING",
    "VERSION",
    "OtherVersion",
    "OtherVersionError",
    "Record",
    "Store",
    "kept_text",
    "pending_error",
    "read_text",
)
