# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Somebody who uses ssh by hand, with the configuration that the playbook client_config writes."""

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from rig.controller import SSH_CONFIG, Controller
from rig.shown import steps_in
from rig.target import ROOT, clean_environment, door

STEPS = ("17005", "19100/udp", "13100")
DOOR = door(*STEPS, window=600)
PROGRAMS = ("python", "bash")
PLAYBOOK = "sesame.portknock.client_config"
Done = subprocess.CompletedProcess[str]


class Person:
    """Somebody with an ssh configuration that includes what the playbook writes."""

    def __init__(self, controller: Controller, host: str) -> None:
        """Take the controller, whose namespace and key are used, and the target's address."""
        self.controller, self.host = controller, host
        self.home = controller.folder / "person"
        self.home.mkdir()
        # A name that a shell and ssh must be given with quotes.
        self.directory = self.home / "it's mine"
        self.config = self.home / "config"
        self.write_config()

    def write_config(self, *more: str) -> None:
        """Write the person's own ssh configuration."""
        lines = [f"IdentityFile {self.controller.key}", "ControlPath none"]
        text = SSH_CONFIG.format(more="\n    ".join(lines))
        self.config.write_text("\n".join([f'Include "{self.directory}/config"', *more, text]))

    def run_playbook(self, *words: str, hosts: dict[str, Any] | None = None, program: str = "python") -> Done:
        """Run the playbook; return the finished process."""
        inventory = self.home / "inventory.json"
        known = {"target": {"ansible_host": self.host, "ansible_user": "root", "portknock_doors": [DOOR]}}
        group = {"hosts": known if hosts is None else hosts, "vars": {"ansible_become": True}}
        inventory.write_text(json.dumps({"all": group}))
        more = {
            "portknock_client_directory": str(self.directory),
            "portknock_client_program": program,
            "portknock_client_ssh_config": str(self.config),
        }
        environment = clean_environment(
            HOME=str(self.home), ANSIBLE_HOME=str(self.home), ANSIBLE_NOCOLOR="1", LC_ALL="C.UTF-8",
            ANSIBLE_COLLECTIONS_PATH=str(ROOT / ".build"), ANSIBLE_CONFIG=str(self.controller.folder / "ansible.cfg"),
        )  # fmt: skip
        ansible = self.controller._playbook
        done = self.controller.namespace.run(
            ansible, "-i", inventory, PLAYBOOK, "-e", json.dumps(more), *words, env=environment, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert steps_in(STEPS, done.stdout + done.stderr) == []
        return done

    def run(self, *words: Any, check: bool = True, **environment: str) -> Done:
        """Run a command as this person; return the finished process."""
        return self.controller.namespace.run(
            *words, check=check, timeout=600, env=clean_environment(**{"HOME": str(self.home), **environment})
        )

    @property
    def ssh_words(self) -> list[str]:
        """How this person's ssh is called."""
        return ["ssh", "-F", str(self.config)]

    def ssh(self, *words: Any, options: Sequence[str] = (), host: str = "target", **more: Any) -> Done:
        """Run a command on the target by ssh."""
        given = [word for option in options for word in ("-o", option)]
        return self.run(*self.ssh_words, *given, host, *(words or ["echo in"]), **more)
