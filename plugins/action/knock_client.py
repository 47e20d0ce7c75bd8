# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin of knock_client: writes, on the controller, an ssh configuration that knocks."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.plugin_utils._people.bundle import write_bundle
from ansible_collections.sesame.portknock.plugins.plugin_utils._people.run import USUAL_CONFIG, write_for_user
from ansible_collections.sesame.portknock.plugins.plugin_utils.task_options import read_options


def argument_spec() -> dict[str, Any]:
    """Return the options."""
    return {
        "hosts": {"type": "list", "elements": "str", "required": True},
        "directory": {"type": "str", "default": ""},
        "person": {"type": "str", "default": ""},
        "program": {"type": "str", "choices": ["auto", "python", "bash"], "default": "auto"},
        "ssh_config": {"type": "str", "default": USUAL_CONFIG},
    }


class ActionModule(ActionBase):
    """Writes the configuration of whoever runs the playbook, or a directory for another person."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of the task."""
        result = super().run(tmp, task_vars)
        del tmp
        try:
            options = read_options(self, argument_spec())
            _check_directory(options["directory"])
            write = write_bundle if options["person"] else write_for_user
            result.update(write(options, (task_vars or {})["hostvars"], self._task.check_mode))
        except (SpecError, AnsibleError) as error:
            result.update(failed=True, msg=str(error))
        except OSError as error:
            result.update(failed=True, msg=f"{error.filename or options['directory']}: {error.strerror}.")
        return result


def _check_directory(directory: str) -> None:
    if not directory.isprintable() or '"' in directory:
        # It is written into the configuration, where a line must not end in it.
        raise SpecError("directory", "must have no control character and no quotation mark in it.")
