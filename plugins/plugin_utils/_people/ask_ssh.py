# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ssh itself says of a host (``ssh -G``): as Ansible calls it, and as a person would with the new configuration.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ansible import constants
from ansible.errors import AnsibleError
from ansible.plugins.loader import connection_loader
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.jump import config_of
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import DUMP_SECONDS, SshPath, path_of_dump

SYSTEM_CONFIG = "/etc/ssh/ssh_config"
_WORD = re.compile(r'"[^"]*"|[^ \t"]+')

Dump = Mapping[str, Sequence[str]]
"""What ``ssh -G`` prints: the name of a setting in small letters to its values."""

PATHS = frozenset(
    "identityfile certificatefile identityagent pkcs11provider revokedhostkeys xauthlocation controlpath".split()
)
"""Settings with one path for a value."""
LOCAL = PATHS | {
    "userknownhostsfile",
    "globalknownhostsfile",
    "knownhostscommand",
    "securitykeyprovider",
    "updatehostkeys",
}
"""Settings that name what other machines do not have."""
_HERE_ALONE = frozenset(
    # Written in another way, or what makes sense for Ansible's way of calling ssh alone.
    "host hostname port user proxycommand proxyjump proxyusefdpass batchmode connecttimeout controlmaster controlpath "
    "controlpersist remotecommand requesttty sessiontype stdinnull forkafterauthentication logverbose loglevel "
    "clearallforwardings exitonforwardfailure localforward remoteforward dynamicforward".split()
)


class Login(NamedTuple):
    """How Ansible calls ssh for a host, without what it adds for passwords and sharing connections."""

    address: str
    """The name or address that it gives ssh."""
    words: tuple[str, ...]
    """The options before it."""
    user: str
    """The name that it logs in with, '' where it says none."""
    port: int
    """The port of sshd, as far as Ansible's own options say it."""
    key: str = ""
    """The path of its private key, '' where it says none."""


def login_of(name: str, address: str, variables: Mapping[str, Any]) -> Login:
    """Return how Ansible calls ssh for a host: its variables, ansible.cfg, the environment and the command line count.

    :raises AnsibleError: for arguments that cannot be read.
    """
    plugin = connection_loader.get("ssh", class_only=True)

    def option(key: str) -> str:
        value = constants.config.get_config_value(
            key, plugin_type="connection", plugin_name=plugin._load_name, variables=dict(variables)
        )
        return "" if value is None else str(value)

    try:
        port = int(option("port") or 22)
    except (AnsibleError, ValueError):
        raise AnsibleError(f"{name}: ansible_port must be a number.") from None
    key, user = option("private_key_file"), option("remote_user")
    key = os.path.abspath(os.path.expanduser(key)) if key else ""
    # What core gives every ssh, where nothing else was asked for, is for its own many connections.
    usual = constants.config.get_configuration_definitions("connection", plugin._load_name)["ssh_args"].get("default")
    words = _split(name, "ansible_ssh_args", option("ssh_args")) if option("ssh_args") != usual else []
    checking = next((variables[each] for each in _HOST_KEY_CHECKING if each in variables), True)
    words += ["-o", "StrictHostKeyChecking=no"] if str(checking).lower() in ("false", "no", "0", "off") else []
    words += ["-p", str(port)] if option("port") else []
    # Not -i, which ssh -G forgets where the file is not there yet.
    words += ["-o", f'IdentityFile="{key}"'] if key else []
    words += ["-l", user] if user else []
    words += _split(name, "ansible_ssh_common_args", option("ssh_common_args"))
    words += _split(name, "ansible_ssh_extra_args", option("ssh_extra_args"))
    return Login(address, tuple(words), user, port, key)


_HOST_KEY_CHECKING = ("ansible_ssh_host_key_checking", "ansible_host_key_checking")
LOGIN_VARIABLES = (
    *("ansible_port", "ansible_ssh_port", "ansible_user", "ansible_ssh_user", *_HOST_KEY_CHECKING),
    *("ansible_private_key_file", "ansible_ssh_private_key_file"),
    *("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args"),
)
"""The variables that login_of() looks at."""


