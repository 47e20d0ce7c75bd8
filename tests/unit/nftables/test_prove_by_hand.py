# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules that somebody put among ours: nft lists them, and the prover shows the packet that they let in."""

import copy
import json
import os

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import UNKNOWN
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import read_listing
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.foreign import Foreign
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.knocks import knocks_of
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.proven import prove_installed
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from nft_options import RECORDED

CORPUS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "corpus", "nftables")
SPEC = spec_from_options(RECORDED)
with open(os.path.join(CORPUS, "1.1.3.json"), encoding="utf-8") as stream:
    LISTED = read_listing(stream.read())

ACCEPT, DROP = {"accept": None}, {"drop": None}
SADDR = {"payload": {"protocol": "ip", "field": "saddr"}}
MARK = {"meta": {"key": "mark"}}
DPORT = {"payload": {"protocol": "th", "field": "dport"}}
FIRST, SECOND = (stage.number for stage in knocks_of(SPEC.doors).sequences[0].stages)
"""The numbers of those who have done one step of the first door's knock, and two."""


def asks(field, right, op="=="):
    protocol, name = field.split()
    left = (
        {protocol: {"key": name}} if protocol in ("meta", "ct") else {"payload": {"protocol": protocol, "field": name}}
    )
    return {"match": {"op": op, "left": left, "right": right}}


def beside(number, kept=None):
    """Return the source and a number, as a listing has it; what is kept of the packet's mark is in there too."""
    return {"concat": [SADDR, {"|": [{"&": [MARK, number if kept is None else kept]}, number]}]}


def puts(name, value, seconds=3600):
    return {"set": {"op": "update", "elem": {"elem": {"val": value, "timeout": seconds}}, "set": name}}


def with_rule(chain, expr, first=True):
    """Return the listing with one more rule in a chain."""
    items = copy.deepcopy(LISTED)
    places = [number for number, item in enumerate(items) if item.get("rule", {}).get("chain") == chain]
    rule = {"rule": {"family": "inet", "table": "portknock", "chain": chain, "expr": expr}}
    items.insert(places[0] if first else places[-1] + 1, rule)
    return items


def words(items, family="ipv4"):
    return {
        proof.entry["what"]: (proof.entry["result"], proof.entry["packet"], proof.entry["message"], proof)
        for proof in prove_installed(SPEC, family, Foreign(items, ()), UNKNOWN)
    }


@pytest.mark.parametrize(
    ("chain", "expr", "port"),
    [
        ("input", [ACCEPT], None), ("input", [asks("tcp dport", 22), ACCEPT], 22),
        ("input", [asks("th dport", {"range": [1, 99]}), ACCEPT], 22),
        ("input", [asks("ip saddr", {"prefix": {"addr": "198.51.100.0", "len": 24}}), ACCEPT], None),
        ("input", [asks("meta iifname", "eth7"), ACCEPT], None), ("input", [asks("ct state", ["new", "related"], "in"), ACCEPT], None),
        ("input", [asks("tcp dport", {"set": [25, 22]}), {"goto": {"target": "about"}}], 22),
        ("service1", [ACCEPT], None), ("service5", [asks("udp dport", 9000, "!="), ACCEPT], 514),
        ("refuse", [asks("tcp sport", 4000), ACCEPT], None), ("refuse", [ACCEPT], None),
        ("input", [{"vmap": {"key": DPORT, "data": {"set": [[22, ACCEPT]]}}}], 22),
    ],
    ids=str,
)  # fmt: skip
def test_a_rule_that_lets_strangers_in_is_shown_with_a_packet(chain, expr, port):
    result, packet, message, proof = words(with_rule(chain, expr))["door ssh"]
    assert result == "void", message
    assert packet["port"] in ([port] if port else [22, 514, *range(9000, 9011)])
    assert "gets in without the knock" in message
    assert "in table inet portknock" in message
    assert proof.is_certain
    assert proof.finding.kind == "void"


@pytest.mark.parametrize("chain", ["input", "knocks_or_services", "knock1", "wrong", "service2"])
def test_a_rule_that_says_who_has_knocked_is_shown_with_a_packet(chain):
    result, packet, message, proof = words(with_rule(chain, [puts("@open4_ssh", SADDR)]))["door ssh"]
    assert (result, proof.is_certain) == ("void", True), message
    assert "puts sources on its list that have not done all steps" in message
    assert packet or chain == "knock1"
    for step in ("7000", "9100", "3100", "6000", "8200"):
        assert step not in json.dumps(proof.entry)


