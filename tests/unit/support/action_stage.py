# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of the action plugin, with a module and a host that are made up."""

import copy
import functools
import json
import re
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, NoReturn, Optional, Tuple

import pytest
from ansible_collections.sesame.portknock.plugins.action import knock_ruleset as plugin
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Step
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard import guarded_run
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.answers import AGE_COMMAND, MARK, TryError
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.client import GuardClient
from guard_answers import TIMED_OUT, Clock

DOOR = {"name": "ssh", "knock": ["17005", "19100/udp", "18300"], "opens": ["22"]}
STEPS = (Step(17005, "tcp"), Step(19100, "udp"), Step(18300, "tcp"))
ARGS = {"doors": [DOOR], "policy": "reject"}
TASK_VARS = {"inventory_hostname": "h"}
LOST = "Failed to connect to the host via ssh: mux_client_request_session: read from master failed: Broken pipe"


def pending(**more: Any) -> Dict[str, Any]:
    """What the module answers once a change waits to be confirmed."""
    told = dict(state="pending", id="host's", door="ssh", port=22, seconds_left=29.5, agent="systemd")
    return dict({"changed": True, "rolled_back": False, "findings": [], "diff": []}, guard=dict(told, **more))


def _throw(error: BaseException) -> NoReturn:
    raise error


NOTHING = {"changed": False, "rolled_back": False, "findings": [], "guard": {"state": "not_needed"}}


def _verb(command: str) -> str:
    found = re.search(r"\$program (\w+) --json", command)
    assert found, command
    return found.group(1)


class FakeHost:
    """Stands in for a HostConnection; one is made by each run of the action."""

    is_ssh, has_network, name, where, pause, settle = True, True, "ssh", "h", 0.1, 0.0
    port, mended, addresses = 22, 0, 1
    age = "5000.25 9000.00\n1 (systemd) S 0 1 1 0 -1 4194560 8 9 10 11 12 13 14 15 20 0 1 0 12 17 18\n"

    def __init__(self, stage: "Stage") -> None:
        self.stage = stage
        self.steps: Optional[List[str]] = None
        self.path = SimpleNamespace(port=self.port, jump="", proxy_command="")

    def use_knock(self, words: List[str], _window: float = 0.0) -> None:
        self.steps = words

    def knock(self, _turn: int = 0) -> None:
        self.stage.calls.append(("knock", self.steps))

    def _say(self, kind: str, command: str) -> str:
        self.stage.calls.append((kind, command))
        answers = self.stage.answers.get(_verb(command), [TIMED_OUT])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, str):
            raise TryError(answer)
        if "id" in answer:
            answer = dict(answer, id=re.findall(r"--json (\w+)", command)[0])
        return MARK + json.dumps(answer) + "\n"

    def run_over_new(self, command: str, _seconds: float, _turn: int = 0) -> str:
        return self._say("fresh", command)

    def run_over_shared(self, command: str, _seconds: float) -> str:
        if command == AGE_COMMAND:
            return self.age
        return self._say("usual", command)

    def reset(self) -> None:
        self.stage.calls.append(("reset",))

    def restore(self, works: bool = True) -> bool:
        self.stage.calls.append(("mend",) if works else ("mend", "cut off"))
        return False


class Stage:
    """A task, the action plugin that runs it, and what module and host answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: List[Tuple[Any, ...]] = []
        self.modules: List[Optional[Dict[str, Any]]] = []
        self.answers: Dict[str, List[Any]] = {}
        self.results: List[Any] = [pending()]
        self.task = SimpleNamespace(
            args=copy.deepcopy(ARGS), check_mode=False, async_val=0, diff=False, action="sesame.portknock.knock_ruleset"
        )
        self.host = type("ThisHost", (FakeHost,), {})
        self.clock = Clock()
        monkeypatch.setattr(guarded_run, "HostConnection", self._host)
        monkeypatch.setattr(
            guarded_run, "GuardClient", functools.partial(GuardClient, clock=self.clock, sleep=self.clock.sleep)
        )

    def _host(self, _action: Any, knock: List[str], _warn: Callable[[str], None]) -> FakeHost:
        self.knock = knock
        return self.host(self)

    def run(self, **task_vars: Any) -> Dict[str, Any]:
        connection = SimpleNamespace(transport="ssh", tmpdir="/nonexistent", _shell=SimpleNamespace(tmpdir="/none"))
        templar = SimpleNamespace(template=lambda value: value)
        action = self.action = plugin.ActionModule(self.task, connection, SimpleNamespace(), None, templar, None)
        action._execute_module = self._execute_module
        action._load_name = "knock_ruleset"
        return action.run(task_vars=dict(TASK_VARS, **task_vars))

    def _execute_module(
        self,
        module_name: Optional[str] = None,
        module_args: Optional[Dict[str, Any]] = None,
        task_vars: Optional[Dict[str, Any]] = None,
        **_more: Any,
    ) -> Any:
        assert module_name == "sesame.portknock.knock_ruleset"
        assert task_vars and task_vars["inventory_hostname"] == "h"
        self.modules.append(copy.deepcopy(module_args))
        answer = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if isinstance(answer, BaseException):
            _throw(answer)
        return copy.deepcopy(answer)

    def verbs(self) -> List[str]:
        """What was run on the host besides the module, in order."""
        return [_verb(call[1]) for call in self.calls if call[0] in ("fresh", "usual")]
