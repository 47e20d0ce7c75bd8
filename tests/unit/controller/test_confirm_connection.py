# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection that confirms: the options that are set for one try, and the knock before it."""

import re
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import SETTLE, KnockError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Step
from ansible_collections.sesame.portknock.plugins.plugin_utils import send_knock
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard import confirm_connection, reasons
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.answers import TryError
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.confirm_connection import HostConnection
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import Lookup, SshPath

pytestmark = pytest.mark.usefixtures("alarm", "path")


@pytest.fixture
def path(monkeypatch):
    """The path that ssh takes, and how many addresses it tries."""
    monkeypatch.setattr(confirm_connection, "ssh_path", lambda _connection: PATH)
    monkeypatch.setattr(confirm_connection, "look_up", lambda _path: Lookup(("192.0.2.7",)))


PATH = SshPath("192.0.2.7", 22, "any", "me", timeout=10)


class FakeSsh:
    """Core's ssh plugin, as far as a HostConnection asks for it."""

    transport, ansible_name = "ssh", "ansible.builtin.ssh"

    def __init__(self, **more):
        self.options = dict(host="h", ssh_args="-C", reconnection_retries=3, ssh_executable="sh", **more)
        self.resets, self.control = 0, []

    def has_option(self, name):
        return name in self.options

    def get_option(self, name):
        return self.options[name]

    def set_option(self, name, value):
        self.options[name] = value

    def reset(self):
        self.resets += 1

    def _build_command(self, executable, *words):
        self.control.append(words)
        return [executable, "-c", "true" if words[2] == "check" else "false"]


class FakeLocal:
    transport, ansible_name = "local", "ansible.builtin.local"

    def __init__(self, name="ansible.builtin.local"):
        self.ansible_name, self.resets = name, 0

    def reset(self):
        self.resets += 1


class FakeAction:
    """Runs what a list says; remembers the options of the connection meanwhile."""

    def __init__(self, connection, *answers):
        self._connection, self.answers, self.seen = connection, list(answers), []
        self._play_context = SimpleNamespace(remote_addr="192.0.2.7")

    def _low_level_execute_command(self, command):
        self.seen.append((command, dict(getattr(self._connection, "options", {}))))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def connection_of(*answers, connection=None, **knock):
    action = FakeAction(connection or FakeSsh(), *answers)
    return HostConnection(action, send_knock.Knock(pause=0.5, **knock)), action


def test_a_fresh_connection_is_shared_with_nothing():
    host, action = connection_of({"rc": 0, "stdout": "out", "stderr": ""})
    before = dict(action._connection.options)
    assert host.run_over_new("cmd", 7.6) == "out"
    ((command, options),) = action.seen
    assert command == "cmd"
    words = options["ssh_args"]
    for wanted in ("ControlMaster=no", "ControlPath=none", "ControlPersist=no", "ConnectTimeout=4 "):
        assert "-o " + wanted in words
    assert "ServerAlive" not in words, "sshd does not answer while PAM opens the session"
    assert words.endswith("-C"), "what the user set stays, and the collection's option comes first and counts"
    assert options["reconnection_retries"] == 0
    assert action._connection.options == before, "the tasks that follow have their own options"
    assert action._connection.resets == 0
    assert action._connection.control == [], "the old connection is what we live on"


@pytest.mark.parametrize("error", [AnsibleConnectionFailure("x"), KeyError("x")])
def test_the_options_come_back_after_an_error(error):
    host, action = connection_of(error)
    before = dict(action._connection.options)
    with pytest.raises((TryError, KeyError)):
        host.run_over_new("cmd", 5)
    assert action._connection.options == before


def test_options_that_a_connection_does_not_have():
    host, action = connection_of({"rc": 0, "stdout": "out", "stderr": ""})
    del action._connection.options["reconnection_retries"]
    assert host.run_over_new("cmd", 5) == "out"
    assert "reconnection_retries" not in action._connection.options


