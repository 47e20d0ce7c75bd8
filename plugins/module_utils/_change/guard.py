# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""The host's half of the guard: a change is armed, applied, and then confirmed or rolled back, exactly one of the two.

Everything here runs under the lock of the host: in the module, in the process that waits for the deadline, in the
command that the controller confirms with, and in those of an administrator. Whoever holds the lock decides on what the
record says; if it dies on the way, the next one finds the record as it was and does the same again.
"""

import contextlib
import os
import time

from ansible_collections.sesame.portknock.plugins.module_utils._change import commit as _keeping
from ansible_collections.sesame.portknock.plugins.module_utils._change.record import (
    APPLIED,
    ARMED,
    CONFIRMED,
    CONFIRMING,
    EXACT,
    ROLLED_BACK,
    SNAPSHOT,
    UNDOING,
    PendingError,
    Record,
    Store,
)
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.commands import Iptables, own_lines
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.persistence import MODPROBE
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.recent_lists import (
    address_of,
    network_of,
    read_list,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.undo import is_undone, snapshot_text, undo_text
from ansible_collections.sesame.portknock.plugins.module_utils._knockd import daemon as _doorman
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import family_of


class Guard:
    """The guard of one host."""

    def __init__(self, host, agent):
        """Take a Host, and an agent: arm(record) to ``systemd`` or ``process``, disarm(record)."""
        self._host, self._agent = host, agent
        self._iptables = Iptables(host.run, host.find, host.read)
        self._store = Store(host)

    # In the module

    def clear_way(self):
        """Finish what a run before left unfinished.

        :returns: a sentence about it, or ''.
        :raises PendingError: if a change waits to be confirmed and still can be.
        """
        record = self._store.read()
        if record is None:
            return ""
        if record.boot != self._host.boot():
            self._host.discard(record.staged)
            self._store.end(record, ROLLED_BACK, EXACT, "the host was restarted before it was confirmed")
            return ""
        if record.state == CONFIRMING:
            done = self._finish(record)["outcome"] == CONFIRMED
            return "An earlier change ({0}) had been confirmed but not kept to the end; {1} first.".format(
                record.described(), "that was done" if done else "that failed, so it was undone"
            )
        left = record.deadline - self._host.monotonic()
        if record.state == APPLIED and left > 0:
            raise PendingError(record, left)
        self.roll_back(record, _unfinished(record))
        return "An earlier change ({0}) had been left unfinished; it was undone first.".format(record.described())

    def apply(self, job, options):
        """Apply a Job under guard.

        :param options: the module's options.
        :returns: the Record of the change, which now waits to be confirmed.
        :raises HostError: with what failed; the host is then as it was.
        """
        record = self._arm(job, options)
        try:
            loaded = job.load()
            job.doorman.load()
            job.forget_connection()
            staged = _keeping.stage(self._host, job.keeping(loaded))
            record = record._replace(
                state=APPLIED,
                applied=self._host.since_boot(),
                expected={family: own_lines(one.save) for family, one in loaded.items()},
                **staged._asdict(),
            )
            if self._host.monotonic() >= record.deadline:
                raise HostError("applying took longer than guard_timeout, so nobody could have confirmed it.")
            self._store.write(record)
        except BaseException as error:
            undo = self.roll_back(record, "it could not be applied")
            if isinstance(error, HostError):
                raise AppliedError("{0} Everything is as it was before.".format(error), undo) from error
            raise
        return record

    def _arm(self, job, options):
        timeout = options["guard_timeout"]
        record = Record(
            id=options["guard_id"] or os.urandom(8).hex(),
            owner=options["guard_owner"] or "",
            begun=time.time(),
            boot=self._host.boot(),
            deadline=self._host.monotonic() + timeout,
            state=ARMED,
            agent="",
            module=[os.getpid(), self._host.process_start(os.getpid())],
            session=self._host.ssh_connection() or [],
            applied=0.0,
            saves=job.saves,
            changed=[plan.family for plan in job.plans if plan.change],
            expected={},
            before=job.before(),
            staged=[],
            gone=[],
            unit="",
            unit_was=self._host.unit_enabled(),
            directory_goes=False,
            doorman=job.doorman.verb(),
            doorman_was=job.doorman.was if job.doorman.due else {},
            proof=job.proof(),
        )
        self._store.write(record)
        try:
            agent = self._agent.arm(record, timeout)
        except BaseException:
            self._store.end(record, ROLLED_BACK, EXACT, "nothing could be armed to undo it")
            raise
        return record._replace(agent=agent)

    def answer(self, record, door):
        """Return what the controller must know to confirm a change.

        :param door: the name of the door that its new connection must knock at, or ''; where it needs none, ``proof_door`` may
            name one whose knock proves knockd.
        """
        return dict(
            state="pending",
            id=record.id,
            door=door,
            port=int(record.session[3]) if len(record.session) == 4 else 0,
            seconds_left=round(record.deadline - self._host.monotonic(), 3),
            agent=record.agent,
            proof_door=record.proof.get("door", ""),
        )

    # From outside

    def confirm(self, name, session=(None, None)):
        """Keep a change.

        :param name: the id of the change, '' for whichever is pending (an administrator's word).
        :param session: what Host.session() returns of the connection that confirms.
        :returns: dictionary with ``outcome``: ``confirmed``, ``rolled_back``, ``stale`` (this connection is older than the
            change, so it proves nothing), ``unheard`` (the knock that is to prove knockd has not come) or ``unknown``; more
            keys tell how.
        """
        record = self._store.read()
        if record is None or (name and record.id != name):
            return self.ended(name)
        if record.boot != self._host.boot():
            self.clear_way()
            return self.ended(name)
        if record.state == CONFIRMING:
            return self._finish(record)
        if name and not _is_newer(session, record):
            return dict(outcome="stale", connection=" ".join(session[0]))
        problem = self._problem(record, name)
        unheard = (
            "" if not name or self._heard(record, session[0]) else _UNHEARD.format(session[0][0], record.proof["door"])
        )
        if problem:
            self.roll_back(record, unheard if unheard and problem == _LATE else problem)
            return self.ended(record.id)
        if not name:
            return self._finish(record, why="somebody on the host confirmed it")
        if unheard:
            return dict(outcome="unheard", why=unheard)
        return self._finish(record, proof=session[0])

    def _problem(self, record, name):
        """Return why a change cannot be confirmed, or ''."""
        if record.state != APPLIED:
            return _unfinished(record)
        if name and self._host.monotonic() >= record.deadline:
            return _LATE
        if record.doorman in (_doorman.KEEP, _doorman.LEAVE) and not _doorman.is_listening(self._host):
            return "knockd does not run, 'journalctl -u knockd' on the host tells why"
        for _temporary, path in record.staged:
            if path in record.before and self._text(path) != record.before[path][0]:
                return "something else changed {0} before it was confirmed".format(path)
        for family, expected in record.expected.items():
            if own_lines(self._iptables.save(family)) != expected:
                return "something else changed the knock rules of {0} before it was confirmed".format(family)
        return ""

    def _heard(self, record, words):
        """Tell whether the knock that is to prove knockd has come from where a connection comes from."""
        source = address_of(words[0]) if words else None
        name = record.proof.get(family_of(source)) if source else None
        if name is None:
            return True
        entries = read_list(self._host.lists().get(name, ""))
        return network_of(source, record.proof["ipv6_prefix"]) in {address_of(each.source) for each in entries}

    def _finish(self, record, proof=None, why=""):
        record = record._replace(state=CONFIRMING)
        try:
            self._store.write(record)
            _keeping.finish(self._host, record)
        except HostError as error:
            # Decided anew, and written down: whoever comes after a kill here must not finish it after all.
            record = record._replace(state=UNDOING)
            with contextlib.suppress(HostError):
                self._store.write(record)
            self.roll_back(record, "it could not be kept: {0}".format(error))
            return self.ended(record.id)
        self._store.end(record, CONFIRMED, why=why, connection=" ".join(proof or []))
        self._agent.disarm(record)
        return dict(outcome=CONFIRMED, connection=" ".join(proof or []), why=why)

    def undo(self, name, why):
        """Roll a change back, if it is still pending and neither confirmed nor rolled back.

        :param name: its id, '' for whichever is pending.
        :returns: as confirm().
        :raises HostError: if that did not work; it may be tried again.
        """
        record = self._store.read()
        if record is None or (name and record.id != name) or record.boot != self._host.boot():
            return self.ended(name)
        if record.state == CONFIRMING:
            return self._finish(record)
        self.roll_back(record, why)
        return self.ended(record.id)

    def ended(self, name):
        """Return how a change ended, as confirm() does."""
        last = self._store.last()
        if not last or (name and last["id"] != name):
            return dict(outcome="unknown")
        return last

    def pending(self):
        """Return the Record of the change that is pending, or None."""
        return self._store.read()

    # Back

    def roll_back(self, record, why):
        """Put rules and files back as they were before a change.

        :returns: ``exact``, or ``snapshot`` where only the whole table could be put back.
        :raises HostError: if neither works; the record stays, so that it is tried again.
        """
        with contextlib.ExitStack() as rest:
            # Whatever becomes of the others: the old way in may need just that one. The last one comes first.
            rest.callback(self._call_back, record)
            rest.callback(self._put_back, record)
            rest.callback(self._host.discard, record.staged)
            undo = self._undo_rules(record)
        self._store.end(record, ROLLED_BACK, undo, why)
        self._agent.disarm(record)
        return undo

    def _call_back(self, record):
        """Have knockd as it was, where the change touched it."""
        if record.doorman_was:
            _doorman.put_back(self._host, record.doorman_was)

    def _undo_rules(self, record):
        """Undo every family that can be: the controller may come over just that one."""
        undone, failed = [], []
        for family in reversed(record.changed):
            try:
                undone.append(self._undo_family(family, record.saves[family]))
            except HostError as error:
                failed.append("{0}: {1}".format(family, error))
        if failed:
            raise HostError(" ".join(failed))
        return SNAPSHOT if SNAPSHOT in undone else EXACT

    def _undo_family(self, family, before):
        try:
            text = undo_text(before, self._iptables.save(family))
            if text:
                self._iptables.restore(family, text)
            if is_undone(before, self._iptables.save(family)):
                return EXACT
        except Exception:
            # Whatever it was: access comes first, and the snapshot needs no understanding of the rules.
            pass
        self._iptables.restore(family, snapshot_text(before), flush=True)
        return SNAPSHOT

    def _text(self, path):
        return self._host.read(path) or None

    def _put_back(self, record):
        """Put back the files that are not as before, every one that can be.

        :raises HostError: if one cannot; what is not put back would come with the next boot.
        """
        failed = []
        for path, (text, mode) in sorted(record.before.items()):
            try:
                if (self._text(path), self._host.mode(path)) != (text, mode) and self._is_ours(path, text, record):
                    self._host.replace_files({path: (text, mode)})
            except HostError as error:
                failed.append(str(error))
        if record.state == UNDOING and not failed:
            self._switch_unit(record.unit_was)
        if failed:
            raise HostError(
                "The rules are as before, but the files could not be put back: {0}".format(" ".join(failed))
            )

    def _switch_unit(self, enabled):
        """Have our unit as it was; what it looks at is in place in any case."""
        with contextlib.suppress(HostError):
            if enabled:
                self._host.enable_unit()
            else:
                self._host.disable_unit()

    def _is_ours(self, path, text, record):
        """Tell whether what changed in a file is ours to undo.

        Before the confirmation only modprobe's options are written. But somebody may have saved the kernel's rules, and ours
        among them, to the rules file meanwhile; that must not come back with the next boot.
        """
        if record.state == UNDOING or path == MODPROBE:
            return True
        return own_lines(self._text(path) or "") != own_lines(text or "")


class AppliedError(HostError):
    """Applying failed after the guard was armed, and what had been done was undone."""

    def __init__(self, message, undo):
        """Take the message, and how it was undone: ``exact`` or ``snapshot``."""
        super().__init__(message)
        self.undo = undo


_LATE = "it was confirmed too late"
_UNHEARD = (
    "knockd has not heard a knock of {0} at door {1}: look whether a firewall between passes the knock's ports, whether knock and "
    "connection leave from the same address, and whether knockd_interface is the one that they come in by"
)


def _unfinished(record):
    """Return why a change that is found pending is undone."""
    return {
        ARMED: "its run ended before it was applied",
        UNDOING: "it could not be kept",
    }.get(record.state, "nobody confirmed it")


def _is_newer(session, record):
    """Tell whether an ssh session belongs to a connection that was made after a change was applied."""
    words, started = session
    if not words or not record.session:
        return True
    # Clock ticks are 10 ms.
    return words[:2] != record.session[:2] and (started is None or started > record.applied - 0.02)


__all__ = ("AppliedError", "Guard")
