# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the prover says of what a host sends on: to published ports, and to hosts behind it."""

import re

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import UNKNOWN
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.build import build_table
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.foreign import Foreign, Save
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.prove_text import read_items
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.proven import prove_installed
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.text import load_text
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options

WEB = {"name": "web", "knock": ["7000", "9100/udp", "3100"], "opens": ["8080", "514/udp"]}
BEHIND = {"name": "behind", "knock": ["4100", "2700"], "opens": ["22"], "to": ["10.9.0.0/24"]}
DOCKER = "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80\nCOMMIT\n"
REDIRECTED = (
    "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -m tcp --dport 8080 -j REDIRECT --to-ports 443\nCOMMIT\n"
)


def said(options, edit=None, save="", family="ipv4"):
    """Return what is said of each door, of a table whose text was edited."""
    spec = spec_from_options(options)
    text = load_text(build_table(spec)).text
    edited = re.sub(*edit, text) if edit else text
    assert not edit or edited != text
    saves = (Save(family, "nft", save),) if save else ()
    proofs = prove_installed(spec, family, Foreign(read_items(edited), saves), UNKNOWN)
    return {
        proof.entry["door"]: (proof.entry["result"], proof.entry["message"]) for proof in proofs if proof.entry["door"]
    }


def results(*args, **more):
    return {door: result for door, (result, _message) in said(*args, **more).items()}


@pytest.mark.parametrize("published", ["doors", "policy"])
def test_a_door_is_proved_where_nat_sends_its_port_on(published):
    options = {"doors": [WEB, BEHIND], "published": published, "allow": [{"port": 443}]}
    assert results(options, save=DOCKER) == {"web": "proved", "behind": "proved"}
    assert results(options, family="ipv6") == {"web": "proved"}, "no host behind has an address of the other version"


def test_what_is_left_alone_is_sent_elsewhere():
    result, message = said({"doors": [WEB], "published": "none"}, save=DOCKER)["web"]
    assert result == "void"
    assert "is sent elsewhere" in message


def test_to_another_port_of_this_host_nothing_is_proved():
    """Where one rule of nat decides for sets of packets, their first port is not followed; no packet is said to get in."""
    assert results({"doors": [WEB], "allow": [{"port": 443}]}, save=REDIRECTED) == {"web": "not proved"}
    unguarded = said({"doors": [WEB], "allow": [{"port": 443}], "published": "none"}, save=REDIRECTED)["web"]
    assert unguarded[0] == "void"


ADDED = r'(add rule inet portknock forward ct state established accept comment "[^"]*"\n)'
RULE = r'\1add rule inet portknock forward {} comment "by hand"\n'


@pytest.mark.parametrize(
    ("expr", "wanted"),
    [
        ("accept", {"web": "void", "behind": "void"}),
        ("ct status dnat accept", {"web": "void", "behind": "void"}),
        ("ct status dnat meta l4proto 17 ct original proto-dst 514 accept", {"web": "void", "behind": "proved"}),
        ("ip daddr 10.9.0.7 accept", {"web": "void", "behind": "void"}),
        ("ip daddr 10.8.0.7 meta l4proto 6 accept", {"web": "void", "behind": "void"}),
        ('iifname "eth7" accept', {"web": "void", "behind": "void"}),
        ("meta l4proto 6 drop", {"web": "proved", "behind": "void"}),
        ("ip saddr 192.0.2.7 drop", {"web": "proved", "behind": "void"}),
        ("meta l4proto 17 counter", {"web": "proved", "behind": "proved"}),
    ],
)
def test_a_rule_by_hand(expr, wanted):
    """That hosts behind refuse who has knocked where nat sends packets is not asked: two doors may be about these."""
    assert results({"doors": [WEB, BEHIND]}, (ADDED, RULE.format(expr))) == wanted


def test_who_has_knocked_is_not_refused():
    result, message = said({"doors": [WEB]}, (ADDED, RULE.format("meta l4proto 6 drop")))["web"]
    assert result == "void"
    assert "is refused although its source has knocked, by forward: meta l4proto 6 drop" in message


@pytest.mark.parametrize(
    ("gone", "wanted"),
    [
        (r"add rule inet portknock forward ct status dnat meta l4proto 17 .*\n", {"web": "void", "behind": "proved"}),
        (r"add rule inet portknock forward ip daddr vmap .*\n", {"web": "proved", "behind": "void"}),
        (r"add rule inet portknock forward ct status dnat ct original ip daddr .*\n", {"web": "proved", "behind": "void"}),
        (r"add rule inet portknock forward .*\n", {"web": "void", "behind": "void"}),
        (r"add (chain|rule) inet portknock forward .*\n", {"web": "void", "behind": "void"}),
    ],
)  # fmt: skip
def test_a_rule_that_is_gone(gone, wanted):
    assert results({"doors": [WEB, BEHIND]}, (gone, "")) == wanted


def test_the_rule_is_shown():
    result, message = said({"doors": [WEB]}, (ADDED, RULE.format("ct status dnat accept")))["web"]
    assert result == "void"
    assert "gets in without the knock, by forward: ct status dnat accept comment" in message


def test_of_two_doors_with_one_port_each_lets_in_its_own():
    other = dict(WEB, name="other", knock=["5100", "3700"])
    gone = (r"add rule inet portknock service1 ip saddr @open4_other .*\n", "")
    assert results({"doors": [WEB, other]}) == {"web": "proved", "other": "proved"}
    assert results({"doors": [WEB, other]}, gone)["other"] == "void"