def test_ssh_args_that_are_not_set():
    host, action = connection_of({"rc": 0, "stdout": "out", "stderr": ""})
    action._connection.options["ssh_args"] = None
    assert host.run_over_new("cmd", 5) == "out"
    assert action._connection.options["ssh_args"] is None


def test_the_usual_connection_is_as_the_play_has_it():
    host, action = connection_of({"rc": 1, "stdout": "out", "stderr": ""})
    assert host.run_over_shared("cmd", 5) == "out"
    assert action.seen[0][1]["ssh_args"] == "-C"
    assert action.seen[0][1]["reconnection_retries"] == 0


FAILED = [
    (AnsibleConnectionFailure("Failed to connect:\nssh: connect to host h port 22: timed out.\n"),
     "ssh: connect to host h port 22: timed out"),
    ({"rc": 255, "stdout": "", "stderr": "debug\nConnection reset by peer\n"}, "Connection reset by peer"),
    ({"rc": 255, "stdout": "", "stderr": ""}, "the connection was closed"),
    (AnsibleError("cannot"), "cannot"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "text"), FAILED)
@pytest.mark.parametrize("way", ["run_over_new", "run_over_shared"])
def test_what_did_not_come_through(answer, text, way):
    host, _action = connection_of(answer)
    with pytest.raises(TryError) as error:
        getattr(host, way)("cmd", 5)
    assert str(error.value) == text


def test_a_command_that_exits_with_255_itself():
    host, _action = connection_of({"rc": 255, "stdout": "an answer", "stderr": ""})
    assert host.run_over_new("cmd", 5) == "an answer"


@pytest.mark.parametrize(
    ("addresses", "window", "hurries", "patience"),
    [
        (1, 15, False, [4, 8, 10, 10]),
        (1, 15, True, [4, 8, 10, 10]),
        (2, 15, False, [10, 10, 10, 10]),
        (2, 15, True, [4, 8, 10, 10]),
        (2, 3, False, [10, 10, 10, 10]),
        (2, 3, True, [2, 2, 2, 2]),
        (2, 0, True, [4, 8, 10, 10]),
    ],
)
def test_a_new_connection_waits_as_long_as_one_of_the_play(addresses, window, hurries, patience, monkeypatch):
    """Or it would prove a connection that the play never makes: ssh tries a dead address first, and the window ends."""
    monkeypatch.setattr(confirm_connection, "look_up", lambda _path: Lookup(("192.0.2.7",) * addresses))
    host, action = connection_of(*[{"rc": 0, "stdout": "out", "stderr": ""}] * 4)
    host.use_knock([], window)
    if hurries:
        action._connection.knocks_itself = lambda: True
    for turn in range(4):
        host.run_over_new("cmd", 25, turn)
    found = [re.findall(r"ConnectTimeout=(\d+)", options["ssh_args"]) for _command, options in action.seen]
    assert found == [[str(seconds)] for seconds in patience]


@pytest.mark.parametrize(("seconds", "jump", "slow"), [(4.5, "", False), (5.2, "", True), (5.2, "j", False)])
def test_a_login_that_is_slow_is_told_apart_from_no_answer(seconds, jump, slow, monkeypatch):
    """ssh ends by itself what is not connected within its ConnectTimeout, but for the way to a jump host."""
    monkeypatch.setattr(confirm_connection, "ssh_path", lambda _connection: PATH._replace(jump=jump))
    host, action = connection_of()

    def hang(_command):
        raise confirm_connection.TimeUpError("no answer within 9 s")

    monkeypatch.setattr(action, "_low_level_execute_command", hang)
    with pytest.raises(TryError) as error:
        host.run_over_new("cmd", seconds)
    assert (reasons.kind_of(str(error.value)) == reasons.SLOW) is slow


