# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits on how often a source connects: fed by the doors' own packets, they are no blocklist and stand behind the doors."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import position_of
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import DOORS
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options

DOOR = {"name": "ssh", "knock": ["17005", "19100/udp"], "opens": ["22"]}
SET = "-p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -m recent --set --name SSH --mask 255.255.255.255 --rsource"
UPDATE = (
    "-p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -m recent --update --seconds 60 --hitcount 4 --name SSH "
    "--mask 255.255.255.255 --rsource -j DROP"
)
ACCEPT = "-p tcp -m tcp --dport 22 -j ACCEPT"
HASH = (
    "-p tcp -m tcp --dport 22 -m hashlimit --hashlimit-above 3/min --hashlimit-mode srcip --hashlimit-name ssh -j DROP"
)
CONN = "-p tcp -m tcp --dport 22 --tcp-flags FIN,SYN,RST,ACK SYN -m connlimit --connlimit-above 2 --connlimit-mask 32 -j REJECT"
SCANNERS = "-m recent --rcheck --seconds 86400 --name scanners --mask 255.255.255.255 --rsource -j DROP"
TRAP = "-p tcp -m tcp --dport 139 -m recent --set --name scanners --mask 255.255.255.255 --rsource"
BLOCKED = "-s 198.51.100.0/24 -j DROP"
ALL_CONN = "-p tcp -m connlimit --connlimit-above 50 --connlimit-mask 32 -j DROP"


def planned(rules, policy="ACCEPT", **options):
    text = "*filter\n:INPUT {0} [0:0]\n".format(policy) + "".join(
        "{0}\n".format(rule if rule[0] == ":" else "-A INPUT " + rule if rule[:2] != "-A" else rule) for rule in rules
    )
    plan = plan_family(text + "COMMIT\n", spec_from_options(dict({"doors": [DOOR]}, **options)), "ipv4")
    return position_of(plan.then, DOORS), [(item.kind, item.rule) for item in plan.findings]


def limited(rule):
    return ("limited", "-A INPUT " + rule)


def lost(rule):
    return ("lost_effect", "-A INPUT " + rule)


@pytest.mark.parametrize(
    ("rules", "position", "findings"),
    [
        ([SET, UPDATE, ACCEPT], 1, [lost(UPDATE), lost(ACCEPT)]),
        ([UPDATE.replace("--update", "--rcheck"), SET], 0, [lost(UPDATE.replace("--update", "--rcheck"))]),
        ([HASH, ACCEPT], 0, [lost(HASH), lost(ACCEPT)]),
        ([CONN, ACCEPT], 0, [lost(CONN), lost(ACCEPT)]),
        ([SET, BLOCKED, UPDATE], 2, [lost(UPDATE)]),
    ],
)
def test_a_limit_stands_behind_the_doors(rules, position, findings):
    assert planned(rules) == (position, findings)


@pytest.mark.parametrize("rules", [[TRAP, SCANNERS], [SCANNERS], [BLOCKED, TRAP, SCANNERS]])
def test_a_list_that_the_doors_do_not_feed_is_a_blocklist(rules):
    assert planned([*rules, ACCEPT]) == (len(rules), [lost(ACCEPT)])


def test_whoever_touches_a_knock_is_put_on_it():
    """A trap on every port but a few has the knock's ports in it: a first knock would shut its sender out."""
    trap = "-p tcp -m multiport ! --dports 22,80,443 -m recent --set --name scanners --mask 255.255.255.255 --rsource"
    position, findings = planned([trap, SCANNERS])
    assert (position, findings) == (1, [])


def test_a_limit_on_allowed_ports_stays_above_them():
    position, findings = planned([ALL_CONN, ACCEPT], allow=[{"port": 443}])
    assert (position, findings) == (1, [lost(ACCEPT), limited(ALL_CONN)])
    assert planned([ALL_CONN, ACCEPT])[0] == 0


def test_a_chain_that_keeps_particular_sources_out_as_well():
    rules = [":guard - [0:0]", "-j guard", "-A guard " + BLOCKED, "-A guard " + HASH, ACCEPT]
    position, findings = planned(rules)
    assert position == 1
    assert ("limited", "-A guard " + HASH) in findings


def test_what_is_said():
    spec = spec_from_options({"doors": [DOOR], "allow": [{"port": 443}]})
    text = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT {0}\nCOMMIT\n*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING {1}\nCOMMIT\n"
    found = plan_family(text.format(ALL_CONN, HASH), spec, "ipv4").findings
    assert [(item.kind, item.message) for item in found] == [
        ("limited", "refuses sources that send too much, before door ssh can see it: an owner in a hurry, or knock_verify, is refused "
                    "for a while as if the knock were wrong. Spare the ports of doors and knocks in the rule, or name your own "
                    "addresses in trusted_sources."),
    ] * 2  # fmt: skip
    assert planned([HASH])[1] == [lost(HASH)]


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        ([SET, UPDATE], [UPDATE]),
        ([TRAP, SCANNERS], []),
        ([CONN.replace("REJECT", "DROP")], [CONN.replace("REJECT", "DROP")]),
    ],
)
def test_in_a_table_before_input(rules, wanted):
    text = (
        "*mangle\n:PREROUTING ACCEPT [0:0]\n"
        + "".join("-A PREROUTING {0}\n".format(rule) for rule in rules)
        + "COMMIT\n"
    )
    found = plan_family(text, spec_from_options({"doors": [DOOR]}), "ipv4").findings
    assert [(item.kind, item.rule) for item in found] == [("limited", "-A PREROUTING " + rule) for rule in wanted]
