# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the programs that ssh calls say where no connection comes about, of refusals as the target's own kernel does them."""

import contextlib
import re
from pathlib import Path

import pytest
from rig.packets import IPV4
from rig.peer import TARGET
from rig.person import DOOR, PROGRAMS, STEPS, Person
from rig.shown import steps_in


@pytest.fixture
def person(rig, controller):
    """Somebody, and a door that is closed to them."""
    rig.target.apply(DOOR)
    return Person(controller, TARGET[IPV4])


@contextlib.contextmanager
def undone(run, do, undo):
    """Within the block a command has been run."""
    run("sh", "-ec", do)
    try:
        yield
    finally:
        run("sh", "-c", undo)


def rule(text):
    """Return the commands that put a rule in front of all others, and take it away."""
    return f"iptables -I {text}", f"iptables -D {text}"


CLOSED = "the host refuses it by ICMP, as a closed door does: it did not accept the knock. Has the knock changed?"
UP = "the host is up, but this port does not answer, as a door that drops packets does"
ANSWERED, IN_TIME = "[2-5] knocks", "[12] knocks?"
PROHIBITED = rule("INPUT -p tcp --dport 22 -j REJECT --reject-with icmp-admin-prohibited")
RESET = rule("INPUT -p tcp -j REJECT --reject-with tcp-reset")
DROPPED = rule("INPUT -p tcp --dport 22 -j DROP")
WRONG_KNOCK = [
    ("python", None, ANSWERED, CLOSED),
    ("bash", None, ANSWERED, CLOSED),
    ("python", PROHIBITED, ANSWERED, CLOSED),
    ("python", RESET, ANSWERED, "it is refused by a TCP reset: perhaps the door is closed and refuses so"),
    ("python", DROPPED, IN_TIME, UP),
    ("bash", DROPPED, IN_TIME, UP),
]
MUTE = "kill -STOP $(cat /run/sshd-22.pid)", "kill -CONT $(cat /run/sshd-22.pid)"
NO_ROUTE = f"ip route add unreachable {TARGET[IPV4]}", f"ip route del unreachable {TARGET[IPV4]}"


def refusal(person, *options, **environment):
    """Return what the program says of a connection that does not come about; ssh has one line more, and not two."""
    done = person.ssh(options=["LogLevel=INFO", *options], check=False, **environment)
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines)) == (255, 2), lines
    assert steps_in(STEPS, done.stderr) == []
    return lines[0]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_wrong_knock_ends_soon_and_says_so(rig, person, program):
    """Within five seconds where the host answers: these are so few knocks that it does not take longer."""
    person.run_playbook(program=program)
    rig.target.reset()
    rig.target.apply(dict(DOOR, knock=["18000", "14000"]))
    for _program, commands, knocks, words in [case for case in WRONG_KNOCK if case[0] == program]:
        with undone(rig.target.namespace.run, *(commands or ("true", "true"))):
            said = refusal(person, *(["ConnectTimeout=4"] if knocks == IN_TIME else []))
        assert re.match(
            rf"portknock: no connection to port 22 of {TARGET[IPV4]} after {knocks}: {re.escape(words)}", said
        ), said


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_ping_a_closed_port_says_that_the_host_is_up(rig, person, program, tmp_path):
    """Many a container has no ping. The refusal of the closed port may get lost once: the kernel asks again after a second."""
    person.run_playbook(program=program)
    for command in (path for folder in ("/usr/sbin", "/usr/bin", "/bin") for path in Path(folder).iterdir()):
        if command.name != "ping" and not (tmp_path / command.name).is_symlink():
            (tmp_path / command.name).symlink_to(command)
    with undone(rig.target.namespace.run, *DROPPED):
        said = refusal(person, "ConnectTimeout=6", PATH=str(tmp_path))
    assert f": {UP}" in said, said


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_says_what_is_wrong_with_the_server_or_the_way(rig, person, program):
    person.run_playbook(program=program)
    with undone(rig.target.namespace.run, *MUTE):
        said = refusal(person, "ConnectTimeout=4")
        assert re.match("portknock: .* after 1 knock: it accepts the connection and then sends nothing", said), said
    assert person.ssh().stdout == "in\n"
    rig.target.stop_sshd()
    said = refusal(person)
    assert re.match(f"portknock: .* after {ANSWERED}: the door is open, but nothing listens behind it", said), said
    with undone(rig.client.namespace.run, *NO_ROUTE):
        said = refusal(person)
        assert f"the knock cannot leave this machine ({TARGET[IPV4]}: No route to host)" in said
    nobody = "10.77.0.99"
    said = refusal(person, f"HostName={nobody}")
    assert re.match(rf"portknock: .* of {nobody} after {IN_TIME}: no host answers at this address: it is down", said), (
        said
    )