def test_ssh_that_does_not_say_which_path_it_takes(monkeypatch):
    """A change is pending by then: what counts is that it is tried."""

    def hang(_connection):
        raise confirm_connection.TimeUpError("no answer within 10 s")

    monkeypatch.setattr(confirm_connection, "ssh_path", hang)
    host, _action = connection_of()
    assert host.addresses == 1
    with pytest.raises(TryError):
        host.run_over_new("cmd", 5)


def test_after_a_slow_login_the_master_has_as_long(monkeypatch):
    now = [0.0]
    host, action = connection_of()

    def log_in(_command):
        now[0] = 20.0
        return {"rc": 0, "stdout": "out", "stderr": ""}

    monkeypatch.setattr(action, "_low_level_execute_command", log_in)
    monkeypatch.setattr(confirm_connection.time, "monotonic", lambda: now[0])
    host.run_over_new("cmd", 25)
    seen = []
    monkeypatch.setattr(host, "run_over_shared", lambda _command, seconds: seen.append(seconds))
    assert host.restore() is False
    assert seen == [40.0]


def test_a_try_that_hangs(monkeypatch):
    host, action = connection_of()
    before = dict(action._connection.options)
    monkeypatch.setattr(action, "_low_level_execute_command", lambda _command: time.sleep(300))
    began = time.monotonic()
    with pytest.raises(TryError, match="no answer"):
        host.run_over_new("cmd", 0)
    assert time.monotonic() - began < 100
    assert action._connection.options == before


@pytest.mark.parametrize(
    ("name", "network"),
    [("ansible.builtin.local", False), ("community.docker.docker", False), ("containers.podman.podman", False),
     ("ansible.builtin.winrm", True), ("ansible.netcommon.httpapi", True), ("paramiko_ssh", True)],
)  # fmt: skip
def test_other_connections(name, network, knocks):
    connection = FakeLocal(name)
    host, action = connection_of({"rc": 0, "stdout": "out", "stderr": ""}, connection=connection)
    assert (host.is_ssh, host.has_network, host.where) == (False, network, "192.0.2.7")
    host.use_knock([Step(7005, "tcp")])
    host.knock()
    way = SshPath("192.0.2.7", 0, "any", "")
    assert knocks == ([(["7005/tcp"], 0.5, way)] if network else []), "a jump host is ssh's alone"
    assert host.run_over_new("cmd", 5) == "out"
    assert connection.resets == (1 if network else 0), "only a new one proves something"
    assert host.has_control_master() is False
    assert host.restore() is False
    assert action.answers == []


# The knock


@pytest.fixture
def knocks(monkeypatch):
    """What was knocked: steps, seconds between them, and the way."""
    found = []

    def send(_connection, knock, path, _warn):
        found.append(([f"{port}/{protocol}" for port, protocol in knock.steps], knock.pause, path))

    monkeypatch.setattr(send_knock, "send", send)
    return found


def test_no_steps_no_knock(knocks):
    host, _action = connection_of()
    host.knock()
    host.use_knock([])
    host.knock()
    assert knocks == []


def test_the_knock_goes_the_way_that_ssh_goes(knocks, monkeypatch):
    path = SshPath("192.0.2.7", 2222, "any", "me", source="192.0.2.9", jump="j")
    asked = []
    monkeypatch.setattr(confirm_connection, "ssh_path", lambda connection: asked.append(connection) or path)
    host, action = connection_of()
    host.use_knock([Step(7005, "tcp"), Step(9100, "udp")])
    host.knock()
    host.knock()
    assert knocks == [(["7005/tcp", "9100/udp"], 0.5, path)] * 2
    assert asked == [action._connection], "ssh is asked once"
    host.use_knock([])
    host.knock()
    assert len(knocks) == 2


