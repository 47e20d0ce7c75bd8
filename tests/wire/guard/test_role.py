# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role itself, on a host that has nothing yet, with each release of ansible-core."""

import time

import pytest
from rig.bare_host import INTERPRETER
from rig.controller import Controller

ROLE = {"name": "Role", "ansible.builtin.include_role": {"name": "sesame.portknock.portknock"}}
STEPS = [58391, "61427/udp", 53819]
DOOR = {"name": "shell", "knock": STEPS, "opens": ["22"], "window": 2}
ROUND_TRIPS = 2
"""Calls of modules on a host where nothing is to be done: one reads it, the other compares the rules."""


@pytest.fixture
def user(bare_host, core, tmp_path):
    """A user with one release of ansible-core, who comes in by ssh, and knocks once there is a door."""
    made = Controller(bare_host.controller_side, bare_host.key, tmp_path / "controller", core)
    made.variables.update(
        ansible_host=bare_host.address,
        ansible_python_interpreter=INTERPRETER,
        ansible_pipelining=True,
        ansible_connection="sesame.portknock.knock_ssh",
        portknock_doors=[DOOR],
    )
    yield made
    made.close()


def play_role(user, **variables):
    """Run the role as the playbook site.yml does, from a list of roles, and return the finished run."""
    run = user.play(play={"roles": ["sesame.portknock.portknock"], "tasks": [], "vars": variables})
    assert run.code == 0, run.output
    return run


def changed(run):
    """Return the names of the tasks that changed something."""
    return [event.task for event in run.events if event.kind == "ok" and event.result.get("changed")]


def wait_until_closed(user, host):
    """Wait for the end of the window that the play's own knock opened."""
    end = time.monotonic() + 20 * DOOR["window"]
    while user.gets_in(host=host.address):
        assert time.monotonic() < end, "the door stays open"


@pytest.mark.every_core
def test_bare_host(bare_host, user):
    """The first run installs, closes and comes through the door again; the second does nothing; absent takes it out."""
    assert not bare_host.has_command("iptables")
    assert user.gets_in(host=bare_host.address)

    first = play_role(user)
    assert changed(first)
    assert bare_host.has_command("iptables-restore")
    assert "PORTKNOCK" in bare_host.rules()
    enabled = bare_host.run("systemctl", "is-enabled", "netfilter-persistent.service", "portknock.service").stdout
    assert enabled.split() == ["enabled", "enabled"]
    wait_until_closed(user, bare_host)

    bare_host.module_calls()
    second = play_role(user)
    assert changed(second) == []
    assert bare_host.module_calls() == ROUND_TRIPS

    gone = play_role(user, portknock_state="absent")
    assert changed(gone)
    assert "PORTKNOCK" not in bare_host.rules()
    assert user.gets_in(host=bare_host.address)
    assert changed(play_role(user, portknock_state="absent")) == []
