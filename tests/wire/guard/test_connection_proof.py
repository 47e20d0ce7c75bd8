# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a new connection must be to confirm a change: tracked, and as the play makes it; and how slow its login may be."""

import contextlib
import os
import subprocess

import pytest
from rig import faults
from rig.controller import PING, knock_task
from rig.counter import close_doors
from rig.engines import ASKED, IN_SOAK
from rig.guard import BEHIND, DOOR, KNOCK, LONG, NEW, OLD
from rig.guard_nft import case_of
from rig.jump import OTHER
from rig.masters import end_masters
from rig.packets import IPV4, IPV6
from rig.peer import TARGET
from rig.target import ROOT, door

pytestmark = [ASKED, IN_SOAK]

NATIVE_NOTRACK = """
table inet elsewhere {
    chain in { type filter hook prerouting priority -300; tcp dport 22 notrack; }
    chain out { type filter hook output priority -300; tcp sport 22 notrack; }
}
"""
SHORT = door(*KNOCK, window=3)
SLOW_KEYS = "#!/bin/sh\nsleep {seconds}\ncat {keys}\n"


@contextlib.contextmanager
def native_notrack(rig):
    """Within the block a table beside iptables leaves ssh untracked; no rule of iptables tells."""
    run = rig.target.namespace.run
    run("nft", "-f", "-", stdin=NATIVE_NOTRACK)
    try:
        yield
    finally:
        run("nft", "delete", "table", "inet", "elsewhere")


@contextlib.contextmanager
def patient_kernel(rig):
    """Within the block the target waits longer for what it sent to be acknowledged.

    The new rules refuse the acknowledgements of the play's own session. After a fifth of a second without any the kernel sends
    nothing new, and on a busy machine a module ends later than that: its answer would come through, and that it has ended would not.
    """
    run = rig.target.namespace.run
    route = run("ip", "-4", "route", "show", "10.77.0.0/24", "dev", "eth0").stdout.split()
    run("ip", "route", "change", *route, "dev", "eth0", "rto_min", "20s")
    try:
        yield
    finally:
        run("ip", "route", "change", *route, "dev", "eth0")


def test_a_connection_that_is_not_tracked(rig, controller):
    """It gets in through the open door, and would break at the window's end; so would the play's own."""
    case = case_of(rig, controller)
    with native_notrack(rig), patient_kernel(rig):
        # A login must fit into the window: the session breaks when that ends.
        run = case.apply(door(*KNOCK, window=60), guard_timeout=LONG)
        event = run.only()
        assert event.kind == "failed", run.output
        assert (event.result["rolled_back"], event.result["guard"]["state"]) == (True, "rolled_back")
        assert "the host does not track the new connection to port 22 (conntrack)" in event.result["msg"]
        assert "Either a rule says notrack for that port" in event.result["msg"]
        assert event.result["guard"]["seconds"] < LONG / 4, "there is nothing to wait for"
    # Engine nftables compares all tables, and the one of this test is gone now.
    case.check_target(OLD)


def test_a_connection_that_is_forgotten(rig, controller):
    """By somebody who runs conntrack -F all the time: no rule keeps it out of connection tracking, so that is named."""
    case = case_of(rig, controller)
    with faults.connections_forgotten(rig), patient_kernel(rig):
        event = case.apply(door(*KNOCK, window=60), guard_timeout=LONG).only()
        assert event.result["rolled_back"] is True, event.result
        assert (
            "Rolled back: the host does not track the new connection to port 22 (conntrack), so it would break when the window of "
            "door ssh ends. No rule of this host says notrack. Its entry was deleted after the connection was made, as "
            "'conntrack -F' does: find out what does so, then run this again."
        ) in event.result["msg"]
    case.check_target(OLD)


def test_allowed_without_a_door_no_tracking_is_needed(rig, controller):
    case = case_of(rig, controller)
    with native_notrack(rig):
        run = case.apply(allow=[{"port": "22"}], policy="accept", doors=[dict(DOOR, opens=["443"])], guard_timeout=LONG)
        case.check(NEW, run)
        assert case.gets_in()


@contextlib.contextmanager
def slow_logins(rig, seconds):
    """Within the block a login takes so long: sshd looks the key up twice."""
    path = "/etc/slow-keys"
    text = SLOW_KEYS.format(seconds=seconds / 2, keys=rig.target.folder / "id.pub")
    rig.target.namespace.run("sh", "-c", f"cat >{path}; chmod 755 {path}", stdin=text)
    # Only what stands behind Match counts before what the rig has set.
    lines = ("Match all", "AuthorizedKeysFile none", f"AuthorizedKeysCommand {path}", "AuthorizedKeysCommandUser root")
    with faults.sshd_with(rig, *lines):
        yield


def test_a_slow_login_confirms(rig, controller):
    """sshd asks name servers that do not answer, for longer than any limit of a single try, and than the window."""
    case = case_of(rig, controller)
    controller.open_master()
    with faults.silent_name_servers(rig, 10), faults.sshd_with(rig, "UseDNS yes"):
        run = case.apply(SHORT, guard_timeout=60)
        guard = run.only().result["guard"]
        assert (guard["state"], guard["tries"]) == ("confirmed", 1)
        assert guard["seconds"] > 10, "the login was not slow"
    case.check_target(NEW)


def test_a_login_that_is_too_slow_is_called_that(rig, controller):
    case = case_of(rig, controller)
    with contextlib.ExitStack() as stack:
        controller.open_master()
        stack.enter_context(slow_logins(rig, 14))
        event = case.apply(guard_timeout=7).only()
        assert event.result["rolled_back"] is True, event.result
        assert "login and confirmation took too long" in event.result["msg"]
    case.check_target(OLD)


