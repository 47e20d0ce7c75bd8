# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin knock_verify: what it asks the host, in which order, and what it makes of a host that it cannot ask."""

import contextlib
import subprocess
from types import SimpleNamespace

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible.errors import AnsibleActionFail, AnsibleActionSkip, AnsibleConnectionFailure, AnsibleError
from ansible_collections.sesame.portknock.plugins.action import knock_verify as plugin
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import SshPath
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify import run as verify_run
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.addresses import FACTS_SCRIPT
from ansible_collections.sesame.portknock.plugins.plugin_utils.any_shell import for_any_shell
from shown_steps import steps_in

SSH = {"name": "ssh", "knock": ["17005", "19100/udp"], "opens": ["22"]}
FACTS = """connection 192.0.2.7 50122 192.0.2.1 22
listed
address 2: eth0    inet 192.0.2.1/24 brd 192.0.2.255 scope global eth0\\       valid_lft forever
"""
COUNTED = {"name": "ssh", "ip_version": "ipv4", "knocked": 4, "let_in": 9, "open_for": {}}
INFO = {"doors": [COUNTED], "drift": [], "ip_versions": ["ipv4"], "pending": {}, "engine": "iptables", "daemon": {}}
CLOSED, OPEN = {"22/tcp": "icmp 3/3"}, {"22/tcp": "open"}
RIGHT = {"first": CLOSED, "wrong": CLOSED, "right": OPEN, "later": CLOSED, "tries": 1}
GONE = AnsibleConnectionFailure("Failed to connect to the host via ssh")


def answered(answer):
    """Return an answer, or raise it where it is an error."""
    if isinstance(answer, BaseException):
        raise answer
    return answer


class Stage:
    """A task, and what the host, ssh and the network answer, one after the other; the calls are written down."""

    def __init__(self, monkeypatch):
        self.calls, self.facts, self.infos, self.seen = [], FACTS, [INFO], RIGHT
        self.path = SshPath("192.0.2.1", 22, "any", "me", source="192.0.2.7")
        self.args = {"doors": [SSH], "longest_wait": 20}
        self.check_mode = False
        monkeypatch.setattr(verify_run, "ssh_path", self._ssh_path)
        monkeypatch.setattr(verify_run, "local_address", lambda _address: "192.0.2.7")
        monkeypatch.setattr(verify_run, "Observer", self._observer)

    def _ssh_path(self, _connection, host=""):
        self.calls.append(("ssh -G", host))
        return self.path

    def _observer(self, spec, addresses, network, longest_wait, _seconds_open, _chooser):
        self.calls.append(("look", [each.address for each in addresses], longest_wait, network._pause, network._source))
        doors = [dict(self.seen, door=spec.doors[0].name, family=each.family) for each in addresses]
        return SimpleNamespace(run=lambda: {"doors": doors, "allow": [], "rest": []})

    def _command(self, command, sudoable=True):
        self.calls.append(("command", sudoable))
        assert command.startswith("/bin/sh -c ")
        return {"rc": 0, "stdout": answered(self.facts)}

    def _module(self, module_name=None, module_args=None, task_vars=None):
        assert task_vars["inventory_hostname"] == "h"
        self.calls.append((module_name.rpartition(".")[2], module_args))
        return answered(self.infos.pop(0) if len(self.infos) > 1 else self.infos[0])

    def run(self, transport="ssh", **task_vars):
        """Run the task."""
        task = SimpleNamespace(
            args=self.args, check_mode=self.check_mode, async_val=0, action=plugin.__name__, diff=False
        )
        connection = SimpleNamespace(transport=transport, _shell=SimpleNamespace(tmpdir="/none"))
        if transport == "ssh":
            connection._build_command = None
        context = SimpleNamespace(remote_addr="192.0.2.1")
        action = plugin.ActionModule(
            task, connection, context, None, SimpleNamespace(template=lambda value: value), None
        )
        action._low_level_execute_command, action._execute_module = self._command, self._module
        action._load_name = "knock_verify"
        result = action.run(task_vars=dict({"inventory_hostname": "h"}, **task_vars))
        assert steps_in(SSH["knock"], repr(result)) == []
        return result

    def names(self):
        """Return what was done, in order."""
        return [call[0] for call in self.calls]


@pytest.fixture
def stage(monkeypatch):
    return Stage(monkeypatch)


def row_of(result, what="door ssh", family="ipv4"):
    return next(row for row in result["rows"] if (row["what"], row["ip_version"]) == (what, family))


def test_the_host_is_asked_first_and_once(stage):
    result = stage.run()
    assert stage.names() == ["command", "ssh -G", "knock_ruleset_info", "look"]
    assert stage.calls[0] == ("command", False), "sudo would take the connection's addresses out of the environment"
    assert stage.calls[3] == ("look", ["192.0.2.1"], 20, 0.1, "192.0.2.7")
    assert (result["ok"], result["changed"], result["problems"]) == (True, False, [])
    assert row_of(result)["right"] == "open"
    assert result["observed"]["doors"][0]["right"] == OPEN
    assert set(result["summary"]) == {"ok", "wrong", "unseen"}
    assert result["invocation"]["module_args"]["doors"][0]["knock"] == "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"


@pytest.mark.parametrize(
    ("more", "note"), [(0, "has not counted the right knock"), (3, "the host counted the right knock")]
)
def test_where_the_counters_help_the_host_is_asked_again(more, note, stage):
    stage.seen = {key: value for key, value in dict(RIGHT, right=CLOSED).items() if key != "later"}
    stage.infos = [INFO, dict(INFO, doors=[dict(COUNTED, knocked=4 + more)])]
    result = stage.run()
    assert stage.names()[-2:] == ["look", "knock_ruleset_info"]
    assert result["ok"] is False
    assert note in row_of(result)["note"]


