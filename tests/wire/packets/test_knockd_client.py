# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection's own client with both engines: a hundred knocks, a hundred connections."""

import random
import statistics
import time

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._client.connect import connect_after_knock
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import (
    SETTLE,
    send_knock,
    settle_of,
    steps_of_turn,
)
from rig.counter import close_doors
from rig.knockd import ENGINES, KERNEL, KNOCKD
from rig.packets import IPV4
from rig.peer import TARGET
from rig.target import door

PORT = 2222
STEPS = ((7000, "tcp"), (9100, "tcp"), (3100, "tcp"))
KNOCKS, BLOCK = 100, 20
PREFIX = {IPV4: "pk4_", "ipv6": "pk6_"}


def prepare(rig, engine, **more):
    """Load the door with an engine; answers come at once, so that only the engine takes time."""
    rig.target.apply(
        door(*(port for port, _protocol in STEPS), opens=(PORT,)), engine=engine, reject_with="tcp-reset", **more
    )


def come_in(family, engine):
    """Knock and connect as the connection plugin does; return an Opened and the seconds from the first packet on."""

    def knock(turn):
        send_knock([TARGET[family]], steps_of_turn(STEPS, turn, engine), settle=settle_of(engine))

    began = time.monotonic()
    opened = connect_after_knock(knock, [TARGET[family]], PORT, 20)
    opened.socket.close()
    return opened, time.monotonic() - began


def test_a_hundred_knocks(rig, knockd, family):
    """With each engine, by turns."""
    knockd.talks = False
    seconds = {engine: [] for engine in ENGINES}
    tries = {engine: [] for engine in ENGINES}
    for _block in range(KNOCKS // BLOCK):
        for engine in ENGINES:
            prepare(rig, engine)
            with rig.client.namespace.entered():
                for _turn in range(BLOCK):
                    opened, took = come_in(family, engine)
                    seconds[engine].append(took)
                    tries[engine].append(opened.tries)
                    close_doors(rig)
    for engine in ENGINES:
        print(f"{family} {engine}: {summary(seconds[engine])}, {sum(tries[engine])} knocks for {len(tries[engine])}")
        assert len(seconds[engine]) == KNOCKS
    assert sum(tries[KERNEL]) == KNOCKS
    assert sum(tries[KNOCKD]) <= 1.2 * KNOCKS, "nearly always the first knock does it"


def summary(seconds):
    """Return median and 99th percentile of some seconds, as text."""
    percentiles = statistics.quantiles(seconds, n=100)
    return f"median {statistics.median(seconds) * 1000:.1f} ms, 99 % within {percentiles[98] * 1000:.1f} ms"


def latencies(rig, family, count):
    """Return the seconds from a knock's last packet until its source is on the list."""
    name = f"xt_recent/{PREFIX[family]}ssh"
    found = []
    chance = random.Random(1)
    for _turn in range(count):
        close_doors(rig)
        # Not in step with knockd, which looks at what came in twenty times a second.
        time.sleep(chance.uniform(0, 0.06))
        for port, _protocol in STEPS:
            rig.client.send_step(port, family)
        began = time.perf_counter()
        while "src=" not in rig.target.namespace.read_proc(name):
            assert time.perf_counter() - began < 10
        found.append(time.perf_counter() - began)
    return found


def test_how_long_opening_takes(rig, knockd, family):
    knockd.talks = False
    seconds = {}
    for engine in ENGINES:
        prepare(rig, engine)
        seconds[engine] = latencies(rig, family, KNOCKS)
        print(f"{family} {engine}: {summary(seconds[engine])} from the last step to the list")
    assert statistics.median(seconds[KERNEL]) < 0.005
    assert 0.001 < statistics.median(seconds[KNOCKD]) < SETTLE


@pytest.mark.soak
def test_a_thousand_knocks(rig, knockd, family):
    knockd.talks = False
    prepare(rig, KNOCKD)
    with rig.client.namespace.entered():
        for _turn in range(1000):
            come_in(family, KNOCKD)
            close_doors(rig)
