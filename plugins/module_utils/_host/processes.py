# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes of a host, and the ssh session that this one runs in."""

import contextlib
import os
import re
import signal
from typing import Dict, Iterator, List, Optional, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.files import Filesystem

Session = Tuple[Optional[List[str]], Optional[float]]
"""The words of SSH_CONNECTION (client address, its port, server address, its port) or None, and when the process that
serves the connection began, in seconds since boot, or None."""
_GENERATIONS = 32


class Processes:
    """What /proc says of processes."""

    def __init__(self, filesystem: Filesystem) -> None:
        """Take the host's files."""
        self._filesystem = filesystem

    def is_root(self) -> bool:
        """Return whether this process may do what only root may."""
        return os.geteuid() == 0

    def ssh_connection(self) -> Optional[List[str]]:
        """Return the words of SSH_CONNECTION of the session this runs in, through sudo and su, or None."""
        return self.session()[0]

    def session(self) -> Session:
        """Return the ssh session this runs in, through sudo and su."""
        pid, server = os.getpid(), 0
        words: List[str] = []
        for _generation in range(_GENERATIONS):
            if pid <= 1:
                break
            found, parent = self._environment(pid).get("SSH_CONNECTION", "").split(), self._parent(pid)
            # An sshd that was started by hand has the SSH_CONNECTION of whoever did that: the nearest one counts.
            if words and found != words:
                break
            if found:
                words, server = found, parent
            pid = parent
        return (words, self.start_of(server)) if words else (None, None)

    def start_of(self, pid: int) -> Optional[float]:
        """Return when a process began, in seconds since boot (field 22 of /proc/PID/stat), or None if there is none."""
        try:
            fields = self._filesystem.read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        except HostError:
            return None
        return int(fields[19]) / os.sysconf("SC_CLK_TCK") if len(fields) > 19 else None

    def boot(self) -> str:
        """Return what tells this boot from others, of a container's own as well as of the machine's."""
        return "{} {}".format(self._filesystem.read("/proc/sys/kernel/random/boot_id").strip(), self.start_of(1))

    def words_of(self, pid: Optional[int]) -> List[str]:
        """Return the words of a process's command line."""
        return self._filesystem.read(f"/proc/{pid}/cmdline").split("\0")

    def captures_packets(self, pid: Optional[int]) -> bool:
        """Return whether a process has a socket that captures packets (packet(7))."""
        if not pid:
            return False
        directory = f"/proc/{pid}/fd"
        try:
            links = {os.readlink(os.path.join(directory, name)) for name in os.listdir(directory)}
        except OSError:
            return False
        lines = self._filesystem.read(f"/proc/{pid}/net/packet").splitlines()[1:]
        return any(f"socket:[{line.split()[-1]}]" in links for line in lines)

    def _environment(self, pid: int) -> Dict[str, str]:
        try:
            items = self._filesystem.read(f"/proc/{pid}/environ").split("\0")
        except HostError:
            return {}
        return {name: value for name, equals, value in (item.partition("=") for item in items) if equals}

    def _parent(self, pid: int) -> int:
        found = re.search(r"^PPid:\s*(\d+)", self._filesystem.read(f"/proc/{pid}/status"), re.M)
        return int(found.group(1)) if found else 0


@contextlib.contextmanager
def hang_ups_wait() -> Iterator[None]:
    """Within the block a terminal that is lost, as that of a controller which is killed, does not end this process; behind it, it does."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


__all__ = ("Processes", "Session", "hang_ups_wait")
