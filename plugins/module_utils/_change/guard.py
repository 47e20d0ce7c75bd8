# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host's half of the guard: a change is armed, applied, and then confirmed or rolled back, exactly one of the two.

Everything here runs under the lock of the host: in the module, in the process that waits for the deadline, in the
command that the controller confirms with, and in those of an administrator. Whoever holds the lock decides on what the
record says; if it dies on the way, the next one finds the record as it was and does the same again.
"""

import contextlib
import os
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._change import commit
from ansible_collections.sesame.portknock.plugins.module_utils._change.engines import parts_on
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import Change, taken_out_last
from ansible_collections.sesame.portknock.plugins.module_utils._change.record import (
    APPLIED,
    ARMED,
    CONFIRMED,
    CONFIRMING,
    ROLLED_BACK,
    UNDOING,
    VERSION,
    OtherVersionError,
    Record,
    Store,
    kept_text,
    pending_error,
    read_text,
)
from ansible_collections.sesame.portknock.plugins.module_utils._change.rollback import (
    end_other_boot,
    refuse_other_version,
    roll_back,
    time_left,
)
from ansible_collections.sesame.portknock.plugins.module_utils._change.undone import undone_sentence, why_untracked
from ansible_collections.sesame.portknock.plugins.module_utils._engine import (
    EXACT,
    Loaded,
    PartPlan,
    address_of,
    connection_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._errors import AppliedError, HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.conntrack import TRACKED, UNKNOWN, UNTRACKED
from ansible_collections.sesame.portknock.plugins.module_utils._host.processes import hang_ups_wait
from ansible_collections.sesame.portknock.plugins.module_utils._paths import STATE_FILE, UNIT_NAME

Answer = Dict[str, Any]
"""``outcome``: CONFIRMED, ROLLED_BACK, ``stale`` (this connection is older than the change, so it proves nothing), ``unheard``
(the knock that is to prove the engine has not come) or ``unknown``; more keys tell how: ``tracked`` is ``unknown`` where the kernel
does not say whether it tracks the connection that confirmed, ``session`` is ``untracked`` where it does not track the play's own."""
Session = Tuple[Optional[List[str]], Optional[float]]


