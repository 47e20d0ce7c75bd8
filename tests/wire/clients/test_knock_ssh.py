# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The connection knock_ssh: it knocks for every new TCP connection to the door's port, and for nothing else.

Both are counted on the host, before any rule of the ruleset sees them.
"""

import contextlib
import json
import re
import signal
import time

import pytest
from rig import faults
from rig.controller import PING
from rig.counter import Counter, close_doors
from rig.guard import BEHIND, DOOR, KNOCK
from rig.jump import OTHER
from rig.masters import end_masters, master_pids, sockets
from rig.packets import IPV4, IPV6
from rig.peer import TARGET
from rig.shown import steps_in

LAST = str(KNOCK[-1])
SHELL = {"name": "command", "ansible.builtin.command": "true"}
FILES = [
    {"name": "copy", "ansible.builtin.copy": {"content": "a\n", "dest": "/run/own/copied"}},
    {"name": "fetch", "ansible.builtin.fetch": {"src": "/run/own/copied", "dest": "fetched/", "flat": True}},
]
OPERATIONS = [
    SHELL,
    *FILES,
    {"name": "raw", "ansible.builtin.raw": "true"},
    {"name": "script", "ansible.builtin.script": "/bin/true"},
    {"name": "template", "ansible.builtin.template": {"src": "{{ inventory_file }}", "dest": "/run/own/made"}},
    {"name": "async", "ansible.builtin.command": "true", "async": 20, "poll": 1},
    {"name": "become", "ansible.builtin.command": "true", "become": True},
    {"name": "loop", "ansible.builtin.command": "true", "loop": [1, 2, 3]},
    {"name": "delegated", "ansible.builtin.command": "true", "delegate_to": "target"},
]
# It closes the connection first, so that it sees a new one.
WAIT = {"name": "wait", "ansible.builtin.wait_for_connection": {"timeout": 20}}


@pytest.fixture
def counter(rig, controller):
    """A door on port 22 that has not been knocked at, and counters before it."""
    assert not sockets(controller)
    rig.target.apply(dict(DOOR, window=600))
    return Counter(rig, LAST)


def play(controller, *tasks, variables=None, **options):
    """Run tasks through the door."""
    run = controller.play(*tasks, hosts={"target": dict(BEHIND, **(variables or {}))}, **options)
    assert run.code == 0, run.output
    assert steps_in(KNOCK, run.output) == [], run.output
    return run


# What the plugin does for a connection is the next test's, with every release.
@pytest.mark.three_cores
def test_every_operation_over_one_master_is_one_knock(controller, counter):
    play(controller, PING, *OPERATIONS)
    assert counter.take() == (1, 1)
    play(controller, WAIT)
    assert counter.take() == (1, 1)
    play(controller, PING, words=["-vvvvv"])
    assert counter.take() == (0, 0)


@pytest.mark.every_core
def test_each_new_connection_is_knocked_for(rig, controller, counter):
    """After a reset, after the master's end, and without any master for each command."""
    play(controller, PING, {"name": "reset", "meta": "reset_connection"}, dict(PING, name="again"))
    assert counter.take() == (2, 2)
    end_masters(controller)
    close_doors(rig)
    play(controller, PING)
    assert counter.take() == (1, 1)
    end_masters(controller)
    alone = {"ANSIBLE_SSH_ARGS": f"-F {controller.ssh_config} -o ControlMaster=no", "ANSIBLE_PIPELINING": "true"}
    play(controller, PING, environment=alone)
    knocks, connections = counter.take()
    assert knocks == connections >= 1


@pytest.mark.parametrize("method", ["sftp", "scp", "piped"])
def test_transfers_without_a_master(controller, counter, method):
    alone = {"ANSIBLE_SSH_ARGS": f"-F {controller.ssh_config}", "ANSIBLE_SSH_TRANSFER_METHOD": method}
    play(controller, *FILES, environment=alone)
    knocks, connections = counter.take()
    assert knocks == connections > 2


def test_the_door_of_the_role_is_knocked_at(controller, counter):
    """Without ansible_knock, the steps are those of the door that opens the connection's port."""
    doors = [dict(DOOR, name="web", opens=["443"], knock=["4000", "5000"]), DOOR]
    controller.play(
        PING, hosts={"target": {"ansible_connection": BEHIND["ansible_connection"], "portknock_doors": doors}}
    )
    assert counter.take() == (1, 1)


