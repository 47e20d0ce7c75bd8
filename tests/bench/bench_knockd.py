# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine knockd against the kernel's rules: how long opening takes, memory, and what floods cost.

Two servers stand beside each other, one for each engine, and are measured by turns. What a packet costs is the time of
the call that sent it, which is the kernel's whole path, and the processor time that knockd took meanwhile. Floods are
bounded: bursts of a few hundred packets.
"""

import contextlib
import os
import random
import re
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench_lan import Backend, BenchError, Lan, inside
from bench_packets import Burst, syn_packet
from bench_ruleset import Core, door_options
from bench_series import Table, alternate, low_quartile, ratios, rounds

KERNEL, KNOCKD = "iptables", "knockd"
ENGINES = (KERNEL, KNOCKD)
PROGRAM = "/usr/sbin/knockd"
GOAL_LATENCY, GOAL_MEMORY = 100, 16
PACKETS, BURSTS, OTHERS, TRIES = 200, 60, 40, 5
WRONG = 64998
LISTS = "/proc/net/xt_recent"
TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    """A host with doors, of one engine."""

    def __init__(
        self, core: Core, lan: Lan, engine: str, backend: Backend, folder: Path, options: dict[str, Any]
    ) -> None:
        """Load the rules, and start knockd where it is the engine.

        :param options: those of the ruleset; the first door is the one that counts.
        """
        self.engine, self.namespace = engine, lan.namespace(engine)
        self.client, self.address = lan.addresses(engine)
        self.steps = [int(step) for step in options["doors"][0]["knock"]]
        self.port = int(options["doors"][0]["opens"][0])
        spec = core.spec_from_options(dict(options, engine=engine))
        with inside(self.namespace):
            backend.restore(core.rules(spec))
        self._daemon: subprocess.Popen[bytes] | None = None
        if engine == KNOCKD:
            self._start(core.knockd_config(spec, ("ipv4",), "eth0", str(folder)), folder)

    def _start(self, text: str, folder: Path) -> None:
        config, log = folder / "knockd.conf", folder / "knockd.log"
        config.write_text(text)
        words = ["ip", "netns", "exec", self.namespace, PROGRAM, "-v", "-c", str(config)]
        with open(log, "wb") as stream:
            self._daemon = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
        end = time.monotonic() + 10
        while "listening on" not in log.read_text():
            if self._daemon.poll() is not None or time.monotonic() > end:
                raise BenchError("knockd does not listen: {0}".format(log.read_text()[-500:]))
            time.sleep(0.01)

    def close(self) -> None:
        """End knockd."""
        if self._daemon:
            self._daemon.kill()
            self._daemon.wait()

    def cpu(self) -> float:
        """Return the seconds of processor time that knockd has taken, with its commands."""
        if not self._daemon:
            return 0.0
        with open("/proc/{0}/stat".format(self._daemon.pid)) as stream:
            words = stream.read().rpartition(")")[2].split()
        return sum(map(int, words[11:15])) / TICKS

    def memory(self) -> int:
        """Return the kibibytes of memory that knockd occupies."""
        if not self._daemon:
            raise BenchError("knockd does not run.")
        with open("/proc/{0}/status".format(self._daemon.pid)) as stream:
            found = re.search(r"^VmRSS:\s+(\d+) kB", stream.read(), re.M)
        if not found:
            raise BenchError("the kernel does not say how much memory knockd occupies.")
        return int(found.group(1))

    def raw(self) -> socket.socket:
        """Return a socket of the client's for whole packets to this host."""
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        raw.connect((self.address, 0))
        return raw

    def syn(self, port: int, source: str = "", number: int = 0) -> bytes:
        """Return a packet to a port."""
        return syn_packet(source or self.client, self.address, 20000 + number, port)

    def forget(self) -> None:
        """Forget who has knocked."""
        with inside(self.namespace), open(self._list(), "w") as stream:
            stream.write("/\n")

    def has_knocked(self) -> bool:
        """Return whether a source is on the first door's list."""
        with open(self._list()) as stream:
            return "src=" in stream.read()

    def _list(self) -> str:
        return LISTS.replace("/proc/", "/proc/thread-self/") + "/pk4_door0"


def silent_doors(count: int) -> dict[str, Any]:
    """Return options of so many doors of three steps, before which nothing is answered."""
    return dict(door_options(count, 3), reject_with="drop")


def opening_ms(server: Server, raw: socket.socket) -> float:
    """Return the milliseconds from a knock's last packet until its source is on the list; 0 for one that failed."""
    server.forget()
    # Not in step with knockd, which looks at what came in twenty times a second.
    time.sleep(random.uniform(0, 0.06))
    for number, step in enumerate(server.steps):
        raw.send(server.syn(step, number=number))
    with inside(server.namespace):
        began = time.perf_counter()
        while not server.has_knocked():
            if time.perf_counter() - began > 2:
                raise BenchError("{0}: a knock has opened nothing.".format(server.engine))
    return (time.perf_counter() - began) * 1000


