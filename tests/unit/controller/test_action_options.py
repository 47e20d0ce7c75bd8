# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin: what it refuses before anything runs."""

import re

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from action_stage import pending
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Step
from guard_answers import CONFIRMED
from shown_steps import steps_in


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
    (dict(doors=5), "doors: is a number, but must be a list"),
    (dict(doors="ssh"), "doors: is a text, but must be a list"),
    (dict(doors=[1, "x", None]), "doors[0]: is a number, but must be a dictionary"),
    (dict(doors=[["ssh", 61234]]), "doors[0]: is a list, but must be a dictionary"),
    (dict(doors=[{}]), "doors[0].name: "),
    (dict(doors=None), "doors: is empty (null)."),
    (dict(doors=[{"name": "ssh", "knock": "a,b", "opens": "22/tcp,80"}]), "doors[0].knock[0]: "),
    (dict(doors=[{"name": "ssh", "knock": [[61234]], "opens": [22]}]), "doors[0].knock[0]: "),
    (
        dict(doors=[{"name": "ssh", "knock": {"port": 61234}, "opens": [22]}]),
        "doors[0].knock: is a dictionary, but must be a list",
    ),
    (dict(doors=[{"name": "ssh", "knock": [61234], "opens": [22], "window": [61234]}]), "doors[0].window: must be"),
    (dict(guard_timeout="soon"), "guard_timeout: must be a whole number"),
    (dict(guard_timeout=None), "guard_timeout: is empty (null)."),
    (dict(guard_timeout=[]), "guard_timeout: must be a whole number"),
    (dict(engine="ipchains"), "engine: is 'ipchains', but must be one of"),
    (
        dict(gaurd=True),
        "gaurd: there is no such option. Did you mean guard? The options are acknowledge, allow, conflicting_firewall, doors,",
    ),
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


@pytest.mark.parametrize("options", [dict(knock=61234, opens=22), dict(knock="61234", opens="22, 80")])
def test_words_are_read_as_core_reads_them(options, stage):
    stage.task.args = {"doors": [dict(options, name="ssh")]}
    stage.answers["confirm"] = [CONFIRMED]
    assert stage.run()["guard"]["state"] == "confirmed"
    assert stage.calls[0] == ("knock", (Step(61234, "tcp"),))


def test_a_guard_timeout_that_is_a_text(stage):
    stage.task.args["guard_timeout"] = "5"
    stage.host.pause = 50.0
    assert stage.run()["msg"].startswith("guard_timeout: 5 s is too short")
