# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a first step costs that a wrong port follows, from one source: the most that a packet can make a host do.

The first step puts the source on lists, the wrong port has it taken off all of them. As in bench_packets, a packet is
received, filtered and answered before the call that sent it returns, so a pair costs the time of two packets of a burst.
"""

import os
import random
import re
import socket

from bench_lan import BACKENDS, Backend, BenchError, Lan, inside
from bench_packets import Burst, syn_packet
from bench_ruleset import CLOSED_PORT, EMPTY, Core, door_options
from bench_series import Table, low_quartile, rounds

FEW, MANY = 10, 100
"""Doors, of four steps each."""
GOAL_US = 50
PAIRS, TURNS = 100, 20


def pair_cost(backend: Backend, text: str, steps: list[int]) -> float:
    """Return the microseconds of a pair.

    :param text: the ruleset.
    :param steps: the first steps of its doors.
    """
    with Lan("server") as lan:
        client, server = lan.addresses("server")
        with inside(lan.namespace("server")):
            backend.restore(text)
        with inside(lan.client), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.connect((server, 0))
            chosen = random.Random(7).sample(steps * PAIRS, PAIRS)
            ports = [port for step in chosen for port in (step, CLOSED_PORT)]
            burst = Burst(raw, [syn_packet(client, server, 20000 + n, port) for n, port in enumerate(ports)])
            costs = [2 * burst.send() / 1000 for _turn in range(TURNS)]
        with inside(lan.namespace("server")):
            counts = re.findall(r"^\[(\d+):\d+\] -A .* wrong port", backend.save(counters=True), re.M)
        if sum(map(int, counts)) != PAIRS * TURNS:
            raise BenchError("{0} of {1} wrong ports met a knock in progress.".format(counts, PAIRS * TURNS))
    return low_quartile(costs)


def measure(table: Table, full: bool) -> None:
    """Add the rows."""
    core = Core()
    texts = {}
    for count in (FEW, MANY):
        spec = core.spec_from_options(door_options(count))
        texts[count] = core.plan_family(EMPTY, spec, "ipv4").change, [door.knock[0].port for door in spec.doors]
    affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(affinity)})
    try:
        for name in BACKENDS:
            _add_rows(table, Backend(name), texts, rounds(full, 7, 31))
    finally:
        os.sched_setaffinity(0, affinity)


def _add_rows(table: Table, backend: Backend, texts: dict[int, tuple[str, list[int]]], count: int) -> None:
    costs = [{doors: pair_cost(backend, *text) for doors, text in texts.items()} for _round in range(count)]
    row = "first step and wrong port, {0} doors, {1}".format(MANY, backend.name)
    table.add(row, [cost[MANY] for cost in costs], GOAL_US, unit="us")
    row = "first step and wrong port: {0} doors / {1}, {2}".format(MANY, FEW, backend.name)
    table.add(row, [cost[MANY] / cost[FEW] for cost in costs], MANY / FEW)
