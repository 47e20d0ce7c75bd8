# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection knock_ssh with an ssh that is made up: which knocks go before it, and how often it is tried."""

import os
import socket
import subprocess
import sys

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible.errors import AnsibleConnectionFailure
from ansible.module_utils.common.yaml import yaml_load
from ansible.plugins.connection import ssh
from ansible_collections.sesame.portknock.plugins.doc_fragments import ssh_core
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh import control_master, explain
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh import path as path_module
from knock_way import DONE, KNOCK, fail, run

FIRST = [(17005, "tcp"), (19100, "udp")]
AGAIN = [(19100, "udp"), *FIRST]
REFUSED = (255, b"", b"ssh: connect to host h port 22: Connection refused\r\n")
LOST = (255, b"", b"Connection reset by peer\r\n")


@pytest.fixture(autouse=True)
def without_words(monkeypatch):
    """What is said of a connection that could not be made is test_explain's."""
    monkeypatch.setattr(explain, "explain", lambda *_words: "")


@pytest.mark.parametrize(
    ("variables", "engine"),
    [
        ({}, "iptables"),
        ({"portknock_engine": "knockd"}, "knockd"),
        ({"ansible_knock_engine": "knockd"}, "knockd"),
        ({"portknock_engine": "knockd", "ansible_knock_engine": "iptables"}, "iptables"),
        ({"portknock_engine": "iptables", "ansible_knock_engine": "knockd"}, "knockd"),
    ],
)
def test_the_inventory_says_who_recognises_the_knock(variables, engine, way):
    assert run(way.connection(**variables)) == DONE
    assert [(knock.engine, bool(knock.settle)) for knock in way.knocks] == [(engine, engine == "knockd")]
    assert way.steps() == [FIRST]


@pytest.mark.parametrize(("engine", "again", "tries"), [("iptables", FIRST, 3), ("knockd", AGAIN, 5)])
def test_what_did_not_get_in_is_knocked_for_again(engine, again, tries, way):
    way.ends = [REFUSED]
    assert run(way.connection(portknock_engine=engine)) == REFUSED
    assert way.steps() == [again if turn % 4 else FIRST for turn in range(tries)]
    assert way.calls == tries


@pytest.mark.parametrize("engine", ["iptables", "knockd"])
def test_what_was_begun_is_not_run_again(engine, way):
    way.ends = [LOST]
    assert run(way.connection(portknock_engine=engine)) == LOST
    assert way.steps() == [FIRST]


def test_a_knock_that_got_in_leaves_nothing_behind(way):
    connection = way.connection(portknock_engine="knockd")
    way.ends = [REFUSED, DONE]
    assert run(connection) == DONE
    assert run(connection) == DONE
    assert way.steps() == [FIRST, AGAIN, FIRST]


@pytest.mark.parametrize("end", [REFUSED, AnsibleConnectionFailure(REFUSED[2].decode())])
def test_cores_own_retries_know_of_the_knocks_before(end, way):
    """With a password, which is read once, each try is one of core's."""
    connection = way.connection(portknock_engine="knockd", password="secret")
    way.ends = [end, DONE]
    if isinstance(end, tuple):
        assert run(connection) == REFUSED
    else:
        with pytest.raises(AnsibleConnectionFailure):
            run(connection)
    assert run(connection) == DONE
    assert way.steps() == [FIRST, AGAIN]


# What every task costs


def test_a_task_that_need_not_knock_loads_nothing_of_a_knock():
    """Every task loads the plugin in a process of its own, and what a collection has is compiled anew each time."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1].split(':'); "
        "from ansible_collections.sesame.portknock.plugins.connection import knock_ssh; "
        "print(*sorted(name.split('.plugins.')[1] for name in sys.modules if '.portknock.plugins.' in name))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, ":".join(sys.path)], stdout=subprocess.PIPE, text=True, check=True
    )
    assert set(done.stdout.split()) == {
        "connection", "connection.knock_ssh", "plugin_utils", "plugin_utils._ssh", "plugin_utils._ssh.control_master",
    }  # fmt: skip


def without_versions(value):
    if isinstance(value, dict):
        gone = ("version_added", "version_added_collection", "deprecated")
        return {key: without_versions(item) for key, item in value.items() if key not in gone}
    return [without_versions(item) for item in value] if isinstance(value, list) else value


OTHER = """
name: x
options:
  a:
    deprecated:
      why: it is

      alternatives: b
    type: str
