# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guard's connections to the host: new ones and the play's own, each try bounded in time.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import KnockError, Steps
from ansible_collections.sesame.portknock.plugins.plugin_utils import send_knock
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.answers import TryError
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.reasons import NOT_DONE
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.command import is_ssh, ssh_command
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import (
    Lookup,
    SshPath,
    look_up,
    options_without_lookup,
    ssh_path,
)
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.patience import hurried_patience, longest_patience

# Connections that do not pass the firewall of the host: that they work proves nothing.
NO_NETWORK = frozenset(
    "local docker docker_api podman buildah chroot jail jexec iocage zone lxc lxd incus libvirt_lxc libvirt_qemu nsenter "
    "kubectl oc funcd saltstack qubes proxmox_pct_remote proxmox_qemu_agent systemd_machined machinectl vmware_tools "
    "aws_ssm run0".split()
)
# Of an option that is given twice, ssh takes the first. It gets no ServerAliveInterval: between its answer to the key and the
# session sshd may be busy with PAM for longer than any such limit.
_FRESH = "-o ControlMaster=no -o ControlPath=none -o ControlPersist=no -o ConnectTimeout={0} "
_CHECK_SECONDS = 5
_OTHER_SECONDS = 8


class TimeUpError(TryError):
    """A try that had no answer in time."""


class _TimeUp(BaseException):
    """Above Exception, so that core's own retries do not catch it. Blocks nest, so each has one of its own."""


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """End what runs in the block after some seconds.

    Core has no bound for a command over a connection that hangs. The alarm clock is that of a task's ``timeout`` too,
    which is set again behind the block, and comes first where it is sooner.

    :raises TimeUpError: if the block did not end in time.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    time_up = _TimeUp()

    def ring(_number: int, _frame: object) -> None:
        raise time_up

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
        if error is not time_up:
            raise
        _end(_children() - children)
        raise TimeUpError(f"no answer within {seconds:.0f} s") from None
    finally:
        if not 0 < old_left <= seconds:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old_handler)
            if old_left:
                signal.setitimer(signal.ITIMER_REAL, max(0.01, old_left - (time.monotonic() - begun)))


def _children() -> set[int]:
    """Return the process ids of this process's children."""
    with contextlib.suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as stream:
        return {int(word) for word in stream.read().split()}
    done = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False)
    pairs = [line.split() for line in done.stdout.splitlines()]
    return {int(pair[0]) for pair in pairs if len(pair) == 2 and pair[1] == str(os.getpid())}


def _end(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)


