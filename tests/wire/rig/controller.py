# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller: the real ansible-playbook of any ansible-core, in the client's namespace, over real ssh."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rig.lan import Namespace
from rig.packets import IPV4
from rig.peer import TARGET
from rig.target import HERE, ROOT, clean_environment

CORES = ("2.16", "2.17", "2.18", "2.19", "2.20", "2.21")
MODULE = "sesame.portknock.knock_ruleset"
MULTIPLEX = "-o ControlMaster=auto -o ControlPersist=60s"
# While it waits for a task, core looks a thousand times a second whether there is something to do.
SETTINGS = "[defaults]\ninternal_poll_interval = 0.02\n"
SSH_CONFIG = """Host *
    BatchMode yes
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
    GSSAPIAuthentication no
    {more}
"""


def cores() -> tuple[str, ...]:
    """Return the releases of ansible-core that bin/test made: all, unless it said that this machine cannot run some."""
    return tuple(os.environ.get("PORTKNOCK_CORES", " ".join(CORES)).split())


def three_cores() -> tuple[str, ...]:
    """Return those of them between which most has changed: the oldest, the one with new templates, and the newest."""
    releases = cores()
    return tuple(core for core in releases if core in (releases[0], "2.19", releases[-1]))


def playbook_of(core: str) -> Path:
    """Return the path of a release's ansible-playbook."""
    path = ROOT / ".cache" / "venv" / f"core-{core}" / "bin" / "ansible-playbook"
    if not path.exists():
        raise RuntimeError(f"{path} is not there: bin/test wire makes it, and the ones of the other releases.")
    return path


class Event(NamedTuple):
    """What became of a task on a host."""

    kind: str
    host: str
    task: str
    result: dict
    at: float


