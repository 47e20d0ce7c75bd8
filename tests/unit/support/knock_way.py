# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection knock_ssh with an ssh that is made up."""

import os
from pathlib import Path
from typing import Any, Dict, List, NoReturn, Optional, Tuple

import pytest
import yaml
from ansible import constants
from ansible.playbook.play_context import PlayContext
from ansible.plugins.connection import ssh
from ansible_collections.sesame.portknock.plugins.connection import knock_ssh
from ansible_collections.sesame.portknock.plugins.plugin_utils import send_knock

PLUGIN = "knock_ssh_under_test"
KNOCK = ["17005", "19100/udp"]
DONE = (0, b"out", b"")


def options_of(plugin: Any) -> Dict[str, Any]:
    """Return the options that a plugin documents."""
    return yaml.safe_load(plugin.DOCUMENTATION)["options"]


def fail(error: Exception) -> NoReturn:
    """Raise it."""
    raise error


class Way:
    """What ssh does one call after the other, the last thing for ever; and what was knocked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Replace ssh and what sends knocks."""
        self.ends: List[Any] = [DONE]
        self.knocks: List[send_knock.Knock] = []
        self.calls = 0
        self.commands: List[List[bytes]] = []
        self._directory = str(tmp_path)
        monkeypatch.setattr(ssh.Connection, "_bare_run", self._run)
        monkeypatch.setattr(send_knock, "send", self._send)
        # As the loader does for a collection that is installed.
        options = {**options_of(ssh), **options_of(knock_ssh)}
        constants.config.initialize_plugin_configuration_definitions("connection", PLUGIN, options)
        monkeypatch.setattr(knock_ssh.Connection, "_load_name", PLUGIN, raising=False)
        monkeypatch.setattr(knock_ssh.Connection, "ansible_name", PLUGIN, raising=False)

    def connection(self, password: Optional[str] = None, **variables: Any) -> knock_ssh.Connection:
        """Return a connection as a play with these variables has it."""
        made = knock_ssh.Connection(PlayContext(), os.devnull)
        known = dict(ansible_host="192.0.2.7", ansible_knock=KNOCK, **variables)
        direct = {"control_path_dir": self._directory, **({"password": password} if password else {})}
        made.set_options(var_options=known, direct=direct)
        return made

    def _run(self, command: List[bytes], *_words: Any, **_more: Any) -> Any:
        self.calls += 1
        self.commands.append(command)
        end = self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]
        return end if isinstance(end, tuple) else fail(end)

    def _send(self, _connection: Any, knock: send_knock.Knock, _path: Any, _warn: Any) -> None:
        self.knocks.append(knock)

    def steps(self) -> List[List[Tuple[Any, ...]]]:
        """Return the steps of each knock."""
        return [[tuple(step) for step in knock.steps] for knock in self.knocks]


def run(connection: Any) -> Any:
    """Run a command over a connection."""
    return connection._bare_run([b"ssh", b"h", b"true"], b"")