"""


@pytest.mark.parametrize("text", [ssh.DOCUMENTATION, OTHER])
def test_the_options_of_cores_plugin_without_its_versions(text):
    found = yaml_load(ssh_core.options_of(text))
    assert found == {"options": without_versions(yaml_load(text)["options"])}
    assert found["options"]


@pytest.mark.parametrize(
    ("words", "path", "shared"),
    [
        ([b"ssh", b"-o", b"ControlPath=/tmp/cp/x", b"h"], "/tmp/cp/x", True),
        ([b"ssh", b"-o", b'ControlPath="/tmp/c p/x"', b"h"], "/tmp/c p/x", True),
        (["ssh", "-o", "ControlPath=~/cp/x", "h"], os.path.expanduser("~/cp/x"), True),
        ([b"ssh", b"-o", b"ControlPath=/tmp/%C", b"h"], "", True),
        ([b"ssh", b"h"], "", True),
        ([b"ssh", b"-o", b"ControlPath=none", b"h"], "none", False),
        ([b"ssh", b"-o", b'ControlPath="none"', b"h"], "none", False),
    ],
)
def test_the_control_socket_of_a_command(words, path, shared):
    assert control_master.control_path(words) == path
    assert control_master.is_shared(words) is shared


@pytest.fixture
def served(way, tmp_path):
    """A connection with a control master that listens, and the command that goes through it."""
    path = str(tmp_path / "cp")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(5)
        yield way.connection(), [b"ssh", b"-o", b"ControlPath=" + path.encode(), b"h", b"true"]


def test_a_live_control_master_needs_no_knock_and_no_other_program(served, way, monkeypatch):
    connection, words = served
    monkeypatch.setattr(control_master.subprocess, "run", lambda *_words, **_more: fail(AssertionError("another ssh")))
    control_master.ControlMaster(connection, "192.0.2.7", connection.get_option("control_path_dir")).note_use()
    for _task in range(3):
        assert connection._bare_run(words, b"") == DONE
    assert (way.calls, way.knocks) == (3, [])


def test_one_that_was_not_used_for_a_while_is_tried_first(served, way, monkeypatch):
    connection, words = served
    tried = []

    def try_it(command, **_more):
        tried.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(control_master.subprocess, "run", try_it)
    assert connection._bare_run(words, b"") == DONE
    assert connection._bare_run(words, b"") == DONE
    assert [command[-1] for command in tried] == ["true"], "then it is trusted"
    assert way.knocks == []


def test_one_whose_machine_has_another_address_now_is_tried_first(served, way, monkeypatch):
    """Its own may be gone, and then a command over it would hang for as long as TCP repeats itself."""
    connection, words = served
    tried = []
    sources = {"192.0.2.7": "192.0.2.99"}

    def try_it(command, **_more):
        tried.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(control_master, "_source_to", lambda address: sources.get(address, ""))
    monkeypatch.setattr(control_master.subprocess, "run", try_it)
    master = control_master.ControlMaster(connection, "192.0.2.7", connection.get_option("control_path_dir"))
    master.note_path(["192.0.2.7"])
    assert connection._bare_run(words, b"") == DONE
    assert tried == []
    sources["192.0.2.7"] = "198.51.100.3"
    for _task in range(2):
        assert connection._bare_run(words, b"") == DONE
    assert [command[-1] for command in tried] == ["true"], "then the new address is the known one"
    assert way.knocks == []


def test_the_address_that_this_machine_sends_from():
    assert control_master._source_to("127.0.0.1") == "127.0.0.1"
    assert control_master._source_to("no address") == ""


@pytest.mark.parametrize(
    ("addresses", "seconds", "window", "options"),
    [
        (1, 0.0, 3, [["ConnectTimeout=4"], ["ConnectTimeout=4"], []]),
        (2, 0.0, 15, [["ConnectTimeout=4"], ["ConnectTimeout=4"], []]),
        (2, 0.0, 3, [["ConnectTimeout=2"]] * 3),
        (2, 4.0, 3, [["HostName=a0", "ConnectTimeout=4"], ["HostName=a1", "ConnectTimeout=4"], ["HostName=a0"]]),
    ],
)
def test_the_options_of_each_try(addresses, seconds, window, options, way, monkeypatch):
    """No address, and no name server, takes the time for which the door is open."""
    found = path_module.Lookup(tuple(f"a{number}" for number in range(addresses)), seconds)
    path = path_module.SshPath("h", 22, "any", "me", timeout=10)
    monkeypatch.setattr(path_module, "ssh_path", lambda _connection: path)
    monkeypatch.setattr(path_module, "look_up", lambda _path: found)
    way.ends = [REFUSED]
    run(way.connection(portknock_doors=[{"name": "ssh", "knock": KNOCK, "opens": [22], "window": window}]))
    seen = [[word.decode() for word in words[2:-2:2] if b"HostKeyAlias" not in word] for words in way.commands]
    assert seen == options


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([b"ssh", b"-C", b"h"], [b"ssh", b"-o", b"x", b"-C", b"h"]),
        ([b"sshpass", b"-d7", b"ssh", b"h"], [b"sshpass", b"-d7", b"ssh", b"-o", b"x", b"h"]),
        ([b"sshpass", b"-d7", b"sftp", b"h"], [b"sshpass", b"-d7", b"sftp", b"-o", b"x", b"h"]),
        ([b"/opt/ssh", b"h"], [b"/opt/ssh", b"-o", b"x", b"h"]),
    ],
)
def test_options_are_given_to_ssh_and_not_to_what_types_the_password(before, after, way):
    assert way.connection()._with_options(before, [b"-o", b"x"]) == after


def test_a_knock_writes_down_where_the_new_connection_goes(way, tmp_path):
    run(way.connection())
    (stamp,) = tmp_path.glob("knock-*.used")
    assert stamp.read_text().split()[0] == "192.0.2.7"


def test_one_that_hangs_is_ended_and_knocked_past(served, way, monkeypatch):
    connection, words = served
    monkeypatch.setattr(
        control_master.subprocess, "run", lambda words, **_more: subprocess.CompletedProcess(words, 255)
    )
    assert connection._bare_run(words, b"") == DONE
    assert way.steps() == [FIRST]
    assert not os.path.exists(words[2].decode().partition("=")[2])
