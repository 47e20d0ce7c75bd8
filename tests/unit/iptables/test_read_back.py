# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules read back: what doors there are, and what they have counted."""

import re

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import build_rules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.read_back import counters
from ansible_collections.sesame.portknock.plugins.module_utils._names.comments import read_comment
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.module_utils._tables.installed_doors import read_installed
from fake_iptables import FakeIptables

SSH = {"name": "ssh", "knock": ["17005", "19100/udp", "18300"], "opens": ["22"]}
WEB = {"name": "web", "knock": ["20100", "20300/udp"], "opens": ["53/udp", "443", "8000-8010"], "close": ["20500"],
       "window": 60, "once": True, "sources": ["192.0.2.0/24"]}  # fmt: skip


def test_doors_come_back_from_their_rules():
    spec = spec_from_options(
        dict(
            doors=[SSH, WEB],
            policy="accept",
            allow=[{"port": "25", "sources": ["192.0.2.9"], "comment": "mail"}],
            trusted_sources=["203.0.113.0/24"],
            trusted_interfaces=["wg0"],
            icmp=False,
            log=True,
            ip_versions=["ipv4"],
        )
    )
    back = read_installed(build_rules(spec, "ipv4").chains)
    assert (back.allow, back.trusted_sources) == (spec.allow, spec.trusted_sources)
    assert back.trusted_interfaces == ("lo", *spec.trusted_interfaces)
    doors = {door.name: door for door in back.doors}
    assert {name: (door.knock, door.close, door.window, door.once, door.sources) for name, door in doors.items()} == {
        door.name: (door.knock, door.close, door.window, door.once, door.sources) for door in spec.doors
    }
    assert sorted(doors["web"].opens) == sorted(spec.doors[1].opens)
    assert doors["ssh"].opens == spec.doors[0].opens


def test_where_knockd_recognises_knocks_no_rule_names_a_step():
    back = read_installed(build_rules(spec_from_options({"doors": [SSH], "engine": "knockd"}), "ipv4").chains)
    assert [(door.name, door.knock, door.close, door.window) for door in back.doors] == [("ssh", (), (), 15)]


def refused(doors, counted, **more):
    """Return what was refused at each door where rules that refuse have counted so many packets, in the order of their chains."""
    chains = build_rules(spec_from_options(dict(more, doors=doors)), "ipv4").chains
    lines, numbers = [], iter(counted)
    for name in sorted(chains):
        for text in chains[name]:
            refuses = read_comment(text).meaning.kind == "refuse_not_knocked"
            # What is sent on is counted beside it, and was refused nothing here.
            met = next(numbers) if name.startswith("PORTKNOCK_D") and refuses else 0 if refuses else 1000
            lines.append(f"[{met}:0] -A {name} {text}\n")
    assert list(numbers) == [], "every rule has its number"
    heads = "".join(f":{name} - [0:0]\n" for name in sorted(chains))
    found = counters(parse("*filter\n:INPUT ACCEPT [0:0]\n" + heads + "".join(lines) + "COMMIT\n").table("filter"))
    return {door: numbers["refused"] for door, numbers in found.items() if "refused" in numbers}


def door(name, step, *opens):
    return {"name": name, "knock": [str(step), str(step - 2000)], "opens": list(opens)}


@pytest.mark.parametrize(
    ("doors", "counted", "wanted"),
    [
        ([door("ssh", 9000, "22")], [7], {"ssh": 7}),
        ([door("ssh", 9000, "22", "2222")], [7], {"ssh": 7}),
        ([door("ssh", 9000, "22"), door("web", 9500, "443")], [7, 5], {"ssh": 7, "web": 5}),
        # The narrowest ports first, whatever their order.
        ([door("web", 9500, "20-21", "443"), door("ssh", 9000, "22")], [7, 5, 3], {"ssh": 7, "web": 8}),
        # Of another protocol, they are in another chain.
        ([door("ssh", 9000, "22"), door("dns", 9500, "53/udp")], [7, 5], {"ssh": 7, "dns": 5}),
        # Which of them a source wanted is not to be seen.
        ([door("ann", 9000, "22"), door("bob", 9500, "22")], [7], {"ann": 7, "bob": 7}),
        ([door("ann", 9000, "22"), door("bob", 9500, "22", "80")], [7, 5], {"ann": 7, "bob": 12}),
    ],
)  # fmt: skip
def test_each_door_counts_what_it_refuses(doors, counted, wanted):
    assert refused(doors, counted) == wanted
    assert refused(doors, counted, log=True) == wanted


def test_rules_of_a_release_that_counted_all_doors_at_once_are_known_by_no_door():
    entrance = (
        "-A PORTKNOCK_D1 -p tcp -m tcp --dport {port} -m recent --rcheck --seconds 15 --name pk4_{door} --rsource "
    )
    entrance += '-m comment --comment "portknock:504c54e8 door {door}: let in who has knocked" -j ACCEPT'
    refuse = (
        '-A PORTKNOCK_D1 -m comment --comment "portknock:46ca8190 who has not knocked is refused" -g PORTKNOCK_REFUSE'
    )
    lines = [entrance.format(port=22, door="a"), entrance.format(port=80, door="b"), refuse]
    save = "*filter\n:INPUT ACCEPT [0:0]\n:PORTKNOCK_D1 - [0:0]\n{0}COMMIT\n".format(
        "".join(f"[9:0] {line}\n" for line in lines)
    )
    assert counters(parse(save).table("filter")) == {name: dict(let_in=9, knocked=0) for name in "ab"}


def test_connections_that_nat_sends_on_are_let_in():
    """Docker's rules may accept them in front of ours in FORWARD."""
    spec = spec_from_options({"doors": [{"name": "web", "knock": ["5000", "900"], "opens": ["8080"]}]})
    host = FakeIptables()
    host.restore(plan_family("", spec, "ipv4").change)
    save = re.sub(r"^-A (.* door web: nat for)", r"[7:420] -A \1", host.save(), flags=re.M)
    save = re.sub(r"^-A (.* door web: accept)", r"[2:120] -A \1", save, flags=re.M)
    document = parse(save)
    assert counters(document.table("filter"))["web"]["let_in"] == 2
    assert counters(document.table("filter"), document.table("nat"))["web"]["let_in"] == 7
