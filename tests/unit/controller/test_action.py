# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin: what it makes of what the module and the connection to the host say, each of them made up."""

import copy
import functools
import json
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible_collections.sesame.portknock.plugins.action import knock_ruleset as plugin
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Step
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard import guarded_run, owner
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.client import MARK, GuardClient, TryError
from shown_steps import steps_in
from test_guard_client import CONFIRMED, LATE, TIMED_OUT, UNKNOWN, Clock

DOOR = {"name": "ssh", "knock": ["17005", "19100/udp", "18300"], "opens": ["22"]}
STEPS = (Step(17005, "tcp"), Step(19100, "udp"), Step(18300, "tcp"))
ARGS = {"doors": [DOOR], "policy": "reject"}
TASK_VARS = {"inventory_hostname": "h"}
LOST = "Failed to connect to the host via ssh: mux_client_request_session: read from master failed: Broken pipe"


def pending(**more):
    """What the module answers once a change waits to be confirmed."""
    told = dict(state="pending", id="host's", door="ssh", port=22, seconds_left=29.5, agent="systemd")
    return dict({"changed": True, "rolled_back": False, "findings": [], "diff": []}, guard=dict(told, **more))


NOTHING = {"changed": False, "rolled_back": False, "findings": [], "guard": {"state": "not_needed"}}


class FakeHost:
    """Stands in for a HostConnection; one is made by each run of the action."""

    is_ssh, has_network, name, where, pause, settle = True, True, "ssh", "h", 0.1, 0.0
    port, mended = 22, 0

    def __init__(self, stage):
        self.stage, self.steps = stage, None
        self.path = SimpleNamespace(port=self.port, jump="", proxy_command="")

    def use_knock(self, words):
        self.steps = words

    def knock(self, _turn=0):
        self.stage.calls.append(("knock", self.steps))

    def _say(self, kind, command):
        self.stage.calls.append((kind, command))
        verb = re.search(r"/(\w+) --json", command).group(1)
        answers = self.stage.answers.get(verb, [TIMED_OUT])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, str):
            raise TryError(answer)
        return MARK + json.dumps(answer) + "\n"

    def run_over_new(self, command, _seconds):
        return self._say("fresh", command)

    def run_over_shared(self, command, _seconds):
        return self._say("usual", command)

    def reset(self):
        self.stage.calls.append(("reset",))

    def restore(self):
        self.stage.calls.append(("mend",))
        return False


class Stage:
    """A task, the action plugin that runs it, and what module and host answer."""

    def __init__(self, monkeypatch):
        self.calls, self.modules, self.answers = [], [], {}
        self.results = [pending()]
        self.task = SimpleNamespace(
            args=copy.deepcopy(ARGS), check_mode=False, async_val=0, diff=False, action="sesame.portknock.knock_ruleset"
        )
        self.host = type("ThisHost", (FakeHost,), {})
        self.clock = Clock()
        monkeypatch.setattr(guarded_run, "HostConnection", self._host)
        monkeypatch.setattr(
            guarded_run, "GuardClient", functools.partial(GuardClient, clock=self.clock, sleep=self.clock.sleep)
        )

    def _host(self, _action, knock, _warn):
        self.knock = knock
        return self.host(self)

    def run(self, **task_vars):
        connection = SimpleNamespace(transport="ssh", tmpdir="/nonexistent", _shell=SimpleNamespace(tmpdir="/none"))
        templar = SimpleNamespace(template=lambda value: value)
        action = plugin.ActionModule(self.task, connection, SimpleNamespace(), None, templar, None)
        action._execute_module = self._execute_module
        action._load_name = "knock_ruleset"
        return action.run(task_vars=dict(TASK_VARS, **task_vars))

    def _execute_module(self, module_name=None, module_args=None, task_vars=None, **_more):
        assert module_name == "sesame.portknock.knock_ruleset"
        assert task_vars["inventory_hostname"] == "h"
        self.modules.append(copy.deepcopy(module_args))
        answer = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if isinstance(answer, BaseException):
            raise answer
        return copy.deepcopy(answer)

    def verbs(self):
        """What was run on the host besides the module, in order."""
        return [re.search(r"/(\w+) --json", call[1]).group(1) for call in self.calls if call[0] in ("fresh", "usual")]


@pytest.fixture
def stage(monkeypatch):
    return Stage(monkeypatch)


