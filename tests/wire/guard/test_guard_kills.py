# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A controller that is killed, a module that is killed, two controllers at once, an administrator at the console."""

import contextlib
import signal
import time

import pytest
from rig import faults
from rig.controller import PING, Controller
from rig.engines import ASKED, EVERY_TIME, IN_SOAK
from rig.guard import DOOR, EITHER, KNOCK, LONG, NEW, OLD, TIMEOUT
from rig.guard_nft import case_of
from rig.shown import steps_in
from rig.target import door

pytestmark = [ASKED, IN_SOAK]


@pytest.mark.parametrize(
    ("number", "whole"),
    [pytest.param(number, True, id=f"{number.name}-all it started") for number in (signal.SIGINT, signal.SIGKILL)]
    + [pytest.param(signal.SIGKILL, False, id="SIGKILL-alone")]
    + [pytest.param(signal.SIGTERM, True, id="SIGTERM-all it started", marks=pytest.mark.soak)]
    + [
        pytest.param(number, False, id=f"{number.name}-alone", marks=pytest.mark.soak)
        for number in (signal.SIGINT, signal.SIGTERM)
    ],
)
class TestControllerKilled:
    """ansible-playbook gets a signal, as from a terminal all its processes, or as from the machine it alone."""

    def test_before_the_apply(self, rig, controller, number, whole):
        """The module is at work on the host; it may end its work, or end."""
        case = case_of(rig, controller)
        with case.loading_is("sleep 2"):
            run = case.apply(start=True)
            run.until(case.is_loading)
            run.kill(number, whole)
            run.wait()
            self._check(case, OLD if whole else EITHER)

    def test_between_apply_and_confirm(self, rig, controller, number, whole):
        case = case_of(rig, controller)
        with case.waiting():
            run = case.apply(start=True)
            run.until(case.applied)
            run.kill(number, whole)
            run.wait()
            if whole:
                faults.settled(rig)
        self._check(case, OLD if whole else EITHER)

    def test_during_the_confirm(self, rig, controller, number, whole):
        case = case_of(rig, controller)
        with contextlib.ExitStack() as stack, case.waiting():
            run = case.apply(start=True, guard_timeout=10)
            run.until(case.applied)
            stack.enter_context(faults.held(rig, faults.LOCK))
            waiting = stack.pop_all()
        with waiting:
            run.until(lambda: faults.processes(rig, "guard.zip confirm"))
            run.kill(number, whole)
            run.wait()
        self._check(case, EITHER)

    def _check(self, case, end):
        faults.settled(case.rig)
        case.check(end, None) if end == EITHER else case.check_target(end)
        case.check_next()


@pytest.mark.parametrize("tty", [True, False], ids=["with a terminal", "without a terminal"])
def test_the_ssh_of_the_module_is_killed(rig, controller, tty):
    """No master keeps the session alive: sshd hangs up on the module while it loads the ruleset."""
    case = case_of(rig, controller)
    controller.configure("ControlMaster no", "ControlPath none")
    environment = {"ANSIBLE_SSH_ARGS": f"-F {controller.ssh_config}", "ANSIBLE_SSH_USETTY": str(tty)}
    with case.loading_is("sleep 2"):
        run = case.apply(start=True, run={"environment": environment})
        run.until(case.is_loading)
        run.kill(signal.SIGKILL)
        run.wait()
        faults.settled(rig)
        case.check_target(OLD)
    case.check_next()


def test_the_module_is_killed(rig, controller):
    """Half of the ruleset is loaded, no process is left to answer; the task says what became of it."""
    case = case_of(rig, controller)
    with case.loading_is("sleep 2", last=True):
        run = case.apply(start=True)
        run.until(case.is_loading)
        faults.send(rig, "KILL", faults.processes(rig, "AnsiballZ_knock_ruleset"))
        case.check(OLD, run.wait())
    case.check_next()


def test_the_next_run_finishes_what_a_killed_module_left(rig, controller):
    """It need not wait for the deadline."""
    case = case_of(rig, controller)
    with case.loading_is("sleep 2", last=True):
        run = case.apply(start=True, guard_timeout=LONG)
        run.until(case.is_loading)
        run.kill(signal.SIGKILL)
        faults.send(rig, "KILL", faults.processes(rig, "AnsiballZ_knock_ruleset"))
    case.check_next_play()


def test_the_next_run_finishes_what_a_killed_controller_left(rig, controller):
    """The same controller sees that its earlier run is gone."""
    case = case_of(rig, controller)
    with case.waiting():
        run = case.apply(start=True, guard_timeout=LONG)
        run.until(case.applied)
        run.kill(signal.SIGKILL)
        run.wait()
    case.check_next_play()


@EVERY_TIME
def test_the_next_run_finishes_what_a_killed_agent_left(rig, controller):
    """Nobody acts at the deadline; the rules stay, and the next run gives the old ones back before it goes on."""
    case = case_of(rig, controller)
    with case.waiting():
        run = case.apply(start=True)
        run.until(case.applied)
        deadline = faults.pending(rig)["deadline"]
        faults.send(rig, "KILL", faults.processes(rig, "guard.zip wait"))
        run.kill(signal.SIGKILL)
        run.wait()
    time.sleep(max(0, deadline - time.monotonic()) + 0.5)
    assert case.applied(), "something acted although the agent was dead"
    rig.client.knock(*(7000, "9100/udp", 3100))
    case.check_next_play()


