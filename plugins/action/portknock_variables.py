# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin of portknock_variables: checks names and values of the role's variables on the controller."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml
from ansible_collections.sesame.portknock.plugins.module_utils._spec.variables import PREFIX, variables_problem
from ansible_collections.sesame.portknock.plugins.plugin_utils.controller_task import ControllerTask
from ansible_collections.sesame.portknock.plugins.plugin_utils.task_options import plain

COLLECTION = Path(__file__).resolve().parents[2]


class ActionModule(ControllerTask):
    """Checks the variables of the role."""

    OPTIONS: ClassVar[Mapping[str, Any]] = {
        "entry_point": {"type": "str", "choices": ["main", "remove"], "default": "main"}
    }

    def work(self, options: Mapping[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return the first thing that is wrong, if there is one; no value that may be a step is shown."""
        variables, specs = task_vars, argument_specs()
        known = {name for spec in specs.values() for name in spec["options"]}

        def values() -> dict[str, Any]:
            named = {name: variables[name] for name in specs[options["entry_point"]]["options"] if name in variables}
            return {name[len(PREFIX) :]: plain(value) for name, value in self._templar.template(named).items()}

        problem = variables_problem(variables, values, known, of_playbooks(), self._made(variables))
        return {"changed": False, **({"failed": True, "msg": problem} if problem else {})}

    def _made(self, variables: dict[str, Any]) -> Collection[str]:
        """Return the names that tasks registered or set; all where this release of ansible-core does not say."""
        now = getattr(self._task.get_variable_manager(), "_nonpersistent_fact_cache", None)
        if now is None:
            return variables
        # Those of an earlier run, where facts are kept in a cache, are facts of the host.
        return {*now.get(variables.get("inventory_hostname"), ()), *(variables.get("ansible_facts") or ())}


def argument_specs() -> dict[str, Any]:
    """Return the role's argument specs, an entry point to its own."""
    text = (COLLECTION / "roles" / "portknock" / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    specs = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return dict(specs["argument_specs"])


def of_playbooks() -> frozenset[str]:
    """Return every name with the prefix that a playbook of the collection mentions: variables, and tags."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((COLLECTION / "playbooks").glob("*.yml"))]
    return frozenset(re.findall(rf"\b{PREFIX}[a-z0-9_]*[a-z0-9]", " ".join(texts)))