def _split(name: str, option: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise AnsibleError(f"{name}: {option} cannot be read: {error}.") from None


class Ssh:
    """Asks ssh; whatever our own configuration says is left out of what it reads."""

    def __init__(self, config: Path, ours: Path, folder: Path) -> None:
        """Take the user's own configuration, ours, which it may include, and a folder for copies."""
        self.config, self._ours, self._folder = config, ours, folder
        self._files: dict[str, Path] = {}
        self._lock = threading.Lock()

    def as_ansible(self, name: str, login: Login, defaults: str = "") -> tuple[SshPath, Dump]:
        """Return what ssh says of a host when Ansible calls it.

        :param defaults: the configuration where the inventory names none, '' for the user's own, ``none`` for ssh's defaults.
        :raises AnsibleError: if ssh does not take its arguments, or a configuration.
        """
        config = self._plain(own_config(login.words) or defaults)
        # Ours is the last -F, which counts.
        text = self._dump([*login.words, "-F", str(config)], login.address, name)
        path = path_of_dump(text)
        if not path:
            raise AnsibleError(f"{name}: ssh -G printed nothing that can be read. OpenSSH 6.8 or later is needed.")
        return path, read_dump(text)

    def with_config(self, config: Path | None, client: str) -> Dump:
        """Return what a person's ssh says of a name, with a new configuration in front of the user's own.

        :param config: None for ssh's own defaults.
        :raises AnsibleError: if ssh does not take the configuration.
        """
        if config is None:
            return read_dump(self._dump(["-F", "none"], client, client))
        plain = self._plain("")
        main = self._file(f"main-{config.name}", lambda: f'Include "{config}"\nMatch all\nInclude "{plain}"\n')
        return read_dump(self._dump(["-F", str(main)], client, client))

    def _dump(self, words: Sequence[str], address: str, name: str) -> str:
        try:
            done = subprocess.run(
                ["ssh", "-G", *words, "--", address],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=DUMP_SECONDS, check=False,
            )  # fmt: skip
        except FileNotFoundError:
            raise AnsibleError("ssh is not on this machine. Install OpenSSH's client.") from None
        except subprocess.TimeoutExpired:
            raise AnsibleError(f"{name}: ssh -G did not end within {DUMP_SECONDS} s.") from None
        if done.returncode:
            said = self._with_real_paths((done.stderr.strip().splitlines() or ["it printed nothing"])[0])
            raise AnsibleError(
                f"{name}: ssh does not take what it is given: {said}. Nothing was written. Look at its variables "
                f"ansible_ssh_common_args and the like, and at {self.config}."
            )
        return done.stdout

    def _plain(self, config: str) -> Path:
        """Return a copy of a configuration, '' for the user's own, that does not include ours."""
        return self._file(f"plain-{config}", lambda: self._without_ours(config))

    def _file(self, name: str, text: Callable[[], str]) -> Path:
        """Return a file with a text, which is written once: several hosts are asked about at the same time."""
        with self._lock:
            if name not in self._files:
                path = self._folder / f"file{len(self._files)}"
                path.write_text(text(), encoding="utf-8", errors="surrogateescape")
                self._files[name] = path
            return self._files[name]

    def _with_real_paths(self, text: str) -> str:
        """Return what ssh said with the names of the files that a copy stands for."""
        for name, path in self._files.items():
            kind, _dash, original = name.partition("-")
            text = text.replace(str(path), original or str(self.config)) if kind == "plain" else text
        return re.sub(re.escape(str(self._folder)) + r"/\w+", "the new configuration", text)

    def _without_ours(self, config: str) -> str:
        text = "" if config.lower() == "none" else _read(Path(config) if config else self.config)
        text = without_include(text, self._ours)
        if not config and os.access(SYSTEM_CONFIG, os.R_OK):
            text += f"\nMatch all\nInclude {SYSTEM_CONFIG}\n"
        return text


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def own_config(words: Sequence[str]) -> str:
    """Return the path of the configuration that ssh's options name, '' for none. Pure, but for the current directory."""
    found = config_of(["ssh", *words])
    return os.path.abspath(os.path.expanduser(found)) if found and found.lower() != "none" else found


def without_include(text: str, ours: Path) -> str:
    """Return a configuration without the Include of ours, which is known by the last two parts of its path. Pure."""
    end = f"{ours.parent.name}/{ours.name}"
    lines = []
    for line in text.splitlines():
        keyword, *words = _WORD.findall(line.replace("=", " ", 1)) or [""]
        kept = [word for word in words if not word.replace('"', "").endswith(end)]
        if keyword.lower() != "include" or kept == words:
            lines.append(line)
        elif kept:
            lines.append(" ".join([keyword, *kept]))
    return "".join(f"{line}\n" for line in lines)


def read_dump(text: str) -> Dump:
    """Read the output of ``ssh -G``. Pure."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _blank, value = line.partition(" ")
        found.setdefault(key.lower(), []).append(value.strip())
    return found


def missing_options(wanted: Dump, has: Dump, without: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Return the lines that a host's block needs so that ssh does what it does for Ansible. Pure.

    :param wanted: what ssh says when Ansible calls it.
    :param has: what it says to a person by now.
    :param without: more settings that are not carried over.
    :raises ValueError: for a path that a configuration cannot have.
    """
    lines = []
    for key in sorted(set(wanted) - _HERE_ALONE - without):
        lines += [f"{key} {_written(key, value)}" for value in wanted[key] if value not in has.get(key, ())]
    return tuple(lines)


def _written(key: str, value: str) -> str:
    """Return a value as a configuration has it; a path from here on, as a person may call ssh anywhere."""
    if key not in PATHS:
        return value
    if '"' in value:
        raise ValueError(f"{key} has a quotation mark in it, which ssh's configuration cannot have.")
    if value[:1] not in ("/", "~", "%", "$") and value.lower() not in ("none", "ssh_auth_sock"):
        value = os.path.abspath(value)
    return f'"{value}"' if re.search(r"[\s#']", value) else value


__all__ = (
    "LOCAL",
    "LOGIN_VARIABLES",
    "Dump",
    "Login",
    "Ssh",
    "login_of",
    "missing_options",
    "own_config",
    "read_dump",
    "without_include",
)
