# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The line to a host: new connections and old ones, each try bounded in time.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time

from ansible.errors import AnsibleError
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import KnockError
from ansible_collections.sesame.portknock.plugins.plugin_utils import send_knock as knocking
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.client import LineError
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import SshPath, ssh_command, ssh_path

# Connections that do not pass the firewall of the host: that they work proves nothing.
NO_NETWORK = frozenset(
    "local docker docker_api podman buildah chroot jail jexec iocage zone lxc lxd incus libvirt_lxc libvirt_qemu nsenter "
    "kubectl oc funcd saltstack qubes proxmox_pct_remote proxmox_qemu_agent systemd_machined machinectl vmware_tools "
    "aws_ssm run0".split()
)
# What comes first on ssh's command line counts. A dead peer is noticed within six seconds.
_FRESH = (
    "-o ControlMaster=no -o ControlPath=none -o ControlPersist=no -o ConnectTimeout={0} "
    "-o ServerAliveInterval=2 -o ServerAliveCountMax=3 "
)
_CHECK_SECONDS = 5


class _TimeUp(BaseException):
    """Above Exception, so that core's own retries do not catch it. Blocks nest, so each has one of its own."""


@contextlib.contextmanager
def bounded(seconds: float):
    """End what runs in the block after some seconds; LineError then.

    Core has no bound for a command over a connection that hangs. The alarm clock is that of a task's ``timeout`` too,
    which is set again behind the block, and comes first where it is sooner.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    ours = _TimeUp()

    def ring(_number, _frame):
        raise ours

    old_handler = signal.signal(signal.SIGALRM, ring)
    begun = time.monotonic()
    old_left = signal.setitimer(signal.ITIMER_REAL, seconds)[0]
    if 0 < old_left <= seconds:
        signal.signal(signal.SIGALRM, old_handler)
        signal.setitimer(signal.ITIMER_REAL, old_left)
    children = _children()
    try:
        yield
    except _TimeUp as error:
        if error is not ours:
            raise
        _end(_children() - children)
        raise LineError(f"no answer within {seconds:.0f} s") from None
    finally:
        if not 0 < old_left <= seconds:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old_handler)
            if old_left:
                signal.setitimer(signal.ITIMER_REAL, max(0.01, old_left - (time.monotonic() - begun)))


def _children() -> set[int]:
    """Return the process ids of our children."""
    with contextlib.suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as stream:
        return {int(word) for word in stream.read().split()}
    done = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False)
    pairs = [line.split() for line in done.stdout.splitlines()]
    return {int(pair[0]) for pair in pairs if len(pair) == 2 and pair[1] == str(os.getpid())}


def _end(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)


class Line:
    """What the action plugin's connection can do for the guard."""

    def __init__(self, action, knock: knocking.Knock, warn=None):
        """Take the action plugin, how to knock once there are steps, and a function for warnings."""
        self._action, self._connection, self._knock, self._warn = action, action._connection, knock, warn
        self._path = None
        self.is_ssh = self._connection.transport == "ssh" and hasattr(self._connection, "_build_command")
        self.name = getattr(self._connection, "ansible_name", "") or self._connection.transport
        self.has_network = self.name.rpartition(".")[2] not in NO_NETWORK

    @property
    def pause(self) -> float:
        """Seconds between two steps of a knock."""
        return self._knock.pause

    @property
    def settle(self) -> float:
        """Seconds that the host needs after the last step."""
        return self._knock.settle

    @property
    def where(self) -> str:
        """The host, in an operator's words."""
        host = self._connection.get_option("host") if self.is_ssh else None
        return str(host or self._action._play_context.remote_addr)

    @property
    def path(self):
        """The way that ssh takes."""
        if self._path is None and not self.is_ssh:
            self._path = SshPath(host=self._action._play_context.remote_addr, port=0, family="any", user="")
        if self._path is None:
            with bounded(_CHECK_SECONDS * 2):
                self._path = ssh_path(self._connection)
        return self._path

    def use_knock(self, words) -> None:
        """Knock with these steps from now on; none for no knock."""
        steps = ()
        # What is no step, the module has refused: then there is nothing to confirm.
        with contextlib.suppress(KnockError):
            steps = knocking.steps_of(words, "doors[].knock") if words and self.has_network else ()
        self._knock = self._knock._replace(steps=steps)

    def knock(self, turn: int = 0) -> None:
        """Send the knock, if there is one, the way that ssh will take.

        :param turn: how many knocks before this one did not get in.
        :raises LineError: if it cannot have left.
        """
        if not self._knock.steps:
            return
        try:
            knocking.send(self._connection, self._knock.of_turn(turn), self.path, self._warn)
        except (KnockError, AnsibleError) as error:
            raise LineError(str(error)) from error

    def fresh(self, command: str, seconds: float) -> str:
        """Run a command over a connection that is made for it and shared with nothing.

        :raises LineError: if it does not come through in time.
        """
        if not self.is_ssh:
            if self.has_network:
                self.reset()
            return self.usual(command, seconds)
        options = {"ssh_args": _FRESH.format(max(1, int(seconds))) + (self._option("ssh_args") or "")}
        # The connection plugin would knock as well, with what the inventory says: that may be the knock before.
        with self._set(reconnection_retries=0, knock=[], **options):
            return self._run(command, seconds)

    def usual(self, command: str, seconds: float) -> str:
        """Run a command the way that the play's tasks do.

        :raises LineError: if it does not come through in time.
        """
        with self._set(reconnection_retries=0):
            return self._run(command, seconds)

    def _run(self, command: str, seconds: float) -> str:
        try:
            with bounded(seconds + 1):
                done = self._action._low_level_execute_command(command)
        except AnsibleError as error:
            raise LineError(_last_line(str(error))) from error
        if done.get("rc") == 255 and not done.get("stdout"):
            raise LineError(_last_line(done.get("stderr", "")) or "the connection was closed")
        return done.get("stdout", "")

    def _option(self, name: str):
        return self._connection.get_option(name)

    @contextlib.contextmanager
    def _set(self, **options):
        """Give the connection other options within the block."""
        known = {name: value for name, value in options.items() if self.is_ssh and self._connection.has_option(name)}
        before = {name: self._option(name) for name in known}
        try:
            for name, value in known.items():
                self._connection.set_option(name, value)
            yield
        finally:
            for name, value in before.items():
                self._connection.set_option(name, value)

    def reset(self) -> None:
        """Close the play's connection, whoever set up its master; what was dead already is no error."""
        if self.is_ssh:
            self._control("exit")
        with contextlib.suppress(LineError, AnsibleError), bounded(_CHECK_SECONDS):
            self._connection.reset()

    def has_master(self) -> bool:
        """Tell whether the play's connection goes through a master that runs."""
        return self.is_ssh and self._control("check")

    def _control(self, verb: str) -> bool:
        host = self._option("host") or self._action._play_context.remote_addr
        try:
            words = ssh_command(self._connection, "-O", verb, host)
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_CHECK_SECONDS, check=False
            )
        except (AnsibleError, OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0

    def mend(self) -> bool:
        """See to it that the tasks that follow have a connection: a master that the change cut off is replaced.

        :returns: whether it was.
        """
        if not self.has_master():
            return False
        try:
            self.usual(":", _CHECK_SECONDS)
        except LineError:
            self.reset()
            with contextlib.suppress(LineError):
                self.knock()
                self.usual(":", _CHECK_SECONDS)
            return True
        return False


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else ""
