# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings are true: rules that cannot meet the door's packets are none, and what may be is told as perhaps.

tests/wire/packets/test_findings_on_hosts.py loads the same kinds of rules into a kernel and sends packets.
"""

import ipaddress

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._engine import connection_of
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.access import (
    check_hosts_are_behind,
    check_tracked,
    check_trusted_interfaces,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import (
    UNKNOWN,
    LocalNetwork,
    Route,
    read_local_network,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options

DOOR = {"name": "ssh", "knock": ["17005", "19100/udp"], "opens": ["22"]}
CHAINS = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
}


def routes(*pairs):
    return tuple(Route(ipaddress.ip_network(network), interface, 0) for network, interface in pairs)


def networks(*texts):
    return tuple(map(ipaddress.ip_network, texts))


LOCAL = LocalNetwork(
    networks("192.0.2.1/32", "172.17.0.1/32", "10.8.0.5/32"),
    routes(("0.0.0.0/0", "eth0"), ("172.17.0.0/16", "docker0"), ("10.8.0.0/24", "wg0")),
)


def save(**tables):
    """The text of a save, by table and its rules; other chains than the built-in ones are declared as they are met."""
    lines = []
    for table, rules in tables.items():
        chains = list(CHAINS[table]) + [rule.split()[1] for rule in rules]
        lines += ["*" + table] + [":{0} {1} [0:0]".format(chain, "ACCEPT" if chain in CHAINS[table] else "-")
                                  for chain in dict.fromkeys(chains)] + list(rules) + ["COMMIT"]  # fmt: skip
    return "\n".join(lines) + "\n"


def found(text, local=LOCAL, **options):
    spec = spec_from_options(dict({"doors": [DOOR]}, **options))
    return [(item.kind, item.rule) for item in plan_family(text, spec, "ipv4", local=local).findings]


NONE = {
    "Docker 28's drops for each container": save(
        raw=[
            "-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP",
            "-A PREROUTING -d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 5432 -j DROP",
        ]
    ),
    "wg-quick's": save(
        raw=['-A PREROUTING -d 10.8.0.9/32 ! -i wg0 -m addrtype ! --src-type LOCAL -m comment --comment "wg-quick(8)" -j DROP'],
        mangle=["-A PREROUTING -p udp -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff"],
    ),
    "kube-proxy's services": save(
        nat=[
            "-A PREROUTING -j KUBE-SERVICES",
            "-A KUBE-SERVICES -d 10.43.7.7/32 -p tcp -m tcp --dport 22 -j KUBE-SVC-A",
            "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
            "-A KUBE-SVC-A -j KUBE-SEP-A",
            "-A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination 192.0.2.5:2222",
            "-A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-SVC-A",
        ]
    ),
    "a virtual address of another host": save(nat=["-A PREROUTING -d 192.0.2.77/32 -p tcp -m tcp --dport 22 -j DNAT --to 10.0.0.2"]),
    "fragments": save(mangle=["-A PREROUTING -f -j DROP"]),
    "odd segment sizes": save(
        mangle=["-A PREROUTING -p tcp -m conntrack --ctstate NEW -m tcpmss ! --mss 536:65535 -j DROP"]
    ),
    "multicast and reserved sources": save(
        mangle=["-A PREROUTING -s {0} -j DROP".format(net) for net in ("224.0.0.0/3", "240.0.0.0/5", "0.0.0.0/8", "127.0.0.0/8")]
    ),
    "no way back": save(raw=["-A PREROUTING -m rpfilter --loose --validmark --invert -j DROP"]),
    "invalid": save(mangle=["-A PREROUTING -m conntrack --ctstate INVALID -j DROP"]),
    "not a first packet": save(
        mangle=["-A PREROUTING -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -j DROP"]
    ),
    "marks that nothing sets": save(raw=["-A PREROUTING -m mark --mark 0x200/0xf00 -j DROP"]),
    "loopback is not tracked": save(raw=["-A PREROUTING -i lo -j CT --notrack", "-A OUTPUT -o lo -j CT --notrack"]),
    "an allowed port is not tracked": save(
        raw=["-A PREROUTING -p tcp -m tcp --dport 443 -j CT --notrack", "-A OUTPUT -p tcp -m tcp --sport 443 -j CT --notrack"]
    ),
    "a door spared before all else is not tracked": save(
        raw=[
            "-A PREROUTING -p tcp -m tcp --dport 22 -j RETURN",
            "-A PREROUTING -p tcp -m multiport --sports 0:1023 -j RETURN",
            "-A PREROUTING -p udp -m multiport --sports 0:1023 -j RETURN",
            "-A PREROUTING -d 198.51.100.7/32 -j CT --notrack",
        ]
    ),
    "DNS answers are not tracked, and accepted": save(
        raw=["-A OUTPUT -p udp -m udp --dport 53 -j CT --notrack", "-A PREROUTING -p udp -m udp --sport 53 -j CT --notrack"],
        filter=["-A INPUT -p udp -m udp --sport 53 -j ACCEPT"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NONE)
def test_what_cannot_meet_the_packets_is_no_finding(name):
    assert found(NONE[name], allow=[{"port": 443}]) == []


UNTRACKED_22 = "-A PREROUTING -p tcp -m tcp --dport 22 -j CT --notrack"
UNTRACKED_22_OUT = "-A OUTPUT -p tcp -m tcp --sport 22 -j CT --notrack"
UNTRACKED_DNS = "-A OUTPUT -p udp -m udp --dport 53 -j CT --notrack"
UNTRACKED_DNS_IN = "-A PREROUTING -p udp -m udp --sport 53 -j CT --notrack"
REDIRECT = "-A PREROUTING {0}-p tcp -m tcp --dport 22 -j REDIRECT --to-ports 2222"
SOME = {
    "the host's own address": (save(nat=[REDIRECT.format("-d 192.0.2.1/32 ")]), [("unguarded", REDIRECT.format("-d 192.0.2.1/32 "))]),
    "the interface of the default route": (save(nat=[REDIRECT.format("-i eth0 ")]), [("unguarded", REDIRECT.format("-i eth0 "))]),
    "not from the containers": (save(nat=[REDIRECT.format("! -i docker0 ")]), [("unguarded", REDIRECT.format("! -i docker0 "))]),
    "only from the containers": (save(nat=[REDIRECT.format("-i docker0 ")]), [("may_be_unguarded", REDIRECT.format("-i docker0 "))]),
    "some match": (save(raw=["-A PREROUTING -p tcp -m u32 --u32 0x0=0x1 -j DROP"]),
                   [("may_be_unguarded", "-A PREROUTING -p tcp -m u32 --u32 0x0=0x1 -j DROP")]),
    "a limit on all": (
        save(mangle=["-A PREROUTING -p tcp -j FLOOD", "-A FLOOD -m limit --limit 50/sec -j RETURN", "-A FLOOD -j DROP"]),
        [("may_be_unguarded", "-A FLOOD -j DROP")],
    ),
    "not tracked": (save(raw=[UNTRACKED_22, UNTRACKED_22_OUT]), [("untracked", UNTRACKED_22), ("untracked", UNTRACKED_22_OUT)]),
    "not tracked, one way": (save(raw=[UNTRACKED_22_OUT]), [("untracked", UNTRACKED_22_OUT)]),
    "nothing is tracked": (save(raw=["-A PREROUTING -j NOTRACK"]), [("untracked", "-A PREROUTING -j NOTRACK")] * 2),
    "answers are not tracked": (save(raw=[UNTRACKED_DNS, UNTRACKED_DNS_IN]),
                                [("untracked", UNTRACKED_DNS_IN), ("untracked", UNTRACKED_DNS)]),
    "answers that something else refuses": (
        save(raw=[UNTRACKED_DNS], filter=["-A INPUT -p udp -m udp --sport 123 -j ACCEPT"]),
        [("untracked", UNTRACKED_DNS)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SOME)
def test_what_can_is(name):
    text, wanted = SOME[name]
    assert found(text, published="none") == wanted
    in_nat = [each for each in wanted if "REDIRECT" in each[1]]
    assert found(text) == [each for each in wanted if each not in in_nat], "nat sees who has knocked alone"


def test_under_policy_accept_no_answer_is_refused():
    assert found(save(raw=[UNTRACKED_DNS, UNTRACKED_DNS_IN]), policy="accept") == []
    assert found(save(raw=[UNTRACKED_22]), policy="accept") == [("untracked", UNTRACKED_22)]


def test_what_is_not_known_of_the_host_is_perhaps():
    own = REDIRECT.format("-d 192.0.2.1/32 ")
    assert found(save(nat=[own]), UNKNOWN, published="none") == [("may_be_unguarded", own)]


def messages(text, **options):
    spec = spec_from_options(dict({"doors": [DOOR]}, **options))
    return [item.message for item in plan_family(text, spec, "ipv4", local=LOCAL).findings]


def test_an_interface_is_not_everyone():
    assert messages(save(filter=["-A INPUT -i wg0 -j ACCEPT"])) == [
        "accepts what comes in through wg0 on ports of door ssh; the doors now decide before it, so there it has no effect. "
        "To accept that without a knock, name wg0 in trusted_interfaces."
    ]
    assert messages(save(filter=["-A INPUT -i wg0 -j ACCEPT"]), trusted_interfaces=["wg0"]) == []
    assert messages(save(filter=["-A INPUT -m mark --mark 0x20000/0x20000 -j ACCEPT"])) == [
        "accepts packets, depending on what else it asks of them, on ports of door ssh; the doors now decide before it, so there it has "
        "no effect. To accept those without a knock, name their sources in trusted_sources."
    ]
    assert "accepts everyone on" in messages(save(filter=["-A INPUT -i eth0 -j ACCEPT"]))[0]


def test_perhaps_is_told_as_perhaps():
    assert messages(save(raw=["-A PREROUTING -p tcp -m u32 --u32 0x0=0x1 -j DROP"])) == [
        "table raw may refuse packets to door ssh and knocks of door ssh before INPUT sees them; whether they meet this rule, the "
        "ruleset alone does not tell. Look at the rule, and try a knock from outside."
    ]


def test_what_is_said_of_untracked_packets():
    assert messages(save(raw=[UNTRACKED_22])) == [
        "table raw keeps packets of door ssh out of connection tracking, so no connection through it is ever established: each one "
        "stops when the door's window is over. Remove the rule."
    ]
    assert messages(save(raw=[UNTRACKED_DNS])) == [
        "table raw keeps answers to this host out of connection tracking, so policy reject refuses them, and the host loses what it "
        "asks others for there. Remove the rule, name the others in trusted_sources, or accept their answers with a rule of your own "
        "in INPUT."
    ]
    assert messages(save(raw=["-A PREROUTING -m u32 --u32 0x0=0x1 -p tcp -m tcp --dport 22 -j CT --notrack"]))[
        0
    ].startswith("table raw may keep packets of door ssh out")


# This connection


def tracked(text, source="198.51.100.7", port=22):
    spec = spec_from_options({"doors": [DOOR], "trusted_sources": ["203.0.113.0/24"]})
    check_tracked(parse(text), spec, connection_of([source, "50000", "192.0.2.1", str(port)]), LOCAL)


@pytest.mark.parametrize(
    "rule",
    [
        UNTRACKED_22,
        UNTRACKED_22_OUT,
        "-A PREROUTING -i eth0 -j CT --notrack",
        "-A OUTPUT -o eth0 -j CT --notrack",
        "-A PREROUTING -s 198.51.100.0/24 -j NOTRACK",
        "-A OUTPUT -d 198.51.100.7/32 -p tcp -m multiport --sports 22,443 -j CT --notrack",
    ],
)
def test_a_connection_that_could_not_go_on_is_refused(rule):
    with pytest.raises(SpecError) as refusal:
        tracked(save(raw=[rule]))
    assert str(refusal.value) == (
        "doors: a rule of table raw keeps port 22, by which this connection comes, out of connection tracking, so it would stop when "
        "the door's window is over: {0}. Remove that rule, or let this address in without a knock (trusted_sources).".format(
            rule
        )
    )


@pytest.mark.parametrize("ports", ["22,17005", "19100,22"])
def test_a_rule_that_may_name_a_step_is_shown_without_its_ports(ports):
    with pytest.raises(SpecError, match=r"-m multiport --dports \*{4} -j CT --notrack\. Remove") as refusal:
        tracked(save(raw=["-A PREROUTING -p tcp -m multiport --dports {0} -j CT --notrack".format(ports)]))
    assert ports not in str(refusal.value)


@pytest.mark.parametrize(
    "rule",
    [
        "-A PREROUTING -p tcp -m tcp --dport 80 -j CT --notrack",
        "-A PREROUTING -p tcp -m tcp --sport 22 -j CT --notrack",
        "-A OUTPUT -p tcp -m tcp --dport 22 -j CT --notrack",
        "-A PREROUTING -i wg0 -j CT --notrack",
        "-A PREROUTING -s 192.0.2.0/24 -j CT --notrack",
        "-A PREROUTING -p udp -j CT --notrack",
    ],
)
def test_others_are_not_its_concern(rule):
    tracked(save(raw=[rule]))


# Interfaces that are trusted


@pytest.mark.parametrize(("names", "refused"), [(["lo", "eth0"], 1), (["e+"], 0), (["wg0", "docker0", "et+"], 2)])
def test_an_interface_that_everybody_comes_in_by_is_refused(names, refused):
    spec = spec_from_options({"doors": [DOOR], "trusted_interfaces": names})
    with pytest.raises(SpecError) as refusal:
        check_trusted_interfaces(spec, LOCAL)
    assert str(refusal.value) == (
        "trusted_interfaces[{0}]: {1} takes in eth0, by which this host's default route of ipv4 leads: everybody comes in there, and "
        "no door would need a knock. Name the sources that you trust in trusted_sources instead.".format(
            refused, names[refused]
        )
    )


def test_other_interfaces_are_trusted():
    check_trusted_interfaces(
        spec_from_options({"doors": [DOOR], "trusted_interfaces": ["wg+", "docker0", "eth1"]}), LOCAL
    )
    check_trusted_interfaces(spec_from_options({"trusted_interfaces": ["eth0"]}), LOCAL)


# Doors to hosts behind this one


def door_to(*addresses):
    inside = dict(DOOR, name="inside", knock=["17006", "19101"], opens=["8080"], to=list(addresses))
    return spec_from_options({"doors": [DOOR, inside]})


@pytest.mark.parametrize(
    ("to", "named"),
    [
        (["192.0.2.1"], "192.0.2.1"),
        (["198.51.100.7", "10.8.0.5"], "10.8.0.5"),
        (["192.0.2.0/32", "192.0.2.1/32"], "192.0.2.0/31"),
        (["203.0.113.64/28"], "203.0.113.64/28"),
        (["2001:db8::1"], "2001:db8::1"),
        (["127.0.0.2"], "127.0.0.2"),
    ],
)
def test_a_door_to_this_host_itself_is_refused(to, named):
    local = LOCAL._replace(own=LOCAL.own + networks("192.0.2.0/32", "203.0.113.0/25", "2001:db8::1/128"))
    with pytest.raises(SpecError) as refusal:
        check_hosts_are_behind(door_to(*to), local)
    assert str(refusal.value) == (
        "doors[1].to: {0} is this host itself, and not a host behind it: door 'inside' would guard nothing there. For ports of this "
        "host, or published on it, leave out 'to' (take it into a door of its own where 'to' names other hosts as well).".format(
            named
        )
    )


def test_a_network_behind_may_hold_an_address_of_this_host():
    check_hosts_are_behind(door_to("10.8.0.0/24", "192.0.2.0/31", "192.0.2.7", "2001:db8::/64"), LOCAL)
    check_hosts_are_behind(door_to("192.0.2.1"), UNKNOWN)


# What the kernel says of the network

TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.0
           /24 link UNICAST
        |-- 192.0.2.1
           /32 link UNICAST
           /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
     |-- 198.51.100.0
        /25 host LOCAL
Local:
  +-- 0.0.0.0/0 3 0 5
     |-- 192.0.2.1
        /32 host LOCAL
"""
INET6 = "20010db8000000000000000000000001 04 40 00 82     eth0\n00000000000000000000000000000001 01 80 10 80       lo\n"


def test_the_hosts_own_addresses():
    read = {"/proc/net/fib_trie": TRIE, "/proc/net/if_inet6": INET6}
    own = read_local_network(lambda path: read.get(path, "")).own
    assert own == networks("192.0.2.1/32", "198.51.100.0/25", "2001:db8::1/128")


def test_the_way_to_an_address():
    assert LOCAL.interface_to(ipaddress.ip_address("10.8.0.7")) == "wg0"
    assert LOCAL.interface_to(ipaddress.ip_address("198.51.100.7")) == "eth0"
    assert LOCAL.interface_to(ipaddress.ip_address("2001:db8::1")) == ""
