# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doors that a text is read back as are those that were asked for."""

import ipaddress

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.build import build_table
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.doors import read_doors
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.nft import Nft
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.open_doors import TableDoors
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.text import load_text
from ansible_collections.sesame.portknock.plugins.module_utils._open_doors import DoorHere
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_nft import FakeNft
from hypothesis import given
from nft_options import A_FIFTH, OPTIONS, RECORDED, spec_of


def read(spec):
    return read_doors(load_text(build_table(spec)).text)


def networks(*texts):
    return tuple(map(ipaddress.ip_network, texts))


def ports_in(words):
    """Return every port that words like ``8000-8010/tcp`` name."""
    found = set()
    for word in words:
        ports, protocol = word.split("/")
        first, _dash, last = ports.partition("-")
        found |= {(port, protocol) for port in range(int(first), int(last or first) + 1)}
    return found


@A_FIFTH
@given(OPTIONS)
def test_doors_are_read_as_they_were_asked_for(options):
    spec = spec_of(options)
    found = read(spec)
    here = {(door.name, door.ip_version): door for door in found.doors}
    for door in spec.doors:
        assert found.steps.get(door.name, len(door.knock)) == len(door.knock)
        for version, number in (("ipv4", 4), ("ipv6", 6)):
            mine = [network for network in door.sources if network.version == number]
            one = here.pop((door.name, version), None)
            behind = [network for network in door.to if network.version == number]
            nothing = bool(door.sources and not mine) or bool(door.to and not behind)
            assert (one is None) == (version not in spec.ip_versions or nothing)
            if one is None:
                continue
            assert (one.window, set(one.sources), one.once) == (door.window, set(mine), door.once)
            assert list(one.to) == list(ipaddress.collapse_addresses(behind))
            assert ports_in(one.opens) == {
                (port, ports.protocol) for ports in door.opens for port in range(ports.first, ports.last + 1)
            }
    assert here == {}


def test_a_range_that_an_allowed_port_cuts_is_one_again():
    (door, _six, *_behind) = read(spec_from_options(RECORDED)).doors
    assert door == DoorHere(
        name="ssh",
        ip_version="ipv4",
        opens=("22/tcp", "9000-9010/tcp", "514/udp"),
        window=15,
        sources=(ipaddress.ip_network("10.0.0.0/8"),),
        once=True,
    )


def test_ports_beside_each_other_stay_two():
    door = {"name": "web", "knock": ["7000", "9100", "3100"], "opens": ["80", "81"]}
    assert read(spec_from_options({"doors": [door]})).doors[0].opens == ("80/tcp", "81/tcp")


@pytest.mark.parametrize("prefix", [64, 128])
def test_in_panic_a_door_is_read_as_well(prefix):
    spec = spec_from_options(dict(RECORDED, ipv6_prefix=prefix))
    panic = read(spec._replace(panic=True))
    assert [door._replace(once=door.name == "ssh") for door in panic.doors] == list(read(spec).doors)
    assert (panic.steps, panic.ipv6_prefix) == ({"ssh": 3, "behind": 2}, prefix)


def test_a_door_to_hosts_behind_has_the_ports_that_are_there():
    behind = [door for door in read(spec_from_options(RECORDED)).doors if door.name == "behind"]
    assert [(door.ip_version, door.opens, door.to) for door in behind] == [
        ("ipv4", ("22/tcp", "5000-5010/udp"), networks("10.9.0.5", "10.9.1.0/24")),
        ("ipv6", ("22/tcp", "5000-5010/udp"), networks("2001:db8:9::/64")),
    ]


def test_of_doors_to_the_same_hosts_each_has_all_of_its_own():
    wide = {"name": "wide", "knock": ["7000", "9100"], "opens": ["22"], "to": ["10.9.0.0/16", "fd00::1"]}
    narrow = {"name": "narrow", "knock": ["8200", "6100"], "opens": ["80"], "to": ["10.9.3.7", "10.20.0.0/30"]}
    found = {(door.name, door.ip_version): door.to for door in read(spec_from_options({"doors": [wide, narrow]})).doors}
    assert found == {
        ("wide", "ipv4"): networks("10.9.0.0/16"),
        ("wide", "ipv6"): networks("fd00::1"),
        ("narrow", "ipv4"): networks("10.9.3.7", "10.20.0.0/30"),
    }


# By hand

SSH = {"name": "ssh", "knock": ["7000", "9100"], "opens": ["22"], "window": 15}
ME, SIX = ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("2001:db8::9")


@pytest.fixture
def doors():
    text = load_text(build_table(spec_from_options({"doors": [SSH], "ipv6_prefix": 64}))).text
    fake = FakeNft()
    nft = Nft(fake.run, fake.find)
    nft.load(text)
    return TableDoors(nft, text)


def test_opened_and_closed_by_hand(doors):
    assert [(door.name, door.ip_version, door.window) for door in doors.doors()] == [
        ("ssh", "ipv4", 15),
        ("ssh", "ipv6", 15),
    ]
    for source, kept in ((ME, "192.0.2.1"), (SIX, "2001:db8::")):
        assert not doors.remembers("ssh", source)
        doors.open("ssh", source)
        doors.open("ssh", source)
        assert doors.remembers("ssh", source)
        assert doors.close("ssh", source + 1) == ([] if source is ME else [kept])
    assert not doors.remembers("ssh", SIX), "of IPv6 the bits that must match are remembered"
    assert doors.close("ssh", ME) == ["192.0.2.1"]
    assert doors.close("ssh", ME) == []


def test_closed_to_everyone(doors):
    for source in (ME, ME + 1, SIX):
        doors.open("ssh", source)
    assert doors.close("ssh") == ["192.0.2.1", "192.0.2.2", "2001:db8::"]
    assert doors.close("ssh") == []


def test_a_door_that_is_not_there(doors):
    with pytest.raises(HostError, match="the table has no door web for IPv4. See: portknock status"):
        doors.open("web", ME)
    assert doors.close("web") == []
    assert not doors.remembers("web", ME)
