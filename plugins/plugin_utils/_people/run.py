# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes what lets a person's ssh knock: for whoever runs the playbook.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.sesame.portknock.plugins.plugin_utils._people import write_files
from ansible_collections.sesame.portknock.plugins.plugin_utils._people.ask_ssh import Ssh
from ansible_collections.sesame.portknock.plugins.plugin_utils._people.clients import Client
from ansible_collections.sesame.portknock.plugins.plugin_utils._people.config_text import (
    CONFIG,
    CONNECT,
    JUMP,
    JUMPS,
    KNOCKS,
    Commands,
    commands_in,
    config_text,
    jump_scripts,
    knocks_text,
)
from ansible_collections.sesame.portknock.plugins.plugin_utils._people.gather import (
    Found,
    check,
    find_clients,
    hosts_with_knocks,
    with_options,
)

USUAL_CONFIG = "~/.ssh/config"
PLACE = "~/.ssh/portknock"
"""Where the configuration is, its programs and knocks."""
MOST_NAMES = 10
"""Names in a message."""
_COLLECTION = Path(__file__).resolve().parents[3]
_PROGRAMS = {
    f"{CONNECT}.py": "playbooks/files/portknock-connect.py",
    f"{CONNECT}.sh": "playbooks/files/portknock-connect.sh",
    JUMP: "playbooks/files/portknock-jump.sh",
    f"{CONNECT}.ps1": "playbooks/files/portknock-connect.ps1",
    "_connect.py": "plugins/module_utils/_client/connect.py",
    "_knock.py": "plugins/module_utils/_client/knock.py",
    "_answers.py": "plugins/module_utils/_client/answers.py",
    "_probe.py": "plugins/module_utils/_client/probe.py",
}
OURS = (f"{JUMPS}/*",)
"""Files that go where they are not wanted any more."""
# The one that runs this may be in a virtual environment, which goes.
_PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3", "/opt/homebrew/bin/python3", sys.executable)


def programs(windows: bool = False) -> dict[str, str]:
    """Return the programs that ssh calls, and what they import: the name of a file to its text.

    :param windows: whether the one for Windows is among them.
    """
    wanted = {name: path for name, path in _PROGRAMS.items() if windows or not name.endswith(".ps1")}
    return {name: (_COLLECTION / path).read_text(encoding="utf-8") for name, path in wanted.items()}


def write_for_user(options: Mapping[str, Any], hostvars: Mapping[str, Mapping[str, Any]], dry: bool) -> dict[str, Any]:
    """Write the configuration of whoever runs this; return the result of the task, in which there is no step.

    :param options: hosts, directory, program and ssh_config.
    :param dry: whether nothing may be written.
    :raises AnsibleError: if the configuration would not work.
    :raises OSError: if it cannot be written.
    """
    directory = Path(os.path.abspath(os.path.expanduser(options["directory"] or PLACE)))
    config = Path(os.path.abspath(os.path.expanduser(options["ssh_config"])))
    commands = _commands(options["program"], directory)
    found = hosts_with_knocks(options["hosts"], hostvars)
    with tempfile.TemporaryDirectory(prefix="portknock-") as made:
        folder = Path(made)
        ssh = Ssh(config, directory / CONFIG, folder)
        own = "" if config == Path(os.path.expanduser(USUAL_CONFIG)) else str(config)
        clients = with_options(found, find_clients(found, ssh, own), ssh, commands, folder)
        text = config_text(clients, include_path(directory), commands)
        check(clients, ssh, text, folder / "new")
    # The configuration is the last one: what it calls is there before.
    files = {**programs(), **jump_scripts(clients), KNOCKS: knocks_text(clients), CONFIG: text}
    before = write_files.read_text(directory / CONFIG) or ""
    changed = write_files.changes(directory, files, OURS)
    if changed and not dry:
        write_files.write(directory, files, OURS)
    return {
        "changed": bool(changed),
        "directory": str(directory),
        "hosts": [client.name for client in clients if not client.left_out],
        "left_out": {client.shown: client.left_out for client in clients if client.left_out},
        "messages": [*_messages(directory, clients, before), *_missing_keys(found, clients)],
        "diff": {"before_header": CONFIG, "after_header": CONFIG, "before": before, "after": text},
    }


def include_path(directory: Path) -> str:
    """Return a configuration's path as an Include line has it."""
    path = str(directory / CONFIG)
    return f'"{path}"' if re.search(r"[\s#']", path) else path


def _commands(program: str, directory: Path) -> Commands:
    place = shlex.quote(str(directory))
    return commands_in(place, "" if program == "bash" else python_that_stays())


def _messages(directory: Path, clients: Sequence[Client], before: str) -> list[str]:
    """Return what whoever runs this must know."""
    written = [client for client in clients if not client.left_out]
    known = {word for line in re.findall(r"^Host (.*)$", before, re.M) for word in line.split()[:1]}
    gone = sorted(known - {client.name for client in written})
    messages = [f"To use it, have this as the first line of ~/.ssh/config: Include {include_path(directory)}"]
    if not written:
        messages = ["No host has a door that ssh could open: the configuration is empty, and no knock is kept."]
    messages += [f"{client.shown} is left out: {client.left_out}" for client in clients if client.left_out]
    more = f" and {len(gone) - MOST_NAMES} more" if len(gone) > MOST_NAMES else ""
    return messages + ([f"No longer in it: {', '.join(gone[:MOST_NAMES])}{more}"] if gone else [])


def _missing_keys(found: Sequence[Found], clients: Sequence[Client]) -> list[str]:
    """Return what is to be said of keys that are not there: a path in the inventory may mean another folder than was meant."""
    written = {client.name for client in clients if not client.left_out}
    return [
        f"{each.wish.name}: its key {each.login.key} is not there."
        for each in found
        if each.wish.name in written and each.login.key and not os.path.exists(each.login.key)
    ][:MOST_NAMES]


def python_that_stays() -> str:
    """Return the path of a Python that can hand ssh an open connection.

    :raises AnsibleError: if there is none.
    """
    for path in _PYTHONS:
        if _is_offered_for_download(path):
            continue
        try:
            probe = [path, "-ISc", "import fcntl, socket; socket.SCM_RIGHTS"]
            subprocess.run(probe, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
        except (OSError, subprocess.SubprocessError):
            continue
        return path
    raise AnsibleError("No Python on this machine can hand ssh a connection. Set portknock_client_program to bash.")


def _is_offered_for_download(path: str) -> bool:
    """On macOS /usr/bin/python3 asks to install something unless the developer tools are there."""
    if platform.system() != "Darwin" or not path.startswith("/usr/bin/"):
        return False
    return subprocess.run(["xcode-select", "-p"], check=False, capture_output=True).returncode != 0


__all__ = ("OURS", "PLACE", "USUAL_CONFIG", "include_path", "programs", "python_that_stays", "write_for_user")