class Run:
    """One ansible-playbook, running or finished."""

    def __init__(self, process: subprocess.Popen[bytes], events: Path, output: Path) -> None:
        """Take what start() made."""
        self._process, self._events, self._output = process, events, output
        self.begun = time.monotonic()

    @property
    def events(self) -> list[Event]:
        """The events so far."""
        with contextlib.suppress(FileNotFoundError):
            return [Event(**json.loads(line)) for line in self._events.read_text(errors="surrogateescape").splitlines()]
        return []

    @property
    def output(self) -> str:
        """What was printed so far."""
        return self._output.read_text(errors="replace")

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def wait(self, seconds: int = 1200) -> "Run":
        """Wait for the end and return this."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill(signal.SIGKILL)
            raise AssertionError(f"ansible-playbook hung for {seconds} s\n{self.output}") from None
        return self

    @property
    def code(self) -> int | None:
        """The exit code."""
        return self._process.returncode

    def only(self, host: str = "target", task: str = MODULE) -> Event:
        """Return the one event of a task on a host that ends it."""
        ends = ("ok", "failed", "ignored", "unreachable", "skipped")
        found = [
            event for event in self.events if event.kind in ends and event.host == host and event.task.endswith(task)
        ]
        assert len(found) == 1, f"{task} on {host}: {found}\n{self.output}"
        return found[0]

    def until(self, happened: Callable[[], bool], seconds: int = 300) -> None:
        """Wait for a moment; the run must not end before it."""
        end = time.monotonic() + seconds
        while not happened():
            assert self.running, f"it ended before the moment came\n{self.output}"
            assert time.monotonic() < end, f"the moment did not come in {seconds} s\n{self.output}"
            time.sleep(0.02)

    def confirms(self) -> bool:
        """Return whether it has the module's answer and tries to confirm."""
        return any(" confirm --json" in _command_line(pid) for pid in _descendants(self._process.pid))

    def kill(self, number: int, whole: bool = True) -> None:
        """Send a signal to ansible-playbook, and to all that it started unless whole is false.

        SIGINT as from a terminal reaches all of them as well. Newer releases put their workers into sessions
        of their own, so a process group is not enough. Masters of ssh live on, as they do in real life.
        """
        for pid in _descendants(self._process.pid) if whole else [self._process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _descendants(pid: int) -> list[int]:
    """Return a process and all below it; a child whose parent ends meanwhile is in the list already."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(word) for word in task.read_text().split()]
    return found


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


class Controller:
    """The user's side: a home, an inventory, an ssh configuration and a release of ansible-core."""

    module_options: Mapping[str, Any] = {}
    """Options of our module in each play, unless a task has them; the fixture ``table`` sets the engine."""

    def __init__(self, namespace: Namespace, key: Path, folder: Path, core: str) -> None:
        """Make the files."""
        self.namespace, self.key, self.core = namespace, key, core
        self._playbook = playbook_of(core)
        if not (ROOT / ".build" / "ansible_collections" / "sesame" / "portknock").exists():
            raise RuntimeError("the collection is not in .build: bin/lib/hosts.sh collection_link puts it there.")
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("home", "cp"):
            (folder / name).mkdir(parents=True)
        self.ssh_config = folder / "ssh_config"
        (folder / "ansible.cfg").write_text(SETTINGS)
        self.configure()
        self._count = 0
        self._runs: list[Run] = []
        self.variables: dict[str, Any] = {
            "ansible_host": TARGET[IPV4],
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(key),
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_remote_tmp": str(folder / "remote"),
        }

    def configure(self, *lines: str) -> None:
        """Write the user's own ssh configuration, with more lines."""
        self.ssh_config.write_text(SSH_CONFIG.format(more="\n    ".join(lines)))

    @contextlib.contextmanager
    def with_hosts(self, known: Mapping[str, str]) -> Iterator[None]:
        """Within the block its programs know more addresses of names: address to name."""
        hosts, program = self.folder / "hosts", self.folder / "with-hosts"
        hosts.write_text("".join(f"{address} {name}\n" for address, name in known.items()))
        program.write_text(
            f'#!/bin/sh\nexec unshare --mount sh -c \'mount --bind {hosts} /etc/hosts && exec "$@"\' sh {self._playbook} "$@"\n'
        )
        program.chmod(0o755)
        playbook, self._playbook = self._playbook, program
        try:
            yield
        finally:
            self._playbook = playbook

    def _environment(self, number: int, more: Mapping[str, str]) -> dict[str, str]:
        return clean_environment(
            HOME=str(self.folder / "home"),
            LC_ALL="C.UTF-8",
            ANSIBLE_NOCOLOR="1",
            ANSIBLE_CONFIG=str(self.folder / "ansible.cfg"),
            ANSIBLE_HOME=str(self.folder / "home"),
            ANSIBLE_COLLECTIONS_PATH=str(ROOT / ".build"),
            ANSIBLE_CALLBACK_PLUGINS=str(HERE.parent / "callback"),
            ANSIBLE_CALLBACKS_ENABLED="task_events,built_modules",
            WIRE_BUILT_MODULES=str(ROOT / ".cache" / "built-modules"),
            ANSIBLE_DEPRECATION_WARNINGS="false",
            ANSIBLE_SSH_ARGS=f"-F {self.ssh_config} {MULTIPLEX}",
            ANSIBLE_SSH_CONTROL_PATH_DIR=str(self.folder / "cp"),
            ANSIBLE_TIMEOUT="5",
            WIRE_TASK_EVENTS=str(self._file(number, "events")),
            **more,
        )

    def _file(self, number: int, kind: str) -> Path:
        return self.folder / f"{number}.{kind}"

    def start(
        self,
        *tasks: dict[str, Any],
        hosts: dict[str, dict[str, Any]] | None = None,
        play: dict[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        words: Sequence[object] = (),
    ) -> Run:
        """Start a play of the tasks in the background.

        :param hosts: host to its variables, that of the target is added to; just the target if it is left out.
        :param play: more keywords of the play.
        :param environment: more environment variables; they win.
        :param words: more arguments.
        """
        self._count += 1
        number = self._count
        hosts = {host: dict(self.variables, **values) for host, values in (hosts or {"target": {}}).items()}
        play = dict({"name": "Play", "hosts": "all", "gather_facts": False, "tasks": list(tasks)}, **(play or {}))
        if self.module_options:
            play["module_defaults"] = {MODULE: dict(self.module_options)}
        for name, content in (("inventory.json", {"all": {"hosts": hosts}}), ("play.json", [play])):
            self._file(number, name).write_text(json.dumps(content))
        default = self._environment(number, {})
        with open(self._file(number, "output"), "wb") as output:
            process = self.namespace.start(
                self._playbook, "-i", self._file(number, "inventory.json"), self._file(number, "play.json"), *words,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=dict(default, **(environment or {})), cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        run = Run(process, self._file(number, "events"), self._file(number, "output"))
        self._runs.append(run)
        return run

    def play(self, *tasks: dict[str, Any], **options: Any) -> Run:
        """Run a play of the tasks to its end."""
        return self.start(*tasks, **options).wait()

    def apply(
        self,
        *doors: dict[str, Any],
        start: bool = False,
        task: dict[str, Any] | None = None,
        run: dict[str, Any] | None = None,
        **options: Any,
    ) -> Run:
        """Run knock_ruleset as the only task, with the task's keywords and those of play()."""
        made = knock_task(*doors, task=task, **options)
        return (self.start if start else self.play)(made, **(run or {}))

    def ssh(
        self,
        *command: str,
        host: str = TARGET[IPV4],
        port: int = 22,
        user: str = "root",
        bind: str | None = None,
        options: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Open a new connection of plain ssh that shares nothing with the play's; return the finished process."""
        words = ["ssh", "-F", "/dev/null", "-i", self.key, "-p", port]
        for option in ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR",
                       "ConnectTimeout=10", *options):  # fmt: skip
            words += ["-o", option]
        words += ["-b", bind] if bind else []
        return self.namespace.run(*words, f"{user}@{host}", *(command or ["echo in"]), check=False, timeout=300)

    def gets_in(self, **options: Any) -> bool:
        """Return whether a new connection gets in now."""
        return self.ssh(**options).stdout == "in\n"

    def open_master(self) -> None:
        """Open the shared connection that an earlier play would have left, under the name that core gives its socket.

        Where it had another name, the next play would need a connection of its own: the tests that hold new ones back fail.
        """
        host, port, user = (self.variables.get(f"ansible_{name}") for name in ("host", "port", "user"))
        path = self.folder / "cp" / hashlib.sha1(f"{host}-{port}-{user}".encode()).hexdigest()[:10]
        words = ["ssh", "-F", self.ssh_config, *MULTIPLEX.split(), "-o", f"ControlPath={path}", "-i", self.key]
        words += ["-p", port] if port else []
        self.namespace.run(*words, f"{user}@{host}", "true")

    def close(self) -> None:
        """End what still runs, and the masters of ssh that live on after it."""
        for run in self._runs:
            if run.running:
                run.kill(signal.SIGKILL)
                run.wait()
        self.end_masters()

    def end_masters(self) -> None:
        """Close the connections that live on after a play."""
        for path in (self.folder / "cp").iterdir():
            self.namespace.run("ssh", "-F", "/dev/null", "-O", "exit", "-o", f"ControlPath={path}", "x", check=False)


def knock_task(*doors: dict[str, Any], task: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """Return a task of our module."""
    if doors:
        options["doors"] = list(doors)
    return dict({"name": MODULE, MODULE: options}, **(task or {}))


PING = {"name": "ping", "ansible.builtin.ping": {}}
