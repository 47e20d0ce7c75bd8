# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change that is confirmed, one that cannot be, and what happens to the host and the controller between."""

import time

import pytest
from harness import NAME, hosts_sh
from rig_console import AFTER, soon, ssh
from rig_play import Controller

PATIENCE = 50
"""Seconds from the deadline to the old rules, on a machine that has other work; tests/bench measures it."""

DESCRIPTION = "Port knocking: undoes an unconfirmed change of the ruleset"


@pytest.fixture
def held(target, controller):
    """Start a change that no knock confirms; return the run, with the change in the window."""

    def hold(timeout, by=controller):
        target.lose_knocks()
        run = by.start(AFTER, guard_timeout=timeout)
        run.until(target.waits)
        return run

    return hold


def check_rolled_back(target, event):
    """The rules, a new connection and the task's result all say so, and nothing is left."""
    assert target.is_as_before()
    assert target.files() == target.files_before
    assert target.lets_in()
    assert event.kind == "failed", event
    result = event.result
    assert result["rolled_back"] and not result["changed"] and not result.get("unreachable")
    assert result["guard"]["state"] == "rolled_back" and result["msg"].startswith("Rolled back: ")
    assert soon(target.is_tidy), target.leftovers()
    return result


def check_confirmed(target, event):
    """The same, for the new ruleset."""
    assert not target.is_as_before()
    assert target.lets_in_after_a_knock()
    assert event.kind == "ok", event
    result = event.result
    assert result["changed"] and not result["rolled_back"] and result["guard"]["state"] == "confirmed"
    assert soon(target.is_tidy), target.leftovers()
    return result


def test_good_change_is_confirmed_and_outlives_a_reboot(target, controller):
    result = check_confirmed(target, controller.apply(AFTER).only())
    guard = result["guard"]
    assert (guard["agent"], guard["knocked"], guard["undo"], guard["tries"]) == ("systemd", "shell", "", 1)
    assert guard["proof"].endswith(" to port 22") and target.last()["outcome"] == "confirmed"
    rules, files = target.rules(), target.files()
    assert files != target.files_before
    kept = target.out("head -n -0 /etc/portknock/previous/rules.v4 /etc/portknock/previous/rules.v6")
    assert kept.replace("/etc/portknock/previous/", "/etc/iptables/") == target.files_before
    hosts_sh("host_reboot", NAME)
    assert (target.rules(), target.files()) == (rules, files)
    assert target.lets_in_after_a_knock()


def test_change_that_nobody_can_confirm_is_seen_and_undone_in_time(target, held):
    run = held(20)
    record = target.pending()
    units = target.out("systemctl list-units --all --plain --no-legend 'portknock*'")
    assert "portknock-guard.timer" in units and DESCRIPTION in units
    assert "portknock-guard.timer" in target.out("systemctl list-timers --no-legend")
    status = target.run("systemctl status portknock-guard.timer")
    assert status.returncode == 0 and "Trigger: " in status.stdout and DESCRIPTION in status.stdout
    assert not target.is_as_before() and not target.lets_in()
    # Nothing is kept yet, it only lies beside.
    assert target.files() == target.files_before and target.staged()
    run.until(lambda: time.monotonic() >= record["deadline"])
    assert soon(target.is_as_before, PATIENCE)
    result = check_rolled_back(target, run.only())
    guard = result["guard"]
    assert (guard["agent"], guard["knocked"], guard["undo"]) == ("systemd", "shell", "exact")
    assert guard["tries"] > 1 and guard["proof"] == ""
    assert "cut this controller off" in result["msg"] and "Door shell" in result["msg"]
    last = target.last()
    assert (last["id"], last["outcome"], last["undo"]) == (record["id"], "rolled_back", "exact")


def test_killed_controller_s_change_is_finished_by_the_next_run(target, controller, held):
    run = held(300)
    run.kill()
    target.pass_knocks()
    result = check_confirmed(target, controller.apply(AFTER, guard_timeout=200).only())
    assert (result["guard"]["tries"], result["guard"]["agent"]) == (1, "systemd")


def test_change_by_somebody_who_is_not_root_is_confirmed(target):
    operator = Controller(target.address, ansible_user="operator", ansible_become=True)
    try:
        result = check_confirmed(target, operator.apply(AFTER).only())
    finally:
        operator.close()
    assert result["guard"]["proof"].endswith(" to port 22") and result["guard"]["agent"] == "systemd"


