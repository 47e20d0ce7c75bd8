# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A person at a terminal who follows a page of the documents: writes its files, types its commands, answers prompts."""

import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rig.bare_host import BareHost
from rig.controller import playbook_of
from rig.target import ROOT, clean_environment

USER = "admin"
PASSWORD = "a vault's password"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
_NAME = re.compile(r"`([\w./-]+\.(?:ini|yml))`:\s*\Z")
_DOCUMENTED = ("192.0.2.11", "192.0.2.12")
"""The addresses of the hosts on the page."""
_SSH_CONFIG = """Host *
    User {user}
    BatchMode yes
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
"""


class Page(NamedTuple):
    """What a page of the documents asks for."""

    files: dict[str, str]
    """Paths to texts: of each block behind a line that ends with the path and a colon."""
    commands: list[str]
    """The lines behind ``$`` in blocks of ``console``; what is shown as ``text`` is not for the hosts of the page."""
    ssh_config: str
    """The line for ~/.ssh/config."""


def page(path: Path) -> Page:
    """Read a page."""
    text = path.read_text()
    files, commands, ssh_config = {}, [], ""
    for block in _BLOCK.finditer(text):
        name = _NAME.search(text[: block.start()])
        if name:
            files[name[1]] = block[2]
        elif block[1] == "console":
            commands += [line[2:] for line in block[2].splitlines() if line.startswith("$ ")]
        elif block[2].startswith("Include "):
            ssh_config = block[2]
    return Page(files, commands, ssh_config)


class Stranger:
    """A person with the hosts of a page, an account on each of them with sudo, and a release of ansible-core."""

    def __init__(self, hosts: Sequence[BareHost], core: str, wanted: Page) -> None:
        """Have the accounts, and a folder with the files of the page.

        :param hosts: take the places of the page's, in their order; one that is left over is left out.
        """
        # Not one of pytest's folders, whose paths are too long for the socket of a control master.
        self.home, self.page = Path(tempfile.mkdtemp(prefix="walk-")), wanted
        self._trusted: dict[str, str] = {}
        self.project, self._bin = self.home / "project", playbook_of(core).parent
        for host in hosts:
            self._make_account(host)
        (self.home / ".ssh").mkdir(mode=0o700)
        Path("/root/.ssh").mkdir(mode=0o700, exist_ok=True)
        keys = "".join(f"    IdentityFile {host.key}\n" for host in hosts)
        self._ssh_config(wanted.ssh_config + _SSH_CONFIG.format(user=USER) + keys)
        addresses = dict(zip(_DOCUMENTED, [host.address for host in hosts], strict=False))
        for name, text in wanted.files.items():
            self._write(self.home / "vault.yml" if "vault" in name else self.project / name, text, addresses)
        editor = self.home / "editor"
        editor.write_text(f'#!/bin/sh\ncat {shlex.quote(str(self.home / "vault.yml"))} >"$1"\n')
        editor.chmod(0o755)

    def _make_account(self, host: BareHost) -> None:
        host.run("apt-get", "install", "--yes", "-qq", "sudo")
        host.run("useradd", "--create-home", "--shell", "/bin/bash", USER)
        host.write("/etc/sudoers.d/admin", f"{USER} ALL=(ALL) NOPASSWD: ALL\n", "0440")
        host.run("cp", "-r", "/root/.ssh", f"/home/{USER}/.ssh")
        host.run("chown", "-R", f"{USER}:", f"/home/{USER}/.ssh")

    def _write(self, path: Path, text: str, addresses: Mapping[str, str]) -> None:
        lines = text.splitlines()
        for documented in _DOCUMENTED:
            lines = [
                line.replace(documented, addresses.get(documented, ""))
                for line in lines
                if documented in addresses or documented not in line
            ]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")

    def _ssh_config(self, text: str) -> None:
        (self.home / ".ssh" / "config").write_text(text)

    def type(self, command: str) -> str:
        """Type a command and answer its prompts for the vault's password; return what the terminal shows.

        :raises AssertionError: where it fails.
        """
        code, shown = _at_a_terminal(command, self.project, self._environment())
        assert code == 0, f"$ {command}\n{shown}"
        return shown

    def _environment(self) -> Mapping[str, str]:
        return clean_environment(
            HOME=str(self.home), PATH=f"{self._bin}:{os.environ['PATH']}", EDITOR=str(self.home / "editor"), TERM="dumb",
            ANSIBLE_COLLECTIONS_PATH=str(ROOT / ".build"), LC_ALL="C.UTF-8", ANSIBLE_NOCOLOR="1", **self._trusted,
        )  # fmt: skip

    def trust(self, certificate: Path) -> None:
        """Trust a web server's certificate from now on."""
        self._trusted = {"SSL_CERT_FILE": str(certificate)}

    def close(self) -> None:
        """End the connections that Ansible left open, and remove the folder."""
        for socket in (self.home / ".ansible" / "cp").glob("*"):
            subprocess.run(["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "x"], check=False, capture_output=True)
        shutil.rmtree(self.home)


def _at_a_terminal(command: str, folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    # ssh takes its configuration from the home of its user, whatever HOME says.
    as_at_home = 'mount --bind "$HOME/.ssh" /root/.ssh && exec bash -c "$0"'
    words = ["unshare", "--mount", "sh", "-c", as_at_home, command]
    process, terminal = pty.fork()
    if not process:
        os.chdir(folder)
        os.execvpe(words[0], words, dict(environment))
    shown, end = b"", time.monotonic() + 900
    while True:
        if not select.select([terminal], [], [], max(0, end - time.monotonic()))[0]:
            os.kill(process, signal.SIGKILL)
            break
        try:
            data = os.read(terminal, 65536)
        except OSError:
            # The last one who had it open is gone.
            break
        shown += data
        if shown.endswith(b"ault password: "):
            os.write(terminal, f"{PASSWORD}\n".encode())
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), shown.decode(errors="replace").replace("\r\n", "\n")