@pytest.mark.parametrize("lost", ["way", "process"])
def test_a_master_that_is_dead_but_answers(rig, controller, counter, lost):
    """It says that it runs, and whatever goes over it hangs."""
    play(controller, PING)
    counter.take()
    time.sleep(6)
    with contextlib.ExitStack() as stack:
        if lost == "way":
            stack.enter_context(established_dropped(rig))
        else:
            pids = master_pids(controller)
            for pid in pids:
                rig.client.namespace.run("kill", "-STOP", str(pid))
            stack.callback(lambda: [rig.client.namespace.run("kill", "-KILL", str(pid)) for pid in pids])
        begun = time.monotonic()
        play(controller, PING)
        assert time.monotonic() - begun < 20
    assert counter.take() == (1, 1)


@contextlib.contextmanager
def established_dropped(rig):
    """The sessions that run now get nothing through any more, without a word."""
    ports = set(
        re.findall(r":(\d+)\s*$|:(\d+) ", rig.client.namespace.run("ss", "-Htn", "state", "established").stdout)
    )
    sources = {one or other for one, other in ports} - {"22", ""}
    words = ["-p", "tcp", "--dport", "22", "-m", "multiport", "--sports", ",".join(sorted(sources)), "-j", "DROP"]
    rig.client.namespace.run("iptables", "-A", "OUTPUT", *words)
    try:
        yield
    finally:
        rig.client.namespace.run("iptables", "-D", "OUTPUT", *words)


def test_every_retry_knocks_again(rig, controller, counter):
    """The first knock gets lost: core tries again, with a knock of its own."""
    with faults.way_blocked(rig, 7000):
        run = controller.start(PING, hosts={"target": dict(BEHIND, ansible_ssh_retries=6, ansible_timeout=2)})
        run.until(lambda: counter._read()[0] >= counter._before[0] + 2)
    assert run.wait().code == 0, run.output
    knocks, connections = counter.take()
    assert knocks >= 3
    assert connections >= knocks


def test_reboot_and_wait(controller, counter):
    """They try again and again until the host is back; a session's end in place of a boot is enough to see that."""
    reboot = {
        "reboot_command": "pkill -f 'sshd: root'",
        "boot_time_command": "date +%s%N",
        "test_command": "true",
        "pre_reboot_delay": 0,
        "post_reboot_delay": 0,
        "reboot_timeout": 60,
        "connect_timeout": 3,
    }
    play(controller, PING, {"name": "reboot", "ansible.builtin.reboot": reboot}, dict(PING, name="after"))
    knocks, connections = counter.take()
    assert knocks == connections >= 2


def test_many_tasks_over_one_master(controller, counter, soak):
    count = 200 if soak else 30
    tasks = [dict(SHELL, name=f"task {number}") for number in range(count)]
    run = controller.start(*tasks, hosts={"target": BEHIND}).wait(900)
    assert run.code == 0, run.output
    assert counter.take() == (1, 1)


@pytest.mark.parametrize("strategy", ["linear", "free", pytest.param("host_pinned", marks=pytest.mark.soak)])
def test_many_hosts_at_once(controller, counter, strategy):
    """Twenty workers that want to the same address at the same time do not disturb each other's steps."""
    hosts = {f"target{number}": dict(BEHIND, ansible_ssh_args=f"-F {controller.ssh_config}") for number in range(20)}
    run = controller.play(
        {"name": "hello", "ansible.builtin.raw": "echo hello"},
        hosts=hosts, play={"strategy": strategy}, environment={"ANSIBLE_FORKS": "20"},
    )  # fmt: skip
    assert run.code == 0, run.output
    assert len([event for event in run.events if event.kind == "ok"]) == 20
    knocks, connections = counter.take()
    assert knocks == connections == 20


@pytest.mark.parametrize("where", ["ProxyJump", "ProxyCommand"])
def test_through_a_jump_host(rig, controller, counter, jump, where):
    """The host sees the jump host's address, so the knock comes from there; one from here would be for nothing."""
    proxy = {
        "ProxyJump": f"ProxyJump {jump}",
        "ProxyCommand": f"ProxyCommand ssh -F {controller.ssh_config} -i {controller.key} -W %h:%p {jump}",
    }[where]
    controller.configure(f"IdentityFile {controller.key}", f"Host {TARGET[IPV4]}\n    {proxy}")
    play(controller, PING, dict(PING, name="again"))
    assert counter.take() == (1, 1)
    assert rig.target.listed("pk4_ssh") == {OTHER[IPV4]}
    end_masters(controller)
    close_doors(rig)
    run = controller.play(PING, hosts={"target": dict(BEHIND, ansible_knock_via="direct")})
    assert run.only(task="ping").kind == "unreachable"
    assert "Set ansible_knock_via to jump" in re.sub(r"\s+", " ", run.output)


