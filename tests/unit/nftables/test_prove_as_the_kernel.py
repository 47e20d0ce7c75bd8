# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel does and no listing of nft says: the prover takes no packet for refused that gets in, nor the other way round.

tests/wire/packets/test_prover_kernel_nftables.py asks the kernel itself.
"""

import ipaddress

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_nft import NftRuleset, Own
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import TABLE
from prover_questions import possible
from walker import Packet

ACCEPT, DROP, NOTRACK = {"accept": None}, {"drop": None}, {"notrack": None}
SET_MARK = {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 1}}
OWN = [ipaddress.ip_network(each) for each in ("203.0.113.1", "2001:db8:ffff::1")]
LET_IN, REFUSED = {True}, {False}
EITHER = LET_IN | REFUSED


def key(kind, name):
    return {kind: {"key": name}} if kind in ("meta", "ct") else {"payload": {"protocol": kind, "field": name}}


def asks(kind, name, right, op="=="):
    return {"match": {"op": op, "left": key(kind, name), "right": right}}


def chain(table, name, hook="", priority=0, policy="accept", kind="filter", rules=()):
    """Return a chain of a table, with rules."""
    family, plain = table.split()
    fields = {"family": family, "table": plain, "name": name}
    if hook:
        fields.update(type=kind, hook=hook, prio=priority, policy=policy)
    return [{"chain": fields}, *({"rule": dict(family=family, table=plain, chain=name, expr=expr)} for expr in rules)]


def ours(*rules):
    return chain(TABLE, "input", "input", -10, rules=rules)


def others(hook, *rules, **more):
    return chain("inet others", "here", hook, rules=rules, **more)


def ruleset_of(items, family="ipv4", saved=""):
    return NftRuleset(family, Own(TABLE, "", lambda _comment: False), items, {"nft": parse(saved)} if saved else {})


def becomes(items, protocol="tcp", family="ipv4", saved=""):
    """Return what may become of a packet to port 22."""
    source = "198.51.100.9" if family == "ipv4" else "2001:db8::9"
    packet = Packet(source, 22, protocol, flags="SYN" if protocol == "tcp" else "")
    return possible(ruleset_of(items, family, saved), OWN, lambda _asked: ((), None), [packet])[0]


def by_map(verdicts):
    return {"vmap": {"key": key("meta", "mark"), "data": {"set": verdicts}}}


@pytest.mark.parametrize("family", ["inet", "netdev"])
@pytest.mark.parametrize(("policy", "rules"), [("drop", []), ("drop", [[ACCEPT]]), ("accept", [[DROP]])])
def test_which_interface_a_chain_of_hook_ingress_sees_is_not_listed(family, policy, rules):
    items = chain(f"{family} others", "early", "ingress", policy=policy, rules=rules)
    assert becomes(ours() + items) == EITHER
    assert becomes(ours([DROP]) + items) == REFUSED


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        ([asks("ct", "state", "new", "in"), DROP], LET_IN), ([asks("ct", "state", "invalid", "in"), DROP], REFUSED),
        ([asks("ct", "state", "new", "!="), DROP], REFUSED), ([asks("ct", "state", "untracked", "in"), DROP], LET_IN),
        ([asks("ct", "state", ["established", "invalid"], "in"), DROP], REFUSED),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("priority", [-300, -200, -150])
def test_before_connection_tracking_a_packet_is_invalid(rule, what, priority):
    later = {True: LET_IN, False: REFUSED}["new" not in str(rule) or "!=" in str(rule)]
    expected = {-300: what, -200: EITHER, -150: later}[priority]
    assert becomes(ours() + others("prerouting", rule, priority=priority)) == expected


def test_a_chain_that_is_asked_before_and_behind_it_tells_nothing_of_states():
    items = chain("inet others", "both", rules=[[asks("ct", "state", "new", "in"), DROP]])
    items += others("prerouting", [asks("tcp", "dport", 9), {"jump": {"target": "both"}}], priority=-300)
    assert becomes(ours() + items) == LET_IN
    items += chain("inet others", "late", "input", rules=[[{"jump": {"target": "both"}}]])
    assert becomes(ours() + items) == EITHER


@pytest.mark.parametrize(
    ("hook", "priority", "what"),
    [("prerouting", -300, REFUSED), ("prerouting", -200, EITHER), ("prerouting", -150, LET_IN), ("input", -20, LET_IN)],
)
def test_what_connection_tracking_has_seen_is_not_hidden_from_it(hook, priority, what):
    items = others(hook, [NOTRACK], priority=priority)
    assert becomes(ours([asks("ct", "state", "untracked", "in"), DROP]) + items) == what


@pytest.mark.parametrize("priority", [-150, -100, 30])
def test_nat_is_done_in_one_place_whatever_the_priority_of_its_chains(priority):
    redirect = [asks("tcp", "dport", 22), {"redirect": {"port": 80}}]
    nat = chain("inet nat", "sent", "prerouting", priority, kind="nat", rules=[redirect])
    assert becomes(ours() + nat + others("prerouting", [asks("tcp", "dport", 22), DROP], priority=-50)) == LET_IN
    assert becomes(ours() + nat + others("prerouting", [asks("tcp", "dport", 80), DROP], priority=-120)) == LET_IN
    assert becomes(ours() + nat + others("prerouting", [asks("tcp", "dport", 80), DROP], priority=-50)) == REFUSED


def test_the_first_rule_of_nat_is_the_last():
    sent = [
        item
        for number, (before, behind) in enumerate([(22, 80), (80, 90)])
        for rule in [[asks("tcp", "dport", before), {"redirect": {"port": behind}}]]
        for item in chain(f"ip nat{number}", "sent", "prerouting", -100 + number, kind="nat", rules=[rule])
    ]
    assert becomes(ours([asks("tcp", "dport", 90), DROP]) + sent) == LET_IN
    assert becomes(ours([asks("tcp", "dport", 80), DROP]) + sent) == REFUSED


@pytest.mark.parametrize("priority", [-100, -90])
def test_which_of_two_chains_with_one_priority_is_asked_first_is_not_listed(priority):
    redirect = [asks("tcp", "dport", 22), {"redirect": {"port": 80}}]
    one = chain("ip nat1", "sent", "prerouting", -100, kind="nat", rules=[redirect])
    other = chain("ip nat2", "sent", "prerouting", priority, kind="nat", rules=[[asks("tcp", "dport", 22), DROP]])
    expected = EITHER if priority == -100 else LET_IN
    assert becomes(ours() + one + other) == becomes(ours() + other + one) == expected
    assert becomes(ours() + one + chain("ip nat2", "sent", "prerouting", priority, kind="nat")) == LET_IN
    between = chain("ip nat3", "sent", "prerouting", -100, kind="nat")
    assert becomes(ours() + one + between + other) == expected
    filters = others("prerouting", [asks("tcp", "dport", 22), DROP], priority=priority)
    assert becomes(ours() + one + filters) == expected
    hidden = chain("ip hidden", "early", "prerouting", -300, rules=[[NOTRACK]])
    asked = others("prerouting", [asks("ct", "state", "untracked", "in"), DROP], priority=priority - 200)
    assert becomes(ours() + hidden + asked) == {-100: EITHER, -90: REFUSED}[priority]


@pytest.mark.parametrize(("count", "is_followed"), [(6, True), (7, False), (12, False)])
def test_of_very_many_chains_with_one_priority_nothing_is_said(count, is_followed):
    """To walk all their orders would take as long as nobody waits for: of twelve there are 479 million."""
    many = [
        item
        for number in range(count)
        for item in chain(
            f"ip marks{number}", "here", "prerouting", -150, rules=[[asks("tcp", "dport", number), SET_MARK]]
        )
    ]
    found = ruleset_of(ours([ACCEPT]) + many)
    assert bool(found.unfollowed) is not is_followed
    assert max(map(len, found.stages)) == (count if is_followed else 1)
    assert is_followed or "here: one of" in found.unfollowed


def test_nat_of_the_other_version_of_ip_does_nothing():
    sent = chain(
        "inet nat", "sent", "prerouting", -100, kind="nat", rules=[[{"dnat": {"family": "ip", "addr": "192.0.2.9"}}]]
    )
    assert becomes(ours() + sent) == REFUSED, "it goes to another host"
    assert becomes(ours() + sent, family="ipv6") == LET_IN


@pytest.mark.parametrize(
    ("kind", "protocol", "family", "what"),
    [
        ("tcp reset", "tcp", "ipv4", REFUSED), ("tcp reset", "udp", "ipv4", EITHER), ("icmp", "tcp", "ipv4", REFUSED),
        ("icmp", "tcp", "ipv6", EITHER), ("icmpv6", "udp", "ipv6", REFUSED), ("icmpv6", "udp", "ipv4", EITHER),
        ("icmpx", "udp", "ipv6", REFUSED),
    ],
)  # fmt: skip
def test_a_refusal_asks_for_what_its_answer_suits(kind, protocol, family, what):
    assert becomes(ours() + others("input", [{"reject": {"type": kind}}]), protocol, family) == what
    assert becomes(ours([{"reject": {"type": kind}}]), protocol, family) == what


@pytest.mark.parametrize(
    "statement",
    [
        {"set": {"op": "add", "elem": key("ip", "saddr"), "set": "@few"}},
        {"set": {"op": "update", "elem": key("tcp", "dport"), "set": "@few"}},
        {"mangle": {"key": key("ip", "dscp"), "value": "cs1"}}, {"mangle": {"key": {"tcp option": {"name": "maxseg"}}, "value": 1200}},
        {"mangle": {"key": key("meta", "mark"), "value": {"map": {"key": key("tcp", "dport"), "data": {"set": [[80, 1]]}}}}},
        {"mangle": {"key": key("meta", "mark"), "value": key("ct", "mark")}},
        {"counter": {"map": {"key": key("tcp", "dport"), "data": {"set": [[80, "one"]]}}}}, {"dup": {"addr": "192.0.2.9"}},
    ],
    ids=str,
)  # fmt: skip
def test_a_statement_may_end_its_rule(statement):
    for verdict in ([DROP], [{"reject": None}], [by_map([[0, DROP]])]):
        assert becomes(ours([statement, *verdict])) == EITHER
        assert becomes(ours() + others("input", [statement, *verdict])) == EITHER


def test_what_is_taken_out_of_a_set_ends_no_rule():
    assert becomes(ours([{"set": {"op": "delete", "elem": key("ip", "saddr"), "set": "@few"}}, DROP])) == REFUSED


def test_a_field_that_is_written_to_is_there_in_one_version_of_ip_alone():
    rule = [{"mangle": {"key": key("ip", "dscp"), "value": "cs1"}}, DROP]
    assert becomes(ours(rule), family="ipv6") == LET_IN


def test_of_a_map_a_packet_meets_one_verdict():
    marks = chain(TABLE, "marks", rules=[[SET_MARK]])
    assert becomes(marks + ours([by_map([[0, {"jump": {"target": "marks"}}], [1, DROP]])])) == EITHER
    assert becomes(marks + ours([by_map([[0, {"goto": {"target": "marks"}}], [1, DROP]])])) == LET_IN
    both = {"concat": [key("meta", "mark"), key("tcp", "dport")]}
    some = {"set": [{"concat": [0, 22]}, {"concat": [1, 22]}]}
    again = chain(TABLE, "again", rules=[[asks("meta", "mark", 1), DROP], [SET_MARK]])
    met = {"match": {"op": "==", "left": both, "right": some}}
    assert becomes(again + ours([met, {"jump": {"target": "again"}}])) == EITHER


def test_of_marks_nothing_is_known_where_it_is_not_known_who_is_asked_first():
    dropped = others("input", [asks("meta", "mark", 0), DROP], priority=5)
    assert becomes(ours([SET_MARK]) + dropped) == EITHER, "the table in question comes first, and is walked last"
    assert becomes(ours() + dropped) == REFUSED
    dropped = others("input", [asks("meta", "mark", 0), DROP], priority=-20)
    marks = chain("ip marks", "here", "input", -20, rules=[[SET_MARK]])
    assert becomes(ours() + dropped + marks) == EITHER
    assert becomes(ours() + dropped + chain("ip marks", "here", "input", -30, rules=[[SET_MARK]])) == LET_IN


def test_what_our_table_sends_elsewhere_before_others_is_not_followed():
    early = chain(TABLE, "early", "prerouting", -300, rules=[[NOTRACK]])
    assert not ruleset_of(early + ours()).unfollowed
    assert ruleset_of(early + ours() + others("input", [asks("ct", "state", "new", "in"), DROP])).unfollowed
    assert not ruleset_of(
        chain(TABLE, "early", "prerouting", -300, rules=[[DROP]]) + ours() + others("input")
    ).unfollowed


def test_the_mark_of_a_connection_may_become_a_packets():
    saved = "*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff\nCOMMIT\n"
    marks = others("prerouting", [{"mangle": {"key": key("ct", "mark"), "value": 1}}], priority=-160)
    rule = [asks("meta", "mark", 0), DROP]
    assert becomes(ours(rule), saved=saved) == REFUSED
    assert becomes(ours(rule) + marks, saved=saved) == EITHER


@pytest.mark.parametrize(
    "match",
    [
        {"match": {"op": "==", "left": {"payload": {"tunnel": "vxlan", "protocol": "ip", "field": "saddr"}}, "right": "198.51.100.9"}},
        {"match": {"op": "==", "left": {"payload": {"tunnel": "vxlan", "protocol": "udp", "field": "dport"}}, "right": 22}},
        {"match": {"op": "==", "left": {"&": [{"&": [key("meta", "mark"), 1]}, 3]}, "right": 0}},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_asked_of_something_else_is_in_doubt(match):
    assert becomes(ours([match, DROP])) == EITHER


def test_a_packet_that_seems_to_be_another_hosts_is_not_followed():
    kind = {"mangle": {"key": key("meta", "pkttype"), "value": "multicast"}}
    assert ruleset_of(ours() + others("prerouting", [kind])).unfollowed
