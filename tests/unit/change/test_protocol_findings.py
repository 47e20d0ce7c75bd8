# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""IP protocols without ports that a host uses and policy reject refuses: a finding, unless something lets them in."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._host.protocols import InUse
from fake_host import FakeHost
from module_run import run

VRRP = InUse(112, "ipv4", "keepalived", "")
GRE = InUse(47, "ipv4", "tunnel gre1 to 198.51.100.1", "198.51.100.1")
BEHIND_ETH1 = "eth1\t0000080A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
FILTER = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT {0}\nCOMMIT\n"


def refused(*uses, v4="", **options):
    host = FakeHost(v4=v4)
    host.protocols_in_use = list(uses)
    host.kernel_files["/proc/net/route"] += BEHIND_ETH1
    result = run(host, **options)
    again = run(host, **options)
    assert again["findings"] == result["findings"], "as long as it is so"
    return [(each["ip_version"], each["message"]) for each in result["findings"] if each["kind"] == "protocol_refused"]


def test_the_words():
    assert refused(VRRP) == [
        ("ipv4",
         "policy: keepalived uses IP protocol 112 (vrrp), and policy reject refuses its packets, unless this host has sent some to "
         "their source shortly before. To keep it, add a rule of your own: iptables -I INPUT -p 112 -j ACCEPT. Where the other ends "
         "are in trusted_sources already, acknowledge this finding.")
    ]  # fmt: skip
    assert refused(GRE)[0][1].endswith(
        "To keep it, name 198.51.100.1 in trusted_sources, or add a rule of your own: iptables -I INPUT -p 47 -j ACCEPT."
    )
    ((version, message),) = refused(VRRP._replace(protocol=200), VRRP._replace(protocol=200, family="ipv6", by="frr"))
    assert (version, message.partition(", and policy")[0]) == ("", "policy: keepalived, frr use IP protocol 200")
    assert "iptables -I INPUT -p 200 -j ACCEPT and ip6tables -I INPUT -p 200 -j ACCEPT." in message


def test_each_protocol_by_itself():
    assert len(refused(VRRP, GRE, VRRP._replace(protocol=89))) == 3


@pytest.mark.parametrize(
    ("use", "rule", "options"),
    [
        (VRRP, "", {"policy": "accept"}),
        (VRRP, "-p vrrp -j ACCEPT", {}),
        (VRRP, "-s 192.0.2.9/32 -p 112 -j ACCEPT", {}),
        (VRRP, "-s 192.0.2.9/32 -j ACCEPT", {}),
        (VRRP._replace(family="ipv6"), "", {"ip_versions": ["ipv4"]}),
        (GRE, "", {"trusted_sources": ["198.51.100.0/24"]}),
        (GRE._replace(peer="10.8.0.9"), "", {"trusted_interfaces": ["lo", "eth1"]}),
    ],
)
def test_what_is_let_in_is_no_finding(use, rule, options):
    assert refused(use, v4=FILTER.format(rule) if rule else "", **options) == []


@pytest.mark.parametrize("rule", ["-p esp -j ACCEPT", "-p tcp -j ACCEPT", "-i lo -j ACCEPT", "-p 11 -j ACCEPT"])
def test_a_rule_about_something_else(rule):
    assert len(refused(VRRP, v4=FILTER.format(rule))) == 1


def test_a_host_that_uses_none():
    assert refused() == []
