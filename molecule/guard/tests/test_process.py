# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where systemd is not PID 1, a process waits that has no parent."""

import pathlib

import pytest
from rig_console import AFTER, RUN, soon
from rig_play import Controller

DEAF_SSH = pathlib.Path(__file__).with_name("deaf-ssh")


@pytest.fixture
def bare(bare_host):
    """The container, with no rules in it."""
    bare_host.run(f"rm -rf {RUN}; iptables -F; iptables -X; ip6tables -F; ip6tables -X")
    bare_host.rules_before = bare_host.rules()
    return bare_host


def controller_by(executable, target):
    """Return a controller that comes in through docker, which is ssh to Ansible."""
    return Controller(target.address, ansible_ssh_executable=str(executable), ansible_ssh_transfer_method="piped")


def test_confirmed_change_leaves_no_process(bare, docker_ssh):
    controller = controller_by(docker_ssh, bare)
    try:
        event = controller.apply(AFTER, persist=False).only()
    finally:
        controller.close()
    assert event.kind == "ok" and event.result["changed"] and not event.result["rolled_back"], event
    assert (event.result["guard"]["agent"], event.result["guard"]["state"]) == ("process", "confirmed")
    assert not bare.is_as_before()
    assert soon(lambda: not bare.guards()), bare.guards()


@pytest.mark.parametrize("controller_lives", [True, False])
def test_unconfirmed_change_is_undone_whether_or_not_its_controller_lives(bare, controller_lives):
    controller = controller_by(DEAF_SSH, bare)
    try:
        run = controller.start(AFTER, persist=False, guard_timeout=15)
        run.until(bare.waits)
        assert "guard.zip wait" in bare.guards() and not bare.is_as_before()
        if not controller_lives:
            run.kill()
        assert soon(bare.is_as_before)
        if controller_lives:
            event = run.only()
            assert event.kind == "failed" and event.result["rolled_back"] and not event.result.get("unreachable"), event
            assert (event.result["guard"]["agent"], event.result["guard"]["undo"]) == ("process", "exact")
    finally:
        controller.close()
    assert bare.last()["outcome"] == "rolled_back"
    assert soon(lambda: not bare.guards()), bare.guards()
