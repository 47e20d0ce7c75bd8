# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""No port scan opens a door of two steps or more; a door of one step is opened by any.

knockd looks at the ports of its own configuration alone: scans in a row step on its traps, those in a random order open a
door by chance, see test_knockd_scans.py.
"""

import random

import pytest
from rig import packets
from rig.knockd import KERNEL, KNOCKD
from rig.nftables import NFTABLES
from rig.peer import OPEN, REFUSED, TARGET
from rig.scans import DOORS, LAST, assert_all_shut, assert_doors_work, nmap
from rig.target import door

KERNELS = (KERNEL, NFTABLES)

ORDERS = {
    "up": lambda ports: ports,
    "down": lambda ports: ports[::-1],
    "up twice in a row": lambda ports: ports + ports,
    "down twice in a row": lambda ports: ports[::-1] * 2,
    "up and down": lambda ports: ports + ports[::-1],
    "each port twice": lambda ports: [port for port in ports for _turn in range(2)],
    "every other port, then the rest": lambda ports: ports[::2] + ports[1::2],
}


def sweep(rig, family, ports, protocol):
    """Send one packet to each port, in the order given, from one source port as scanners do."""
    client = rig.client
    source, target, sport = client.addresses[family], TARGET[family], client.fresh_port()
    for port in ports:
        number, data = packets.segment_to(source, target, f"{port}/{protocol}", sport)
        client.send(packets.ip(source, target, number, data))
    client.drain()
    client.settle()


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("order", list(ORDERS)[:4])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_sweeps(rig, family, order, protocol):
    rig.target.apply(*DOORS)
    sweep(rig, family, ORDERS[order](list(range(2000, LAST + 1))), protocol)
    assert_all_shut(rig, family)
    assert_doors_work(rig, family)


@pytest.mark.usefixtures("engine")
def test_sweeps_of_both_protocols_in_step(rig, family):
    rig.target.apply(*DOORS)
    for ports in (range(2000, LAST + 1), range(LAST, 2000, -1)):
        for port in ports:
            rig.client.send_step(port, family)
            rig.client.send_step(f"{port}/udp", family)
        rig.client.drain()
        rig.client.settle()
    assert_all_shut(rig, family)


def _random_sweeps(rig, family, rounds, last):
    rig.target.apply(*DOORS)
    ports = list(range(1, last + 1))
    for seed in range(rounds):
        random.Random(seed).shuffle(ports)
        sweep(rig, family, ports, "udp" if seed % 4 == 3 else "tcp")
        assert_all_shut(rig, family)
    assert_doors_work(rig, family)


@pytest.mark.usefixtures("engine")
@pytest.mark.engines(*KERNELS)
def test_random_sweeps(rig, family):
    _random_sweeps(rig, family, 2, LAST)


@pytest.mark.usefixtures("engine")
@pytest.mark.engines(*KERNELS)
@pytest.mark.soak
def test_many_random_sweeps(rig, family):
    _random_sweeps(rig, family, 40, LAST)


@pytest.mark.usefixtures("engine")
@pytest.mark.soak
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_sweeps_of_all_ports(rig, family, order, protocol):
    rig.target.apply(*DOORS)
    sweep(rig, family, ORDERS[order](list(range(1, 65536))), protocol)
    assert_all_shut(rig, family)
    assert_doors_work(rig, family)


NMAP = {
    "linear": [["-r", f"-p2000-{LAST}"]],
    "its own order": [[f"-p2000-{LAST}"]],
    "plain": [[]],
    "plain, twice in a row": [[], []],
    "linear, twice in a row": [["-r", f"-p2000-{LAST}"]] * 2,
    "by connect": [["-sT", "-r", "--min-parallelism", "100", "-p6490-6510,6990-7010,8490-8510,8990-9010"]],
    "datagrams": [["-sU", "-r", f"-p7000-{LAST}"]],
    "both": [["-sSU", "-pT:2000-10000,U:8700-9200"]],
}


@pytest.mark.usefixtures("engine")
@pytest.mark.engines(*KERNELS)
@pytest.mark.parametrize("way", NMAP)
def test_nmap(rig, family, way):
    rig.target.apply(*DOORS)
    for words in NMAP[way]:
        said = nmap(rig, family, *words)
        assert "Nmap done" in said
        assert " open " not in said.replace("open|filtered", ""), said
    assert_all_shut(rig, family)
    assert_doors_work(rig, family)


@pytest.mark.usefixtures("engine")
@pytest.mark.engines(*KERNELS)
@pytest.mark.soak
@pytest.mark.parametrize("words", [["-r", "-p-"], ["-p-"], ["-p-", "-T4"]])
def test_nmap_all_ports(rig, family, words):
    rig.target.apply(*DOORS)
    assert "Nmap done" in nmap(rig, family, *words)
    assert_all_shut(rig, family)


def test_a_door_of_one_step_is_opened_by_a_scan(rig, family, engine):
    """What the finding single_step warns of. A daemon may miss a packet of a fast scan; the kernel does not."""
    rig.target.apply(door(1000, opens=(2222,)))
    assert rig.client.probe(2222, family) == REFUSED[family]
    for _scan in range(3 if engine == KNOCKD else 1):
        nmap(rig, family, "-p1-1024")
        rig.client.settle()
        if rig.client.probe(2222, family) == OPEN:
            return
    raise AssertionError("no scan opened it")