def test_a_change_is_confirmed(stage):
    stage.answers["confirm"] = [CONFIRMED]
    result = stage.run()
    assert (result["changed"], result["rolled_back"], result.get("failed", False)) == (True, False, False)
    guard = result["guard"]
    assert isinstance(guard.pop("seconds"), float)
    assert guard == dict(
        state="confirmed", proof="a new connection from 192.0.2.7 port 50001 to port 22", tries=1, knocked="ssh",
        agent="systemd", undo="",
    )  # fmt: skip
    assert [call[0] for call in stage.calls] == ["knock", "fresh", "mend"]
    assert stage.calls[0] == ("knock", STEPS)
    assert stage.modules[0]["guard_id"] in stage.calls[1][1], "the id is this run's own"
    assert "guard_id" not in result
    assert result["findings"] == [], "what else the module said stays"


def test_each_run_has_an_id_of_its_own_and_the_task_keeps_its_args(stage):
    """Retries, until and loops run the same task again."""
    stage.answers["confirm"] = [CONFIRMED]
    stage.run()
    stage.run()
    first, second = stage.modules
    assert stage.task.args == ARGS
    assert first["guard_id"] != second["guard_id"]
    assert re.match(r"^[0-9a-f]{16}$", first["guard_id"])
    assert {key: value for key, value in first.items() if not key.startswith("guard")} == ARGS
    assert owner.OWNER.match(first["guard_owner"])


@pytest.mark.parametrize(("state", "verbs"), [("absent", ["confirm", "tidy"]), ("present", ["confirm"])])
def test_a_confirmed_removal_takes_the_last_of_ours(state, verbs, stage):
    stage.task.args["state"] = state
    stage.answers = {"confirm": [CONFIRMED], "tidy": ["mux: dead"]}
    assert stage.run()["guard"]["state"] == "confirmed", "that it stays is no failure"
    assert stage.verbs() == verbs


def test_nothing_to_do_needs_no_connection(stage):
    stage.results = [NOTHING]
    assert stage.run() == NOTHING
    assert stage.calls == []


def test_an_error_of_the_module_is_passed_on(stage):
    stage.results = [{"failed": True, "msg": "doors: no.", "changed": False}]
    assert stage.run() == stage.results[0]
    assert stage.calls == []


def test_what_the_host_undid_itself_is_passed_on(stage):
    undone = {"failed": True, "msg": "x", "rolled_back": True, "guard": {"state": "rolled_back", "undo": "exact"}}
    stage.results = [undone]
    assert stage.run() == undone
    assert stage.calls == []


@pytest.mark.parametrize("guard", [True, False])
def test_check_mode_is_the_module_alone(guard, stage):
    stage.task.check_mode = True
    stage.task.args["guard"] = guard
    stage.results = [{"changed": True, "diff": []}]
    result = stage.run()
    assert result["changed"] is True
    assert stage.calls == []
    assert not {"guard_id", "guard_owner"} & set(stage.modules[0])


@pytest.mark.parametrize("word", [False, "false", "no", "off", 0])
def test_without_guard_there_is_a_warning(word, stage):
    stage.task.args["guard"] = word
    stage.results = [{"changed": True, "guard": {"state": "off"}, "warnings": ["an earlier one"]}]
    result = stage.run()
    assert result["warnings"][0] == "an earlier one"
    assert "applied without a guard" in result["warnings"][1]
    assert stage.calls == []


def test_without_guard_and_without_change_there_is_none(stage):
    stage.task.args["guard"] = False
    stage.results = [{"changed": False, "guard": {"state": "off"}}]
    assert "warnings" not in stage.run()


@pytest.mark.parametrize("word", ["maybe", [], None, 7])
def test_a_guard_that_is_no_bool_is_refused(word, stage):
    """Nothing is unguarded by mistake."""
    stage.task.args["guard"] = word
    result = stage.run()
    assert (result["failed"], result["changed"]) == (True, False)
    assert result["msg"].startswith("guard: ")
    assert (stage.modules, stage.calls) == ([], [])


def test_nobody_gets_in(stage):
    stage.answers["status"] = [LATE]
    result = stage.run()
    assert (result["changed"], result["rolled_back"], result["failed"]) == (False, True, True)
    assert not result.get("unreachable")
    assert (result["guard"]["state"], result["guard"]["undo"], result["guard"]["proof"]) == ("rolled_back", "exact", "")
    assert result["guard"]["tries"] > 10
    assert result["guard"]["seconds"] == pytest.approx(29.5, abs=2)
    assert "would have cut this controller off" in result["msg"]
    assert "Door ssh was knocked at" in result["msg"]