def test_systemd_that_starts_anew_or_changes_its_target_keeps_the_guard(target, held):
    run = held(20)
    deadline = target.pending()["deadline"]
    target.run("systemctl daemon-reexec; systemctl isolate multi-user.target")
    assert "portknock-guard.timer" in target.guards()
    assert soon(target.is_as_before, deadline - time.monotonic() + PATIENCE)
    check_rolled_back(target, run.only())


def test_timer_that_is_lost_leaves_it_to_a_process(target, held):
    run = held(15)
    target.run("rm /run/systemd/transient/portknock-guard.*; systemctl daemon-reload")
    assert target.run("systemctl is-active portknock-guard.timer", check=False).stdout == "failed\n"
    assert "guard.zip wait" in target.guards()
    # Nor is it the controller that undoes it.
    run.kill()
    assert soon(target.is_as_before, 15 + PATIENCE)
    assert soon(target.is_tidy), target.leftovers()
    assert target.lets_in() and (target.last()["outcome"], target.last()["undo"]) == ("rolled_back", "exact")


def test_logind_that_kills_what_a_session_leaves_does_not_kill_the_guard(target, held):
    operator = Controller(target.address, ansible_user="operator", ansible_become=True)
    sessions = "loginctl list-sessions --no-legend | awk '$3 == \"operator\" {print $1}'"
    try:
        # This logind does kill: what a session leaves behind goes with it.
        leave = "setsid nohup sleep 4321 >/dev/null 2>&1 & sleep 0.2; kill -0 $! && echo $!"
        left = ssh(f"operator@{target.address}", leave).strip()
        assert left and soon(lambda: target.run(f"kill -0 {left}", check=False).returncode == 1)
        run = held(15, by=operator)
        before = set(target.out(sessions).split())
        assert before
        for session in before:
            target.run(f"systemctl stop session-{session}.scope; loginctl terminate-session {session}", check=False)
        target.run("loginctl terminate-user operator", check=False)
        assert soon(lambda: not before & set(target.out(sessions).split()))
        assert target.waits() and "portknock-guard.timer" in target.guards()
        assert check_rolled_back(target, run.only())["guard"]["undo"] == "exact"
    finally:
        operator.close()


def test_rollback_that_is_killed_at_work_is_started_again(target, held):
    since = target.out("date +%s").strip()
    run = held(15)
    target.hang_once()
    run.until(target.hangs)
    # One family is back, the other one is not.
    assert not target.is_as_before()
    target.run("systemctl kill --signal=KILL portknock-guard.service")
    assert soon(target.is_as_before)
    check_rolled_back(target, run.only())
    journal = target.out(f"journalctl --unit portknock-guard.service --since @{since}")
    assert "status=9/KILL" in journal and "Scheduled restart job" in journal


def test_rollback_that_is_stopped_leaves_it_to_a_process(target, held):
    """By a signal, as soon as its timer has started it; one that has the lock is ended half a minute later."""
    target.stop_rollback()
    run = held(8)
    run.until(target.hangs)
    assert soon(target.is_as_before, PATIENCE)
    assert target.last()["outcome"] == "rolled_back" and "portknock-guard.service" in target.guards()
    target.run("systemctl kill --signal=CONT portknock-guard.service", check=False)
    check_rolled_back(target, run.only())


def test_reboot_in_the_window_brings_the_old_rules(target, controller, held):
    run = held(300)
    staged = target.staged()
    hosts_sh("host_reboot", NAME)
    assert target.is_as_before() and target.files() == target.files_before and target.lets_in()
    event = run.only()
    assert event.kind == "failed" and event.result["rolled_back"] and not event.result.get("unreachable"), event
    assert "restarted" in event.result["msg"] and event.result["guard"]["seconds"] < 300
    # What lay beside the rules files holds steps, so the boot removes it.
    assert staged and not target.staged()
    check_confirmed(target, controller.apply(AFTER).only())


def test_rules_loaded_from_the_files_in_the_window_are_not_confirmed(target, held):
    run = held(300)
    target.run("netfilter-persistent restart")
    assert target.is_as_before()
    result = check_rolled_back(target, run.only())
    assert "something else changed the knock rules" in result["msg"] and result["guard"]["seconds"] < 300
