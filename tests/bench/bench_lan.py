# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Network namespaces of this run, the two backends of iptables in them, and cleaning up after both."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence

NEEDED = ("ip", "iptables-nft-restore", "iptables-legacy-restore", "ip6tables", "sshd", "ssh", "ssh-keygen", "unshare")
SBIN = ":/usr/local/sbin:/usr/sbin:/sbin"
BACKENDS = ("nft", "legacy")
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """Something could not be measured."""


def check_machine() -> None:
    """Say what is missing before anything is started."""
    os.environ["PATH"] += SBIN
    if os.geteuid() != 0:
        raise BenchError("run this as root: it makes network namespaces.")
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing:
        raise BenchError("install what these commands are in: {0}.".format(", ".join(missing)))


def run(words: Sequence[str], text: str | None = None) -> str:
    """Run a command and return what it printed.

    :raises BenchError: if it fails.
    """
    done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise BenchError(
            "{0}: exit code {1}: {2}".format(" ".join(words), done.returncode, done.stderr.strip()[-2000:])
        )
    return done.stdout


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Be in a network namespace: sockets and commands that begin in here belong to it."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open("/run/netns/" + namespace, os.O_RDONLY)
    try:
        _enter(there)
        yield
    finally:
        _enter(home)
        os.close(there)
        os.close(home)


def _enter(handle: int) -> None:
    if _libc.setns(handle, CLONE_NEWNET):
        raise BenchError("setns: {0}".format(os.strerror(ctypes.get_errno())))


class Lan:
    """Namespaces with one client and any number of servers, a veth pair to each; gone after the with block.

    The addresses are those that RFC 2544 sets aside for benchmarks.
    """

    _count = 0

    def __init__(self, *servers: str) -> None:
        """Take the servers' names."""
        Lan._count += 1
        self._stem = "pkbench{0}.{1}.".format(os.getpid(), Lan._count)
        self._servers = servers
        self._made: list[str] = []
        self.client = self._stem + "client"

    def __enter__(self) -> "Lan":
        """Make the namespaces."""
        try:
            self._make(self.client)
            for number, name in enumerate(self._servers):
                self._make(self.namespace(name))
                self._join(number, name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        """End what still runs in the namespaces, then drop them."""
        for namespace in self._made:
            _end_all(namespace)
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)

    def namespace(self, name: str) -> str:
        """Return the name of a server's namespace."""
        return self._stem + name

    def addresses(self, name: str) -> tuple[str, str]:
        """Return (the client's address, the server's address)."""
        base = "198.18.{0}.".format(self._servers.index(name))
        return base + "1", base + "2"

    def _make(self, namespace: str) -> None:
        run(["ip", "netns", "add", namespace])
        self._made.append(namespace)
        run(["ip", "-n", namespace, "link", "set", "lo", "up"])

    def _join(self, number: int, name: str) -> None:
        client, server = self.addresses(name)
        there, device = self.namespace(name), "veth{0}".format(number)
        run(["ip", "-n", self.client, "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", there])
        for namespace, link, address in ((self.client, device, client), (there, "eth0", server)):
            run(["ip", "-n", namespace, "address", "add", address + "/30", "dev", link])
            run(["ip", "-n", namespace, "link", "set", link, "up"])


def _end_all(namespace: str) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for _attempt in range(20):
            pids = subprocess.run(
                ["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False
            ).stdout.split()
            if not pids:
                return
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), sign)
            time.sleep(0.05)


class Backend:
    """The commands of one backend of iptables, for the family IPv4."""

    def __init__(self, name: str) -> None:
        """Take ``nft`` or ``legacy``."""
        self.name = name

    def find(self, command: str) -> str | None:
        """Return the path of this backend's spelling of a command such as iptables-restore."""
        return shutil.which(command.replace("tables", "tables-" + self.name, 1))

    def restore(self, text: str) -> None:
        """Load a text as an administrator would, in one step, with the rest left alone."""
        run([self._program("iptables-restore"), "-w", "30", "--noflush"], text)

    def save(self, counters: bool = False) -> str:
        """Return the ruleset."""
        return run([self._program("iptables-save")] + (["-c"] if counters else []))

    def _program(self, command: str) -> str:
        found = self.find(command)
        if not found:
            raise BenchError("{0} of the backend {1} is not there.".format(command, self.name))
        return found