def test_two_controllers_at_once(rig, controller, core):
    """From different addresses: the second is refused, told who is at it, and stays connected; once the first is confirmed it works."""
    case = case_of(rig, controller)
    second = Controller(rig.other.namespace, controller.key, rig.target.folder / "second", core)
    other = door(7500, 9500, opens=(22,))
    with contextlib.closing(second):
        second.play(PING)
        with case.waiting():
            run = case.apply(start=True, guard_timeout=LONG)
            run.until(case.applied)
            owner = faults.pending(rig)["owner"]
            refused = second.apply(other).only()
        assert refused.kind == "failed"
        assert "pending" in refused.result["msg"]
        assert owner and owner in refused.result["msg"]
        assert not refused.result.get("rolled_back")
        case.check(NEW, run.wait())
        case.check_door()
        done = second.apply(other, guard_timeout=LONG).only()
        assert done.kind == "ok", done.result
        assert done.result["guard"]["knocked"] == "ssh"


def test_ten_controllers_at_once(rig, controller, core):
    """Whichever comes first is confirmed; no run hangs, none undoes it."""
    case = case_of(rig, controller)
    all_of_them = [controller] + [
        Controller(rig.client.namespace, controller.key, rig.target.folder / f"more-{number}", core)
        for number in range(3)
    ]
    with contextlib.ExitStack() as stack:
        for one in all_of_them[1:]:
            stack.callback(one.close)
        runs = [one.apply(DOOR, start=True) for one in all_of_them]
        events = [run.wait().only() for run in runs]
    said = [(event.kind, event.result.get("guard", {}).get("state")) for event in events]
    assert said.count(("ok", "confirmed")) == 1, said
    for kind, state in said:
        assert (kind, state) in (("ok", "confirmed"), ("ok", "not_needed"), ("failed", None)) or kind == "failed", said
    case.check_target(NEW)
    case.check_door()


# molecule's scenario guard does both every time.
@pytest.mark.soak
@pytest.mark.parametrize("verb", ["confirm", "rollback"])
def test_an_administrator_at_the_console(rig, controller, verb):
    """Who stands at the console ends it with one plain command; the waiting controller hears of it."""
    case = case_of(rig, controller)
    with case.waiting():
        run = case.apply(start=True, guard_timeout=LONG)
        run.until(case.applied)
        said = faults.program(rig, "status").stdout
        assert "pending" in said
        assert steps_in(KNOCK, said) == [], said
        faults.program(rig, verb)
        assert faults.last(rig)["outcome"] == {"confirm": "confirmed", "rollback": "rolled_back"}[verb]
    case.check(NEW if verb == "confirm" else OLD, run.wait())
    assert faults.program(rig, "rollback", check=False).returncode != 0 or verb == "rollback"
    case.check_target(NEW if verb == "confirm" else OLD)
    case.check_next()


def test_a_late_confirm_is_told_so(rig, controller):
    """Exactly one of confirm and rollback wins, and the one that lost says it."""
    case = case_of(rig, controller)
    with case.waiting():
        run = case.apply(start=True)
        run.until(case.applied)
        name = faults.pending(rig)["id"]
        faults.settled(rig)
        late = faults.program(rig, "confirm", name, check=False)
        assert late.returncode != 0
        assert "rolled back" in late.stdout
    case.check(OLD, run.wait())


def test_a_wrong_id_confirms_nothing(rig, controller):
    case = case_of(rig, controller)
    with case.waiting():
        run = case.apply(start=True)
        run.until(case.applied)
        for name in ("0123456789abcdef", "x", "../../etc"):
            assert faults.program(rig, "confirm", name, check=False).returncode != 0
        assert case.applied()
    case.check(NEW if run.wait().only().kind == "ok" else OLD, run)


def test_a_confirm_over_the_old_connection_proves_nothing(rig, controller):
    """A confirmation that comes over the connection that was there before is refused by the host itself."""
    case = case_of(rig, controller)
    with case.waiting():
        run = case.apply(start=True)
        run.until(case.applied)
        name = faults.pending(rig)["id"]
        path = next((controller.folder / "cp").iterdir())
        words = [
            "ssh",
            "-F",
            "/dev/null",
            "-o",
            f"ControlPath={path}",
            "root@10.77.0.1",
            f"python3 -ISB {faults.AGENT} confirm {name}",
        ]
        old = controller.namespace.run(*words, check=False)
        assert old.returncode != 0
        assert "older" in old.stdout, old.stdout + old.stderr
        assert case.applied()
        run.kill(signal.SIGKILL)
        run.wait()
        faults.settled(rig)
    case.check_target(OLD)


def test_nothing_is_kept_before_the_confirm(rig, controller):
    """A reboot, or a restart of what loads the rules files, in the window gives the old rules; the version before is kept."""
    case = case_of(rig, controller)
    case.check_next_play()
    case.remember()
    kept = faults.files(rig)[case.kept]
    two = (DOOR, door(7500, 9500, name="two", opens=(8000,)))
    with case.waiting():
        rig.client.knock(*(7000, "9100/udp", 3100))
        run = case.apply(*two, start=True, guard_timeout=LONG)
        run.until(case.applied)
        now = faults.files(rig)
        assert {path: now[path] for path in case.files} == case.files
        new = sorted(set(now) - set(case.files))
        # What the next boot undoes it with is there as well.
        assert all("/.portknock-" in path or path.startswith("/etc/portknock/pending/") for path in new), new
    case.check(NEW, run.wait())
    after = faults.files(rig)
    assert after[case.kept] != kept
    assert after["/etc/portknock/previous/" + case.kept.rpartition("/")[2]] == kept


def test_the_deadline_is_not_waited_for(rig, controller):
    """What is confirmed does not wait: no fixed sleep anywhere on the good path."""
    case = case_of(rig, controller)
    begun = time.monotonic()
    case.check(NEW, case.apply(guard_timeout=LONG))
    assert time.monotonic() - begun < LONG / 2
    assert TIMEOUT < LONG
