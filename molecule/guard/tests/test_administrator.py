# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody at the host's console sees what is pending, and ends it."""

import re

from rig_console import AFTER, soon

PENDING = re.compile(
    r"^pending: a change by \S+@\S+ process \d+ \(\w+\) is undone in \d+ s unless it is confirmed$", re.MULTILINE
)


def hold(target, controller, timeout):
    """Start a change that no knock confirms, and look at it."""
    target.lose_knocks()
    run = controller.start(AFTER, guard_timeout=timeout)
    run.until(target.waits)
    assert PENDING.search(target.out("portknock status"))
    return run


def test_timer_s_service_rolls_back_now(target, controller):
    run = hold(target, controller, 300)
    target.run("systemctl start portknock-guard.service")
    assert soon(target.is_as_before)
    event = run.only()
    assert event.kind == "failed" and event.result["rolled_back"], event
    assert event.result["guard"]["seconds"] < 300 and target.lets_in()
    assert soon(target.is_tidy), target.leftovers()


def test_rollback_undoes_it_now(target, controller):
    run = hold(target, controller, 300)
    assert target.out("portknock rollback") == "The change was rolled back: it was asked for on the host.\n"
    assert target.is_as_before() and "timer" not in target.guards()
    event = run.only()
    assert event.kind == "failed" and event.result["rolled_back"], event
    assert "it was asked for on the host" in event.result["msg"] and event.result["guard"]["seconds"] < 300
    wrong = target.run("portknock rollback --now", check=False)
    assert wrong.returncode == 2 and wrong.stderr.startswith("portknock: ")
    # Too late: it stays undone, and that is said.
    late = target.run("portknock confirm", check=False)
    assert late.returncode == 1 and "No change is pending. The last one: The change was rolled back: " in late.stderr
    assert target.is_as_before() and target.lets_in() and soon(target.is_tidy)


def test_confirm_keeps_it_now(target, controller):
    run = hold(target, controller, 6)
    assert target.out("portknock confirm") == "The change is confirmed and kept.\n"
    assert "timer" not in target.guards() and target.files() != target.files_before
    event = run.only()
    assert event.kind == "ok" and event.result["changed"] and event.result["guard"]["state"] == "confirmed", event
    # No connection of this controller's proved anything.
    assert "new connection" not in event.result["guard"]["proof"]
    target.pass_knocks()
    assert target.lets_in_after_a_knock() and soon(target.is_tidy)
    late = target.run("portknock rollback", check=False)
    assert late.returncode == 1 and late.stderr.endswith("The last one: The change is confirmed and kept.\n")
    assert not target.is_as_before()