@pytest.mark.parametrize(
    ("engine", "settle", "again"),
    [("iptables", 0, ["7005/tcp", "9100/udp"]), ("knockd", SETTLE, ["9100/udp", "7005/tcp", "9100/udp"])],
)
def test_the_engine_says_how_to_knock_again_and_how_long_it_takes(engine, settle, again, knocks, monkeypatch):
    monkeypatch.setattr(confirm_connection, "ssh_path", lambda _connection: SshPath("192.0.2.7", 22, "any", "me"))
    host, _action = connection_of(engine=engine)
    host.use_knock([Step(7005, "tcp"), Step(9100, "udp")])
    assert host.settle == settle
    for turn in range(3):
        host.knock(turn)
    assert [steps for steps, _pause, _path in knocks] == [["7005/tcp", "9100/udp"], again, again]


@pytest.mark.parametrize("engine", ["iptables", "knockd"])
@pytest.mark.parametrize("jump", ["", "j"])
def test_the_wait_after_the_last_step_goes_with_the_knock(engine, jump, monkeypatch):
    sent = []
    monkeypatch.setattr(send_knock, "send_knock", lambda *_words, **more: sent.append(more))
    monkeypatch.setattr(send_knock, "knock_via_jump", lambda *_words, **more: sent.append(more))
    knock = send_knock.Knock(steps=((7005, "tcp"),), host="" if jump else "192.0.2.7", engine=engine)
    send_knock.send(None, knock, SshPath("192.0.2.7", 22, "any", "me", jump=jump))
    assert sent == [{"settle": SETTLE if engine == "knockd" else 0}]


@pytest.mark.parametrize(
    "error", [KnockError("the network is unreachable"), AnsibleError("the network is unreachable")]
)
def test_a_knock_that_cannot_leave(error, monkeypatch):
    def fail(*_args):
        raise error

    monkeypatch.setattr(send_knock, "send", fail)
    monkeypatch.setattr(confirm_connection, "ssh_path", lambda _connection: SshPath("192.0.2.7", 22, "any", "me"))
    host, _action = connection_of()
    host.use_knock([Step(7005, "tcp")])
    with pytest.raises(TryError, match="the network is unreachable"):
        host.knock()


# The master


def test_a_reset_ends_the_master_too():
    host, action = connection_of()
    host.reset()
    assert action._connection.control == [("ssh", "-O", "exit", "h")]
    assert action._connection.resets == 1


def test_a_reset_of_what_is_dead_is_no_error(monkeypatch):
    host, action = connection_of()

    def fail():
        raise AnsibleConnectionFailure("no such socket")

    monkeypatch.setattr(action._connection, "reset", fail)
    host.reset()


def test_a_master_that_lives_is_left_alone():
    host, action = connection_of({"rc": 0, "stdout": "", "stderr": ""})
    assert host.restore() is False
    assert action._connection.resets == 0


def test_a_master_that_was_cut_off_is_replaced(knocks, monkeypatch):
    monkeypatch.setattr(confirm_connection, "ssh_path", lambda _connection: SshPath("192.0.2.7", 22, "any", "me"))
    host, action = connection_of({"rc": 255, "stdout": "", "stderr": "broken"}, {"rc": 0, "stdout": "", "stderr": ""})
    host.use_knock([Step(7005, "tcp")])
    assert host.restore() is True
    assert action._connection.resets == 1
    assert len(knocks) == 1, "before the new connection"
    assert action.answers == []


def test_a_master_that_will_be_cut_off_is_replaced(knocks):
    """It still works, as long as the window is open."""
    host, action = connection_of({"rc": 0, "stdout": "", "stderr": ""})
    host.use_knock([Step(7005, "tcp")])
    assert host.restore(works=False) is True
    assert (action._connection.resets, len(knocks), action.answers) == (1, 1, [])


def test_without_a_master_there_is_nothing_to_mend(monkeypatch):
    host, action = connection_of()
    monkeypatch.setattr(action._connection, "_build_command", lambda *_words: ["sh", "-c", "false"])
    assert host.restore() is False
    assert action.seen == []
