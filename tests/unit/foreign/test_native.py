# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nft lists and iptables does not: chains that decide beside iptables' own. The expressions are those of nft 1.0.6."""

import json

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.native_findings import native_findings
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter import nft_json
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_walk import (
    NewPacket,
    NftWalker,
    base_chains,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options

DROP, ACCEPT = {"drop": None}, {"accept": None}


def match(field, right, op="=="):
    kind, _blank, name = field.partition(" ")
    left = {kind: {"key": name}} if kind in ("meta", "ct") else {"payload": {"protocol": kind, "field": name}}
    return {"match": {"op": op, "left": left, "right": right}}


def masked(field, mask, right, op="=="):
    part = match(field, right, op)
    part["match"]["left"] = {"&": [part["match"]["left"], mask]}
    return part


def match_fib(flags, result, right):
    return {"match": {"op": "==", "left": {"fib": {"flags": flags, "result": result}}, "right": right}}


TH = {"payload": {"protocol": "th", "field": "dport"}}
SYN = ["fin", "syn", "rst", "ack"]
DPORT = {"payload": {"protocol": "tcp", "field": "dport"}}


def rule(expr, handle=7, chain="INPUT", **more):
    return {"rule": dict(dict(family="ip", table="filter", chain=chain, handle=handle, expr=expr), **more)}


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"nftables": 3}', "Error: syntax error"])
def test_what_is_no_listing(text):
    assert nft_json.read_listing(text) is None


# Chains beside iptables


def table(*rules, policy="drop", hook="input", family="inet", name="t", more=()):
    chain = {"chain": dict(family=family, table=name, name="input", hook=hook, type="filter", prio=0, policy=policy)}
    return [chain, *more, *[rule(expr, family=family, table=name, chain=chain_name) for chain_name, expr in rules]]


def told(items, port=22, protocol="tcp", family="ip"):
    (chain,) = base_chains(items)
    return sorted(NftWalker(items, chain).outcomes(NewPacket(family, protocol, port)))


