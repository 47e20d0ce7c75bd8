# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scans against knockd, which looks at the ports of its own configuration alone: what traps do against them, and what not."""

import itertools
import random
import threading

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._client.connect import connect_after_knock
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import send_knock, settle_of, steps_of_turn
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.decoys import DECOYS
from rig import packets
from rig.counter import close_doors
from rig.knockd import KNOCKD
from rig.peer import OPEN, TARGET
from rig.scans import DOORS, LAST, assert_all_shut, assert_doors_work, nmap
from rig.target import door

IN_A_ROW = {
    "linear": [["-r", f"-p2000-{LAST}"]],
    "linear, twice in a row": [["-r", f"-p2000-{LAST}"]] * 2,
    "datagrams": [["-sU", "-r", f"-p7000-{LAST}"]],
    "both": [["-sSU", "-r", "-pT:2000-10000,U:8700-9200"]],
}
SOURCES = 50
"""Fewer than a list holds."""


@pytest.mark.usefixtures("knockd")
@pytest.mark.parametrize("way", IN_A_ROW)
def test_nmap_in_a_row(rig, family, way):
    rig.target.apply(*DOORS)
    for words in IN_A_ROW[way]:
        assert "Nmap done" in nmap(rig, family, *words)
    rig.client.settle()
    assert_all_shut(rig, family)
    assert_doors_work(rig, family)


def _opened_by_chance(rig, ports, rounds):
    """Return name to how many sources got in, of so many that tried the ports in an order of their own."""
    opened = dict.fromkeys(("two", "three"), 0)
    shuffle = random.Random(5).shuffle
    for first in range(0, rounds, SOURCES):
        for number in range(first, first + SOURCES):
            shuffle(ports)
            for port in ports:
                rig.client.send_step(port, source=f"10.78.{number // 200}.{number % 200 + 1}")
        rig.client.settle()
        for name in opened:
            opened[name] += len(rig.target.listed("pk4_" + name))
            rig.target.namespace.run("sh", "-c", f"echo / >/proc/net/xt_recent/pk4_{name}")
    return opened


def _two_doors(rig):
    rig.target.apply(
        door(40001, 12345, name="two", opens=(2222,)), door(50001, 23456, 34567, name="three", opens=(2223,))
    )


def _odds(rig, knockd, rounds):
    """A port that it does not look at changes nothing, so of all 65535 only the others are sent."""
    _two_doors(rig)
    ports = [int(port) for port, _protocol in knockd.ports]
    assert len(ports) >= DECOYS + 5
    opened = _opened_by_chance(rig, ports, rounds)
    print(f"of {rounds} scans in a random order of all ports: {opened}")
    # Four times what chance makes of it: a door of two steps with one scan of DECOYS + 2.
    assert opened["two"] <= 4 * rounds / (DECOYS + 2) + 4
    assert opened["three"] <= 4 * rounds / (DECOYS + 1) / (DECOYS + 2) + 2
    return opened


def test_scans_in_a_random_order(rig, knockd):
    _odds(rig, knockd, 200)


@pytest.mark.soak
def test_many_scans_in_a_random_order(rig, knockd):
    opened = _odds(rig, knockd, 4000)
    assert opened["two"], "chance there is"


def test_without_traps_chance_is_high(rig, knockd):
    """So that the traps are known to do it: the same scans over the steps' ports alone."""
    _two_doors(rig)
    opened = _opened_by_chance(rig, [40001, 12345, 50001, 23456, 34567], 200)
    assert opened["two"] > 20
    assert opened["three"] > 1
    assert knockd.running


def test_a_scan_of_the_steps_alone(rig, knockd, family):
    """Traps help against scans of many ports, not against one that happens to try the steps and nothing between."""
    _two_doors(rig)
    rig.client.knock(knockd.breaker, family=family)
    rig.client.knock(40000, 40001, 40002, 12344, 12345, 12346, family=family)
    assert rig.client.probe(2222, family) == OPEN


class Scan:
    """All ports over and over from another host, in a random order and as fast as it goes, until the end of the block."""

    def __init__(self, rig, family):
        """Make the packets."""
        self._peer = rig.other
        source, target = self._peer.addresses[family], TARGET[family]
        order = random.Random(3).sample(range(1, 65536), 65535)
        self._sent = [packets.ip(source, target, *packets.segment_to(source, target, port, 4000)) for port in order]
        self.count = 0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._scan, daemon=True)

    def _scan(self):
        for data in itertools.cycle(self._sent):
            self._peer.send(data)
            self.count += 1
            if self._ends.is_set():
                return

    def __enter__(self):
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_error):
        """End."""
        self._ends.set()
        self._thread.join()


@pytest.mark.parametrize("reject_with", ["tcp-reset", "drop"])
def test_a_knock_gets_in_while_another_scans(rig, knockd, family, reject_with):
    """The scan ends attempts of others too, see test_another_source_can_end_an_attempt; new knocks make up for it.

    Where nothing answers, a knock takes its pauses, and is more often caught in the middle.
    """
    knockd.talks = False
    steps = ((50001, "tcp"), (23456, "tcp"), (34567, "tcp"))
    rig.target.apply(door(*(port for port, _protocol in steps), opens=(2222,)), reject_with=reject_with)
    tries = []
    with rig.client.namespace.entered(), Scan(rig, family) as scan:
        for _turn in range(3):
            opened = connect_after_knock(_knock(family, steps), [TARGET[family]], 2222, 60)
            opened.socket.close()
            tries.append(opened.tries)
            close_doors(rig)
    print(f"{reject_with}: {scan.count} packets, tries {tries}")
    assert scan.count > 1000


def _knock(family, steps):
    def knock(turn):
        send_knock([TARGET[family]], steps_of_turn(steps, turn, KNOCKD), settle=settle_of(KNOCKD))

    return knock
