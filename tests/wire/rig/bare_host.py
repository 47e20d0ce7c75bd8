# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host as its distribution installs it: a fresh container with systemd, sshd and apt, and without iptables.

The role installs from the package repository inside the image (bin/lib/images), so nothing is downloaded.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rig.controller import Controller, Run
from rig.lan import Namespace
from rig.target import ROOT

HOSTS_SH = ROOT / "bin" / "lib" / "hosts.sh"
PREFIX = "portknock-role-"
INTERPRETER = "/usr/local/bin/counting-python"
_CALLS = "/var/tmp/module-calls"
# With pipelining one call of a module is one start of the interpreter.
_COUNTING_PYTHON = f"""#!/bin/sh
echo call >>{_CALLS} 2>/dev/null
exec /usr/bin/python3 "$@"
"""


ROLE = "sesame.portknock.portknock"


@contextlib.contextmanager
def user_of(host: "BareHost", core: str, **variables: Any) -> Iterator[Controller]:
    """Within the block there is a user with one release of ansible-core, who comes in by ssh, and knocks once there is a door.

    :param variables: further variables of the host.
    """
    made = Controller(host.controller_side, host.key, host.folder / "controller", core)
    made.variables = {
        **made.variables,
        "ansible_host": host.address,
        "ansible_python_interpreter": INTERPRETER,
        "ansible_pipelining": True,
        "ansible_connection": "sesame.portknock.knock_ssh",
        **variables,
    }
    try:
        yield made
    finally:
        made.close()


def play_role(user: Controller, *words: str, environment: Any = None, code: int = 0, **variables: Any) -> Run:
    """Run the role as the playbook site.yml does, from a list of roles, and return the finished run.

    :param words: further words for ansible-playbook.
    :param code: the exit code that it must have.
    """
    options = {"environment": environment} if environment else {}
    run = user.play(play={"roles": [ROLE], "tasks": [], "vars": variables}, words=words, **options)
    assert run.code == code, run.output
    return run


def changed(run: Run) -> list[str]:
    """Return the names of the tasks that changed something."""
    return [event.task for event in run.events if event.kind == "ok" and event.result.get("changed")]


_SSH_WITHOUT_CONFIRMATION = """#!/bin/sh
case "$*" in *" confirm --json"*) exec sleep 600 ;; esac
exec ssh "$@"
"""


def begin_and_leave(user: Controller, host: "BareHost", environment: Any = None, **variables: Any) -> None:
    """Begin a change by the role, and kill the controller once it is in force: nothing confirms it."""
    # On a busy machine the confirmation may be there before it is seen that the change is in force.
    ssh = user.folder / "ssh-without-confirmation"
    ssh.write_text(_SSH_WITHOUT_CONFIRMATION)
    ssh.chmod(0o755)
    environment = {**(environment or {}), "ANSIBLE_SSH_EXECUTABLE": str(ssh)}
    run = user.start(play={"roles": [ROLE], "tasks": [], "vars": variables}, environment=environment)
    run.until(lambda: host.pending().get("state") == "applied")
    run.kill(signal.SIGKILL)
    run.wait()
    user.end_masters()


@contextlib.contextmanager
def session(user: Controller, host: "BareHost") -> Iterator[Callable[[], bool]]:
    """A connection of an administrator at work on the host; the value is a function that tells whether it still answers."""
    path = user.folder / "worker"
    words = ["ssh", "-F", "/dev/null", "-o", f"ControlPath={path}"]
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ControlMaster=yes"]
    user.namespace.run(*words, *options, "-i", user.key, "-N", "-f", f"root@{host.address}")
    try:
        yield (
            lambda: (
                user.namespace.run(*words, "-o", "ProxyCommand=false", "x", "echo there", timeout=30).stdout
                == "there\n"
            )
        )
    finally:
        user.namespace.run(*words, "-O", "exit", "x", check=False)


def until(happened: Callable[[], bool], seconds: int = 60) -> None:
    """Wait for a moment."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.2)


def hosts_sh(*words: str) -> str:
    """Call a function of bin/lib/hosts.sh and return what it prints."""
    done = subprocess.run([HOSTS_SH, *words], check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"hosts.sh {' '.join(words)}: {done.stderr}")
    return done.stdout.strip()


@contextlib.contextmanager
def docker_daemon() -> Iterator[None]:
    """Within the block a docker daemon runs."""
    user = f"wire-role.{os.getpid()}"
    hosts_sh("docker_acquire", user)
    _remove_leftovers()
    try:
        yield
    finally:
        hosts_sh("docker_release", user)


def _remove_leftovers() -> None:
    """Remove the hosts of runs that were killed: the number in a name is the process that made it."""
    listed = subprocess.run(
        ["docker", "ps", "--all", "--format", "{{.Names}}"], check=True, capture_output=True, text=True
    )
    for name in listed.stdout.split():
        if name.startswith(PREFIX) and not os.path.exists(f"/proc/{name.rpartition('-')[2]}"):
            hosts_sh("host_remove", name)


class Machine(Namespace):
    """The machine that the tests run on, used as a namespace: docker's network can be reached from it."""

    def __init__(self) -> None:
        """Nothing has to be made."""

    def words(self, *words: object) -> list[str]:
        """Return the command line as it is."""
        return [str(word) for word in words]

    def close(self) -> None:
        """Nothing was made."""