@pytest.mark.parametrize("second", [GONE, {"failed": True, "msg": "no sudo"}, {"unreachable": True}])
def test_a_host_that_is_out_of_reach_afterwards_is_judged_without(second, stage):
    stage.seen = {key: value for key, value in dict(RIGHT, right=CLOSED).items() if key != "later"}
    stage.infos = [INFO, second]
    assert "does not open to the right knock" in row_of(stage.run())["note"]


def test_a_host_that_cannot_be_reached_is_tried_all_the_same(stage):
    stage.facts = GONE
    result = stage.run()
    assert stage.names() == ["command", "ssh -G", "look"]
    assert row_of(result)["state"] == "ok"
    assert (row_of(result, "rules", "")["state"], result["ok"]) == ("unseen", True)


def test_a_host_that_is_lost_in_between(stage):
    stage.infos = [GONE]
    assert row_of(stage.run(), "rules", "")["state"] == "unseen"


def test_an_error_of_the_host_is_the_tasks(stage):
    stage.infos = [{"failed": True, "msg": "needs root"}]
    result = stage.run()
    assert (result["failed"], result["msg"]) == (True, "needs root")
    assert "look" not in stage.names()


@pytest.mark.parametrize(
    ("path", "variables", "hidden"),
    [
        ({}, {}, False),
        ({"jump": "bastion"}, {}, True),
        ({"proxy_command": "nc %h %p"}, {}, True),
        ({"jump": "bastion"}, {"ansible_knock_via": "direct"}, False),
        ({"jump": "bastion"}, {"ansible_knock_via": "none"}, False),
        ({}, {"ansible_knock_via": "jump"}, True),
    ],
)
def test_behind_a_jump_host_nothing_is_looked_at(path, variables, hidden, stage):
    stage.path = stage.path._replace(**path)
    result = stage.run(**variables)
    assert ("look" not in stage.names()) == hidden
    assert (result["rows"][0]["what"] == "all") == hidden


def test_the_variables_of_the_connection_count(stage):
    stage.run(ansible_knock_host="192.0.2.99", ansible_knock_pause="0.25")
    assert ("ssh -G", "192.0.2.99") in stage.calls
    assert stage.calls[-1][3] == 0.25
    with pytest.raises(AnsibleError, match="^ansible_knock_pause: must be a number"):
        stage.run(ansible_knock_pause="long")


def test_a_connection_that_is_not_ssh(stage):
    stage.run(transport="paramiko")
    assert stage.names() == ["command", "knock_ruleset_info", "look"]


def test_check_mode_sends_nothing(stage):
    stage.check_mode = True
    with pytest.raises(AnsibleActionSkip):
        stage.run()
    assert stage.calls == []


@pytest.mark.parametrize(
    ("args", "begins"),
    [
        ({"doors": [dict(SSH, knock=["17005", "70000"])]}, "doors[0].knock[1]: "),
        ({"doors": [["ssh", 17005]]}, "doors[0]: is a list, but must be a dictionary"),
        ({"host": "192.0.2.1"}, "host: there is no such option."),
        ({"longest_wait": "17005 s"}, "longest_wait: must be a whole number from 0 to 86400."),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(args, begins, stage):
    stage.args = args
    result = stage.run()
    assert result["failed"] is True
    assert result["msg"].startswith(begins), result["msg"]
    assert stage.calls == []


def test_core_would_have_shown_the_value(stage):
    """What the options are guarded against."""
    stage.args = {"policy": "17005"}
    task = SimpleNamespace(args=stage.args, async_val=0)
    action = plugin.ActionModule(task, None, None, None, None, None)
    with pytest.raises(AnsibleActionFail, match="17005"):
        action.validate_argument_spec(plugin.argument_spec())


# Two names of one host


def test_two_tasks_look_at_one_host_one_after_the_other(stage, tmp_path, monkeypatch):
    """Each would see the doors that the other one opens, and call them void."""
    monkeypatch.setattr(verify_run.constants.config, "get_config_value", lambda name: str(tmp_path / name))
    held = []

    @contextlib.contextmanager
    def one_at_a_time(directory, key):
        assert directory == str(tmp_path / "ANSIBLE_HOME" / "cp")
        stage.calls.append(("lock", key))
        held.append(key)
        yield
        held.remove(key)
        stage.calls.append(("free", key))

    monkeypatch.setattr(verify_run.send_knock, "one_at_a_time", one_at_a_time)
    stage.run()
    what = [call[0] for call in stage.calls]
    assert what.index("lock") < what.index("knock_ruleset_info") < what.index("look") < what.index("free")
    assert ("lock", "verify 192.0.2.1") in stage.calls
    assert held == []


def test_the_locks_of_a_host_are_taken_in_one_order(tmp_path, monkeypatch):
    monkeypatch.setattr(verify_run.constants.config, "get_config_value", lambda _name: str(tmp_path))
    taken = []
    monkeypatch.setattr(
        verify_run.send_knock, "one_at_a_time", lambda _directory, key: taken.append(key) or contextlib.nullcontext()
    )
    with verify_run._alone(["b", "a", "b"]):
        assert taken == ["verify a", "verify b"]


def test_what_is_asked_is_asked_in_any_shell():
    assert for_any_shell(FACTS_SCRIPT)
    done = subprocess.run(["sh", "-c", FACTS_SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("connection ")
