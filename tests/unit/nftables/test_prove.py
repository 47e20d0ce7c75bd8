# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the prover says of the collection's table: every table that is made is proved, and so is what releases of nft list of one."""

import ipaddress
import json
import os
import time

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._engine import Connection, Wanted
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import UNKNOWN
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import read_listing
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.build import build_table
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.foreign import Foreign, Save
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.proven import prove_installed, prove_table
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.text import load_text
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from hypothesis import given
from nft_options import A_FIFTH, OPTIONS, RECORDED, spec_of

CORPUS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "corpus", "nftables")
NOTHING_ELSE = Foreign([], ())
RELEASES = ("0.9.8", "1.0.6", "1.1.3", "1.1.7")
STRANGER = ipaddress.ip_address("203.0.113.9")


def wanted(spec, **more):
    return Wanted(spec, spec.ip_versions, True, False, None, "", {})._replace(**more)


def said(proven):
    return [(word["what"], word["ip_version"], word["result"], word["message"]) for word in proven.words]


def unproved(proven):
    return [each for each in said(proven) if each[2] != "proved"]


def foreign(chains, rules, family="inet", table="others"):
    """Return a listing of a table of others.

    :param chains: name to what is said of it beside.
    :param rules: (chain, expressions).
    """
    named = dict(family=family, table=table)
    return [
        {"table": dict(family=family, name=table)},
        *({"chain": dict(named, name=name, **more)} for name, more in chains.items()),
        *({"rule": dict(named, chain=chain, expr=expr)} for chain, expr in rules),
    ]


INPUT = {"input": {"type": "filter", "hook": "input", "prio": 0, "policy": "accept"}}
DROPS = {"input": {"type": "filter", "hook": "input", "prio": 0, "policy": "drop"}}


def dport(port, protocol="tcp"):
    return {"match": {"op": "==", "left": {"payload": {"protocol": protocol, "field": "dport"}}, "right": port}}


@A_FIFTH
@given(OPTIONS)
def test_every_table_that_is_made_is_proved(options):
    spec = spec_of(options)
    assert unproved(prove_table(wanted(spec), load_text(build_table(spec)).text, NOTHING_ELSE, UNKNOWN)) == []


@pytest.mark.parametrize(
    "more",
    [{}, {"policy": "accept"}, {"panic": True}, {"ipv6_prefix": 128}, {"ip_versions": ["ipv6"], "icmp": True, "log": False}],
    ids=str,
)  # fmt: skip
def test_each_kind_of_table_is_proved(more):
    panic = more.pop("panic", False)
    six = ["2001:db8::/32"]
    doors = [dict(RECORDED["doors"][0], sources=six)] if "ip_versions" in more else RECORDED["doors"]
    options = dict(RECORDED, doors=doors, **more)
    if "ip_versions" in more:
        options.update(allow=[{"port": 443}], trusted_sources=["fd00::1"])
    spec = spec_from_options(options)._replace(panic=panic)
    proven = prove_table(wanted(spec), load_text(build_table(spec)).text, NOTHING_ELSE, UNKNOWN)
    assert unproved(proven) == []
    assert {word["what"] for word in proven.words} >= {"door ssh"}
    assert {word["ruleset"] for word in proven.words} == {"live"}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_what_a_release_of_nft_lists_is_proved(release, family):
    with open(os.path.join(CORPUS, release + ".json"), encoding="utf-8") as stream:
        items = read_listing(stream.read())
    proofs = prove_installed(spec_from_options(RECORDED), family, Foreign(items, ()), UNKNOWN)
    assert [proof.entry for proof in proofs if proof.entry["result"] != "proved"] == []
    assert {"door ssh", "allow 443/tcp", "rest"} <= {proof.entry["what"] for proof in proofs}


def simple(**more):
    return spec_from_options(
        dict({"doors": [{"name": "ssh", "knock": ["7000", "9100/udp", "3100"], "opens": ["22"]}]}, **more)
    )


def judged(spec, items, connection=None, text=None, **more):
    text = text or load_text(build_table(spec)).text
    return prove_table(wanted(spec, connection=connection, **more), text, Foreign(items, ()), UNKNOWN)


def test_what_others_accept_opens_no_door():
    items = foreign(INPUT, [("input", [{"accept": None}]), ("input", [dport(22), {"accept": None}])])
    assert unproved(judged(simple(), items)) == []


SOURCE = {"payload": {"protocol": "ip", "field": "saddr"}}