NEW = match("ct state", ["established", "related"], "in")
WALKS = [
    ("the policy", [[NEW, ACCEPT], [match("meta iif", "lo"), ACCEPT]], "drop", ["dropped by policy"]),
    ("a policy that accepts", [[NEW, ACCEPT]], "accept", ["accepted"]),
    ("the port", [[match("tcp dport", 22), ACCEPT]], "drop", ["accepted"]),
    ("another port", [[match("tcp dport", 443), ACCEPT]], "drop", ["dropped by policy"]),
    ("a set", [[match("tcp dport", {"set": [80, {"range": [20, 23]}]}), ACCEPT]], "drop", ["accepted"]),
    ("a named set", [[match("tcp dport", "@ports"), ACCEPT]], "drop", ["accepted"]),
    ("a set that is not there", [[match("tcp dport", "@none"), ACCEPT]], "drop", ["accepted", "dropped by policy"]),
    ("below", [[match("tcp dport", 1024, "<"), DROP]], "accept", ["dropped"]),
    ("above", [[match("tcp dport", 1024, ">"), DROP]], "accept", ["accepted"]),
    ("another protocol", [[match("udp dport", 22), DROP]], "accept", ["accepted"]),
    ("both protocols", [[match("meta l4proto", {"set": ["tcp", "udp"]}), match("th dport", 22), DROP]], "accept", ["dropped"]),
    ("by number", [[match("meta l4proto", 6), DROP]], "accept", ["dropped"]),
    ("the other IP version", [[match("meta nfproto", "ipv6"), DROP]], "accept", ["accepted"]),
    ("particular sources", [[match("ip saddr", "@bad"), DROP], [match("ip saddr", "192.0.2.1"), DROP]], "accept", ["accepted"]),
    ("all but particular sources", [[match("ip saddr", "192.0.2.1", "!="), DROP]], "accept", ["dropped"]),
    ("new without syn", [[masked("tcp flags", SYN, "syn", "!="), match("ct state", "new", "in"), DROP]], "accept", ["accepted"]),
    ("a limit", [[{"limit": {"rate": 5, "per": "second"}}, ACCEPT]], "drop", ["accepted", "dropped by policy"]),
    ("an interface", [[match("meta iifname", "wg0"), ACCEPT]], "drop", ["accepted", "dropped by policy"]),
    ("a jump", [[{"jump": {"target": "sub"}}], [match("tcp dport", 22), ACCEPT]], "drop", ["dropped"]),
    ("a goto that comes back", [[{"goto": {"target": "back"}}], [ACCEPT]], "drop", ["dropped by policy"]),
    ("a jump that comes back", [[{"jump": {"target": "back"}}], [ACCEPT]], "drop", ["accepted"]),
    ("states by vmap", [[{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["established", ACCEPT], ["invalid", DROP]]}}}]],
     "accept", ["accepted"]),
    ("ports by vmap", [[{"vmap": {"key": DPORT, "data": {"set": [[22, {"jump": {"target": "sub"}}]]}}}]],
     "accept", ["dropped"]),
    ("a map of other ports", [[{"vmap": {"key": {"concat": [{"payload": {"protocol": "ip", "field": "daddr"}},
     {"payload": {"protocol": "th", "field": "dport"}}]}, "data": "@services"}}]], "accept", ["accepted"]),
    ("redirected", [[match("tcp dport", 22), {"redirect": {"port": 2222}}]], "accept", ["sent elsewhere"]),
    ("sent to the address of a map", [[{"dnat": {"addr": {"map": {"key": DPORT, "data": {"set": [[22, "10.0.0.5"]]}}}}}]],
     "accept", ["sent elsewhere"]),
    ("a map of addresses without this port", [[{"dnat": {"addr": {"map": {"key": DPORT, "data": {"set": [[80, "10.0.0.5"]]}}}}}]],
     "accept", ["accepted"]),
    ("to a program", [[{"queue": {"num": 0}}]], "drop", ["accepted", "sent elsewhere"]),
    ("shared out", [[{"vmap": {"key": {"numgen": {"mode": "inc", "mod": 2, "offset": 0}},
     "data": {"set": [[0, DROP], [1, {"goto": {"target": "sub"}}]]}}}]], "accept", ["dropped"]),
    ("a protocol and a port", [[{"vmap": {"key": {"concat": [{"meta": {"key": "l4proto"}}, TH]}, "data": {"set": [[{"concat": ["tcp", 22]},
     DROP]]}}}]], "accept", ["dropped"]),
    ("no way back", [[match_fib(["saddr", "iif"], "oif", False), DROP]], "accept", ["accepted"]),
    ("an address of the host", [[match_fib(["daddr"], "type", "local"), DROP]], "accept", ["dropped"]),
    ("a port that no client has", [[match("tcp sport", {"range": [0, 1023]}), DROP]], "accept", ["accepted"]),
    ("everybody", [[match("ip saddr", {"prefix": {"addr": "0.0.0.0", "len": 0}}), DROP]], "accept", ["dropped"]),
    ("half of everybody", [[match("ip saddr", {"prefix": {"addr": "128.0.0.0", "len": 1}}), DROP]], "accept", ["accepted", "dropped"]),
    ("forged sources", [[match("ip saddr", {"range": ["224.0.0.0", "255.255.255.255"]}), DROP]], "accept", ["accepted"]),
    ("not for everybody", [[match("meta pkttype", "broadcast"), DROP]], "accept", ["accepted"]),
    ("a source into a set for its rate", [[{"set": {"op": "add", "elem": {}, "set": "@bad", "stmt": [{"limit": {}}]}}, DROP]],
     "accept", ["accepted", "dropped"]),
    ("a match of iptables alone", [[{"xt": {"type": "match", "name": "recent"}}, DROP]], "accept", ["accepted", "dropped"]),
    ("a target of iptables alone", [[{"xt": {"type": "target", "name": "REJECT"}}]], "accept", ["accepted", "dropped"]),
    ("another target", [[{"xt": {"type": "target", "name": "LOG"}}]], "accept", ["accepted"]),
    ("an unknown extension", [[{"xt": None}]], "accept", ["accepted", "dropped", "sent elsewhere"]),
    ("new without syn, by 0.9.8", [[masked("tcp flags", {"|": [{"|": [{"|": ["fin", "syn"]}, "rst"]}, "ack"]}, "syn", "!="), DROP]],
     "accept", ["accepted"]),
    ("new without syn, by 1.1.3", [[masked("tcp flags", {"|": SYN}, "syn", "!="), DROP]], "accept", ["accepted"]),
    ("any of some flags", [[match("tcp flags", ["syn", "ack"], "in"), DROP]], "accept", ["dropped"]),
    ("none of some flags", [[match("tcp flags", ["fin", "ack"], "!"), DROP]], "accept", ["dropped"]),
    ("no flag at all", [[match("tcp flags", 0), DROP]], "accept", ["accepted"]),
    ("some bits of a port", [[masked("tcp dport", 16, 16), DROP]], "accept", ["accepted", "dropped"]),
    ("a fragment", [[masked("ip frag-off", 8191, 0, "!="), DROP]], "accept", ["accepted"]),
    ("a fragment of IPv6", [[{"match": {"op": "==", "left": {"exthdr": {"name": "frag"}}, "right": True}}, DROP]], "accept", ["accepted"]),
    ("rejected", [[{"reject": {"type": "tcp reset"}}]], "accept", ["dropped"]),
]  # fmt: skip
MORE = [
    {"set": dict(family="inet", table="t", name="ports", elem=[22, 443])},
    {"set": dict(family="inet", table="t", name="bad", elem=[{"elem": {"val": "192.0.2.9", "expires": 9}}])},
    {"map": dict(family="inet", table="t", name="services", elem=[[{"concat": ["10.0.0.1", 80]}, DROP]])},
]