def measure_latency(table: Table, servers: Sequence[Server], raws: dict[str, socket.socket], count: int) -> None:
    """Add how long opening takes."""
    series = alternate(count, *(lambda each=each: opening_ms(each, raws[each.engine]) for each in servers))
    for server, values in zip(servers, series, strict=True):
        goal = GOAL_LATENCY if server.engine == KNOCKD else None
        worst = statistics.quantiles(values, n=100)[98]
        table.add("ms from the last step to open, {0}".format(server.engine), values, goal,
                  note=" (99 %: {0:.1f})".format(worst))  # fmt: skip


def flood(server: Server, raw: socket.socket, packets: Sequence[bytes]) -> tuple[float, float]:
    """Send bursts; return the nanoseconds of processor time a packet: the kernel's path, and knockd's share."""
    burst = Burst(raw, packets)
    before = server.cpu()
    path = [burst.send() for _turn in range(BURSTS)]
    # What is left in its queue is its cost too.
    time.sleep(0.2)
    return low_quartile(path), (server.cpu() - before) * 1e9 / (BURSTS * len(packets))


def _strangers(count: int) -> list[str]:
    return ["198.51.{0}.{1}".format(number // 250, number % 250 + 1) for number in range(count)]


def floods(server: Server) -> dict[str, list[bytes]]:
    """Return name to the packets of a flood."""
    first = server.steps[0]
    return {
        "of its first step": [server.syn(first, number=number) for number in range(PACKETS)],
        "of its first step, each from another source": [server.syn(first, source) for source in _strangers(PACKETS)],
        "of a wrong port": [server.syn(WRONG, number=number) for number in range(PACKETS)],
    }


def measure_floods(table: Table, servers: Sequence[Server], raws: dict[str, socket.socket], count: int) -> None:
    """Add what a packet of each flood costs with knockd, against the kernel's rules."""
    for name in floods(servers[0]):
        costs: dict[str, list[tuple[float, float]]] = {server.engine: [] for server in servers}
        for _round in range(count):
            for server in servers:
                costs[server.engine].append(flood(server, raws[server.engine], floods(server)[name]))
                time.sleep(0.1)
        totals = [[sum(cost) for cost in costs[engine]] for engine in (KNOCKD, KERNEL)]
        table.add("a packet of a flood {0}: knockd / kernel".format(name), ratios(*totals))
        table.add("  of it knockd itself", [cost[1] for cost in costs[KNOCKD]], unit="ns")


def knocks_in_a_flood(server: Server, raw: socket.socket, packets: Sequence[bytes]) -> int:
    """Return how many knocks it took to open while a flood went on, begun as the client's further tries do."""
    server.forget()
    burst = Burst(raw, packets)
    for turn in range(1, TRIES + 1):
        steps = server.steps if turn == 1 else server.steps[-1:] + server.steps
        for number, step in enumerate(steps):
            burst.send()
            raw.send(server.syn(step, number=number))
        burst.send()
        end = time.monotonic() + 0.3
        with inside(server.namespace):
            while time.monotonic() < end:
                if server.has_knocked():
                    return turn
    return TRIES + 1


def measure_knocks_in_floods(
    table: Table, servers: Sequence[Server], raws: dict[str, socket.socket], count: int
) -> None:
    """Add how many knocks it takes in the middle of a flood by others: TRIES + 1 where so many were not enough."""
    for server in servers:
        for name, packets in _by_others(server).items():
            values = [knocks_in_a_flood(server, raws[server.engine], packets) for _round in range(count)]
            table.add("knocks until open in a flood {0}, {1}".format(name, server.engine), values)


def _by_others(server: Server) -> dict[str, list[bytes]]:
    one = "198.51.100.1"
    every = random.Random(9).sample(range(1, 65536), PACKETS)
    return {
        "of one other's first steps": [server.syn(server.steps[0], one, number) for number in range(PACKETS)],
        "of {0} others' first steps".format(OTHERS): [
            server.syn(server.steps[0], source) for source in _strangers(OTHERS)
        ],
        "of one other's random ports": [server.syn(port, one) for port in every],
    }


def measure_memory(table: Table, core: Core, backend: Backend, count: int) -> None:
    """Add what knockd occupies with one door and with fifty."""
    for doors in (1, 50):
        values = []
        for _round in range(count):
            with Lan(KNOCKD) as lan, tempfile.TemporaryDirectory() as folder:
                server = Server(core, lan, KNOCKD, backend, Path(folder), silent_doors(doors))
                try:
                    values.append(server.memory() / 1024)
                finally:
                    server.close()
        table.add("MiB that knockd occupies, doors: {0}".format(doors), values, GOAL_MEMORY)


def measure(table: Table, full: bool) -> None:
    """Add the rows."""
    if not os.access(PROGRAM, os.X_OK):
        raise BenchError("install knockd; do not let it start.")
    core, backend = Core(), Backend("nft")
    with Lan(*ENGINES) as lan, tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        servers = []
        for engine in ENGINES:
            servers.append(Server(core, lan, engine, backend, Path(folder), silent_doors(1)))
            stack.callback(servers[-1].close)
        with inside(lan.client):
            raws = {server.engine: stack.enter_context(server.raw()) for server in servers}
        measure_latency(table, servers, raws, rounds(full, 100, 1000))
        measure_floods(table, servers, raws, rounds(full, 11, 51))
        measure_knocks_in_floods(table, servers, raws, rounds(full, 11, 51))
    measure_memory(table, core, backend, 7)
