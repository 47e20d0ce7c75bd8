# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection that a tracking helper calls related needs the knock at a door's port, and gets in everywhere else."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from flows import Host

FAMILIES = ("ipv4", "ipv6")
SSH = {"name": "ssh", "knock": ["7005", "9100"], "opens": ["22", "5900-5910", "53/udp"]}
OPTIONS = {"doors": [SSH], "allow": [{"port": 21}]}
STATEFUL = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT {0}-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n"

families = pytest.mark.parametrize("family", FAMILIES)


def related(host, port, **more):
    return host.send(port, state="RELATED", **more).action


@families
@pytest.mark.parametrize("engine", ["iptables", "knockd"])
@pytest.mark.parametrize("policy", ["reject", "accept"])
def test_a_doors_port_needs_the_knock(family, engine, policy):
    host = Host(dict(OPTIONS, engine=engine, policy=policy), family)
    for port in ("22", "5900", "5905", "5910", "53/udp"):
        assert related(host, port) == "REJECT"
        assert host.send(port, state="ESTABLISHED", flags="ACK").action == "ACCEPT"
    for port in ("20", "21", "40000", "53", "5911", "22/udp", "40000/udp"):
        assert related(host, port) == "ACCEPT"


@families
def test_who_has_knocked_gets_in_by_a_related_connection_too(family):
    host = Host(OPTIONS, family)
    assert host.flow("7005 9100") == []
    assert related(host, "22") == "ACCEPT"
    assert related(host, "22", who="you") == "REJECT"


@families
def test_it_is_neither_a_knock_nor_a_wrong_port(family):
    host = Host(OPTIONS, family)
    assert related(host, "7005") == "ACCEPT"
    assert related(host, "9100") == "ACCEPT"
    assert host.flow("shut:22 7005") == []
    assert related(host, "40000") == "ACCEPT"
    assert host.flow("9100 open:22") == []


@families
def test_a_foreign_rule_that_accepts_what_is_related_opens_no_door(family):
    for match in ("", "-p tcp "):
        host = Host(OPTIONS, family, save=STATEFUL.format(match))
        assert related(host, "22") == "REJECT"
        assert related(host, "40000") == "ACCEPT"
        assert host.flow("7005 9100 open:22") == []


@families
def test_the_head_goes_in_front_of_a_foreign_rule_that_somebody_inserted_above_it(family):
    """What others insert is no drift, unless it opens a door."""
    lines = Host(OPTIONS, family).iptables.save().splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("-A INPUT "))
    harmless, opens = (
        f"-A INPUT -m state --state {states} -j ACCEPT" for states in ("ESTABLISHED", "RELATED,ESTABLISHED")
    )
    save = "\n".join([*lines[:place], harmless, *lines[place:], ""])
    assert plan_family(save, spec_from_options(OPTIONS), family).change == ""
    host = Host(OPTIONS, family, save=save.replace(harmless, opens))
    assert related(host, "22") == "REJECT"
    rules = [line for line in host.iptables.save().splitlines() if line.startswith("-A INPUT ")]
    assert [rule.split()[-1] for rule in rules] == ["PORTKNOCK_HEAD", "ACCEPT", "PORTKNOCK", "PORTKNOCK_TAIL"]


@families
def test_a_blocklist_stays_in_front_of_the_doors(family):
    blocked = {"ipv4": "203.0.113.9/32", "ipv6": "2001:db8:bad::/128"}[family]
    save = STATEFUL.format("").replace("COMMIT", f"-A INPUT -s {blocked} -j DROP\nCOMMIT")
    rules = [line for line in Host(OPTIONS, family, save=save).iptables.save().splitlines() if "-A INPUT" in line]
    assert [rule.split()[-1] for rule in rules] == ["PORTKNOCK_HEAD", "ACCEPT", "DROP", "PORTKNOCK", "PORTKNOCK_TAIL"]


@pytest.mark.parametrize("icmp", [True, False])
def test_icmp_errors_come_first(icmp):
    host = Host(dict(OPTIONS, icmp=icmp))
    for number in (3, 11, 12):
        assert host.send("0/icmp", state="RELATED", icmp_type=number).action == "ACCEPT"
    if not icmp:
        trail = host.send("0/icmp", state="RELATED", icmp_type=3).trail
        assert [chain for chain, _rule in trail] == ["INPUT", "PORTKNOCK_HEAD", "PORTKNOCK_HEAD"]
        for number in (3, 8):
            assert host.send("0/icmp", icmp_type=number).action == "REJECT"


@pytest.mark.parametrize("icmp", [True, False])
def test_icmpv6_errors_come_first(icmp):
    host = Host(dict(OPTIONS, icmp=icmp), "ipv6")
    for number in (1, 2, 3, 4):
        assert host.send("0/ipv6-icmp", state="RELATED", icmp_type=number).action == "ACCEPT"


@families
def test_without_doors_everything_related_gets_in(family):
    host = Host({"allow": [{"port": 21}]}, family)
    for port in ("22", "40000", "40000/udp"):
        assert related(host, port) == "ACCEPT"