@pytest.mark.parametrize(("rules", "policy", "wanted"), [each[1:] for each in WALKS], ids=[each[0] for each in WALKS])
def test_what_becomes_of_a_new_packet(rules, policy, wanted):
    chains = [("input", expr) for expr in rules] + [("sub", [DROP]), ("back", [{"return": None}])]
    assert told(table(*chains, policy=policy, more=MORE)) == wanted


@pytest.mark.parametrize(
    ("hook", "family", "seen"),
    [("input", "ip", 1), ("prerouting", "ip6", 1), ("ingress", "netdev", 1), ("forward", "inet", 0),
     ("output", "ip", 0), ("input", "bridge", 0)],
)  # fmt: skip
def test_which_chains_see_packets_to_the_host(hook, family, seen):
    assert len(base_chains(table(hook=hook, family=family))) == seen


SPEC = spec_from_options(
    {
        "doors": [{"name": "ssh", "knock": ["7000", "9100/udp"], "opens": ["22"]}],
        "allow": [{"port": "443"}, {"port": "80"}],
    }
)
BOTH = ("ipv4", "ipv6")


def found(items, own=True, families=BOTH):
    return [(each.kind, each.ip_version, each.message) for each in native_findings(items, SPEC, families, own)]


def test_a_table_that_drops_what_it_does_not_accept():
    items = table(("input", [NEW, ACCEPT]), ("input", [match("tcp dport", {"set": [22, 443]}), ACCEPT]))
    ((kind, version, message),) = found(items)
    assert (kind, version) == ("policy_drop", "")
    assert "the chain input of table inet t, " in message
    assert "drops by its policy packets to the knock of door ssh, 80/tcp, and a packet must pass both" in message
    assert "7000" not in message
    assert "9100" not in message
    assert found(table(("input", [ACCEPT]))) == []


def test_a_table_that_may_drop():
    ((kind, version, message),) = found(
        table(("input", [match("meta iifname", "eth1"), DROP]), policy="accept", family="ip6")
    )
    assert (kind, version) == ("native_table", "ipv6")
    assert "may drop or redirect packets to door ssh, the knock of door ssh, 443/tcp, 80/tcp, depending on" in message


def test_a_table_that_keeps_a_door_out_of_connection_tracking():
    rules = ("input", [match("tcp dport", 22), {"notrack": None}])
    ((kind, version, message),) = found(table(rules, policy="accept", hook="prerouting", family="ip"))
    assert (kind, version) == ("untracked", "ipv4")
    assert (
        "keeps out of connection tracking the packets to door ssh, so that connections through the door stop" in message
    )
    assert found(table(("input", [match("tcp dport", 443), {"notrack": None}]), policy="accept")) == []


def test_the_tables_of_iptables_are_no_finding_where_they_are_read_otherwise():
    items = table(family="ip", name="filter")
    items[0]["chain"]["name"] = "INPUT"
    assert found(items) == []
    assert [kind for kind, _version, _message in found(items, own=False)] == ["policy_drop"]
    items[0]["chain"]["name"] = "early"
    assert [kind for kind, _version, _message in found(items)] == ["policy_drop"]


def test_a_listing_that_does_not_work():
    ((kind, _version, message),) = found(None)
    assert kind == "native_unknown"
    assert "'nft -j list ruleset' does not work on this host" in message


def test_a_listing_is_read_as_it_is_printed():
    items = table(("input", [ACCEPT]))
    assert nft_json.read_listing(json.dumps({"nftables": items})) == items
