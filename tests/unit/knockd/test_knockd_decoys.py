# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decoys: ports that a scan steps on, between and around those of a knock."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.config import steps_of
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.decoys import DECOYS, decoy_ports
from hypothesis import given
from knockd_specs import DOOR, ports_used, spec_of, specs, text_of


@pytest.mark.slow
@given(spec=specs())
def test_traps_are_nobodys_ports(spec):
    opened, steps = ports_used(spec)
    for protocol in {protocol for _port, protocol in steps}:
        traps = decoy_ports(spec, protocol)
        assert len(set(traps)) == len(traps)
        assert all(0 < port < 65536 for port in traps)
        assert not (opened | steps) & {(port, protocol) for port in traps}
        assert traps == decoy_ports(spec, protocol)


def test_there_are_as_many_as_is_said():
    for protocol, low, high in (("tcp", 1024, 65535), ("udp", 1024, 32767)):
        traps = decoy_ports(spec_of(), protocol)[:DECOYS]
        assert all(low <= port <= high for port in traps)
        # All over the range, and not in a corner of it.
        assert len({(port - low) * 8 // (high - low + 1) for port in traps}) == 8


def test_a_scan_of_popular_ports_alone_steps_on_traps():
    """In any order: between most two of nmap's hundred there is one."""
    few = {7, 26, 79, 81, 113, 199, 514, 554, 1433, 1720, 5000, 8008, 49152}
    assert few <= set(decoy_ports(spec_of(), "tcp"))
    assert 1433 not in decoy_ports(spec_of(dict(DOOR, opens=["1433"])), "tcp")
    assert 1433 not in decoy_ports(spec_of(dict(DOOR, knock=["17005", "1433", "18300"])), "tcp")


def test_allowed_ports_are_no_traps():
    wide = [{"port": "1024-40000"}, {"port": "1024-32000/udp"}]
    spec = spec_of(dict(DOOR, knock=["50000", "64000/udp", "45000"]), allow=wide)
    assert not [port for port in decoy_ports(spec, "tcp") if 1024 <= port <= 40000]
    assert all(port > 32000 for port in decoy_ports(spec, "udp"))


def test_traps_stay_where_they_are():
    """Whatever else is changed: a knock that people know keeps its surroundings."""
    one, other = spec_of(), spec_of(log=True, ipv6_prefix=64, trusted_sources=["192.0.2.0/24"])
    assert decoy_ports(one, "tcp") == decoy_ports(other, "tcp")
    assert decoy_ports(one, "tcp") != decoy_ports(spec_of(dict(DOOR, knock=["17006", "19100/udp", "18300"])), "tcp")


@pytest.mark.slow
@given(spec=specs(2))
def test_between_and_around_two_steps_is_a_trap_where_there_is_room(spec):
    opened, steps = ports_used(spec)
    for door in spec.doors:
        for one, other in zip(door.knock, door.knock[1:]):
            low, high = sorted((one.port, other.port))
            for protocol in sorted({one.protocol, other.protocol}):
                between, around = set(range(low + 1, high)), set(range(1, low)) | set(range(high + 1, 65536))
                taken = {port for port, each in opened | steps if each == protocol}
                traps = set(decoy_ports(spec, protocol))
                assert bool(between - taken) == bool(between & traps)
                assert bool(around - taken) == bool(around & traps)


def test_no_room_for_traps_ends():
    """There is none at all over UDP, and over TCP only below what is open."""
    door = dict(DOOR, knock=["512", "1023", "5"], opens=["1024-65535"])
    spec = spec_of(door, {"name": "one", "knock": ["1/udp"], "opens": ["2-65535/udp"]})
    assert decoy_ports(spec, "udp") == ()
    assert all(port < 1023 for port in decoy_ports(spec, "tcp"))


def test_the_only_port_between_may_be_a_step_over_another_protocol():
    other = {"name": "other", "knock": ["7001/udp", "900"], "opens": ["80"]}
    assert 7001 in decoy_ports(spec_of(dict(DOOR, knock=["7000", "7002"]), other), "tcp")


def test_a_thousand_doors():
    doors = [dict(name="d{0}".format(n), knock=[str(5000 + n), str(40000 - 7 * n), str(20000 + 3 * n)], opens=[str(50000 + n)])
             for n in range(1000)]  # fmt: skip
    text = text_of(*doors)
    assert len(steps_of(text)) == 1000
    assert max(len(line) for line in text.splitlines()) < 4096, "knockd reads lines of PATH_MAX"