def test_a_host_that_is_gone_is_unreachable(stage):
    stage.answers["status"] = [TIMED_OUT]
    result = stage.run()
    assert (result["unreachable"], result["failed"], result["rolled_back"], result["changed"]) == (
        True, True, False, False,
    )  # fmt: skip
    assert "h cannot be reached since" in result["msg"]


def test_no_step_in_what_is_told(stage):
    for answers in ({"status": [LATE]}, {"status": [TIMED_OUT]}, {"confirm": [CONFIRMED]}, {"confirm": [UNKNOWN]}):
        stage.answers = answers
        assert steps_in(DOOR["knock"], repr(stage.run())) == [], answers
    stage.task.args["guard_timeout"] = 1
    assert steps_in(DOOR["knock"], repr(stage.run())) == []


def test_without_a_door_there_is_no_knock(stage):
    stage.results = [pending(door="")]
    stage.answers["confirm"] = [CONFIRMED]
    result = stage.run()
    assert result["guard"]["knocked"] == ""
    assert stage.calls[0] == ("knock", ())


WEB = {"name": "web", "knock": ["17100", "13100"], "opens": ["443"]}
WEB_STEPS = (Step(17100, "tcp"), Step(13100, "tcp"))
UNHEARD = {"outcome": "unheard", "why": "no knock was seen"}


def test_a_knock_that_only_proves_that_it_is_heard(stage):
    """The connection needs none, so the play need not switch to one that knocks."""
    stage.task.args.update(engine="knockd", doors=[WEB, DOOR])
    stage.results = [pending(door="", proof_door="web")]
    stage.answers["confirm"] = [UNHEARD, CONFIRMED]
    result = stage.run()
    assert (result["guard"]["state"], result["guard"]["knocked"], result["guard"]["tries"]) == ("confirmed", "", 2)
    assert [call for call in stage.calls if call[0] == "knock"] == [("knock", WEB_STEPS)] * 2


def test_the_door_of_the_connection_is_proof_enough(stage):
    stage.task.args.update(engine="knockd", doors=[WEB, DOOR])
    stage.results = [pending(proof_door="")]
    stage.answers["confirm"] = [CONFIRMED]
    assert stage.run()["guard"]["knocked"] == "ssh"
    assert stage.calls[0] == ("knock", STEPS)


def test_a_knock_that_is_never_heard_is_rolled_back(stage):
    stage.task.args.update(engine="knockd", doors=[WEB])
    stage.results = [pending(door="", proof_door="web")]
    stage.answers = {"confirm": [UNHEARD], "status": [LATE]}
    result = stage.run()
    assert (result["failed"], result["rolled_back"], result["guard"]["knocked"]) == (True, True, "")
    assert "knockd receives no knock from this controller" in result["msg"]
    assert "at door web" in result["msg"] and "knockd_interface" in result["msg"]


@pytest.mark.parametrize(("engine", "knocked"), [("iptables", ()), ("knockd", WEB_STEPS)])
def test_a_lost_answer_may_have_asked_for_a_proof(engine, knocked, stage):
    stage.task.args.update(engine=engine, doors=[WEB, dict(DOOR, opens=["2222"])])
    stage.results = [AnsibleConnectionFailure(LOST)]
    stage.answers["confirm"] = [CONFIRMED]
    result = stage.run()
    assert result["guard"]["knocked"] == "", "the connection's port is nobody's"
    assert stage.calls[0] == ("knock", knocked)


@pytest.mark.parametrize(("args", "engine"), [({}, "iptables"), ({"engine": "knockd"}, "knockd")])
def test_the_knock_is_that_of_the_new_engine(args, engine, stage):
    stage.task.args.update(args)
    stage.answers["confirm"] = [CONFIRMED]
    stage.run(ansible_knock_engine="iptables", portknock_engine="iptables")
    assert stage.knock.engine == engine


def test_a_confirm_without_words_of_a_connection(stage):
    stage.answers["confirm"] = [dict(CONFIRMED, connection="")]
    assert stage.run()["guard"]["state"] == "confirmed"


@pytest.mark.parametrize(
    ("name", "network", "state", "proof"),
    [("ansible.builtin.local", False, "unproved", "it proves nothing"), ("community.docker.docker", False, "unproved", "it proves nothing"),
     ("ansible.builtin.winrm", True, "confirmed", "as far as that can be told")],
)  # fmt: skip
def test_other_connections(name, network, state, proof, stage):
    stage.host.is_ssh, stage.host.has_network, stage.host.name = False, network, name
    stage.results = [pending(door="", port=0)]
    stage.answers["confirm"] = [dict(CONFIRMED, connection="")]
    result = stage.run()
    assert (result["guard"]["state"], result["changed"]) == (state, True)
    assert proof in result["guard"]["proof"]


