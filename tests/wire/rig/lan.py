# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small network of namespaces: target, client and other on one bridge. Nothing of it has a name on the machine.

Each namespace is held by a process that dies with the test run, whatever ends that, and the namespace with it.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1

HOSTS = {
    "target": ("10.77.0.1/24", "fd77::1/64"),
    "client": ("10.77.0.2/24", "10.77.0.22/24", "fd77::2/64", "fd77::22/64", "fd78::2/64"),
    "other": ("10.77.0.3/24", "fd77::3/64"),
}
ROUTES = {"target": ("fd78::/64",), "client": (), "other": ("fd78::/64",)}

# Rules files, units, the commands of iptables, the alternatives and the xtables lock are the target's own: the machine's stay as they are.
# What this machine's root runs at each login (pyenv's init waits for a lock that a killed process left) is not part of the target.
OWN_FILES = """
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd /run/own
for folder in /etc /usr/sbin /usr/local/sbin /usr/local/share; do
    store=/run/own$folder
    mkdir -p "$store/upper" "$store/work"
    mount -t overlay overlay -o "lowerdir=$folder,upperdir=$store/upper,workdir=$store/work" "$folder"
done
touch /run/own/bashrc
[ ! -e /root/.bashrc ] || mount --bind /run/own/bashrc /root/.bashrc
"""


def _die_with_parent() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Namespace:
    """A network namespace, for the target with mounts and processes of its own as well."""

    mac: str
    """The address of its eth0; a Lan sets it."""

    def __init__(self, name: str, whole: bool = False) -> None:
        """Start the process that holds the namespace."""
        self.name, self.whole = name, whole
        own = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"] if whole else []
        script = (OWN_FILES if whole else "") + "echo ready; exec sleep infinity"
        self._holder = subprocess.Popen(
            ["unshare", "--net"] + own + ["sh", "-c", script],
            stdout=subprocess.PIPE, start_new_session=True, preexec_fn=_die_with_parent,
        )  # fmt: skip
        assert self._holder.stdout
        if self._holder.stdout.readline() != b"ready\n":
            raise RuntimeError(f"namespace {name} could not be made: see the message above")
        self.pid = self._holder.pid

    def words(self, *words: object) -> list[str]:
        """Return a command line that runs the given one inside."""
        path = f"/proc/{self.pid}/ns/"
        own = [f"--mount={path}mnt", f"--pid={path}pid_for_children"] if self.whole else []
        return ["nsenter", f"--net={path}net"] + own + ["--"] + [str(word) for word in words]

    def run(
        self,
        *words: object,
        stdin: str | None = None,
        check: bool = True,
        timeout: int = 1200,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside and return the finished process, output and errors as text."""
        done = subprocess.run(
            self.words(*words), input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True, timeout=timeout, env=env, encoding="utf-8", errors="surrogateescape", check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(map(str, words))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def start(self, *words: object, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command inside; it dies with the test run."""
        return subprocess.Popen(self.words(*words), preexec_fn=_die_with_parent, **options)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Within the block this thread makes its sockets in the namespace."""
        here = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
        there = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        try:
            _setns(there)
            yield
        finally:
            _setns(here)
            os.close(here)
            os.close(there)

    def read_proc(self, path: str) -> str:
        """Return a text below /proc/net of the namespace, '' where there is none."""
        try:
            with open(f"/proc/{self.pid}/net/{path}", encoding="ascii") as stream:
                return stream.read()
        except FileNotFoundError:
            return ""

    def close(self) -> None:
        """End the holder; the kernel then takes the namespace away."""
        self._holder.kill()
        self._holder.wait()
        if self._holder.stdout:
            self._holder.stdout.close()


def _setns(handle: int) -> None:
    if LIBC.setns(handle, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Lan:
    """The three hosts and the bridge between them."""

    def __init__(self) -> None:
        """Make everything; what was made is taken away again if it fails half way."""
        self._all: list[Namespace] = []
        try:
            self._bridge = self._add("bridge")
            self._bridge.run("ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0")
            self._bridge.run("ip", "link", "set", "br0", "up")
            self.target = self._host("target", whole=True)
            self.client = self._host("client")
            self.other = self._host("other")
            self._introduce()
        except BaseException:
            self.close()
            raise

    def _add(self, name: str, whole: bool = False) -> Namespace:
        made = Namespace(name, whole)
        self._all.append(made)
        return made

    def _host(self, name: str, whole: bool = False) -> Namespace:
        host = self._add(name, whole)
        port = "to-" + name
        self._bridge.run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.pid)
        self._bridge.run("ip", "link", "set", port, "master", "br0", "up")
        lines = ["link set lo up", "link set eth0 up"]
        lines += [f"address add {address} dev eth0{_manner(address)}" for address in HOSTS[name]]
        lines += [f"route add {route} dev eth0" for route in ROUTES[name]]
        host.run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")
        # A kernel that answers only so many refusals a second would make a probe look as if it were dropped.
        host.run(
            "sh",
            "-c",
            "cd /proc/sys/net; echo 0 >ipv4/icmp_ratemask; echo >ipv6/icmp/ratemask; echo 0 >ipv6/icmp/ratelimit",
        )
        host.mac = _mac(host)
        return host

    def _introduce(self) -> None:
        """Enter all neighbours by hand: no test then waits for, or is disturbed by, their discovery."""
        hosts = (self.target, self.client, self.other)
        for host in hosts:
            lines = [
                f"neighbour replace {address.split('/')[0]} lladdr {peer.mac} dev eth0 nud permanent"
                for peer in hosts if peer is not host for address in HOSTS[peer.name]
            ]  # fmt: skip
            host.run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")

    def close(self) -> None:
        """Take everything away."""
        for namespace in reversed(self._all):
            namespace.close()
        self._all = []


def _manner(address: str) -> str:
    """Only a host's first IPv6 address is used by programs that do not ask for another."""
    if ":" not in address:
        return ""
    return " nodad" if address.startswith("fd77::") and len(address) == len("fd77::2/64") else " nodad preferred_lft 0"


def _mac(host: Namespace) -> str:
    line = host.run("ip", "-oneline", "link", "show", "dev", "eth0").stdout
    return line.split("link/ether ")[1].split()[0]
