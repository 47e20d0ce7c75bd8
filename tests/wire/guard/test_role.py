# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role itself, on a host that has nothing yet, with releases of ansible-core."""

import time

import pytest
from rig.bare_host import ROLE, changed, play_role, user_of
from rig.controller import cores

STEPS = [58391, "61427/udp", 53819]
DOOR = {"name": "shell", "knock": STEPS, "opens": ["22"], "window": 2}
CLOSED = "door shell: 22/tcp closed; opens for 2 s to the address that knocked"
FIREWALLD = """[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
"""
WRITE = "Write the knock ruleset"
MOST_LINES = 40
"""What a run prints for a host on which nothing is to be done, with core's own callback."""
MOST_LINES_OF_DIFF = 70
"""What the first look at a bare host prints, with the diff."""
ROUND_TRIPS = 2
"""Calls of modules on a host where nothing is to be done: one reads it, the other compares the rules."""


@pytest.fixture
def user(bare_host, core):
    with user_of(bare_host, core, portknock_doors=[DOOR], portknock_guard_timeout=300) as made:
        yield made


def include_role(user):
    """Run the role as a task does that includes it, and return the finished run."""
    run = user.play({"name": "Include the role", "ansible.builtin.include_role": {"name": ROLE}})
    assert run.code == 0, run.output
    return run


def wait_until_closed(user, host):
    """Wait for the end of the window that the play's own knock opened."""
    end = time.monotonic() + 20 * DOOR["window"]
    while user.gets_in(host=host.address):
        assert time.monotonic() < end, "the door stays open"


def told(run):
    """Return what the failed tasks said."""
    return [event.result["msg"] for event in run.events if event.kind == "failed"]


def check_plan(bare_host, planned):
    """The first look says what would be done, in few lines, and does nothing."""
    assert "Would install iptables, iptables-persistent" in planned.output
    assert f"***\n{CLOSED}\n" in planned.output, "the summary comes before the rules"
    assert "\nnetfilter-persistent.service starts at boot\n" in planned.output
    assert len(planned.output.splitlines()) <= MOST_LINES_OF_DIFF, planned.output
    assert bare_host.pending() == {}
    assert not bare_host.has_command("iptables")


@pytest.mark.three_cores
def test_bare_host(bare_host, user, core, soak):
    """The first run installs, closes and comes through the door again; the second does nothing; absent takes it out."""
    assert not bare_host.has_command("iptables")
    assert user.gets_in(host=bare_host.address)

    # What was found to differ between releases is the first run. The rest is shown with the oldest and the newest.
    all_of_it = soak or core in (cores()[0], cores()[-1])
    if all_of_it:
        check_plan(bare_host, play_role(user, "--check", "--diff"))

    first = play_role(user)
    assert changed(first)
    assert bare_host.has_command("iptables-restore")
    assert "PORTKNOCK" in bare_host.rules()
    assert f"target: changed. From now on:\n    {CLOSED}\n" in first.output
    assert "\n    Plain ssh is refused without a knock.\n    People: " in first.output
    assert bare_host.enabled("netfilter-persistent", "portknock") == ["enabled", "enabled"]
    assert bare_host.state("netfilter-persistent") == ("inactive", "enabled"), "a start flushes the live rules"
    if not all_of_it:
        return
    wait_until_closed(user, bare_host)

    bare_host.module_calls()
    second = include_role(user)
    assert changed(second) == []
    assert bare_host.module_calls() == ROUND_TRIPS
    assert len(second.output.splitlines()) <= MOST_LINES, second.output
    assert "dnf" not in second.output

    gone = play_role(user, portknock_state="absent")
    assert changed(gone)
    assert "PORTKNOCK" not in bare_host.rules()
    assert user.gets_in(host=bare_host.address)
    assert changed(play_role(user, portknock_state="absent")) == []


def test_host_with_another_firewall(bare_host, user):
    """It is refused, or stopped and disabled; the tags install without writing a rule, and write the rules alone."""
    bare_host.write("/etc/systemd/system/firewalld.service", FIREWALLD, "0644")
    bare_host.run("systemctl", "enable", "--now", "--quiet", "firewalld.service")

    refused = play_role(user, code=2)
    assert [message[:32] for message in told(refused)] == ["firewalld is in use on this host"]
    assert changed(refused) == []
    assert not bare_host.has_command("iptables")
    assert bare_host.enabled("firewalld") == ["enabled"]

    switch_off = {"portknock_conflicting_firewall": "disable"}
    play_role(user, "--tags", "portknock_install", **switch_off)
    assert bare_host.state("firewalld") == ("active", "enabled"), "it goes with the change, not with the packages"
    assert bare_host.enabled("netfilter-persistent") == ["disabled"], "and what a boot loads comes with it"
    assert "PORTKNOCK" not in bare_host.rules()

    written = play_role(user, "--tags", "portknock_ruleset", **switch_off)
    assert written.only(task=WRITE).result["services"] == {
        "stop": ["firewalld"], "disable": ["firewalld"], "enable": ["netfilter-persistent"],
    }  # fmt: skip
    assert "PORTKNOCK" in bare_host.rules()
    assert bare_host.state("firewalld") == ("inactive", "disabled")
    assert bare_host.enabled("netfilter-persistent") == ["enabled"]
    assert changed(include_role(user)) == []


def test_without_become(bare_host, user):
    """Another user than root reads what is missing, and nothing is done."""
    bare_host.run("useradd", "--create-home", "ali")
    bare_host.run("cp", "--recursive", "/root/.ssh", "/home/ali/")
    bare_host.run("chown", "--recursive", "ali", "/home/ali/.ssh")
    refused = play_role(user, code=2, ansible_user="ali", ansible_remote_tmp="/tmp/ali")
    assert [message[:24] for message in told(refused)] == ["Only root can read and w"]
    assert "become: true" in refused.output
    assert not bare_host.has_command("iptables")