# A deadline that is too short


def test_a_deadline_too_short_is_refused_before_anything_runs(stage):
    stage.task.args["guard_timeout"] = 5
    stage.host.pause = 2.0
    result = stage.run()
    assert (result["failed"], result["changed"]) == (True, False)
    assert re.match(
        r"^guard_timeout: 5 s is too short: the knock for port 22 and two connects need 8 s\.", result["msg"]
    )
    assert "Nothing was changed" in result["msg"]
    assert (stage.modules, stage.calls) == ([], [])


def test_the_time_that_the_engine_needs_counts(stage):
    stage.task.args["guard_timeout"] = 5
    stage.host.pause, stage.host.settle = 1.0, 0.5
    assert stage.run()["msg"].startswith("guard_timeout: 5 s is too short")
    assert stage.modules == []


def test_it_depends_on_the_door_of_the_connection(stage):
    stage.task.args["guard_timeout"] = 5
    stage.host.pause = 2.0
    stage.host.port = 2222
    stage.results = [pending(door="")]
    stage.answers["confirm"] = [CONFIRMED]
    assert stage.run()["guard"]["state"] == "confirmed"


WRONG = [
    (dict(doors=5), "doors: must be a list."),
    (dict(doors="ssh"), "doors: must be a list."),
    (dict(doors=[1, "x", None]), "doors[0]: must be a dictionary"),
    (dict(doors=[["ssh", 61234]]), "doors[0]: must be a dictionary"),
    (dict(doors=[{}]), "doors[0].name: "),
    (dict(doors=None), "doors: is not valid. It must be of type list of dict"),
    (dict(doors=[{"name": "ssh", "knock": "a,b", "opens": "22/tcp,80"}]), "doors[0].knock[0]: "),
    (dict(doors=[{"name": "ssh", "knock": [[61234]], "opens": [22]}]), "doors[0].knock[0]: "),
    (dict(doors=[{"name": "ssh", "knock": {"port": 61234}, "opens": [22]}]), "doors[0].knock: must be a list."),
    (dict(doors=[{"name": "ssh", "knock": [61234], "opens": [22], "window": [61234]}]), "doors[0].window: must be"),
    (dict(guard_timeout="soon"), "guard_timeout: must be a whole number"),
    (dict(guard_timeout=None), "guard_timeout: is not valid. It must be of type int"),
    (dict(guard_timeout=[]), "guard_timeout: must be a whole number"),
    (dict(engine="ipchains"), "engine: is 'ipchains', but must be one of"),
    (dict(gaurd=True), "gaurd: there is no such option. The options are allow, doors, engine, guard,"),
    ({61234: ["ssh"]}, "an option: there is no such option."),
]


@pytest.mark.parametrize(("args", "begins"), WRONG)
@pytest.mark.parametrize("check", [False, True])
def test_wrong_options_are_refused_before_anything_runs(args, begins, check, stage):
    """Core's own message would repeat the value, and a misplaced one may be a step."""
    stage.task.args, stage.task.check_mode = args, check
    result = stage.run()
    assert (result["failed"], result["changed"]) == (True, False)
    assert result["msg"].startswith(begins), result["msg"]
    assert steps_in(["61234"], repr(result)) == []
    assert (stage.modules, stage.calls) == ([], [])


@pytest.mark.parametrize("options", [dict(knock=61234, opens=22), dict(knock="61234", opens="22,80")])
def test_words_are_read_as_core_reads_them(options, stage):
    stage.task.args = {"doors": [dict(options, name="ssh")]}
    stage.answers["confirm"] = [CONFIRMED]
    assert stage.run()["guard"]["state"] == "confirmed"
    assert stage.calls[0] == ("knock", (Step(61234, "tcp"),))


def test_a_guard_timeout_that_is_a_text(stage):
    stage.task.args["guard_timeout"] = "5"
    stage.host.pause = 50.0
    assert stage.run()["msg"].startswith("guard_timeout: 5 s is too short")


# Answers that get lost


@pytest.mark.parametrize("error", [AnsibleConnectionFailure(LOST), TryError("no answer within 210 s")])
def test_a_lost_answer_is_asked_for_by_id(error, stage):
    stage.results = [error]
    stage.answers["confirm"] = [CONFIRMED]
    result = stage.run()
    assert (result["changed"], result["guard"]["state"], result["guard"]["knocked"]) == (True, "confirmed", "ssh")
    assert stage.modules[0]["guard_id"] in stage.calls[1][1]
    assert stage.calls[0] == ("knock", STEPS), "the change may be in force"


