# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A change under guard: the target before it, and all that must be true after it."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from rig import faults
from rig.controller import Controller, Event, Run, knock_task
from rig.network import Rig
from rig.packets import IPV4, IPV6
from rig.peer import OPEN, TARGET
from rig.shown import steps_in
from rig.target import FAMILIES, door

KNOCK = (7000, "9100/udp", 3100)
DOOR = door(*KNOCK, window=20)
BEHIND = {"ansible_connection": "sesame.portknock.knock_ssh", "ansible_knock": [str(step) for step in KNOCK]}
"""Variables of a host behind the door that knock_ssh knocks at."""
ALLOW = [{"port": "22"}]
FOREIGN = """
:f2b-sshd - [0:0]
-A INPUT -p tcp -m multiport --dports 22 -j f2b-sshd
-A INPUT -p tcp -m tcp --dport 80 -m comment --comment "the shop" -j ACCEPT
-A f2b-sshd -j RETURN
"""
NEW, OLD, REFUSED, EITHER = "new", "old", "refused", "either"
TIMEOUT = 6
# Of a change that is ended before its deadline: no machine, however busy, gets there.
LONG = 300
# Somebody who has not knocked in any of the tests.
STRANGER = {IPV4: "10.77.0.22", IPV6: "fd77::22"}