@contextlib.contextmanager
def two_addresses(rig, controller):
    """Within the block the target has a name with an address in each family, and the first one never answers ssh."""
    hosts = {"target": {"ansible_host": "both.example", "portknock_doors": [SHORT]}}
    names = {TARGET[IPV6]: "both.example", TARGET[IPV4]: "both.example"}
    with controller.with_hosts(names), faults.way_blocked(rig, 22, families=(IPV6,), only_new=False):
        yield hosts


def test_a_dead_first_address(rig, controller):
    """knock_ssh waits for it for less than the window; what confirms does as well, and so do the tasks after it."""
    case = case_of(rig, controller)
    with two_addresses(rig, controller) as hosts:
        hosts["target"]["ansible_connection"] = BEHIND["ansible_connection"]
        run = case.apply(SHORT, guard_timeout=30, run={"hosts": hosts})
        case.check(NEW, run)
        end_masters(controller)
        close_doors(rig)
        again = controller.play(PING, hosts=hosts)
        assert again.only(task="ping").kind == "ok", again.output


def test_a_dead_first_address_that_the_play_waits_for(rig, controller):
    """Plain ssh waits for it for longer than the window, so no connection of the play would get in."""
    case = case_of(rig, controller)
    with two_addresses(rig, controller) as hosts:
        event = case.apply(SHORT, guard_timeout=12, run={"hosts": hosts}).only()
        assert event.result["rolled_back"] is True, event.result
        for part in ("come too late", "window of door ssh is 3 s", "ssh tries 2 addresses"):
            assert part in event.result["msg"]
    case.check_target(OLD)


FORWARD = """
sysctl -qw net.ipv4.ip_forward=1
iptables-nft -t nat -A PREROUTING -d 10.77.0.3 -p tcp --dport 2222 -j DNAT --to-destination 10.77.0.1:22
iptables-nft -t nat -A PREROUTING -d 10.77.0.3 -p tcp -m multiport --dports 7000,3100 -j DNAT --to-destination 10.77.0.1
iptables-nft -t nat -A PREROUTING -d 10.77.0.3 -p udp --dport 9100 -j DNAT --to-destination 10.77.0.1
iptables-nft -t nat -A POSTROUTING -d 10.77.0.1 -j MASQUERADE
"""


@contextlib.contextmanager
def port_forward(rig):
    """Within the block the other host is a router that forwards port 2222, and the knock's ports, to the target."""
    run = rig.other.namespace.run
    run("sh", "-ec", FORWARD)
    try:
        yield {"ansible_host": OTHER[IPV4], "ansible_port": 2222}
    finally:
        run("iptables-nft", "-t", "nat", "-F")
        run("sysctl", "-qw", "net.ipv4.ip_forward=0")


def test_behind_a_port_forward(rig, controller):
    """The host knows the port as 22, the controller as 2222: confirmed, and knocked for when the window is over."""
    case = case_of(rig, controller)
    with port_forward(rig) as variables:
        made = dict(variables, portknock_doors=[SHORT], ansible_connection=BEHIND["ansible_connection"])
        run = controller.play(
            knock_task(SHORT, guard_timeout=LONG),
            {"name": "reset", "ansible.builtin.meta": "reset_connection"},
            {"name": "window", "ansible.builtin.pause": {"seconds": 4}, "delegate_to": "localhost"},
            PING,
            hosts={"target": made},
        )
        assert run.only(task="ping").kind == "ok", run.output
        assert run.only().result["guard"]["proof"].endswith("to port 22")
    case.check_target(NEW)


RELAY = """
import socket, threading
listener = socket.create_server(("", 4443))

def copy(source, sink):
    while data := source.recv(65536):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)

while True:
    near, far = listener.accept()[0], socket.create_connection(("127.0.0.1", 22))
    for pair in ((near, far), (far, near)):
        threading.Thread(target=copy, args=pair, daemon=True).start()
"""


def test_through_a_relay_on_the_host(rig, controller):
    """A program of the host takes the connection, as sslh does, and sshd sees one from the host itself: the door is the program's."""
    case = case_of(rig, controller)
    relay = rig.target.namespace.start("python3", "-c", RELAY, stdin=subprocess.DEVNULL)
    try:
        outside = {"target": {"ansible_port": 4443}}
        run = case.apply(door(*KNOCK, opens=(4443,)), guard_timeout=LONG, run={"hosts": outside})
        case.check(NEW, run)
        assert run.only().result["guard"]["knocked"] == "ssh"
    finally:
        faults.send(rig, "KILL", faults.processes(rig, RELAY.strip()[:24]))
        relay.wait()


@pytest.mark.parametrize(
    ("shell", "kind"), [("csh", "sh"), ("tcsh", "ansible.posix.csh"), ("fish", "ansible.posix.fish")]
)
def test_any_shell(rig, controller, shell, kind):
    """It runs what Ansible runs, and what the guard does."""
    case = case_of(rig, controller)
    variables = {"ansible_shell_executable": f"/usr/bin/{shell}", "ansible_shell_type": kind}
    collections = os.pathsep.join(str(ROOT / name) for name in (".build", ".cache/posix"))
    run = case.apply(
        guard_timeout=LONG,
        run={"hosts": {"target": variables}, "environment": {"ANSIBLE_COLLECTIONS_PATH": collections}},
    )
    case.check(NEW, run)
    assert run.only().result["guard"]["tries"] == 1
