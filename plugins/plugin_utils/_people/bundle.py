# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory for one person or machine: what lets ssh knock there, and a page that says how.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.plugin_utils._people import write_files
from ansible_collections.sesame.portknock.plugins.plugin_utils._people.ask_ssh import Ssh
from ansible_collections.sesame.portknock.plugins.plugin_utils._people.clients import Client
from ansible_collections.sesame.portknock.plugins.plugin_utils._people.config_text import (
    CONFIG,
    CONNECT,
    KNOCKS,
    Commands,
    commands_in,
    config_text,
    jump_scripts,
    knocks_text,
)
from ansible_collections.sesame.portknock.plugins.plugin_utils._people.gather import (
    check,
    find_clients,
    for_others,
    hosts_with_knocks,
)
from ansible_collections.sesame.portknock.plugins.plugin_utils._people.page import (
    folder_of,
    html_page,
    plain_list,
    qr_codes,
    text_page,
)
from ansible_collections.sesame.portknock.plugins.plugin_utils._people.run import OURS, PLACE, programs

WINDOWS_CONFIG = "windows.config"
PAGES = ("portknock.html", "portknock.txt")
_POWERSHELL = (
    # With its whole path, as OpenSSH on Windows looks for no program. PowerShell must leave ssh's input alone.
    r"C:\Windows\System32\WindowsPowerShell\v1.0\powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass "
    r'-InputFormat None -Command "& (Join-Path $HOME '
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}\Z")
_NOT_ON_WINDOWS = "behind a jump host, which the program for Windows cannot have knock."


def write_bundle(options: Mapping[str, Any], hostvars: Mapping[str, Mapping[str, Any]], dry: bool) -> dict[str, Any]:
    """Write the directory for one person or machine; return the result of the task, in which there is no step.

    :param options: hosts, directory, person, program and ssh_config.
    :param dry: whether nothing may be written.
    :raises SpecError: for a name that a directory cannot have.
    :raises AnsibleError: if the configuration would not work.
    :raises OSError: if it cannot be written.
    """
    person = options["person"]
    if not _NAME.match(person):
        raise SpecError("person", "must be letters, digits and . _ @ -, 63 at most, beginning with a letter or digit.")
    directory = Path(os.path.abspath(os.path.expanduser(options["directory"] or folder_of(person))))
    clients, configs = _configurations(options, hostvars)
    written = [client for client in clients if not client.left_out]
    codes = qr_codes(plain_list(written))
    files = {
        **programs(windows=True),
        **jump_scripts(clients),
        KNOCKS: knocks_text(clients),
        PAGES[0]: html_page(person, written, codes or ()),
        PAGES[1]: text_page(person, written),
        **configs,
    }
    changed = write_files.changes(directory, files, OURS)
    if changed and not dry:
        write_files.write(directory, files, OURS)
    return {
        "changed": bool(changed),
        "directory": str(directory),
        "hosts": [client.name for client in written],
        "left_out": {client.shown: client.left_out for client in clients if client.left_out},
        "messages": _messages(person, directory, clients),
        **({} if codes is not None else {"warnings": [_no_code()]}),
    }


def _configurations(
    options: Mapping[str, Any], hostvars: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Client], dict[str, str]]:
    """Return the hosts, and the configuration for each kind of machine by its file's name, checked by ssh."""
    found = hosts_with_knocks(options["hosts"], hostvars)
    config = Path(os.path.abspath(os.path.expanduser(options["ssh_config"])))
    folder = folder_of(options["person"])
    with tempfile.TemporaryDirectory(prefix="portknock-") as made:
        ssh = Ssh(config, Path(os.path.expanduser(PLACE)) / CONFIG, Path(made))
        clients = for_others(found, find_clients(found, ssh, ""), ssh)
        python = "python3" if options["program"] == "python" else ""
        texts = {
            CONFIG: config_text(clients, f"{folder}/{CONFIG}", commands_in(f"~/.ssh/{folder}", python)),
            WINDOWS_CONFIG: _windows_config(clients, folder),
        }
        for name, text in texts.items():
            check(clients if name == CONFIG else _for_windows(clients), ssh, text, Path(made) / f"new-{name}")
    return clients, texts


def _for_windows(clients: Sequence[Client]) -> list[Client]:
    return [
        client._replace(left_out=_NOT_ON_WINDOWS) if client.jump and not client.left_out else client for client in clients
    ]  # fmt: skip


def _windows_config(clients: Sequence[Client], folder: str) -> str:
    call = rf"{_POWERSHELL}'.ssh\{folder}\{CONNECT}.ps1')"
    commands = Commands(call, "", False, "'%h' %p\"")
    return config_text(_for_windows(clients), f"{folder}/{WINDOWS_CONFIG}", commands)


def _messages(person: str, directory: Path, clients: Sequence[Client]) -> list[str]:
    count = sum(not client.left_out for client in clients)
    messages = [
        f"The bundle for {person} is in {directory}: {PAGES[0]} (or {PAGES[1]}) says how to use it. It holds the knocks of "
        f"{count} host(s), so hand it over in a way that others cannot read, and delete it here."
    ]
    only_there = [client for client in _for_windows(clients) if client.left_out == _NOT_ON_WINDOWS]
    messages += [f"{client.shown} is left out of {WINDOWS_CONFIG}: {client.left_out}" for client in only_there]
    return messages + [f"{client.shown} is left out: {client.left_out}" for client in clients if client.left_out]


def _no_code() -> str:
    return f"The page has no QR code. For one, install segno and run this again: {sys.executable} -m pip install segno"
