# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which ports nat publishes."""

import ipaddress

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.published import (
    published_ports,
    sends_on,
    sent_on,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse

OWN = [ipaddress.ip_network("203.0.113.1"), ipaddress.ip_network("2001:db8::1")]
NAT = """*nat
:PREROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
-A DOCKER -d 203.0.113.1/32 ! -i docker0 -p udp -m udp --dport 9000:9001 -j DNAT --to-destination 172.17.0.2:53
-A DOCKER -p tcp -m tcp --dport 8081 -j REDIRECT --to-ports 80
-A DOCKER -p tcp -m tcp --dport 8082 -j DNAT --to-destination 203.0.113.1:80
-A UNUSED -p tcp -m tcp --dport 8083 -j DNAT --to-destination 172.17.0.2:80
COMMIT
"""


def test_published_ports():
    found = published_ports(parse(NAT), OWN, ((), ()))
    assert [(each.port, each.protocol, each.address) for each in found] == [
        (8080, "tcp", ""),
        (9000, "udp", "203.0.113.1"),
        (9001, "udp", "203.0.113.1"),
    ]
    asked = {(8080, "tcp"), (8080, "udp"), (8081, "tcp"), (8082, "tcp"), (8083, "tcp")}
    assert sent_on(parse(NAT), asked, OWN, ((), ())) == {(8080, "tcp")}
    assert published_ports(parse(""), OWN, ((), ())) == []


@pytest.mark.parametrize(
    ("to", "other"),
    [
        ("10.0.0.5", True), ("10.0.0.5:80", True), ("10.0.0.5-10.0.0.9:80-90", True), ("[fd00::5]:80", True), ("fd00::5", True),
        ("127.0.0.1:80", False), ("203.0.113.1", False), ("[2001:db8::1]:22", False), ("2001:db8::1", False), ("[::1]:80", False),
        (":8080", False),
    ],
)  # fmt: skip
def test_whether_it_is_sent_on(to, other):
    assert sends_on(f"-p tcp -m tcp --dport 22 -j DNAT --to-destination {to}", OWN) is other
    assert not sends_on("-p tcp -m tcp --dport 22 -j REDIRECT --to-ports 80", OWN)
