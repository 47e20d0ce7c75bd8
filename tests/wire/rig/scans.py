# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Doors of several steps that are scanned, and nmap."""

from rig.knockd import WRONG
from rig.network import Rig
from rig.packets import IPV4
from rig.peer import OPEN, REFUSED, TARGET
from rig.target import door

DOORS = (
    door(7000, 9000, name="up", opens=(2222,), step_timeout=60),
    door(8500, 6500, name="down", opens=(2223,), step_timeout=60),
    door(9500, 3000, 6000, name="zigzag", opens=(3333,), step_timeout=60),
    door("7100/udp", "9100/udp", name="datagrams", opens=(8000,), step_timeout=60),
    door(4000, "8800/udp", 2500, name="mixed", opens=(8443,), step_timeout=60),
)
LAST = 10000
PREFIX = {IPV4: "pk4_", "ipv6": "pk6_"}


def assert_all_shut(rig: Rig, family: str) -> None:
    """No door has let the scanner in, nor would it now."""
    for each in DOORS:
        assert not rig.target.listed(PREFIX[family] + each["name"]), each["name"]
        assert rig.client.probe(each["opens"][0], family) == REFUSED[family]


def assert_doors_work(rig: Rig, family: str) -> None:
    """Every door opens to its knock: what the scans ran against was in force."""
    for each in DOORS:
        rig.client.knock(rig.target.daemon.breaker if rig.target.daemon else WRONG, family=family)
        rig.client.knock(*each["knock"], family=family)
        assert rig.client.probe(each["opens"][0], family) == OPEN, each["name"]


def nmap(rig: Rig, family: str, *words: str) -> str:
    """Run nmap from the client and return what it prints."""
    six = ["-6"] if family != IPV4 else []
    return rig.client.namespace.run(
        "nmap", "-n", "-Pn", "-T5", "--max-retries", "1", *six, *words, TARGET[family], timeout=1000
    ).stdout