class Guard:
    """The guard of one host."""

    def __init__(self, host: Any, agent: Any) -> None:
        """Take a Host, and an agent: arm(record, seconds) to ``systemd`` or ``process``, disarm(record)."""
        self._host, self._agent = host, agent
        self._store = Store(host.filesystem)
        self._parts = parts_on(host)

    # In the module

    def finish_earlier(self) -> str:
        """Finish what a run before left unfinished.

        :returns: a sentence about it, or ''.
        :raises PendingError: if a change waits to be confirmed and still can be.
        """
        try:
            record = self._store.read()
        except OtherVersionError as error:
            refuse_other_version(self._host, error)
            return ""
        if record is None:
            return ""
        if record.boot != self._host.processes.boot():
            end_other_boot(self._host, self._parts, record)
            return ""
        if record.state == CONFIRMING:
            done = self._finish(record)["outcome"] == CONFIRMED
            return "An earlier change ({}) had been confirmed but not kept to the end; {} first.".format(
                record.description(), "that was done" if done else "that failed, so it was undone"
            )
        left = time_left(self._host, record)
        if left > 0:
            raise pending_error(record, left)
        self._roll_back(record, _unfinished(record))
        return f"An earlier change ({record.description()}) had been left unfinished; it was undone first."

    def apply(self, change: Change, options: Dict[str, Any]) -> Record:
        """Apply a Change.

        :param options: the module's options.
        :returns: the Record of the change, which now waits to be confirmed; what loads nothing, or is not to be guarded, has
            nothing to wait for, and keep() is to follow at once.
        :raises AppliedError: with what failed, and how it was undone.
        """
        record = self._arm(change, options)
        try:
            record = self._load(change, record)
            if record.agent and self._host.clock.monotonic() >= record.deadline:
                raise HostError("applying took longer than guard_timeout, so it could not be confirmed in time.")
            self._store.write(record)
        except HostError as error:
            undo = self._take_back(record, error)
            raise AppliedError(f"{error} {undone_sentence(undo)}", undo) from error
        except BaseException:
            self._roll_back(record, _NOT_APPLIED)
            raise
        return record

    def _take_back(self, record: Record, problem: HostError) -> str:
        """Undo what could not be applied, and return EXACT, SNAPSHOT or EMPTIED.

        :raises HostError: if that is not possible at once, with the problem that it began with.
        """
        try:
            return self._roll_back(record, _NOT_APPLIED)
        except HostError as error:
            again = (
                "It is tried again until it works." if record.agent else "Running this again tries to undo it first."
            )
            raise HostError(f"{problem} Undoing it failed too, look at it by hand now: {error} {again}") from error

    def _load(self, change: Change, record: Record) -> Record:
        self._host.filesystem.replace_files(change.early_files)
        if any(plan.begins for plan in change.parts):
            # Before the first rule that has the kernel track connections.
            self._host.conntrack.adopt(self._host.sockets.connected(), self._host.processes.ssh_connection() or [])
        loaded: Dict[str, Loaded] = {}
        disturbed = False
        parts = {part.name: part for part in self._parts}
        for plan in taken_out_last(change.parts):
            part = parts[plan.part]
            now = part.plan(plan.wanted) if disturbed else plan
            if now.loads:
                loaded[plan.part] = part.load(now)
            disturbed = disturbed or plan.disturbs
        if loaded:
            self._forget_connection(change)
        staged = commit.stage(self._host, change, {name: one.remembered for name, one in loaded.items()})
        expected = {
            name: dict(fields, expected=loaded[name].expected if name in loaded else {})
            for name, fields in record.parts.items()
        }
        now = self._host.clock.since_boot()
        return record._replace(state=APPLIED, applied=now, parts=expected, **staged._asdict())

    def _forget_connection(self, change: Change) -> None:
        """Take whoever runs this off the list of its door.

        It may be there from a knock with the steps before, and then a new connection would get in without the new
        knock, and prove nothing about it. Established connections live on.
        """
        door = change.door or change.proof.get("door", "")
        if door and change.connection is not None:
            for part, plan in zip(self._parts, change.parts):
                if plan.wanted.spec is not None:
                    part.forget(plan, door, change.connection.source)

    def _arm(self, change: Change, options: Dict[str, Any]) -> Record:
        guarded, timeout = options["guard"] and change.loads, options["guard_timeout"]
        processes, clock = self._host.processes, self._host.clock
        record = Record(
            version=VERSION,
            id=options.get("guard_id") or os.urandom(8).hex(),
            owner=options.get("guard_owner") or "",
            begun=time.time(),
            boot=processes.boot(),
            # Without a guard no confirmation is waited for: whoever finds the record undoes it.
            deadline=clock.monotonic() + (timeout if guarded else 0),
            state=ARMED,
            agent="",
            module=[os.getpid(), processes.start_of(os.getpid())],
            session=processes.ssh_connection() or [],
            applied=0.0,
            parts={plan.part: dict(before=plan.before, expected={}) for plan in taken_out_last(change.parts)},
            proof=change.proof if guarded else {},
            door=change.door,
            before=self._files_before(change),
            early=sorted(change.early_files),
            staged=[],
            gone=[],
            unit=change.unit,
            unit_was=self._host.systemd.is_enabled(UNIT_NAME),
            directory_goes=change.absent,
        )
        # Else the record of a change that has not begun would be pending until the next run.
        with hang_ups_wait():
            self._store.write(record)
            if not guarded:
                return record
            try:
                agent = self._agent.arm(record, timeout, *_last_way(change.parts))
            except BaseException:
                self._store.end(record, ROLLED_BACK, EXACT, "nothing could be armed to undo it")
                raise
        return record._replace(agent=agent)

    def _files_before(self, change: Change) -> Dict[str, List[Any]]:
        filesystem = self._host.filesystem
        saved_to = {path for plan in change.parts for path in plan.saved_to}
        return {
            path: [kept_text(filesystem.read(path) or None), filesystem.mode(path)]
            for path in set(change.files) | saved_to | {STATE_FILE}
        }

    def keep(self, record: Record) -> None:
        """Confirm at once what apply() returned.

        :raises AppliedError: if it cannot be kept, with how it was undone.
        """
        answer = self._finish(record)
        if answer["outcome"] != CONFIRMED:
            raise AppliedError(f"{answer['why']} {undone_sentence(answer['undo'])}", answer["undo"])

    def answer(self, record: Record, door: str) -> Answer:
        """Return what the controller must know to confirm a change.

        :param door: the name of the door that its new connection must knock at, or ''; where it needs none, ``proof_door`` may
            name one whose knock proves the engine.
        """
        connection = connection_of(record.session)
        return dict(
            state="pending",
            id=record.id,
            door=door,
            port=connection.port if connection else 0,
            seconds_left=round(record.deadline - self._host.clock.monotonic(), 3),
            agent=record.agent,
            proof_door=record.proof.get("door", ""),
            boot=record.boot,
        )

    # From outside

    def confirm(self, name: str, session: Session = (None, None)) -> Answer:
        """Keep a change.

        :param name: the id of the change, '' for whichever is pending (an administrator's word).
        :param session: the ssh session of the connection that confirms.
        """
        record = self._store.read()
        if record is None or (name and record.id != name):
            return self.ended(name)
        if record.boot != self._host.processes.boot():
            end_other_boot(self._host, self._parts, record)
            return self.ended(name)
        words = session[0] or []
        newer = _is_newer(session, record)
        if record.state == CONFIRMING:
            # The connection that confirmed was cut short; where it cannot be named, this one came through as well.
            return self._finish(record, connection=" ".join(words) if name and newer else "")
        if name and not newer:
            return dict(outcome="stale", connection=" ".join(words))
        tracked = self._host.conntrack.state_of(words) if name and record.door and words else TRACKED
        problem = self._problem(record, name) or (self._untracked(record, words) if tracked == UNTRACKED else "")
        unheard = self._missing_knock(record, words) if name else ""
        if problem:
            self._roll_back(record, unheard if unheard and problem == _LATE else problem)
            return self.ended(record.id)
        if not name:
            return self._finish(record, why="it was confirmed on the host by hand")
        if unheard:
            return dict(outcome="unheard", why=unheard)
        return dict(self._finish(record, connection=" ".join(words)), **self._untracked_ones(record, tracked))

    def _untracked_ones(self, record: Record, tracked: str) -> Answer:
        """Return what the controller must know of the connection that confirmed, and of the play's own, which is older."""
        found = dict(tracked=tracked) if tracked == UNKNOWN else {}
        if record.door and self._host.conntrack.state_of(record.session) == UNTRACKED:
            found["session"] = UNTRACKED
        return found

    def _untracked(self, record: Record, words: List[str]) -> str:
        """Return why a connection that the kernel does not track proves nothing: it gets in, and breaks when the window ends."""
        connection = connection_of(words)
        found = [part.hides(connection) for part in self._parts] if connection else [None]
        return why_untracked(words[3], record.door, None if None in found else "".join(map(str, found)))

    def _problem(self, record: Record, name: str) -> str:
        """Return why a change cannot be confirmed, or ''."""
        if record.state != APPLIED:
            return _unfinished(record)
        if name and self._host.clock.monotonic() >= record.deadline:
            return _LATE
        for temporary, path in record.staged:
            if self._host.filesystem.mode(temporary) is None:
                return f"something else removed what was to be kept as {path} before it was confirmed"
            if path in record.before and (self._host.filesystem.read(path) or None) != read_text(
                record.before[path][0]
            ):
                return f"something else changed {path} before it was confirmed"
        for part in reversed(self._parts):
            problem = part.problem(**record.parts[part.name])
            if problem:
                return problem
        return ""

    def _missing_knock(self, record: Record, words: List[str]) -> str:
        """Return why the knock is not there that is to prove the engine, from where a connection comes from, or ''."""
        if not record.proof or not words:
            return ""
        part = next(part for part in self._parts if part.name == record.proof["part"])
        return part.missing_knock(record.proof, address_of(words[0]))

    def _finish(self, record: Record, connection: str = "", why: str = "") -> Answer:
        record = record._replace(state=CONFIRMING)
        try:
            self._store.write(record)
            commit.commit(self._host, self._parts, record)
        except HostError as error:
            # Decided anew, and written down: whoever comes after a kill here must not finish it after all.
            record = record._replace(state=UNDOING)
            with contextlib.suppress(HostError):
                self._store.write(record)
            self._roll_back(record, f"it could not be kept: {error}")
            return self.ended(record.id)
        self._store.end(record, CONFIRMED, why=why, connection=connection)
        self._agent.disarm(record)
        return dict(outcome=CONFIRMED, connection=connection, why=why)

    def undo(self, name: str, why: str) -> Answer:
        """Roll a change back, if it is still pending and neither confirmed nor rolled back.

        :param name: its id, '' for whichever is pending.
        :raises HostError: if that did not work; it may be tried again.
        """
        record = self._store.read()
        if record is None or (name and record.id != name):
            return self.ended(name)
        if record.boot != self._host.processes.boot():
            end_other_boot(self._host, self._parts, record)
            return self.ended(name)
        if record.state == CONFIRMING:
            return self._finish(record)
        self._roll_back(record, why)
        return self.ended(record.id)

    def ended(self, name: str) -> Answer:
        """Return how a change ended."""
        last = self._store.last()
        if not last or (name and last["id"] != name):
            return dict(outcome="unknown", boot=self._host.processes.boot())
        return last

    def pending(self) -> Optional[Record]:
        """Return the Record of the change that is pending, or None."""
        return self._store.read()

    def _roll_back(self, record: Record, why: str) -> str:
        """Undo a change, and return EXACT, SNAPSHOT or EMPTIED.

        :raises HostError: if it cannot be undone; the record stays, so that it is tried again.
        """
        undo = roll_back(self._host, self._parts, record)
        self._store.end(record, ROLLED_BACK, undo, why)
        self._agent.disarm(record)
        return undo


_NOT_APPLIED = "it could not be applied"
_LATE = "it was confirmed too late"


def _unfinished(record: Record) -> str:
    """Return why a change that is found pending is undone."""
    return {
        ARMED: "its run ended before it was applied",
        UNDOING: "it could not be kept",
    }.get(record.state, "it was not confirmed")


def _is_newer(session: Session, record: Record) -> bool:
    """Return whether an ssh session belongs to a connection that was made after a change was applied."""
    words, started = session
    if not words or not record.session:
        return True
    # Clock ticks are 10 ms.
    return words[:2] != record.session[:2] and (started is None or started > record.applied - 0.02)


def _last_way(parts: Sequence[PartPlan]) -> Tuple[List[str], List[str]]:
    """Return the commands for sh that let everybody in again, and those that look whether it is so."""
    way = [line for plan in reversed(parts) for line in plan.last_way]
    return way, [line for plan in parts for line in plan.last_look]


__all__ = ("Guard",)
