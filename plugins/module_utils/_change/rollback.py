# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way back: rules, files and services as they were before a change, each of them whatever becomes of the others."""

import contextlib
import sys
from typing import Any, List, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._change.record import (
    APPLIED,
    CONFIRMED,
    CONFIRMING,
    ROLLED_BACK,
    UNDOING,
    OtherVersionError,
    Record,
    Store,
    pending_error,
    read_text,
)
from ansible_collections.sesame.portknock.plugins.module_utils._engine import EXACT, Part, worst
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import PROGRAM, SPARE_PROGRAM, UNIT_NAME


def roll_back(host: Any, parts: List[Part], record: Record) -> str:
    """Put everything back as it was before a change, and return EXACT, SNAPSHOT or EMPTIED.

    :raises HostError: if something cannot be put back.
    """
    with contextlib.ExitStack() as rest:
        # Whatever becomes of the others: the old way in may need just that one. The last one comes first.
        for part in parts:
            rest.callback(part.undo_with_files, record.parts[part.name]["before"])
        rest.callback(_put_back_files, host, parts, record)
        rest.callback(host.filesystem.discard, record.staged)
        return worst(_undo_parts(parts, record))


def _undo_parts(parts: List[Part], record: Record) -> List[str]:
    """Have what runs as it was before a change, each part whatever becomes of the others, the other way round than they were loaded.

    :raises HostError: if a part cannot be undone; the others are.
    """
    named = {part.name: part for part in parts}
    undone, failed = [], []
    for name, fields in reversed(list(record.parts.items())):
        try:
            undone.append(named[name].undo(fields["before"]))
        except HostError as error:
            failed.append(str(error))
    if failed:
        raise HostError(" ".join(failed))
    return undone


def _put_back_files(host: Any, parts: List[Part], record: Record) -> None:
    """Put back the files that are not as before, every one that can be.

    :raises HostError: if one cannot; what is not put back would come with the next boot.
    """
    filesystem, failed = host.filesystem, []
    for path, (text, mode) in sorted(record.before.items()):
        try:
            now = (filesystem.read(path) or None, filesystem.mode(path))
            wanted = (read_text(text), mode)
            if now != wanted and not _is_written_by_us(path, record):
                wanted = _without_loaded(path, wanted, now, parts)
            if now != wanted:
                filesystem.replace_files({path: wanted})
        except HostError as error:
            failed.append(str(error))
    if record.state == UNDOING and not failed:
        _switch_unit(host, record.unit_was)
    if failed:
        raise HostError("Files could not be put back: {}".format(" ".join(failed)))


def _is_written_by_us(path: str, record: Record) -> bool:
    """Return whether the change has written a file: before the confirmation those are only a few."""
    return record.state == UNDOING or path in record.early


def _without_loaded(path: str, before: Tuple[Any, Any], now: Tuple[Any, Any], parts: List[Part]) -> Tuple[Any, Any]:
    """Return text and mode of a file that others have written since.

    What was loaded may have been saved to it, and must not come back with the next boot; the rest is not ours to undo.
    """
    text = now[0] or ""
    for part in parts:
        if part.is_loaded_in(before[0] or "", text):
            text = part.without_loaded(path, before[0] or "", text)
    if text == (now[0] or ""):
        return now
    return before if text == (before[0] or "") else (text or None, now[1])


def end_other_boot(host: Any, parts: List[Part], record: Record) -> None:
    """End a change that the host was restarted in before it was confirmed, whatever others saved of it meanwhile.

    Files come first, then what the boot loaded of them. No service is started or stopped: this may run before those that they
    need. So of a change that was being kept, the rest is left to the next run.

    :raises HostError: if something cannot be put back.
    """
    store = Store(host.filesystem)
    if record.state == CONFIRMING:
        host.filesystem.settle(record.staged, record.gone)
        store.end(record, CONFIRMED, why="the host was restarted while it was kept")
        return
    undone: List[str] = []
    with contextlib.ExitStack() as rest:
        rest.callback(lambda: undone.extend(undo_loaded(parts, record)))
        rest.callback(_put_back_files, host, parts, record)
        host.filesystem.discard(record.staged)
    store.end(record, ROLLED_BACK, worst(undone), "the host was restarted before it was confirmed")


def undo_loaded(parts: List[Part], record: Record) -> List[str]:
    """Undo what a boot has loaded of a change that was not confirmed before it, and return for each part EXACT, SNAPSHOT or EMPTIED.

    :raises HostError: if something cannot be undone; the rest is.
    """
    undone: List[str] = []

    def undo(part: Part) -> None:
        undone.append(part.undo_after_boot(record.parts[part.name]["before"]))

    with contextlib.ExitStack() as rest:
        for part in parts:
            rest.callback(undo, part)
    return undone


def _switch_unit(host: Any, enabled: bool) -> None:
    """Have our unit as it was; what it looks at is in place in any case.

    One that is well is not run again: doors that were missing before the change would come back by that.
    """
    with contextlib.suppress(HostError):
        if enabled and host.systemd.is_ready(UNIT_NAME):
            host.systemd.reload()
        elif enabled:
            host.systemd.enable(UNIT_NAME)
        else:
            host.systemd.disable(UNIT_NAME)


def end_other_version(host: Any) -> str:
    """Finish the change that another version of this collection left unfinished, with the program that it left in /run.

    That program takes the lock of the host itself, so whoever calls this must not hold it.

    :returns: a sentence about it, or ''.
    """
    try:
        Store(host.filesystem).read()
    except OtherVersionError as error:
        record = error.record
        if record is None or record.boot != host.processes.boot() or time_left(host, record) > 0:
            return ""
        verb = "confirm" if record.state == CONFIRMING else "rollback"
        call_its_program(host, verb, record.id)
        return f"An earlier change ({record.description()}), made by another version, had been left unfinished; it was ended first."
    return ""


def call_its_program(host: Any, *words: str) -> Tuple[int, str, str]:
    """Run the program that made the pending change, whatever its version is; it takes the lock of the host itself.

    :returns: exit code, output and errors.
    """
    python = sys.executable or host.command.find("python3") or "/usr/bin/python3"
    only_spare = host.filesystem.mode(PROGRAM) is None and host.filesystem.mode(SPARE_PROGRAM) is not None
    return host.command.run([python, "-I", "-S", "-B", SPARE_PROGRAM if only_spare else PROGRAM, *words])


def refuse_other_version(host: Any, error: OtherVersionError) -> None:
    """Refuse to go on beside a change of another version, unless it is of another boot: then it is forgotten.

    :raises PendingError: if that change can still be confirmed.
    :raises OtherVersionError: if the program that made it could not end it.
    """
    record = error.record
    if record is None:
        raise error
    if record.boot == host.processes.boot():
        left = time_left(host, record)
        raise pending_error(record, left) if left > 0 else error
    host.filesystem.discard(record.staged)
    Store(host.filesystem).end(record, ROLLED_BACK, EXACT, "the host was restarted before it was confirmed")


def time_left(host: Any, record: Any) -> float:
    """Return the seconds for which a change can still be confirmed: 0 where it was never applied, or is ending already."""
    return max(0.0, record.deadline - host.clock.monotonic()) if record.state == APPLIED else 0.0


__all__ = (
    "call_its_program",
    "end_other_boot",
    "end_other_version",
    "refuse_other_version",
    "roll_back",
    "time_left",
    "undo_loaded",
)