@pytest.mark.parametrize(
    "expr",
    [
        [{"match": {"op": "==", "left": SOURCE, "right": "@banned"}}, {"drop": None}],
        [{"match": {"op": "==", "left": SOURCE, "right": {"set": ["198.51.100.7", "192.0.2.1"]}}}, {"drop": None}],
        [{"set": {"op": "update", "elem": SOURCE, "set": "@rate", "stmt": [{"limit": {"rate": 9, "inv": True}}]}}, {"drop": None}],
        [{"set": {"op": "update", "elem": SOURCE, "set": "@rate", "stmt": [{"limit": {"rate": 9}}]}}, {"drop": None}],
        [{"limit": {"rate": 1, "per": "minute"}}, {"drop": None}],
        [{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "invalid"}}, {"drop": None}],
        [{"xt": {"type": "match", "name": "string"}}, {"drop": None}], [{"xt": None}], [{"fib": None}],
        [{"mangle": {"key": {"meta": {"key": "mark"}}, "value": 7}}], [{"vmap": {"key": SOURCE, "data": "@fate"}}],
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("priority", [-200, 0])
def test_what_others_refuse_of_some_shuts_no_door(expr, priority):
    chains = {"input": {"type": "filter", "hook": "input", "prio": priority, "policy": "accept"}}
    assert unproved(judged(simple(), foreign(chains, [("input", expr)]))) == []


def test_a_rule_that_rewrites_what_packets_are_for_is_not_followed():
    change = {"mangle": {"key": {"payload": {"protocol": "tcp", "field": "dport"}}, "value": 22}}
    assert {each[2] for each in said(judged(simple(), foreign(INPUT, [("input", [dport(80), change])])))} == {
        "not proved"
    }
    beside = foreign({**INPUT, "out": {"type": "filter", "hook": "output", "prio": 0}}, [("out", [dport(80), change])])
    assert unproved(judged(simple(), beside)) == []


def test_thousands_of_rules_of_others_take_no_longer():
    rules = [
        ("input", [{"match": {"op": "==", "left": SOURCE, "right": f"10.{n // 250}.{n % 250}.7"}}, {"drop": None}])
        for n in range(3000)
    ]
    begin = time.process_time()
    assert unproved(judged(simple(), foreign(INPUT, rules))) == []
    assert time.process_time() - begin < 20


@pytest.mark.parametrize(
    "items",
    [
        foreign(INPUT, [("input", [dport(22), {"drop": None}])]),
        foreign(DROPS, [("input", [dport(80), {"accept": None}])]),
    ],
    ids=["rule", "policy"],
)
def test_what_others_drop_is_shown(items):
    found = [each for each in unproved(judged(simple(), items)) if each[0] == "door ssh"]
    assert len(found) == 2
    assert all("is refused although its source has knocked" in message for _what, _family, _result, message in found)
    assert all("in table inet others" in message for _what, _family, _result, message in found)


def test_this_connection_is_not_cut_off():
    items = foreign(INPUT, [("input", [dport(22), {"drop": None}])])
    connection = Connection(STRANGER, "", 22)
    with pytest.raises(SpecError) as caught:
        judged(simple(), items, connection)
    assert caught.value.option == "prove"
    assert "a new connection like this one would not get in over ipv4" in caught.value.what
    assert "tcp dport 22 drop" in caught.value.what
    proven = judged(simple(), items, connection, prove=False)
    assert [finding.kind for finding in proven.findings] == ["void"]
    assert ("connection", "ipv4", "proved", "") in said(judged(simple(), [], connection))


def test_where_tables_of_others_cannot_be_listed_nothing_is_proved():
    assert {result for _what, _family, result, _message in said(judged(simple(), None))} == {"not proved"}


def test_a_text_that_is_not_understood_is_not_proved():
    text = load_text(build_table(simple())).text.replace("ct state established accept", "fib saddr type local accept")
    assert {result for _what, _family, result, _message in said(judged(simple(), [], text=text))} == {"not proved"}


def test_rules_of_iptables_are_part_of_it():
    spec, text = simple(), load_text(build_table(simple())).text
    drops = "*filter\n:INPUT DROP [0:0]\nCOMMIT\n"
    sends = (
        "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -m tcp --dport 8022 -j REDIRECT --to-ports 22\nCOMMIT\n"
    )
    for backend in ("nft", "legacy"):
        proven = prove_table(wanted(spec), text, Foreign([], (Save("ipv4", backend, drops),)), UNKNOWN)
        assert {(what, family) for what, family, _result, _message in unproved(proven)} == {("door ssh", "ipv4")}
        assert f"in table filter (iptables, {backend})" in proven.words[0]["message"]
        proven = prove_table(wanted(spec), text, Foreign([], (Save("ipv4", backend, sends),)), UNKNOWN)
        assert unproved(proven) == []


def test_what_was_proved_is_remembered():
    spec = simple()
    first = judged(spec, [], code="1")
    assert set(first.remembered) == {"proved"}
    for entry in first.remembered["proved"].values():
        entry[0][0]["message"] = "remembered"
    again = judged(spec, [], code="1", state=json.loads(json.dumps(first.remembered)))
    assert "remembered" in {message for *_rest, message in said(again)}
    other = judged(spec, foreign(INPUT, [("input", [{"accept": None}])]), code="1", state=first.remembered)
    assert "remembered" not in {message for *_rest, message in said(other)}


@pytest.mark.parametrize(("doors", "seconds"), [(100, 0.5), (500, 2.5)])
@pytest.mark.slow
def test_many_doors_are_proved_in_time(doors, seconds):
    spec = spec_from_options(
        {
            "doors": [
                {
                    "name": f"d{n}",
                    "knock": [str(10000 + 977 * (4 * n + k) % 49999) for k in range(4)],
                    "opens": [str(1000 + n)],
                }
                for n in range(doors)
            ],
            "ip_versions": ["ipv4"],
        }
    )
    text = load_text(build_table(spec)).text
    times = []
    for _try in range(2):
        begin = time.process_time()
        proven = prove_table(wanted(spec), text, NOTHING_ELSE, UNKNOWN)
        times.append(time.process_time() - begin)
    assert unproved(proven) == []
    assert min(times) < seconds * 3
