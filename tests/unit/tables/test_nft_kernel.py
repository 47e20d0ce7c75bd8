# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules as the kernel holds them, compared with what iptables-save prints of them, and chains without the command nft.

The messages are the kernel's own, recorded with what three releases of iptables print (corpus/native).
"""

import json
import re
from pathlib import Path

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.native_findings import findings_beside
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_kernel import (
    KernelRule,
    first_misprinted,
    first_unknown,
    read_chain,
    read_rule,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.module_utils._tables.commands import LEGACY, NFT
from ansible_collections.sesame.portknock.plugins.module_utils._tables.native import Listing, Native
from fake_kernel import chain_message

RECORDED = Path(__file__).resolve().parents[1] / "corpus" / "native"
FORMS = json.loads((RECORDED / "forms.json").read_text())


def save(*rules):
    return "".join(["*filter\n:INPUT ACCEPT [0:0]\n", *["-A INPUT {0}\n".format(each) for each in rules], "COMMIT\n"])


@pytest.mark.parametrize("form", FORMS, ids=[form["rule"] for form in FORMS])
def test_which_rules_of_nft_each_release_prints_as_they_are(form):
    """What a release does not print at all, or refuses, is not among what it prints: that is seen without this."""
    rule = read_rule(bytes.fromhex(form["body"]))
    assert (rule.table, rule.chain) == ("filter", "INPUT")
    for release, text in form["printed"].items():
        expected = rule if release in form["wrong"] else None
        assert first_misprinted([rule], "filter", save(text)) == expected, release


def test_the_recorded_forms_are_of_both_kinds():
    right = [form for form in FORMS if form["printed"] and not form["wrong"]]
    wrong = [form for form in FORMS if set(form["wrong"]) == {"1.8.7", "1.8.9", "1.8.11"}]
    assert len(right) > 5
    assert len(wrong) > 20


@pytest.mark.parametrize("counters", ["", "[7:420] "])
@pytest.mark.parametrize("path", sorted(RECORDED.glob("iptables-*.json")), ids=lambda path: path.stem)
def test_no_rule_of_iptables_is_taken_for_one_of_nft(path, counters):
    recorded = json.loads(path.read_text())
    for family, nft in (("ipv4", "ip"), ("ipv6", "ip6")):
        rules = [read_rule(bytes.fromhex(body)) for body in recorded["kernel"][nft]]
        text = "\n".join(recorded[family]).replace("-A INPUT", counters + "-A INPUT") + "\n"
        assert len(rules) == text.count("-A INPUT ") > 8
        assert first_misprinted(rules, "filter", text) is None
        assert all(rule.counts for rule in rules)
        assert all(rule.is_newer for rule in rules if rule.options), "what an older release prints otherwise"


def test_what_is_not_taken_for_a_newer_iptables():
    """It writes ports, flags and marks by itself, and always counts; maps, sets, meters and the rest it never writes."""
    for form in FORMS:
        rule = read_rule(bytes.fromhex(form["body"]))
        assert rule.is_newer is form["rule"].startswith("ip6tables: "), form["rule"]
        likely = re.match(
            "ip6tables: |(tcp|udp|th) (dport|sport|flags)|@th,16|meta mark|icmp type 3 icmp", form["rule"]
        )
        assert not rule._replace(counts=True).is_newer or likely, form["rule"]
    assert BY_NAME["tcp dport 443 accept"]._replace(counts=True).is_newer


BY_NAME = {form["rule"]: read_rule(bytes.fromhex(form["body"])) for form in FORMS}


@pytest.mark.parametrize(
    ("rule", "right"),
    [
        ("reject", "-j REJECT --reject-with icmp-port-unreachable"),
        ("ct state new drop", "-m conntrack --ctstate NEW -j DROP"),
        ("meta skuid 5 drop", "-m owner --uid-owner 5 -j DROP"),
        ("notrack", "-j CT --notrack"),
    ],
)
def test_what_a_later_release_may_print_as_it_is(rule, right):
    """Else a host with a newer iptables, which writes such rules itself, could not be read."""
    assert first_misprinted([BY_NAME[rule]], "filter", save(right)) is None
    assert first_misprinted([BY_NAME[rule]], "filter", save("-j DROP")) == BY_NAME[rule]


def test_the_rule_that_hides_a_table():
    hidden = [form["rule"] for form in FORMS if not form["printed"]]
    assert len(hidden) > 15
    for name in hidden:
        assert first_unknown([PORT, BY_NAME[name]], "filter") == BY_NAME[name], name
    assert first_unknown([BY_NAME["reject"]], "nat") is None


PORT, NEVER = KernelRule("filter", "INPUT", 7, ("--dport",)), KernelRule("filter", "INPUT", 8, None)


def test_which_table_and_place_a_misprinted_rule_has():
    right, wrong = "-p tcp -m tcp --dport 22 -j DROP", "-p tcp -j DROP"
    assert first_misprinted([PORT, PORT], "filter", save(right, right)) is None
    assert first_misprinted([PORT, PORT._replace(handle=9)], "filter", save(right, wrong)).handle == 9
    assert first_misprinted([PORT], "nat", save(wrong)) is None
    assert first_misprinted([PORT], "filter", save(wrong).replace("*filter", "*nat") + save(right)) is None


def test_a_chain_that_changed_between_the_looks():
    """Only what no release prints is known then."""
    assert first_misprinted([PORT], "filter", save()) is None
    assert first_misprinted([PORT, NEVER], "filter", save("-j DROP")) == NEVER


@pytest.mark.parametrize("cut", range(0, 120, 7))
def test_a_message_that_is_cut_short_raises_nothing(cut):
    body = bytes.fromhex(FORMS[0]["body"])
    read_rule(body[:-cut] if cut else body)


def chain(name, hook, family="ip", policy="accept", table="filter"):
    return chain_message(dict(family=family, table=table, name=name, hook=hook, policy=policy))


@pytest.mark.parametrize("family", ["ip", "ip6", "inet"])
@pytest.mark.parametrize("hook", ["prerouting", "input", "output"])
@pytest.mark.parametrize("policy", ["accept", "drop"])
def test_chains(family, hook, policy):
    listed = dict(family=family, table="mine", name="early", hook=hook, policy=policy)
    assert read_chain(chain_message(listed)) == {"chain": listed}
    own = dict(family=family, table="filter", name="PORTKNOCK")
    assert read_chain(chain_message(own)) == {"chain": own}
    assert read_chain(chain("x", "prerouting", family="netdev"))["chain"]["hook"] == "ingress"


class Commands:
    """As much of Iptables as the findings ask for."""

    def __init__(self, backend):
        self.is_nft = backend == NFT

    def other(self):
        return self

    def drops_all(self, _family):
        return False


SPEC = spec_from_options(
    dict(doors=[dict(name="ssh", knock=["7000", "9000"], opens=["22"])], state="present", ip_versions=["ipv4"])
)


def beside(*chains, backend=NFT, families=("ipv4",)):
    native = Native(None, lambda _name: None, lambda: list(chains))
    assert native.listing().has_rules is False
    return findings_beside(Commands(backend), native.listing(), SPEC, families)


def test_chains_beside_iptables_which_cannot_be_looked_at():
    own, mine = chain("INPUT", "input"), chain("input", "input", family="inet", table="mine")
    (found,) = beside(own, mine, chain("x", "prerouting", family="netdev", table="early"))
    assert (found.kind, found.message) == (
        "native_unknown",
        "packets to this host pass chains of nftables beside iptables (tables inet mine, netdev early), and whether these drop packets "
        "to the doors is not known, because the command nft is not installed. Install the package nftables, without enabling its "
        "service, then run this again.",
    )
    assert (
        beside(own)
        == beside(own, chain("out", "output", family="inet"))
        == beside(chain("INPUT", "input", family="ip6"))
        == []
    )
    assert beside(chain("mine", "input", family="ip6", table="six")) == []
    # Beside the backend legacy they are others' all the same.
    assert ["(table ip filter)" in each.message for each in beside(own, backend=LEGACY)] == [True]


def test_a_kernel_that_does_not_say():
    native = Native(None, lambda _name: None, lambda: None)
    assert native.listing() == Listing(None, has_rules=False)
    assert native.holds_ours("ipv4") is None
    assert [each.kind for each in findings_beside(Commands(NFT), native.listing(), SPEC, ("ipv4",))] == [
        "native_unknown"
    ]
