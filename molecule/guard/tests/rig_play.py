# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller: ansible-playbook of molecule's own installation, over real ssh with masters that persist."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from harness import CHECKOUT
from rig_console import KEY, SSH

MODULE = "sesame.portknock.knock_ruleset"
_PLAYBOOK = pathlib.Path(sys.executable).with_name("ansible-playbook")
_CALLBACK = CHECKOUT / "tests" / "wire" / "callback"
_ENDS = ("ok", "failed", "unreachable", "skipped")


class Event(NamedTuple):
    """What became of a task."""

    kind: str
    host: str
    task: str
    result: dict
    at: float


class Run:
    """One ansible-playbook, running or finished."""

    def __init__(self, process: subprocess.Popen[bytes], folder: pathlib.Path) -> None:
        """Take the process, and the folder with its output and events."""
        self._process, self._folder = process, folder

    @property
    def output(self) -> str:
        """What was printed so far."""
        return (self._folder / "output").read_text(errors="replace")

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def only(self) -> Event:
        """Wait for the end; return what became of the one task."""
        try:
            self._process.wait(900)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"ansible-playbook hung\n{self.output}") from None
        events = self._folder / "events"
        lines = events.read_text(errors="surrogateescape").splitlines() if events.exists() else []
        found = [event for event in (Event(**json.loads(line)) for line in lines) if event.kind in _ENDS]
        assert len(found) == 1, f"{found}\n{self.output}"
        return found[0]

    def until(self, happened: Callable[[], bool], seconds: int = 300) -> None:
        """Wait for a moment; the run must not end before it."""
        end = time.monotonic() + seconds
        while not happened():
            assert self.running, f"it ended before the moment came\n{self.output}"
            assert time.monotonic() < end, f"the moment did not come in {seconds} s\n{self.output}"
            time.sleep(0.25)

    def kill(self) -> None:
        """End it and its workers so that none of them can do anything more; masters of ssh live on."""
        found = [self._process.pid]
        for parent in found:
            for children in pathlib.Path(f"/proc/{parent}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    found += [int(word) for word in children.read_text().split()]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()


class Controller:
    """Where ansible-playbook runs, and how it comes to the host."""

    def __init__(self, address: str, **variables: Any) -> None:
        """Take the host's address and more variables of it, which win."""
        # Paths of sockets must be short.
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="pkguard."))
        # While it waits for a task, core looks a thousand times a second whether there is something to do.
        (self._folder / "ansible.cfg").write_text("[defaults]\ninternal_poll_interval = 0.02\n")
        self._runs: list[Run] = []
        self.variables = {
            "ansible_host": address,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(KEY),
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_pipelining": True,
            **variables,
        }

    def start(self, options: dict[str, Any], **more: Any) -> Run:
        """Run knock_ruleset in the background, with the options of both."""
        folder = self._folder / str(len(self._runs))
        folder.mkdir()
        inventory = {"all": {"hosts": {"target": self.variables}}}
        # The deadline is far away, so that no busy machine meets it, unless a test is about it.
        task = {"name": MODULE, MODULE: {"guard_timeout": 300, **options, **more}}
        play = {"name": "Play", "hosts": "all", "gather_facts": False, "tasks": [task]}
        (folder / "inventory.json").write_text(json.dumps(inventory))
        (folder / "play.json").write_text(json.dumps([play]))
        with open(folder / "output", "wb") as output:
            process = subprocess.Popen(
                [_PLAYBOOK, "-i", folder / "inventory.json", folder / "play.json"], cwd=folder, start_new_session=True,
                env=self._environment(folder), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        run = Run(process, folder)
        self._runs.append(run)
        return run

    def apply(self, options: dict[str, Any], **more: Any) -> Run:
        """Do that to its end."""
        run = self.start(options, **more)
        run.only()
        return run

    def _environment(self, folder: pathlib.Path) -> dict[str, str]:
        # Nothing of what molecule set for its own playbooks, nor of what this machine's user has.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_"))}
        return {
            **kept,
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(self._folder / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_HOME": str(self._folder),
            "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".build"),
            "ANSIBLE_CALLBACK_PLUGINS": str(_CALLBACK),
            "ANSIBLE_CALLBACKS_ENABLED": "task_events,built_modules",
            "WIRE_BUILT_MODULES": str(CHECKOUT / ".cache" / "built-modules"),
            "ANSIBLE_SSH_ARGS": f"{SSH} -o ControlMaster=auto -o ControlPersist=60s",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self._folder / "cp"),
            "ANSIBLE_TIMEOUT": "5",
            "WIRE_TASK_EVENTS": str(folder / "events"),
        }

    def close(self) -> None:
        """End what still runs, and the masters of ssh that live on after it."""
        for run in self._runs:
            if run.running:
                run.kill()
        for path in self._folder.glob("cp/*"):
            words = ["ssh", "-F", "/dev/null", "-O", "exit", "-o", f"ControlPath={path}", "x"]
            subprocess.run(words, check=False, capture_output=True, timeout=100)
        shutil.rmtree(self._folder, ignore_errors=True)
