# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A path with delay, loss and reordering: a TUN device at each end, and a process that copies packets between them.

The kernel's netem is not there on every machine. The process is this file, run by itself, so that nothing else that
the tests do keeps a packet waiting.
"""

import ctypes
import fcntl
import heapq
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path as File
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(File(__file__).resolve().parents[1]))

from rig.packets import IPV4, IPV6

if TYPE_CHECKING:
    from rig.lan import Namespace
    from rig.network import Rig

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
PR_SET_TIMERSLACK = 29
DEVICE = "far"
FAR = {IPV4: "10.88.0.1", IPV6: "fd88::1"}
SOURCES = 6


class Path(NamedTuple):
    """What a path does to each packet, in each direction by itself."""

    delay: float
    """Seconds each way: the round trip takes twice as long."""
    loss: float = 0.0
    """The share of packets that never arrive."""
    late: float = 0.0
    """The share of packets that are held back, so that those behind them overtake them."""
    hold: float = 0.0
    """Seconds that such a packet is held back at most; how many it is, is left to chance."""


def near(number: int, family: str) -> str:
    """Return one of the client's addresses on the path, each a source of its own to the target."""
    return {IPV4: f"10.88.0.{10 + number}", IPV6: f"fd88::{10 + number}"}[family]


class Relay:
    """A path between the client and the target, beside the wire between them."""

    def __init__(self, rig: "Rig", path: Path, seed: int = 1) -> None:
        """Make the devices and start the process."""
        self._ends: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        try:
            for host, addresses in ((rig.client, _of_client()), (rig.target, _of_target())):
                self._ends.append(_device(host.namespace, addresses))
            words = [sys.executable, __file__, seed, *self._ends, *path]
            self._process = subprocess.Popen(
                [str(word) for word in words], pass_fds=self._ends, preexec_fn=_die_with_parent, stdout=subprocess.PIPE
            )
            assert self._process.stdout
            if self._process.stdout.readline() != b"ready\n":
                raise RuntimeError("the relay did not start: see the message above")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the process; the devices go with the last handle on them."""
        if self._process:
            self._process.kill()
            self._process.wait()
            if self._process.stdout:
                self._process.stdout.close()
        for handle in self._ends:
            os.close(handle)
        self._ends = []

    def __enter__(self) -> "Relay":
        """Return the relay, for a with statement."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Take it away again."""
        self.close()


def _of_client() -> list[str]:
    return [near(number, family) for family in FAR for number in range(SOURCES)]


def _of_target() -> list[str]:
    return list(FAR.values())


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _device(namespace: "Namespace", addresses: Iterable[str]) -> int:
    """Make a TUN device in a namespace and return its handle."""
    with namespace.entered():
        handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(handle, TUNSETIFF, struct.pack("16sH", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    lines = [f"address add {_with_length(address)} dev {DEVICE}" for address in addresses]
    lines += [f"link set {DEVICE} up"]
    namespace.run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")
    return handle


def _with_length(address: str) -> str:
    return f"{address}/64 nodad" if ":" in address else f"{address}/24"


class Copier:
    """Copies packets from one handle to another."""

    def __init__(self, handles: tuple[int, int], path: Path, chance: random.Random) -> None:
        """Take the two handles; what comes in at one goes out at the other."""
        self._other = dict(zip(handles, reversed(handles)))
        self._path, self._chance = path, chance
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._count = 0

    def run(self) -> None:
        """Copy until the process ends."""
        poller = select.epoll()
        for handle in self._other:
            poller.register(handle, select.EPOLLIN)
        while True:
            left = self._waiting[0][0] - time.monotonic() if self._waiting else -1
            for handle, _event in poller.poll(max(0, left) if self._waiting else -1):
                self._take(handle)
            self._give()

    def _take(self, handle: int) -> None:
        while True:
            try:
                packet = os.read(handle, 65535)
            except BlockingIOError:
                return
            if self._chance.random() < self._path.loss:
                continue
            wait = self._path.delay
            if self._chance.random() < self._path.late:
                wait += self._chance.uniform(0, self._path.hold)
            self._count += 1
            heapq.heappush(self._waiting, (time.monotonic() + wait, self._count, self._other[handle], packet))

    def _give(self) -> None:
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            _due, _count, handle, packet = heapq.heappop(self._waiting)
            os.write(handle, packet)


def main() -> None:
    """Take the seed, the two handles and the path from the command line, and copy."""
    seed, first, second = (int(word) for word in sys.argv[1:4])
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1)
    print("ready", flush=True)
    Copier((first, second), Path(*map(float, sys.argv[4:])), random.Random(seed)).run()


if __name__ == "__main__":
    main()
