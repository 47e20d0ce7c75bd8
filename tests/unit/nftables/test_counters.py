# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the rules of the table have counted, and who is taken along to an engine with lists."""

from ipaddress import ip_address

from ansible_collections.sesame.portknock.plugins.module_utils._nftables.carried import lists_for
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.elements import Element
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.inspect import Counters


def rule(chain, packets, wording, *expressions):
    ours = {"family": "inet", "table": "portknock", "chain": chain, "comment": f"portknock:01234567 {wording}"}
    return {"rule": dict(ours, expr=[*expressions, {"counter": {"packets": packets, "bytes": 60 * packets}}])}


def in_set(name):
    return {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": f"@{name}"}}


def of(version):
    return {"match": {"op": "==", "left": {"meta": {"key": "nfproto"}}, "right": version}}


def test_each_door_has_its_own_and_what_two_share_counts_for_both():
    counted = Counters([
        rule("service1", 3, "door shell: accept sources that have knocked", in_set("open4_shell")),
        rule("service1", 5, "door shell: accept sources that have knocked", in_set("open6_shell")),
        rule("service1", 7, "door web: accept sources that have knocked", in_set("open4_web")),
        rule("service1", 11, "refuse sources that have not knocked", of("ipv4")),
        rule("service1", 13, "refuse sources that have not knocked", of("ipv6")),
        rule("knock1", 17, "door shell: step 2 of 2", in_set("stages4")),
        rule("knock2", 19, "door shell: step 1 of 2", of("ipv4")),
        rule("wrong", 23, "wrong port: reset the knock", in_set("progress4")),
        {"rule": {"family": "inet", "table": "filter", "chain": "service1", "expr": [{"counter": {"packets": 99}}]}},
    ])  # fmt: skip
    assert counted.doors == {
        ("shell", "4"): dict(let_in=3, knocked=17, refused=11),
        ("shell", "6"): dict(let_in=5, knocked=0, refused=13),
        ("web", "4"): dict(let_in=7, knocked=0, refused=11),
    }
    assert (counted.refused, counted.wrong_knocks) == (24, 23)


def test_in_panic_nobody_is_let_in():
    counted = Counters([rule("service1", 3, "door shell: closed by panic", in_set("open4_shell"))])
    assert counted.doors == {("shell", "4"): dict(let_in=0, knocked=0, refused=3)}
    assert counted.refused == 3


def test_who_is_in_gets_on_the_list_of_the_same_door():
    known = {
        "open4_shell": [Element(ip_address("192.0.2.1"), 9)],
        "open6_web": [Element(ip_address("2001:db8::"), 9)],
        "open4_gone": [Element(ip_address("192.0.2.2"), 9)],
        "stages4": [Element(ip_address("192.0.2.3"), 9)],
    }
    lists = ["pk4_shell", "pk4_shell2", "pk4.1_shell", "pk6.64_web", "pk4_.1", "pk6_shell"]
    assert lists_for(known, ["pk4_shell", "pk4_shell2", "pk6.64_web", "pk4_.1", "pk6_shell"]) == [
        ("pk4_shell", ip_address("192.0.2.1")),
        ("pk6.64_web", ip_address("2001:db8::")),
    ]
    assert lists_for({}, lists) == []
