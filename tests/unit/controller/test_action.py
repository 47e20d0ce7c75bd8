# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin: what it makes of what the module and the connection to the host say, each of them made up."""

import re

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from action_stage import ARGS, DOOR, LOST, NOTHING, STEPS, pending
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Step
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard import owner
from guard_answers import CONFIRMED, LATE, TIMED_OUT, UNKNOWN
from shown_steps import steps_in


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
    assert result["guard"]["knocked"] == "", "no door opens the connection's port"
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
     ("ansible.builtin.winrm", True, "confirmed", "as far as can be seen")],
)  # fmt: skip
def test_other_connections(name, network, state, proof, stage):
    stage.host.is_ssh, stage.host.has_network, stage.host.name = False, network, name
    stage.results = [pending(door="", port=0)]
    stage.answers["confirm"] = [dict(CONFIRMED, connection="")]
    result = stage.run()
    assert (result["guard"]["state"], result["changed"]) == (state, True)
    assert proof in result["guard"]["proof"]
