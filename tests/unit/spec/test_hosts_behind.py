# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Doors to hosts behind this one, and what holds for published ports: the options."""

import ipaddress

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.module_utils._spec.words import summary

SSH = {"name": "ssh", "knock": [17005, "19100/udp", 18300], "opens": [22]}
BEHIND = {"name": "behind", "knock": [21100, 20310, 21500], "opens": [22], "to": ["10.1.0.0/24"]}
OTHER = {"name": "other", "knock": [31100, 30310, 31500], "opens": ["20-30"], "to": ["10.1.0.7"]}


def test_addresses_are_as_few_networks_as_can_name_them():
    door = dict(BEHIND, to=["10.1.0.0/25", "fd00::5", "10.1.0.128/25", "10.1.0.9"])
    assert spec_from_options({"doors": [door]}).doors[0].to == (
        ipaddress.ip_network("10.1.0.0/24"),
        ipaddress.ip_network("fd00::5"),
    )


def test_a_door_to_hosts_behind_opens_nothing_here():
    here, behind = spec_from_options({"doors": [SSH, BEHIND]}).doors
    assert here.here == here.opens and behind.opens
    assert behind.here == ()


def test_the_same_port_may_be_allowed_here():
    """An allowed port is one of this host, so it makes no door to another host void."""
    everyone_else = ["0.0.0.0/2", "64.0.0.0/2", "128.0.0.0/1"]
    for sources in ([], everyone_else):
        assert spec_from_options({"doors": [BEHIND], "allow": [{"port": 22, "sources": sources}]}).allow


def test_two_doors_to_different_hosts():
    for to in (["10.2.0.0/16"], ["fd00::/64"]):
        assert len(spec_from_options({"doors": [BEHIND, dict(OTHER, to=to)]}).doors) == 2
    assert len(spec_from_options({"doors": [BEHIND, dict(OTHER, opens=["22/udp"])]}).doors) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"doors": [BEHIND, OTHER]},
            "doors[1].opens[0]: 20-30/tcp is also opened by door 'behind', for addresses in doors[0].to that doors[1].to has as well: "
            "either knock would open it. Name different hosts in the two.",
        ),
        (
            {"doors": [dict(BEHIND, to=["10.0.0.1", "0.0.0.0/0"])]},
            "doors[0].to[1]: 0.0.0.0/0 is every address, so what hosts behind this one connect to elsewhere would be closed as well. "
            "Name the addresses of the hosts behind this one.",
        ),
        (
            {"doors": [dict(BEHIND, to=["web"])]},
            "doors[0].to[0]: 'web' is neither an address nor a network. Write an address or a CIDR such as 192.0.2.0/24.",
        ),
        (
            {"doors": [BEHIND, dict(SSH, knock=[17005, 22, 18300], opens=[2222])]},
            "doors[1].knock[1]: is a port that doors[0].opens opens. A knock port must stay closed: choose another.",
        ),
        ({"published": "all"}, "published: is 'all', but must be one of doors, policy, none."),
    ],
)
def test_refused(options, message):
    with pytest.raises(SpecError) as refusal:
        spec_from_options(options)
    assert str(refusal.value) == message


def test_in_words():
    lines = summary(spec_from_options({"doors": [BEHIND], "published": "policy"}))
    assert (
        lines[0]
        == "door behind: 22/tcp of 10.1.0.0/24 behind this host closed; opens for 15 s to the address that knocked"
    )
    assert "ports that nat publishes: as those of this host, refused unless a door or allow names them" in lines
    assert not any(
        "publishes" in line for line in summary(spec_from_options({"published": "policy", "policy": "accept"}))
    )
