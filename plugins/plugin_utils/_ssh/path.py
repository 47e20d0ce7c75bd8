# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The network path that ssh takes to a host, so that a knock takes the same, also through a jump host."""

from __future__ import annotations

import ipaddress
import subprocess
import time
from typing import Any, NamedTuple

from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import KnockError, resolve
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.command import host_of, run_within, ssh_command

DUMP_SECONDS = 10
"""Seconds for ``ssh -G``, which only reads files, and runs what they say in Match exec."""

SLOW_LOOKUP = 1.0
"""Seconds from which on looking a name up counts as slow."""

_SSH_PORT = 22
_NO = ("", "none")
_CONNECT_PROGRAM = "portknock-connect."
_JUMP_PROGRAM = "portknock-jump."


class SshPath(NamedTuple):
    """What a knock must know of the path that ssh takes."""

    host: str
    """The name or address after the aliases of ssh's configuration."""
    port: int
    """The port of the host's sshd; 0 where the connection is not ssh."""
    family: str
    """``any``, ``inet`` or ``inet6``."""
    user: str
    """The name that ssh logs in with."""
    jump: str = ""
    """The value of ProxyJump, or nothing."""
    proxy_command: str = ""
    """The value of ProxyCommand, or nothing."""
    source: str = ""
    """The address that ssh sends from, where its configuration names one."""
    host_key_alias: str = ""
    """The name that the host's key is kept under, where ssh's configuration names one."""
    timeout: int = 0
    """The seconds that ssh waits for an address (ConnectTimeout), 0 for the system's own limit."""

    @property
    def jumps(self) -> bool:
        """Whether ssh reaches the host through another one."""
        return bool(self.jump or self.proxy_command)


def ssh_path(connection: Any, patience: float = DUMP_SECONDS, host: str = "") -> SshPath:
    """Ask ssh itself which path it would take for a connection of core's ssh plugin.

    Where the connection's executable does not know ``-G``, the plugin's options have to do.

    :param host: another host to ask about than the connection's own.
    """
    words = ssh_command(connection, "-G", host or host_of(connection))
    try:
        code, text, _errors = run_within(words, "", patience)
    except (OSError, subprocess.TimeoutExpired):
        code, text = None, ""
    path = path_of_dump(text) if code == 0 else None
    return path or _path_of_options(connection, host)


def path_of_dump(text: str) -> SshPath | None:
    """Read the output of ``ssh -G``; None where it is something else. Pure."""
    facts: dict[str, str] = {}
    for line in text.splitlines():
        key, _blank, value = line.partition(" ")
        facts.setdefault(key.lower(), value.strip())
    if not facts.get("hostname") or not facts.get("port", "").isdigit():
        return None
    family = facts.get("addressfamily", "any")
    jump, command, source, alias, timeout = (
        facts.get(key, "") for key in ("proxyjump", "proxycommand", "bindaddress", "hostkeyalias", "connecttimeout")
    )
    if _CONNECT_PROGRAM in command:
        # The playbook client_config wrote it: it connects directly.
        command = ""
    if _JUMP_PROGRAM in command:
        # So it wrote this one, which knocks by a jump host itself: NAME %h %p, and the arguments that lead there.
        arguments = command.partition(_JUMP_PROGRAM)[2].partition(" %p ")[2]
        command = f"ssh -W %h:%p {arguments}"
    return SshPath(
        host=facts["hostname"],
        port=int(facts["port"]),
        family=family if family in ("inet", "inet6") else "any",
        user=facts.get("user", ""),
        jump="" if jump.lower() in _NO else jump,
        proxy_command="" if command.lower() in _NO else command,
        source=source if is_address(source) else "",
        host_key_alias=alias,
        timeout=int(timeout) if timeout.isdigit() else 0,
    )


def is_address(text: str) -> bool:
    """Return whether a text is an IP address, with or without a zone."""
    try:
        ipaddress.ip_address(text.split("%", 1)[0])
    except ValueError:
        return False
    return True


def addresses_of(path: SshPath) -> tuple[str, ...]:
    """Return the addresses that ssh tries on this path, in its order.

    :raises KnockError: if the host has none.
    """
    return resolve(path.host, path.family)


class Lookup(NamedTuple):
    """What this machine found out about the host's name."""

    addresses: tuple[str, ...] = ()
    """The addresses that ssh tries one after the other; none where a jump host looks them up, or there are none."""
    seconds: float = 0.0
    """How long that took."""


def look_up(path: SshPath) -> Lookup:
    """Look up the addresses that this machine tries."""
    if path.jumps:
        return Lookup()
    if is_address(path.host):
        return Lookup((path.host,))
    begun = time.monotonic()
    try:
        return Lookup(addresses_of(path), time.monotonic() - begun)
    except KnockError:
        return Lookup()


def options_without_lookup(path: SshPath, lookup: Lookup, turn: int) -> tuple[str, ...]:
    """Return the options with which ssh need not look a name up that takes long: the window of the door would be over by then.

    The host's key is still that of its name. Where there are several addresses, each turn has another one.
    """
    if lookup.seconds < SLOW_LOOKUP or not lookup.addresses:
        return ()
    alias = path.host.lower() if path.port == _SSH_PORT else f"[{path.host.lower()}]:{path.port}"
    address = lookup.addresses[turn % len(lookup.addresses)]
    return (f"HostName={address.replace('%', '%%')}", f"HostKeyAlias={path.host_key_alias or alias}")


def _path_of_options(connection: Any, host: str) -> SshPath:
    port, user = connection.get_option("port"), connection.get_option("remote_user")
    return SshPath(host or host_of(connection), int(port or 22), "any", str(user or ""))