def test_a_lost_answer_of_what_was_rolled_back(stage):
    stage.results = [AnsibleConnectionFailure(LOST)]
    stage.answers["confirm"] = [dict(LATE, why="it could not be applied")]
    result = stage.run()
    assert (result["failed"], result["rolled_back"], result["changed"]) == (True, True, False)
    assert "it could not be applied" in result["msg"]


@pytest.mark.parametrize("error", [AnsibleConnectionFailure(LOST), TryError("no answer within 210 s")])
def test_a_lost_answer_of_what_never_ran(error, stage):
    """The host knows nothing of it: then it is what core makes of a lost connection."""
    stage.results = [error]
    stage.answers["confirm"] = [UNKNOWN]
    with pytest.raises(AnsibleConnectionFailure, match=re.escape(str(error)[:40])):
        stage.run()


@pytest.mark.parametrize(
    "text",
    [TIMED_OUT, "ssh: Could not resolve hostname h: Name or service not known", "me@h: Permission denied (publickey).",
     "Host key verification failed.", "kex_exchange_identification: Connection closed by remote host"],
)  # fmt: skip
def test_what_never_reached_the_host_is_raised_at_once(text, stage):
    error = AnsibleConnectionFailure("Failed to connect to the host via ssh: " + text)
    stage.results = [error]
    with pytest.raises(AnsibleConnectionFailure) as raised:
        stage.run()
    assert raised.value is error
    assert stage.calls == []
    assert stage.clock.slept == []


def test_other_errors_pass(stage):
    stage.results = [AnsibleError("no such module")]
    with pytest.raises(AnsibleError, match="no such module"):
        stage.run()
    assert stage.calls == []


# Another change that is pending


def dead_owner():
    """The words of a process of this machine that is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    return re.sub(r"process \d+", f"process {child.pid}", owner.owner_of_this_run())


def is_pending(owner):
    return {
        "failed": True,
        "changed": False,
        "msg": "pending",
        "pending": {"id": "a0a0", "owner": owner, "seconds_left": 9},
    }


def test_a_change_of_a_dead_process_is_undone_first(stage):
    stage.results = [is_pending(dead_owner()), pending()]
    stage.answers = {"rollback": [LATE], "confirm": [CONFIRMED]}
    result = stage.run()
    assert result["guard"]["state"] == "confirmed"
    assert "pending" not in result
    assert stage.verbs() == ["rollback", "confirm"]
    assert "a0a0" in stage.calls[0][1]
    assert len(stage.modules) == 2
    assert len({args["guard_id"] for args in stage.modules}) == 2


def test_it_is_undone_once_only(stage):
    """Where that does not work, the module's word stands."""
    stage.results = [is_pending(dead_owner())]
    stage.answers = {"rollback": [TIMED_OUT]}
    result = stage.run()
    assert (result["failed"], result["msg"]) == (True, "pending")
    assert stage.verbs() == ["rollback"]
    assert len(stage.modules) == 2


@pytest.fixture
def living():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield child.pid
    child.send_signal(signal.SIGKILL)
    child.wait()


def owners_alive(living):
    mine = owner.owner_of_this_run()
    dead = dead_owner()
    return {
        "it lives": re.sub(r"process \d+", f"process {living}", mine),
        "it is this one": mine,
        "another machine": re.sub(r"\([0-9a-f]{8}\)$", "(00000000)", dead),
        "an administrator": "root at the console",
        "not at the end": dead + " or so",
        "init": re.sub(r"process \d+", "process 1", mine),
        "nobody": "",
    }


def test_a_change_of_others_is_left_alone(living, monkeypatch):
    for name, whose in owners_alive(living).items():
        stage = Stage(monkeypatch)
        stage.results = [is_pending(whose)]
        result = stage.run()
        assert (result["failed"], result["msg"]) == (True, "pending"), name
        assert stage.calls == [], name
        assert len(stage.modules) == 1, name


def test_who_makes_it(monkeypatch):
    found = owner.OWNER.match(owner.owner_of_this_run())
    assert int(found.group(1)) == os.getpid()
    assert found.group(2) == owner.machine_id() == owner.machine_id()
    monkeypatch.setattr(owner.socket, "gethostname", lambda: "elsewhere")
    assert owner.machine_id() != found.group(2)

    def nobody():
        raise KeyError("no such user")

    monkeypatch.setattr(owner.getpass, "getuser", nobody)
    assert owner.owner_of_this_run().startswith(f"{os.getuid()}@elsewhere process ")
