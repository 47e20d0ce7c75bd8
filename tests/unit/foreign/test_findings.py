# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings to the word: what lost its effect, and what cannot be guarded."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.findings import MOST_OF_A_KIND
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._redact import masked
from ansible_collections.sesame.portknock.plugins.module_utils._spec.findings import spec_findings
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options

DOOR = {"name": "ssh", "knock": ["17005", "19100/udp"], "opens": ["22"]}
WEB = {"name": "web", "knock": ["16000", "14000"], "opens": ["8443"]}
NAT = "*nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n{0}COMMIT\n"
TAKEN_OUT = "Remove the rule if that is no longer wanted."
ELSEWHERE = (
    "table nat redirects packets to {0} before INPUT sees them, so the doors cannot guard or count them. "
    "Remove the port from one of the two, or bind the service to an address of its own."
)
EVERYONE = "accepts everyone on ports of {0}; the doors now decide before it, so there it has no effect. " + TAKEN_OUT
SOME = (
    "accepts some sources on ports of door ssh; the doors now decide before it, so there it has no effect. "
    "To accept these sources without a knock, name them in trusted_sources."
)
REFUSES = "refuses ports of door ssh; these are decided before it now. Remove the rule, or do not open the port."


def found(save, *doors, **more):
    spec = spec_from_options(dict({"doors": list(doors)}, **more))
    return [tuple(item) for item in plan_family(save, spec, "ipv4").findings]


def filter_table(*rules):
    return "*filter\n:INPUT ACCEPT [0:0]\n" + "".join("-A INPUT {0}\n".format(rule) for rule in rules) + "COMMIT\n"


CASES = [
    ("nothing there", "", []),
    ("no rule of the collection", filter_table("-p tcp -m tcp --dport 80 -j ACCEPT"), []),
    ("an ACCEPT for everyone", filter_table("-p tcp -m tcp --dport 22 -j ACCEPT"),
     [("lost_effect", "ipv4", "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT", EVERYONE.format("door ssh"))]),
    ("an ACCEPT for both doors", filter_table("-p tcp -m multiport --dports 22,8443 -j ACCEPT"),
     [("lost_effect", "ipv4", "-A INPUT -p tcp -m multiport --dports 22,8443 -j ACCEPT", EVERYONE.format("doors ssh, web"))]),
    ("an ACCEPT for some", filter_table("-s 192.0.2.0/24 -p tcp -m tcp --dport 22 -j ACCEPT"),
     [("lost_effect", "ipv4", "-A INPUT -s 192.0.2.0/24 -p tcp -m tcp --dport 22 -j ACCEPT", SOME)]),
    ("a DROP for the door", filter_table("-p tcp -m tcp --dport 22 -j DROP"),
     [("lost_effect", "ipv4", "-A INPUT -p tcp -m tcp --dport 22 -j DROP", REFUSES)]),
    ("a catch-all is no finding", filter_table("-j DROP"), []),
    ("a port of Docker's", NAT.format(
        "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n"
        "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8443 -j DNAT --to-destination 172.17.0.2:443\n"),
     []),
    ("a port of the host's that is another one in truth", NAT.format(
        "-A PREROUTING -p tcp -m tcp --dport 8443 -j DNAT --to-destination 127.0.0.1:443\n"),
     []),  # nat sees who has knocked alone
    ("a knock port of Docker's", NAT.format("-A PREROUTING -p tcp -m tcp --dport 17005 -j DNAT --to-destination 172.17.0.2:80\n"),
     [("unguarded", "ipv4", "-A PREROUTING -p tcp -m tcp --dport **** -j DNAT --to-destination ****",
       ELSEWHERE.format("knocks of door ssh"))]),
    ("a knock port that goes elsewhere", NAT.format("-A PREROUTING -p tcp -m tcp --dport 17005 -j REDIRECT --to-ports 80\n"),
     [("unguarded", "ipv4", "-A PREROUTING -p tcp -m tcp --dport **** -j REDIRECT --to-ports ****",
       ELSEWHERE.format("knocks of door ssh"))]),
    ("other ports that go elsewhere", NAT.format("-A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080\n"), []),
]  # fmt: skip


@pytest.mark.parametrize(("save", "wanted"), [item[1:] for item in CASES], ids=[item[0] for item in CASES])
def test_findings(save, wanted):
    assert found(save, DOOR, WEB) == wanted


def test_what_is_published_where_it_is_left_alone():
    rule = "-A PREROUTING -p tcp -m tcp --dport 8443 -j DNAT --to-destination 172.17.0.2:443"
    assert found(NAT.format(rule + "\n"), DOOR, WEB, published="none") == [
        ("unguarded", "ipv4", rule, ELSEWHERE.format("door web"))
    ]


def test_an_allowed_port_that_is_refused_below():
    rules = filter_table("-p tcp -m tcp --dport 443 -j DROP")
    assert [item[:3] for item in found(rules, DOOR, allow=[{"port": 443}])] == [
        ("lost_effect", "ipv4", "-A INPUT -p tcp -m tcp --dport 443 -j DROP")
    ]


def test_many_of_a_kind_are_counted():
    rules = filter_table(
        *["-s 192.0.2.{0}/32 -p tcp -m tcp --dport 22 -j ACCEPT".format(number) for number in range(MOST_OF_A_KIND + 5)]
    )
    findings = found(rules, DOOR)
    assert len(findings) == MOST_OF_A_KIND + 1
    assert findings[-1][3] == "and 5 more of this kind."


def test_a_door_of_one_step():
    findings = spec_findings(spec_from_options({"doors": [DOOR, {"name": "one", "knock": ["1000"], "opens": ["80"]}]}))
    assert [tuple(item) for item in findings] == [
        ("single_step", "", "", "doors[1].knock: door 'one' opens to one step, so any port scan opens it for the scanner. "
                                "Give it two steps or more.")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("-p tcp -m tcp --dport 17005 -j X", "-p tcp -m tcp --dport **** -j X"),
        ("-p tcp -m multiport --dports 17005,1:2 -j X", "-p tcp -m multiport --dports **** -j X"),
        ("-p tcp --destination-port 17005 -j X", "-p tcp --destination-port **** -j X"),
        ("-p tcp -m multiport --ports 17005 -j X", "-p tcp -m multiport --ports **** -j X"),
        ("-j DNAT --to-destination 10.0.0.1:17005", "-j DNAT --to-destination ****"),
        ("-j REDIRECT --to-ports 17005", "-j REDIRECT --to-ports ****"),
    ],
)
def test_masked(text, wanted):
    assert masked(text) == wanted