class HostConnection:
    """What the guard does with the action plugin's connection."""

    def __init__(self, action: Any, knock: send_knock.Knock, warn: Callable[[str], object] | None = None) -> None:
        """Take the action plugin, how to knock once there are steps, and a function for warnings."""
        self._action, self._connection, self._knock, self._warn = action, action._connection, knock, warn
        self._path: SshPath | None = None
        self._lookup: Lookup | None = None
        self._window, self._slowest = 0.0, 0.0
        self.is_ssh = is_ssh(self._connection)
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
    def path(self) -> SshPath:
        """The path that ssh takes."""
        if self._path is None:
            self._path = self._find_path()
        return self._path

    def _find_path(self) -> SshPath:
        if not self.is_ssh:
            return SshPath(host=self._action._play_context.remote_addr, port=0, family="any", user="")
        with bounded(_CHECK_SECONDS * 2):
            return ssh_path(self._connection)

    @property
    def addresses(self) -> int:
        """How many addresses of the host ssh tries, one after the other."""
        return len(self._found.addresses) or 1

    @property
    def _found(self) -> Lookup:
        if self._lookup is None:
            self._lookup = Lookup()
            # Where ssh does not say in time which path it takes, the tries will show.
            with contextlib.suppress(TryError):
                self._lookup = look_up(self.path) if self.is_ssh else Lookup()
        return self._lookup

    def use_knock(self, steps: Steps, window: float = 0.0) -> None:
        """Knock with these steps from now on; none for no knock.

        :param window: the seconds for which the door is open, 0 where no door is in the way.
        """
        self._knock = self._knock._replace(steps=steps if self.has_network else ())
        self._window = window

    def _patience(self, turn: int) -> tuple[int, tuple[str, ...]]:
        """Return the seconds for each address, and options of ssh, as the play's own connections have them.

        Only those prove that it gets in. Where there is one address alone, or the connection plugin hurries as well, the first
        tries are short.
        """
        own = self.path.timeout
        knocks_itself = getattr(self._connection, "knocks_itself", None)
        if knocks_itself and knocks_itself():
            pinned = options_without_lookup(self.path, self._found, turn)
            return hurried_patience(1 if pinned else self.addresses, self._window, own, turn), pinned
        return (longest_patience(1, 0, own) if self.addresses > 1 else hurried_patience(1, 0, own, turn)), ()

    def knock(self, turn: int = 0) -> None:
        """Send the knock, if there is one, the way that ssh will take.

        :param turn: how many knocks before this one were not let in.
        :raises TryError: if it cannot have left.
        """
        if not self._knock.steps:
            return
        try:
            send_knock.send(self._connection, self._knock.of_turn(turn), self.path, self._warn)
        except (KnockError, AnsibleError) as error:
            raise TryError(str(error)) from error

    def run_over_new(self, command: str, seconds: float, turn: int = 0) -> str:
        """Run a command over a connection that is made for it and shared with nothing.

        :param seconds: for all of it; to connect it has what one of the play's has.
        :param turn: how many tries there were before.
        :raises TryError: if it does not come through in time.
        """
        if not self.is_ssh:
            if self.has_network:
                self.reset()
            return self.run_over_shared(command, min(seconds, _OTHER_SECONDS << min(turn, 8)))
        patience, more = self._patience(turn)
        given = "".join(f"-o {option} " for option in more)
        options = {"ssh_args": _FRESH.format(patience) + given + (self._option("ssh_args") or "")}
        begun = time.monotonic()
        try:
            # The connection plugin would knock as well, with what the inventory says: that may be the knock before.
            with self._set(reconnection_retries=0, knock=[], **options):
                text = self._run(command, seconds)
        except TimeUpError as error:
            # ssh itself ends what is not connected by then.
            connected = seconds > patience * self.addresses + 1 and not self.path.jumps
            if connected:
                raise TryError(f"{NOT_DONE} after {seconds:.0f} s") from error
            raise
        self._slowest = max(self._slowest, time.monotonic() - begun)
        return text

    def run_over_shared(self, command: str, seconds: float) -> str:
        """Run a command the way that the play's tasks do.

        :raises TryError: if it does not come through in time.
        """
        with self._set(reconnection_retries=0):
            return self._run(command, seconds)

    def _run(self, command: str, seconds: float) -> str:
        try:
            with bounded(seconds + 1):
                done = self._action._low_level_execute_command(command)
        except AnsibleError as error:
            raise TryError(_last_line(str(error))) from error
        if done.get("rc") == 255 and not done.get("stdout"):
            raise TryError(_last_line(done.get("stderr", "")) or "the connection was closed")
        return done.get("stdout", "")

    def _option(self, name: str) -> Any:
        return self._connection.get_option(name)

    @contextlib.contextmanager
    def _set(self, **options: Any) -> Iterator[None]:
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
        """Close the play's connection and its control master; it is no error if they were dead already."""
        if self.is_ssh:
            self._control("exit")
        with contextlib.suppress(TryError, AnsibleError), bounded(_CHECK_SECONDS):
            self._connection.reset()

    def has_control_master(self) -> bool:
        """Return whether the play's connection uses a control master that runs."""
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

    def restore(self, works: bool = True) -> bool:
        """Replace a control master that the change cut off, so that the tasks that follow have a connection.

        :param works: False where it is known that it is cut off, or will be.
        :returns: whether it was.
        """
        if not self.has_control_master():
            return False
        # A login that was slow before is no sign of a dead connection.
        seconds = max(_CHECK_SECONDS, 2 * self._slowest)
        try:
            if not works:
                raise TryError("the host does not track it")
            self.run_over_shared(":", seconds)
        except TryError:
            self.reset()
            with contextlib.suppress(TryError):
                self.knock()
                self.run_over_shared(":", seconds)
            return True
        return False


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else ""