@pytest.mark.parametrize(
    ("chain", "expr"),
    [
        ("knock3", [puts("@stages4", beside(SECOND))]), ("input", [asks("tcp dport", 443), puts("@stages4", beside(SECOND))]),
        ("input", [puts("@stages4", beside(FIRST))]), ("input", [puts("@stages4", {"concat": [SADDR, DPORT]})]),
        # Marks of packets differ, so whom this puts there is not known.
        ("input", [puts("@stages4", beside(SECOND, 0xFFFFFFFF))]), ("input", [puts("@stages4", beside(1, 0x80000000))]),
        ("input", [puts("@stages4", {"concat": [SADDR, SECOND]})]), ("input", [puts("@stages4", {"concat": [SADDR, MARK]})]),
        ("input", [puts("@open4_ssh", {"payload": {"protocol": "ip", "field": "daddr"}})]),
        ("input", [puts("@progress4", SADDR, 1)]), ("wrong", [asks("tcp dport", 2000), {"return": None}]),
        ("knocks_or_services", [asks("tcp dport", 2000), {"return": None}]), ("forget4", [asks("tcp dport", 2000), {"return": None}]),
        ("input", [{"set": {"op": "delete", "elem": SADDR, "set": "@progress4"}}]),
        ("input", [{"jump": {"target": "knocks_or_services"}}]),
    ],
    ids=str,
)  # fmt: skip
def test_a_rule_that_makes_a_knock_easier_is_not_proved(chain, expr):
    result, _packet, message, _proof = words(with_rule(chain, expr))["door ssh"]
    assert result != "proved"
    for step in ("7000", "9100", "3100", "6000", "8200"):
        assert step not in message


@pytest.mark.parametrize(
    ("chain", "expr"),
    [
        ("input", [DROP]), ("input", [asks("tcp dport", 22), DROP]), ("service1", [{"reject": None}]),
        ("knock5", [DROP]), ("knocks", [asks("udp dport", 9100), ACCEPT]), ("input", [asks("meta l4proto", "udp"), ACCEPT]),
        ("input", [puts("@paused4", SADDR, 1)]),
    ],
    ids=str,
)  # fmt: skip
def test_a_rule_that_shuts_out_who_knocks_is_not_proved(chain, expr):
    assert words(with_rule(chain, expr))["door ssh"][0] != "proved"


@pytest.mark.parametrize(
    ("chain", "expr"),
    [
        ("input", [{"counter": {"packets": 1, "bytes": 2}}]), ("input", [{"log": {"prefix": "all "}}]),
        ("input", [asks("ip6 saddr", "2001:db8::9"), ACCEPT]), ("input", [asks("icmp type", 8), ACCEPT]), ("about", [ACCEPT]),
        ("input", [asks("ip saddr", "192.168.0.7"), ACCEPT]), ("service1", [asks("udp dport", 22), ACCEPT]),
        ("forward", [asks("ip saddr", "192.168.0.7"), ACCEPT]),
        ("input", [{"limit": {"rate": 9, "per": "second", "inv": True}}, puts("@paused4", SADDR, 1)]),
    ],
    ids=str,
)  # fmt: skip
def test_a_rule_that_opens_nothing_is_proved(chain, expr):
    assert {what: word[0] for what, word in words(with_rule(chain, expr)).items() if word[0] != "proved"} == {}


def test_a_port_that_is_no_doors_is_shown_under_the_policy():
    result, packet, message, _proof = words(with_rule("input", [asks("tcp dport", 8080), ACCEPT]))["rest"]
    assert (result, packet["port"]) == ("void", 8080), message


@pytest.mark.parametrize("gone", ["input", "service1", "knock1", "refuse"])
def test_a_chain_that_was_emptied_is_not_proved(gone):
    items = [item for item in LISTED if item.get("rule", {}).get("chain") != gone]
    assert words(items)["door ssh"][0] != "proved"


def test_without_the_table_all_get_in():
    assert words([])["door ssh"][0] == "void"


@pytest.mark.parametrize("flags", ["dormant", ["dormant"]])
def test_a_table_that_is_not_in_force_lets_all_in(flags):
    items = [{"table": dict(item["table"], flags=flags)} if "table" in item else item for item in LISTED]
    assert words(items)["door ssh"][0] == "void"


def test_a_table_that_is_listed_twice_is_one():
    tables = [item for item in LISTED if "table" in item]
    assert {what: word[0] for what, word in words([*tables, *LISTED]).items() if word[0] != "proved"} == {}