class Case:
    """One change, from what was there before to what is there after it."""

    soak = False
    """Whether the long series were asked for; conftest sets it."""
    kept = "/etc/iptables/rules.v4"
    """A file from which a boot loads what is kept."""

    def __init__(self, rig: Rig, controller: Controller, foreign: str | None = FOREIGN) -> None:
        """Load rules of others, if any are given; what is there then is the old state."""
        self.rig, self.controller = rig, controller
        if foreign is not None:
            rig.target.load(foreign)
        self.remember()

    def remember(self) -> None:
        """Take what is there now for the old state."""
        self.before, self.files = faults.ruleset(self.rig), faults.files(self.rig)

    def others_changed(self) -> None:
        """Others changed their rules while a change waits: theirs stay as they are now, whatever becomes of the change."""
        assert not faults.ours(self.before[IPV4])
        self.before = faults.foreign(faults.ruleset(self.rig))

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Within the block no new connection of ssh gets through, so that a change that is applied stays pending.

        The running one, as a first task would have opened it, serves the module.
        """
        self.controller.open_master()
        with faults.way_blocked(self.rig, 22):
            yield

    def apply(
        self,
        *doors: dict[str, Any],
        start: bool = False,
        task: dict[str, Any] | None = None,
        run: dict[str, Any] | None = None,
        **options: Any,
    ) -> Run:
        """Run the module under guard, with one door on port 22 unless something else is asked for."""
        options.setdefault("guard_timeout", TIMEOUT)
        if not doors and not {"allow", "doors"} & set(options) and options.get("state") != "absent":
            doors = (DOOR,)
        made = knock_task(*doors, task=task, **options)
        return (self.controller.start if start else self.controller.play)(made, **(run or {}))

    def applied(self) -> bool:
        """Return whether the change is in force and waits."""
        return faults.is_applied(self.rig)

    def in_force(self) -> bool:
        """Return whether rules of the collection are in force."""
        return any(faults.ours(lines) for lines in faults.ruleset(self.rig).values())

    def rules_are_back(self) -> bool:
        """Return whether the rules are those of the old state."""
        return faults.ruleset(self.rig) == self.before

    def loading_is(self, what: str, last: bool = False) -> contextlib.AbstractContextManager[None]:
        """Within the block lines of sh run before something is loaded.

        :param last: only before the last of what one change loads.
        """
        return faults.restore_that(self.rig, what, FAMILIES[-1:] if last else FAMILIES)

    def is_loading(self) -> bool:
        """Return whether something has begun to be loaded, within that block."""
        return faults.is_loading(self.rig)

    # What is there afterwards

    def check(self, end: str, run: Run, undo: str = "exact", family: str = IPV4, tidy: bool = True) -> None:
        """Check everything: what is there, who gets in, and what the task said."""
        if end == EITHER:
            end = NEW if faults.last(self.rig).get("outcome") == "confirmed" else OLD
            self.check_target(end, family, tidy)
            return
        event = run.only()
        if end == REFUSED:
            assert event.kind == "failed", run.output
            assert not event.result.get("rolled_back"), event.result
            assert not event.result["changed"]
        elif end == NEW:
            assert event.kind == "ok", run.output
            assert event.result["changed"]
            assert event.result["guard"]["state"] == "confirmed", event.result["guard"]
            assert event.result["rolled_back"] is False
        else:
            self.check_rolled_back(event, run, undo)
        self.check_target(OLD if end == REFUSED else end, family, tidy)

    def check_rolled_back(self, event: Event, run: Run, undo: str) -> None:
        """Check the result of a task whose change was undone."""
        assert event.kind in ("failed", "ignored"), run.output
        result = event.result
        assert result.get("rolled_back") is True, run.output
        assert result["changed"] is False, result
        assert result["guard"]["state"] == "rolled_back", result["guard"]
        assert result["guard"]["undo"] == undo, result["guard"]
        assert len(result["msg"]) > 40, result["msg"]
        assert steps_in(("7000", "9100", "3100"), str(result)) == [], result

    def check_target(self, end: str, family: str = IPV4, tidy: bool = True) -> None:
        """Check rules, files, and who gets in by a new connection; unless tidy, staged files may be left."""
        faults.settled(self.rig)
        rules, files = faults.ruleset(self.rig), faults.files(self.rig)
        staged = {path for path in files if "/.portknock-" in path or "/portknock/pending/" in path}
        assert not (tidy and staged), staged
        if end == OLD:
            assert rules == self.before
            left = {path: text for path, text in files.items() if path not in staged}
            assert left == self.files, sorted(set(left) ^ set(self.files))
            assert self.gets_in(family)
        else:
            assert faults.foreign(rules) == faults.foreign(self.before)
            for one in FAMILIES:
                assert faults.ours(rules[one]), one
            assert self.kept in files

    def gets_in(self, family: str = IPV4, **options: Any) -> bool:
        """Return whether plain ssh gets in by a new connection."""
        return self.controller.gets_in(host=TARGET[family], **options)

    def check_door(self, family: str = IPV4) -> None:
        """The door holds: closed to whoever has not knocked, open for who does."""
        probe = self.rig.client.probe
        assert probe(22, family, source=STRANGER[family]) != OPEN
        self.rig.client.knock(*KNOCK, family=family, source=STRANGER[family])
        assert self.gets_in(family, bind=STRANGER[family])
        # Or it would still be let in where the door is looked at again.
        name = "pk4_ssh" if family == IPV4 else "pk6_ssh"
        self.rig.target.namespace.run("sh", "-c", f"echo -{STRANGER[family]} >/proc/net/xt_recent/{name}")

    def check_next(self, knocks: bool = False) -> None:
        """The next change, of a door that works, does: what a fault left behind would be in its way on the host.

        So the module runs there by itself; in soak it is a whole play under guard.

        :param knocks: whether that play has to knock before it gets in.
        """
        if self.soak:
            self.check_next_play({"hosts": {"target": BEHIND}} if knocks else None)
            return
        self.remember()
        self.rig.target.module(doors=[DOOR])
        self.check_target(NEW)
        self.check_door()

    def take_out(self) -> None:
        """Take all of the collection out again, by the module alone or in soak by a play."""
        if self.soak:
            done = self.apply(state="absent", guard_timeout=LONG)
            assert done.only().kind == "ok", done.output
        else:
            self.rig.target.module(state="absent")

    def check_next_play(self, run: dict[str, Any] | None = None) -> None:
        """The next play, of a door that works, is confirmed, and need not wait for anything."""
        self.remember()
        begun = time.monotonic()
        done = self.apply(guard_timeout=LONG, run=run)
        event = done.only()
        assert event.kind == "ok", done.output
        assert event.result["guard"]["state"] in ("confirmed", "not_needed"), event.result
        assert time.monotonic() - begun < LONG / 2, "it had to wait"
        self.check_target(NEW)
        self.check_door()
