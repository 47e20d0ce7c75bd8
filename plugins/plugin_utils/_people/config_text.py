# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The text of ssh's configuration and of the files beside it. Pure.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import NamedTuple

from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import settle_of
from ansible_collections.sesame.portknock.plugins.plugin_utils._people.clients import Client
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.jump import jump_script

CONNECT, JUMP, KNOCKS, CONFIG, JUMPS = "portknock-connect", "portknock-jump.sh", "knocks", "config", "jumps"


class Commands(NamedTuple):
    """How ssh calls the programs."""

    connect: str
    """The command that connects to a host, for a shell, without its arguments."""
    jump: str
    """The one that goes through a jump host."""
    hands_over: bool
    """Whether the first one hands ssh the open connection."""
    target: str = "%h %p"
    """What stands behind the name of the host: ssh's tokens for the address and the port."""


def commands_in(directory: str, python: str = "") -> Commands:
    """Return how the programs are called in a directory.

    :param directory: its path, for a shell; what a shell would not take as it is must be quoted.
    :param python: the path of the Python that runs the program, '' for the one in bash.
    """
    jump = f"sh {directory}/{JUMP}"
    if python:
        return Commands(f"{shlex.quote(python)} -ISB {directory}/{CONNECT}.py", jump, True)
    return Commands(f"bash {directory}/{CONNECT}.sh", jump, False)


def config_text(clients: Sequence[Client], include: str, commands: Commands) -> str:
    """Return ssh's configuration for the hosts.

    :param include: the path of this file as a line in the person's own configuration names it.
    """
    lines = [
        "# Written by the playbook sesame.portknock.client_config from the inventory. Changes are lost when it runs again.",
        "# For ssh to read it, the first line of ~/.ssh/config must be:",
        f"#   Include {include}",
        "# Each new connection to a host below knocks first; what goes through a living ControlMaster does not.",
    ]
    for client in clients:
        if client.left_out:
            lines += ["", f"# {client.shown} is left out: {client.left_out}"]
    for client in clients:
        if not client.left_out:
            lines += ["", *block(client, commands)]
    if not any(not client.left_out for client in clients):
        lines += ["", "# There is no host whose door ssh could open by a knock."]
    return "".join(f"{line}\n" for line in lines)


def block(client: Client, commands: Commands) -> list[str]:
    """Return the lines of a host."""
    lines = []
    if client.address:
        lines += [f"Host {' '.join(client.names)}", f"    HostName {client.address.replace('%', '%%')}"]
    lines += [f"Host {' '.join(client.aliases)}", f"    Port {client.port}"]
    if client.user:
        lines.append(f"    User {client.user}")
    lines += [f"    {option}" for option in client.options]
    command, more = (commands.jump, f" {client.jump}") if client.jump else (commands.connect, "")
    name = shlex.quote(client.name)
    lines.append(f"    ProxyCommand {command.replace('%', '%%')} {name.replace('%', '%%')} {commands.target}{more}")
    lines.append(f"    ProxyUseFdpass {'yes' if commands.hands_over and not client.jump else 'no'}")
    return lines


def knocks_text(clients: Sequence[Client]) -> str:
    """Return the file with the knocks, a line for each host that ssh knocks at from here."""
    return "".join(f"{client.knock}\n" for client in clients if not client.left_out and not client.jump)


def jump_scripts(clients: Sequence[Client]) -> dict[str, str]:
    """Return what the jump hosts run for the hosts behind them: the name of a file to its text."""
    return {
        f"{JUMPS}/{client.name}": jump_script(
            client.address or client.name, client.steps, client.pause, settle_of(client.engine)
        )
        for client in clients
        if client.jump and not client.left_out
    }


__all__ = (
    "CONFIG",
    "CONNECT",
    "JUMP",
    "JUMPS",
    "KNOCKS",
    "Commands",
    "block",
    "commands_in",
    "config_text",
    "jump_scripts",
    "knocks_text",
)
