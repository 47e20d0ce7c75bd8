# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Others who put a jump of their own in front of ours again and again, as kube-router does: no change as long as the doors hold."""

import ipaddress

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import (
    UNKNOWN,
    LocalNetwork,
    Route,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_iptables import FakeIptables

SPEC = spec_from_options({"doors": [{"name": "ssh", "knock": ["7000", "9100/udp"], "opens": ["22"]}]})
LOCAL = LocalNetwork((ipaddress.ip_network("192.0.2.1/32"),), (Route(ipaddress.ip_network("0.0.0.0/0"), "eth0", 0),))
KUBE_ROUTER = """*filter
:KUBE-ROUTER-INPUT - [0:0]
:KUBE-POD-FW-AAAA - [0:0]
:KUBE-NWPLCY-BBBB - [0:0]
-A INPUT -m comment --comment "kube-router netpol - 4IA2OSFRMVNDXBVV" -j KUBE-ROUTER-INPUT
-A KUBE-ROUTER-INPUT -d 10.43.0.0/16 -m comment --comment "allow traffic to the cluster" -j RETURN
-A KUBE-ROUTER-INPUT -p tcp -m addrtype --dst-type LOCAL -m multiport --dports 30000:32767 -j RETURN
-A KUBE-ROUTER-INPUT -d 10.42.0.5/32 -m comment --comment "to the pod" -j KUBE-POD-FW-AAAA
-A KUBE-ROUTER-INPUT -s 10.42.0.5/32 -m comment --comment "from the pod" -j KUBE-POD-FW-AAAA
-A KUBE-ROUTER-INPUT -m comment --comment "complies to network policies" -m mark --mark 0x20000/0x20000 -j ACCEPT
-A KUBE-NWPLCY-BBBB -j MARK --set-xmark 0x10000/0x10000
-A KUBE-POD-FW-AAAA -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-POD-FW-AAAA -d 10.42.0.5/32 -m addrtype --src-type LOCAL -j ACCEPT
-A KUBE-POD-FW-AAAA -d 10.42.0.5/32 -j KUBE-NWPLCY-BBBB
-A KUBE-POD-FW-AAAA -m mark ! --mark 0x10000/0x10000 -j REJECT --reject-with icmp-port-unreachable
-A KUBE-POD-FW-AAAA -j MARK --set-xmark 0x20000/0x20000
COMMIT
"""
JUMP = '-m comment --comment "kube-router netpol - 4IA2OSFRMVNDXBVV" -j KUBE-ROUTER-INPUT'


def plan(host, local=LOCAL):
    return plan_family(host.save(), SPEC, "ipv4", local=local)


def loaded(more=""):
    """Return a host with our rules, on which kube-router has put its jump in front again."""
    host = FakeIptables(KUBE_ROUTER.replace("COMMIT", more + "COMMIT"))
    host.restore(plan(host).change)
    rules = host.tables["filter"].chains["INPUT"]
    assert rules.index(JUMP) > 0, "in front of what could decide for everyone, as far as that is known"
    rules.remove(JUMP)
    rules.insert(0, JUMP)
    return host


def test_a_jump_of_kube_router_in_front_is_no_change():
    assert plan(loaded()).change == ""


@pytest.mark.parametrize(
    "rule",
    [
        "-A KUBE-ROUTER-INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n",
        "-A KUBE-ROUTER-INPUT -s 198.51.100.0/24 -p tcp -m tcp --dport 22 -j ACCEPT\n",
        "-A KUBE-ROUTER-INPUT -d 192.0.2.1/32 -j ACCEPT\n",
        "-A KUBE-ROUTER-INPUT -p udp -j DROP\n",
        "-A KUBE-ROUTER-INPUT -m conntrack --ctstate RELATED -j ACCEPT\n",
        # Whoever marks strangers' packets lets them through by the mark.
        "-I KUBE-ROUTER-INPUT 1 -p tcp -m tcp --dport 22 -j MARK --set-xmark 0x20000/0x20000\n",
        "-I KUBE-ROUTER-INPUT 1 -j KUBE-NWPLCY-BBBB\n",
    ],
)
def test_what_decides_for_strangers_is(rule):
    assert plan(loaded(rule)).change


def test_where_the_addresses_of_the_host_are_not_known():
    assert plan(loaded(), UNKNOWN).change