def test_ipv6(controller, counter):
    play(controller, PING, variables={"ansible_host": TARGET[IPV6]})
    assert counter.take() == (1, 1)


def test_aliases_of_the_users_configuration(controller, counter):
    controller.configure("HostName " + TARGET[IPV4], "AddressFamily inet")
    play(controller, PING, variables={"ansible_host": "some-alias"})
    assert counter.take() == (1, 1)


def test_no_knock_wanted(rig, controller, counter):
    rig.client.knock(*KNOCK)
    counter.take()
    play(controller, PING, variables={"ansible_knock_via": "none"})
    end_masters(controller)
    play(controller, PING, variables={"ansible_knock": []})
    assert counter.take() == (0, 2)


@pytest.mark.usefixtures("counter")
def test_it_says_what_happened(controller):
    """To what ssh says of a connection that could not be made it adds which knocks there were, and what the answer means."""
    others = {key: BEHIND[key] for key in ("ansible_connection",)}
    wrong = dict(others, portknock_doors=[{"name": "shop", "knock": ["17005", "19100"], "opens": [22]}])
    hosts = {"wrong": wrong, "unknown": others, "engine": dict(wrong, portknock_engine="kernel")}
    run = controller.play(PING, hosts={name: dict(each, ansible_host=TARGET[IPV4]) for name, each in hosts.items()})
    refused = f"ssh: connect to host {TARGET[IPV4]} port 22: Connection refused. knock_ssh "
    said = {name: run.only(host=name, task="ping") for name in hosts}
    assert [said[name].kind for name in hosts] == ["unreachable", "unreachable", "failed"], run.output
    assert (
        f"{refused}knocked 3 times at the door shop of {TARGET[IPV4]}, directly, from 10.77.0.2. Port 22 of {TARGET[IPV4]}: the "
        "host refuses it by ICMP, as a closed door does: it did not accept the knock. Check that portknock_doors[0].knock has "
    ) in said["wrong"].result["msg"]
    assert f"{refused}sent no knock: neither ansible_knock nor portknock_doors is set" in said["unknown"].result["msg"]
    assert (
        "portknock_engine: kernel is not valid. Use one of iptables, knockd, nftables." in said["engine"].result["msg"]
    )
    assert steps_in(["17005", "19100"], run.output) == []


def test_a_knock_elsewhere(controller, counter):
    """ansible_knock_host: for a router that forwards only the ssh port, say. Here the host's own second address."""
    play(controller, PING, variables={"ansible_host": TARGET[IPV4], "ansible_knock_host": TARGET[IPV4]})
    assert counter.take() == (1, 1)
    run = controller.play(
        PING, hosts={"target": dict(BEHIND, ansible_knock_host="nowhere.invalid", ansible_host=TARGET[IPV6])}
    )
    assert run.only(task="ping").kind == "unreachable"
    assert "Failed to knock" in run.output
    assert "no address" in run.output


@pytest.mark.every_core
def test_the_options_are_cores_and_ours(controller):
    """Computed from the core that is installed, so none is missing in any release."""
    ours, theirs = (options(controller, name) for name in ("sesame.portknock.knock_ssh", "ansible.builtin.ssh"))
    assert {"knock", "knock_pause", "knock_host", "knock_via"} <= set(ours) - set(theirs)
    for name, facts in theirs.items():
        assert [entry["name"] for entry in ours[name].get("vars", [])] == [
            entry["name"] for entry in facts.get("vars", [])
        ]
        assert ours[name].get("default") == facts.get("default"), name


def options(controller, name):
    """Return what ansible-doc says of a connection plugin's options."""
    doc = controller._playbook.with_name("ansible-doc")
    done = controller.namespace.run(doc, "-t", "connection", "--json", name, env=controller._environment(0, {}))
    return json.loads(done.stdout)[name]["doc"]["options"]


def test_interrupted_knocks_leave_nothing_behind(controller, counter):
    run = controller.start(*[dict(SHELL, name=f"task {number}") for number in range(50)], hosts={"target": BEHIND})
    run.until(lambda: counter._read()[0] > counter._before[0])
    run.kill(signal.SIGKILL)
    run.wait()
    end_masters(controller)
    counter.take()
    play(controller, PING)
    assert counter.take() == (1, 1)
