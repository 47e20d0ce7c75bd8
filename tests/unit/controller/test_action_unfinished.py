# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin: answers that get lost, and changes of others that are still pending."""

import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from action_stage import DOOR, LOST, NOTHING, STEPS, FakeHost, Stage, pending
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.sesame.portknock.plugins.action import knock_ruleset as plugin
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard import owner
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.answers import TryError, age_of_host
from guard_answers import CONFIRMED, LATE, TIMED_OUT, UNKNOWN


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


def test_a_lost_answer_of_a_host_that_was_restarted(stage):
    """It may have begun, and then the restart undid it; the host can be reached, so this is no lost connection."""
    stage.results = [AnsibleConnectionFailure(LOST)]
    stage.answers["confirm"] = [UNKNOWN]
    # Of a container: the machine has been up for longer. Started in the future, as far as this clock can tell.
    stage.host.age = "5000.25 9000.00\n1 (a) b) S 0 1 1 0 -1 4194560 8 9 10 11 12 13 14 15 20 0 1 0 500100 17 18\n"
    result = stage.run()
    assert (result["failed"], result["rolled_back"], result.get("unreachable")) == (True, True, None)
    assert "restarted" in result["msg"]


@pytest.mark.parametrize("text", ["", "12.0 4.0\n", "sh: cat: not found\n", "a b\n1 (x) S 1 2\n"])
def test_the_age_of_a_host_that_does_not_tell(text):
    assert age_of_host(text) is None


def test_the_age_of_a_host():
    assert age_of_host(FakeHost.age) == pytest.approx(5000.13)


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


# A host that knows nothing of the change


@pytest.mark.parametrize(
    ("boot", "state", "rolled_back", "words"),
    [
        ("two", "rolled_back", True, "it was restarted, which undoes it too"),
        ("one", "unknown", False, "knows nothing of it any more although it was not restarted"),
    ],
)
def test_the_boot_tells_whether_the_change_is_gone(stage, boot, state, rolled_back, words):
    stage.results = [pending(boot="one")]
    stage.answers["confirm"] = [dict(UNKNOWN, boot=boot)]
    result = stage.run()
    assert (result["failed"], result["changed"], result["rolled_back"]) == (True, False, rolled_back)
    assert result["guard"]["state"] == state
    assert words in result["msg"]


def test_a_window_that_is_too_short_for_all_addresses_is_a_warning(stage, monkeypatch):
    warned = []
    monkeypatch.setattr(plugin.display, "warning", warned.append)
    stage.host.addresses = 3
    stage.task.args["doors"] = [dict(DOOR, window=2)]
    stage.answers["confirm"] = [CONFIRMED]
    assert stage.run()["guard"]["state"] == "confirmed"
    assert [text for text in warned if "The window of door ssh is 2 s, and ssh tries 3 addresses of h" in text]


@pytest.mark.parametrize(
    ("answer", "mended"), [(CONFIRMED, ("mend",)), (dict(CONFIRMED, session="untracked"), ("mend", "cut off"))]
)
def test_a_session_that_the_host_does_not_track_is_replaced(stage, answer, mended):
    stage.answers["confirm"] = [answer]
    assert stage.run()["guard"]["state"] == "confirmed"
    assert mended in stage.calls


REFUSED = "Failed to connect to the host via ssh: ssh: connect to host h port 22: Connection refused"


def cleanups(stage, monkeypatch, failures):
    """Have removing the module's temporary files fail some times; return what was tried, and what was warned of."""
    tried, warnings = [], []

    def remove(_action, path, _force=False):
        tried.append(path)
        if len(tried) <= failures:
            raise AnsibleConnectionFailure(REFUSED)

    monkeypatch.setattr(ActionBase, "_remove_tmp_path", remove)
    monkeypatch.setattr(plugin, "display", SimpleNamespace(warning=warnings.append))
    stage.action.cleanup()
    return tried, warnings


@pytest.mark.parametrize(("failures", "knocks", "warned"), [(0, 1, False), (1, 2, False), (2, 2, True)])
def test_temporary_files_when_the_door_has_closed(failures, knocks, warned, stage, monkeypatch):
    """A play's plain ssh without a control master gets in no more when the window is over: that is no failed change."""
    stage.answers["confirm"] = [CONFIRMED]
    assert stage.run()["guard"]["state"] == "confirmed"
    tried, warnings = cleanups(stage, monkeypatch, failures)
    assert len(tried) == min(failures + 1, 2)
    assert [call[0] for call in stage.calls].count("knock") == knocks
    assert bool(warnings) == warned
    assert all("/none" in text and "Connection refused" in text for text in warnings)


def test_temporary_files_of_a_host_that_was_never_reached(stage, monkeypatch):
    stage.results = [NOTHING]
    stage.run()
    with pytest.raises(AnsibleConnectionFailure, match="refused"):
        cleanups(stage, monkeypatch, 1)
