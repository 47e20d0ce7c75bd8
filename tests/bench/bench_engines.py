# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engines side by side: what a packet costs behind doors, as a ratio to the plainest firewall of the same kind.

The kernel's part of knockd is measured alone: its daemon reads packets later. A plot of cost over doors is written as well, which the
documents have as docs/engines.svg.
"""

import contextlib
import functools
import os
import socket
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

from bench_lan import Backend, BenchError, Lan, inside, run
from bench_packets import PACKETS, Burst, Path, syn_packet
from bench_plot import Panel, draw, figure, log_marks, write_table
from bench_ruleset import CLOSED_PORT, FLOW_PORT, MINIMAL, OPEN_PORT, Core, door_options
from bench_series import Table, costs_in_turns, ratios, rounds

DOORS, MOST = (1, 10, 100), 100
"""How many doors of four steps, and the number for which there are goals."""
TURNS = 20
KINDS = (
    "established packet",
    "SYN to a closed port",
    "connection",
    "first step of one door",
    "first steps of all doors in turn",
    "first step, then a wrong port: a packet",
)
GOALS = (1.05, 1.25, 1.05, 1.25, None, 5.0)
"""Those of the engine nftables. Steps of other doors each time find nothing in the processor's caches; who floods a door sends one."""
NETWORK = "100.64.0.0/10"
"""Where the packets of knocks come from."""
TITLE = "What a packet costs behind doors, with each engine"
SAID = (
    "Six charts, of 1, 10 and 100 doors of four steps, against the plainest firewall of the same kind: established packets, SYN to a "
    "closed port and connections cost about the same with all engines and any number of doors. First steps and wrong ports cost more "
    "with more doors, with the engine iptables most, with nftables little."
)

MINIMAL_NFT = f"""table inet minimal {{
  chain input {{
    type filter hook input priority filter
    ct state established,related counter accept
    iifname "lo" accept
    ip protocol icmp accept
    tcp dport {OPEN_PORT} accept
    udp dport {FLOW_PORT} accept
    counter reject with icmpx type port-unreachable
  }}
}}
"""


class Nft(Backend):
    """The command nft."""

    def restore(self, text: str) -> None:
        """Load a text."""
        run(["nft", "-f", "/dev/stdin"], text)


class Engine(NamedTuple):
    """An engine, and what loads its rules."""

    name: str
    backend: Backend
    minimal: str
    """The plainest firewall."""
    text: Callable[[int], str]
    """Number of doors to the rules of as many."""


def engines(core: Core) -> list[Engine]:
    """Return the engines."""

    def rules(doors: int, engine: str = "iptables") -> str:
        return core.rules(core.spec_from_options(dict(door_options(doors), engine=engine)))

    return [
        Engine("nftables", Nft("nft"), MINIMAL_NFT, lambda doors: rules(doors, "nftables")),
        *(Engine(f"iptables, {name}", Backend(name), MINIMAL, rules) for name in ("nft", "legacy")),
        Engine("knockd, nft (its rules)", Backend("nft"), MINIMAL, lambda doors: rules(doors, "knockd")),
    ]


class Strangers:
    """Sources that nobody else has.

    An element that a packet deletes stays in a set of the kernel for a second, dead, in the way of those of the same source.
    """

    def __init__(self, lan: Lan, name: str, raw: socket.socket) -> None:
        """Take the server, and a raw socket of the client."""
        client, self._server = lan.addresses(name)
        run(["ip", "-n", lan.namespace(name), "route", "add", NETWORK, "via", client])
        raw.connect((self._server, 0))
        self._raw, self._next = raw, int.from_bytes(socket.inet_aton(NETWORK.partition("/")[0]), "big")

    def burst(self, ports: Sequence[Sequence[int]]) -> Burst:
        """Return SYN packets to the ports: a source of its own for each sequence of them."""
        packets = []
        for own in ports:
            self._next += 1
            source = socket.inet_ntoa(self._next.to_bytes(4, "big"))
            packets += [syn_packet(source, self._server, 20000, port) for port in own]
        return Burst(self._raw, packets)

    def wrong_knocks(self, steps: Sequence[int]) -> float:
        """Send first steps, each of a new source, which then sends to a wrong port; return the nanoseconds a packet."""
        return self.burst([[step, CLOSED_PORT] for step in steps]).send()


def one_round(engine: Engine, text: str, steps: Sequence[int]) -> list[float]:
    """Return the ratio of each of KINDS, of the rules to the plainest firewall."""
    first = (list(steps) * PACKETS)[:PACKETS]
    with Lan("doors", "minimal") as lan, contextlib.ExitStack() as stack:
        acts: dict[str, list[Callable[[], float]]] = {}
        for name, ruleset in (("doors", text), ("minimal", engine.minimal)):
            path = Path(lan, name, engine.backend, ruleset)
            stack.callback(path.close)
            with inside(lan.client):
                _check_refuses(lan.addresses(name)[1])
                raw = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
            strangers = Strangers(lan, name, raw)
            acts[name] = [
                path.established.send,
                path.closed.send,
                path.connect_ns,
                strangers.burst([first[:1] * PACKETS]).send,
                strangers.burst([first]).send,
                functools.partial(strangers.wrong_knocks, first[: PACKETS // 2]),
            ]
        with inside(lan.client):
            costs = costs_in_turns(acts, TURNS)
    return ratios(costs["doors"], costs["minimal"])


def _check_refuses(server: str) -> None:
    """Make sure that the rules are those that were meant."""
    with socket.socket() as sock:
        sock.settimeout(5)
        try:
            sock.connect((server, CLOSED_PORT))
        except ConnectionRefusedError:
            return
    raise BenchError("the closed port is not refused")


def measure(table: Table, full: bool) -> None:
    """Add the rows, and write the plot."""
    core = Core()
    affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(affinity)})
    found: dict[str, dict[int, list[float]]] = {}
    try:
        made = engines(core)
        results: dict[tuple[str, int], list[list[float]]] = {}
        for _round in range(rounds(full, 7, 21)):
            for doors in DOORS:
                steps = [door.knock[0].port for door in core.spec_from_options(door_options(doors)).doors]
                for engine in made:
                    results.setdefault((engine.name, doors), []).append(one_round(engine, engine.text(doors), steps))
    finally:
        os.sched_setaffinity(0, affinity)
    for (name, doors), values in results.items():
        found.setdefault(name, {})[doors] = [median(column) for column in zip(*values, strict=True)]
        for number, kind in enumerate(KINDS if doors == MOST else ()):
            goal = GOALS[number] if name == "nftables" else None
            table.add(f"{kind}: {doors} doors / minimal, {name}", [each[number] for each in values], goal)
    rows = [[kind, *(figure(found[name][MOST][number]) for name in found)] for number, kind in enumerate(KINDS)]
    write_table("engines", ["", *(f"`{name}`" for name in found)], rows)
    draw("engines.svg", TITLE, SAID, [_panel(number, kind, found) for number, kind in enumerate(KINDS)])


def _panel(number: int, kind: str, found: dict[str, dict[int, list[float]]]) -> Panel:
    """Return the chart of one of KINDS: its cost over doors.

    :param found: engine to number of doors to the ratio of each of KINDS.
    """
    lines = {name: [(doors, costs[number]) for doors, costs in by_doors.items()] for name, by_doors in found.items()}
    values = [cost for points in lines.values() for _doors, cost in points]
    return Panel(kind.split(":")[0], lines, DOORS, log_marks([2.0, *values], 1.0))
