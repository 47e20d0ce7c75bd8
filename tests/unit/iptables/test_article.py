# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The golden case: the article's ruleset on a bare host, to the byte, and in meaning."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_iptables import FakeIptables
from flows import ME
from walker import Packet, Walker

SPEC = spec_from_options({"doors": [{"name": "ssh", "knock": ["1000"], "opens": ["22"]}]})
ARTICLE = """*filter
:INPUT ACCEPT [0:0]
-A INPUT -p tcp -m state --state RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -p tcp -m tcp --dport 1000 -m recent --set --name KNOCKING --rsource
-A INPUT -p tcp -m tcp --dport 22 -m recent --rcheck --seconds 15 --name KNOCKING --rsource -j ACCEPT
-A INPUT -j REJECT --reject-with icmp-port-unreachable
COMMIT
"""


@pytest.mark.parametrize(("family", "name"), [("ipv4", "article.v4.rules"), ("ipv6", "article.v6.rules")])
def test_golden(golden, family, name):
    golden(name, plan_family("", SPEC, family).change)


PACKETS = [
    dict(port=22), dict(port=80), dict(port=1000), dict(port=22), dict(port=22, wait=15), dict(port=22, wait=1),
    dict(port=22, state="ESTABLISHED", flags="ACK"), dict(protocol="icmp"), dict(port=1000), dict(port=22, source="192.0.2.99"),
    dict(port=22), dict(port=53, protocol="udp"), dict(port=1000, protocol="udp"),
]  # fmt: skip


def test_it_does_what_the_article_does():
    host = FakeIptables("")
    host.restore(plan_family("", SPEC, "ipv4").change)
    ours, theirs = Walker(parse(host.save())), Walker(parse(ARTICLE))
    answers = []
    for item in PACKETS:
        item = dict({"source": ME["ipv4"]}, **item)
        wait = item.pop("wait", 0)
        verdicts = []
        for walker in (ours, theirs):
            walker.later(wait)
            verdicts.append(walker.send(Packet(**item)))
        assert verdicts[0].action == verdicts[1].action, item
        assert verdicts[0].answer == verdicts[1].answer, item
        answers.append(verdicts[0].action)
    assert answers.count("ACCEPT") == 5


def test_it_closes_the_articles_holes():
    host = FakeIptables("")
    host.restore(plan_family("", SPEC, "ipv4").change)
    walker = Walker(parse(host.save()))
    reply = Packet("192.0.2.53", 40000, "udp", sport=53, state="ESTABLISHED")
    assert (Walker(parse(ARTICLE)).send(reply).action, walker.send(reply).action) == ("REJECT", "ACCEPT")
    loopback = Packet("127.0.0.1", 5432, interface="lo")
    assert (Walker(parse(ARTICLE)).send(loopback).action, walker.send(loopback).action) == ("REJECT", "ACCEPT")


def test_an_accept_that_was_there_does_not_make_it_void():
    host = FakeIptables("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n")
    host.restore(plan_family(host.save(), SPEC, "ipv4").change)
    assert Walker(parse(host.save())).send(Packet(ME["ipv4"], 22)).action == "REJECT"
