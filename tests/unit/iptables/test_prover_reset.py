# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A packet to a wrong port undoes the steps that were done: what the prover says where it does not."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_iptables import FakeIptables
from prover_questions import PROMISED, word_of, words_of

FAMILIES = ("ipv4", "ipv6")
SPEC = spec_from_options(dict(PROMISED, doors=PROMISED["doors"][:2]))
NOT_RESET = "Not proved: a packet to a wrong port does not undo the steps that were done: "


def protected(spec=SPEC, family="ipv4"):
    host = FakeIptables("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n")
    host.restore(plan_family(host.save(), spec, family).change)
    return host


def without(protocol, family, spec=SPEC, line="-D PORTKNOCK {0}"):
    host = protected(spec, family)
    rule = next(
        text for text in host.tables["filter"].chains["PORTKNOCK"] if "--remove" in text and f"-p {protocol} " in text
    )
    host.restore("*filter\n{0}\nCOMMIT\n".format(line.format(rule)))
    return host.save()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_the_rule_that_undoes_steps_is_gone(family, protocol):
    words = words_of(without(protocol, family), SPEC, family)
    assert [word["result"] for word in words] == ["not proved"] * 2
    assert all(word["message"].startswith(NOT_RESET) for word in words)
    for step in ("7144", "2791", "9318", "9100"):
        assert step not in repr(words)


def test_another_rule_of_ours_decides_before():
    host = protected()
    host.restore("*filter\n-I PORTKNOCK 1 -p tcp -m tcp --dport 5000:6000 -j PORTKNOCK_REFUSE\nCOMMIT\n")
    word = word_of(host.save(), SPEC, "ipv4", "ssh")
    assert word["message"].startswith(NOT_RESET + "-A PORTKNOCK_REFUSE")


def test_a_door_of_one_step_has_none_to_undo():
    spec = spec_from_options({"doors": [{"name": "one", "knock": ["17005"], "opens": ["22"]}]})
    assert word_of(protected(spec).save(), spec, "ipv4")["result"] == "proved"


def test_a_rule_of_others_that_refuses_is_no_rule_of_ours():
    host = protected()
    host.restore("*filter\n-I INPUT 1 -p tcp -m tcp --dport 5000:6000 -j DROP\nCOMMIT\n")
    assert word_of(host.save(), SPEC, "ipv4", "ssh")["result"] == "proved"
