# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role on a bare host, over real ssh, through the guard."""

from rig_knockd import CONFIG

MODULE = "Write the knock ruleset"


def test_check_mode_says_what_it_would_do_and_changes_nothing(arrival):
    assert arrival.check.failed == 0 and arrival.check.changed >= 2, arrival.check.output[-9000:]
    (packages,) = [line for line in arrival.check.of("Say what is so now")["msg"] if "Would install" in line]
    assert "knockd" in packages and "iptables" in packages
    result = arrival.check.of(MODULE)
    assert result["changed"] and result["engine"] == "knockd"
    assert CONFIG in [part["before_header"] for part in result["diff"]]
    assert arrival.after_check == arrival.before


def test_change_is_confirmed_by_a_knock_that_knockd_heard(arrival):
    result = arrival.converge.of(MODULE)
    guard = result["guard"]
    assert (guard["state"], guard["knocked"], guard["agent"]) == ("confirmed", "shell", "systemd")
    assert guard["proof"].endswith(" to port 22") and guard["tries"] <= 2
    assert result["changed"] and not result["rolled_back"] and result["engine"] == "knockd"
    told = [finding["message"] for finding in result["findings"] if finding["kind"] == "knockd"]
    assert len(told) == 1 and "shell: 11 s for 3 steps" in told[0]


def test_second_run_changes_nothing_and_leaves_the_daemon_alone(arrival):
    assert (arrival.again.failed, arrival.again.changed) == (0, 0), arrival.again.output[-9000:]
    assert arrival.pid and arrival.pid_again == arrival.pid