class BareHost:
    """A throwaway host; root logs in with a key that was made for it."""

    def __init__(self, name: str, image: str = "debian-12") -> None:
        """Start the container and wait until it has booted; other runs may have one of the same name.

        :param image: the name of a recipe in bin/lib/images.
        """
        name = f"{PREFIX}{name}-{os.getpid()}"
        # Not one of pytest's folders, whose paths are too long for the socket of a control master.
        self.folder = Path(tempfile.mkdtemp(prefix="portknock-role-"))
        self.suite = hosts_sh("image_suite", image)
        self.name, self.key, self.controller_side = name, self.folder / "id", Machine()
        self._init: int | None = None
        self.controller_side.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key)
        hosts_sh("host_create", name, hosts_sh("image_ensure", image))
        self.address = hosts_sh("host_address", name)
        self.write("/root/.ssh/authorized_keys", (self.folder / "id.pub").read_text(), "0600")
        self.write(INTERPRETER, _COUNTING_PYTHON, "0755")

    def run(self, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on the host, past its network; return the finished process."""
        return self.controller_side.run("docker", "exec", "--interactive", self.name, *words, **options)

    def write(self, path: str, text: str, mode: str) -> None:
        """Write a file."""
        self.run("sh", "-ec", f"cat >{path}; chmod {mode} {path}", stdin=text)

    def text_of(self, *paths: str) -> str:
        """Return the text of files, '' for those that are not there."""
        return self.run("cat", *paths, check=False).stdout

    def install(self, *packages: str) -> None:
        """Install packages that the image's own repository does not hold, from this machine's mirror."""
        line = f"deb [trusted=yes] {hosts_sh('host_mirror') or 'http://deb.debian.org/debian'} {self.suite} main"
        mirror = "/etc/apt/sources.list.d/mirror.list"
        self.write(mirror, line + "\n", "0644")
        self.run("apt-get", "update", "-qq")
        words = (
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "install",
            "--yes",
            "-qq",
            "--no-install-recommends",
        )
        self.run(*words, *packages)
        # What was installed may let nothing out to it.
        self.run("rm", mirror)

    def has_command(self, name: str) -> bool:
        """Return whether the host has a command."""
        return self.run("sh", "-c", f"command -v {name}", check=False).returncode == 0

    def enabled(self, *services: str) -> list[str]:
        """Return what systemd says of each service: ``enabled``, ``disabled`` and the like."""
        return self.run(
            "systemctl", "is-enabled", *[f"{name}.service" for name in services], check=False
        ).stdout.split()

    def rules(self) -> str:
        """Return the live rules of both families."""
        return self.run("iptables-save").stdout + self.run("ip6tables-save").stdout

    def own_rules(self) -> list[str]:
        """Return the live rules of both families that the collection wrote."""
        return [line for line in self.rules().splitlines() if line.startswith("-A") and "PORTKNOCK" in line]

    def state(self, service: str) -> tuple[str, str]:
        """Return what systemd says of a service: whether it is active, and whether it is enabled."""
        active = self.run("systemctl", "is-active", f"{service}.service", check=False).stdout.strip()
        return active, "".join(self.enabled(service))

    def pending(self) -> dict[str, Any]:
        """Return the record of the change that is pending, or an empty dictionary."""
        return self._record("/run/portknock/pending.json")

    def last(self) -> dict[str, Any]:
        """Return how the last change ended, or an empty dictionary."""
        return self._record("/run/portknock.d/last.json")

    def _record(self, path: str) -> dict[str, Any]:
        """Return what is in a file, past docker: a docker exec takes a tenth of a second, and tests look all the time."""
        if self._init is None:
            words = ("docker", "inspect", "--format", "{{.State.Pid}}", self.name)
            self._init = int(self.controller_side.run(*words).stdout)
        try:
            return json.loads(Path(f"/proc/{self._init}/root{path}").read_text(encoding="utf-8"))
        except (FileNotFoundError, ProcessLookupError):
            return {}

    def reboot(self) -> None:
        """Start the host anew, and wait until it has booted."""
        self._init = None
        hosts_sh("host_reboot", self.name)

    def module_calls(self) -> int:
        """Return how many modules have run on the host since this was asked last."""
        return self.run("sh", "-c", f"cat {_CALLS} 2>/dev/null; rm -f {_CALLS}").stdout.count("call")

    def close(self) -> None:
        """Remove the container, its network, and the folder."""
        hosts_sh("host_remove", self.name)
        shutil.rmtree(self.folder)
