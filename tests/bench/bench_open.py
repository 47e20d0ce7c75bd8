# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How soon after its last step a knock opens, and whether it opens while others begin theirs; with each engine, as a figure too.

A knock has opened when a connection to the door's port is accepted. Of others there are the first steps of many addresses,
between each two steps of the knock: so many that a list or a queue may be full.
"""

import contextlib
import random
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from bench_engines import NETWORK, Nft
from bench_knockd import KNOCKD, Server
from bench_lan import Backend, BenchError, Lan, inside, run
from bench_packets import Burst, syn_packet
from bench_plot import Panel, draw, figure, log_marks, write_table
from bench_ruleset import Core, door_options
from bench_series import Table, rounds

ENGINES = {"nftables": Nft("nft"), "iptables": Backend("nft"), KNOCKD: Backend("nft")}
DOORS = (1, 10, 100)
OTHERS = (10, 100, 1000, 10000, 100000)
GOAL_MS = {"nftables": 5.0, "iptables": 5.0, KNOCKD: 100.0}
WINDOW = 1
_AT_MOST = 5
"""Seconds to wait for an open door: the daemon of knockd has as many packets to read."""
TITLE = "How soon a knock opens, and which knocks open while others begin theirs"
SAID = (
    "Two charts, of knocks of three steps. The kernel's engines open within a millisecond with 1, 10 or 100 doors, knockd within some "
    "hundredths of a second. With first steps of 10 to 100,000 other addresses between each two steps, all knocks open with nftables; with "
    "iptables those for which its lists are long enough; with knockd those for which its daemon is fast enough."
)
_A_CALL = 1000
"""Packets that the kernel takes with one call; more than 1,024 it does not."""
_LISTS = Path("/sys/module/xt_recent/parameters/ip_list_tot")


class Host(contextlib.AbstractContextManager["Host"]):
    """A host with doors of one engine, and a client that knocks at the first one."""

    def __init__(self, core: Core, engine: str, doors: int) -> None:
        """Take the engine, and the number of doors."""
        self._core, self._engine, self._doors = core, engine, doors
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Host":
        """Load the rules, and listen behind the door."""
        with contextlib.ExitStack() as stack:
            self._lan = stack.enter_context(Lan(self._engine))
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="portknock-bench-")))
            options = dict(door_options(self._doors, 3), reject_with="tcp-reset")
            for door in options["doors"]:
                door["window"] = WINDOW
            made = Server(self._core, self._lan, self._engine, ENGINES[self._engine], folder, options)
            stack.callback(made.close)
            self._server = made
            with inside(made.namespace):
                listener = stack.enter_context(socket.create_server((made.address, made.port)))
            with inside(self._lan.client):
                self._raw = stack.enter_context(made.raw())
            run(["ip", "-n", made.namespace, "route", "add", NETWORK, "via", made.client])
            listener.settimeout(0)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        """Take everything away."""
        self._open.close()

    def knock(self, others: Sequence[Burst] = ()) -> float:
        """Knock, with packets of others between the steps; return the seconds from the last step to a connection, infinity for none."""
        # The door has closed again. Not in step with knockd, which looks at what came in twenty times a second.
        time.sleep(WINDOW + 0.1 + random.uniform(0, 0.06))
        if self._connects():
            raise BenchError(f"{self._engine}: the door is open to who has not knocked.")
        for number, step in enumerate(self._server.steps):
            for burst in others if number else ():
                burst.send()
            self._raw.send(self._server.syn(step, number=number))
        begun = time.perf_counter()
        while not self._connects():
            if time.perf_counter() - begun > _AT_MOST:
                return float("inf")
        return time.perf_counter() - begun

    def others(self, count: int) -> list[Burst]:
        """Return first steps of other addresses."""
        first = int.from_bytes(socket.inet_aton(NETWORK.partition("/")[0]), "big") + 1
        sources = (socket.inet_ntoa((first + number).to_bytes(4, "big")) for number in range(count))
        packets = [syn_packet(source, self._server.address, 20000, self._server.steps[0]) for source in sources]
        return [Burst(self._raw, packets[begin : begin + _A_CALL]) for begin in range(0, count, _A_CALL)]

    def _connects(self) -> bool:
        with inside(self._lan.client), socket.socket() as sock:
            sock.settimeout(1)
            return sock.connect_ex((self._server.address, self._server.port)) == 0


def hosts(core: Core, doors: int) -> Iterator[tuple[str, Host]]:
    """Return a host of each engine, one after the other."""
    for engine in ENGINES:
        with Host(core, engine, doors) as host:
            yield engine, host


def measure_time(table: Table, core: Core, count: int) -> Panel:
    """Measure how soon a knock opens."""
    found: dict[str, list[tuple[float, float]]] = {engine: [] for engine in ENGINES}
    for doors in DOORS:
        for engine, host in hosts(core, doors):
            values = [1000 * host.knock() for _knock in range(count)]
            if float("inf") in values:
                raise BenchError(f"{engine}: a knock has opened nothing.")
            found[engine].append((doors, median(values)))
            if doors == DOORS[-1]:
                table.add(f"ms from the last step to a connection, {doors} doors, {engine}", values, GOAL_MS[engine])
    values = [milliseconds for points in found.values() for _doors, milliseconds in points]
    return Panel("ms from the last step to a connection, over doors", found, DOORS, log_marks([10, *values], 0.1))


def measure_others(table: Table, core: Core, count: int) -> Panel:
    """Measure how many knocks open while others begin theirs."""
    found: dict[str, list[tuple[float, float]]] = {engine: [] for engine in ENGINES}
    for engine, host in hosts(core, 1):
        for number in OTHERS:
            others = host.others(number)
            opened = [float(host.knock(others) < float("inf")) for _knock in range(count)]
            found[engine].append((number, 100 * sum(opened) / count))
        table.add(f"knocks that open, {OTHERS[-1]} first steps of others between each two, {engine}", opened,
                  1.0 if engine == "nftables" else None, least=True)  # fmt: skip
    size = _LISTS.read_text().strip() if _LISTS.exists() else "?"
    title = f"% that open, over first steps of others (iptables: lists of {size})"
    return Panel(title, found, OTHERS, (0, 25, 50, 75, 100), linear=True)


def measure(table: Table, full: bool) -> None:
    """Add the rows, and draw the figure."""
    core = Core()
    charts = [measure_time(table, core, rounds(full, 7, 31)), measure_others(table, core, rounds(full, 7, 21))]
    rows = [[engine, *(figure(value) for _doors, value in charts[0].lines[engine]),
             *(f"{value:.0f} %" for _others, value in charts[1].lines[engine])] for engine in ENGINES]  # fmt: skip
    head = [
        "",
        *(f"{doors} door{'s' if doors > 1 else ''}: ms" for doors in DOORS),
        *(f"{number:,} others" for number in OTHERS),
    ]
    write_table("knocking", head, rows)
    draw("knocking.svg", TITLE, SAID, charts)
