# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The core on recorded rulesets of real software; corpus/index.json says where each comes from."""

import ipaddress
import json
import os

import foreign
import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import build_rules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.rules_file import merged_file
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork, Route
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_iptables import FakeIptables
from walker import Packet, Walker

CORPUS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "corpus")
STRANGER = {"ipv4": "203.0.113.77", "ipv6": "2001:db8:77::77"}
HOST = {"ipv4": "198.51.100.10", "ipv6": "2001:db8:100::10"}
"""Where corpus/check.py sent its packets from and to."""
KNOCK = ((17005, "tcp"), (19100, "udp"), (18300, "tcp"))


def entries():
    with open(os.path.join(CORPUS, "index.json"), encoding="utf-8") as stream:
        return json.load(stream)


def text_of(entry):
    with open(os.path.join(CORPUS, entry["file"]), encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return stream.read()


ENTRIES = entries()
LIVE = [entry for entry in ENTRIES if entry["kind"] == "live"]


def each(chosen):
    return pytest.mark.parametrize("entry", chosen, ids=[entry["file"] for entry in chosen])


def spec_for(policy):
    door = {"name": "ssh", "knock": ["{0}/{1}".format(*step) for step in KNOCK], "opens": ["22"]}
    return spec_from_options({"doors": [door], "policy": policy, "allow": [{"port": 8443}]})


SPECS = {policy: spec_for(policy) for policy in ("reject", "accept")}
policies = pytest.mark.parametrize("policy", sorted(SPECS))


def foreign_lines(text):
    return [line for line in foreign.lines_of_others(text) if not line.startswith("#")]


def walk(text, *packets):
    """Return the last verdict; unknown matches do not match, as in the namespaces of the recording."""
    walker = Walker(parse(text), oracle=lambda *_asked: False)
    for packet in packets:
        verdict = walker.send(packet)
        walker.later(0.5)
    return verdict


def to(family, port, protocol="tcp", **more):
    return Packet(STRANGER[family], port, protocol, destination=HOST[family], mac="02:00:00:00:00:0b", **more)


def test_the_corpus_is_there():
    assert len({entry["software"] for entry in ENTRIES}) >= 12
    assert {entry["file"] for entry in ENTRIES} == {name for name in os.listdir(CORPUS) if name.endswith(".save")}


@each(ENTRIES)
def test_parsed_to_the_byte(entry):
    text = text_of(entry)
    assert "".join(parse(text).lines) == text


@each([entry for entry in ENTRIES if entry["decides_ssh"] in ("accept", "refuse") and entry["judged"] == "packet"])
def test_the_walker_agrees_with_the_kernel(entry):
    """What became of a real SYN to port 22 was recorded with the ruleset."""
    verdict = walk(text_of(entry), to(entry["family"], 22))
    assert ("accept" if verdict.action == "ACCEPT" else "refuse") == entry["decides_ssh"], verdict


@policies
@each(LIVE)
def test_planned_loaded_and_taken_out(entry, policy):
    host = FakeIptables(text_of(entry))
    before = foreign_lines(host.save())
    if "*filter" not in before:
        before = before[:-1] + EMPTY
    for _turn in range(2):
        plan = plan_family(host.save(), SPECS[policy], entry["family"])
        host.restore(plan.change)
        assert plan_family(host.save(), SPECS[policy], entry["family"]).change == ""
        assert foreign_lines(host.save()) == before
        host.restore(plan_family(host.save(), None, entry["family"]).change)
        assert foreign_lines(host.save()) == before
        host.restore(plan.change)
        host.restore(plan.undo)
        assert plan_family(host.save(), None, entry["family"]).change == ""
        assert foreign_lines(host.save()) == before


EMPTY = foreign_lines("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n")
# The spelling samples are modelled on our own rules and use our lists, which no other program does.
OTHERS = [entry for entry in ENTRIES if not entry["file"].startswith("spelling-")]


@policies
@each(OTHERS)
def test_the_door_holds(entry, policy):
    """Closed to who has not knocked, open to who has, and sessions that run live on."""
    family = entry["family"]
    text = merged_file(text_of(entry), build_rules(SPECS[policy], family), SPECS[policy], entry["file"])
    assert walk(text, to(family, 22)).action != "ACCEPT"
    assert walk(text, to(family, KNOCK[0][0]), to(family, KNOCK[2][0]), to(family, 22)).action != "ACCEPT"
    final = walk(text, *([to(family, *step) for step in KNOCK] + [to(family, 22)]))
    assert final.action == "ACCEPT", foreign.path(final.trail)
    assert walk(text, to(family, 8443)).action == "ACCEPT"
    for protocol, port in (("tcp", 22), ("tcp", 50123), ("udp", 50123)):
        assert walk(text, to(family, port, protocol, state="ESTABLISHED", flags="ACK")).action == "ACCEPT"


@policies
@each(ENTRIES)
def test_the_file_there_and_back(entry, policy):
    text = text_of(entry)
    merged = merged_file(text, build_rules(SPECS[policy], entry["family"]), SPECS[policy], entry["file"])
    assert merged_file(merged, build_rules(SPECS[policy], entry["family"]), SPECS[policy], entry["file"]) == merged
    assert merged_file(merged, None, None, entry["file"]) == text


@each(LIVE)
def test_what_others_insert_later(entry):
    """fail2ban's jump on top is no drift; an ACCEPT for the door's port on top is, and is mended."""
    family, spec = entry["family"], SPECS["reject"]
    host = FakeIptables(text_of(entry))
    host.restore(plan_family(host.save(), spec, family).change)
    host.restore(
        "*filter\n:f2b-x - [0:0]\n-I INPUT 1 -p tcp -m multiport --dports 22 -j f2b-x\n-A f2b-x -j RETURN\nCOMMIT\n"
    )
    assert plan_family(host.save(), spec, family).change == ""
    host.restore("*filter\n-I INPUT 1 -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n")
    host.restore(plan_family(host.save(), spec, family).change)
    assert plan_family(host.save(), spec, family).change == ""
    assert walk(host.save(), to(family, 22)).action != "ACCEPT"


@each(LIVE)
def test_planning_leaves_no_step_in_what_is_shown(entry):
    plan = plan_family(text_of(entry), SPECS["reject"], entry["family"])
    shown = plan.before() + plan.after() + repr(plan.findings)
    assert not [port for port, _protocol in KNOCK if str(port) in shown]


# Where a rule names an interface, it is everyone's only if that of the default route is meant.
LOCAL = LocalNetwork(routes=(Route(ipaddress.ip_network("0.0.0.0/0"), "eth0", 0),))
BEFORE_THE_DOORS = {"unguarded", "may_be_unguarded", "untracked", "limited"}


@each(ENTRIES)
def test_none_of_these_hosts_keeps_packets_from_the_doors(entry):
    """As corpus/check.py found with packets: no host of it sends ssh elsewhere, and none limits it before INPUT."""
    own = tuple(ipaddress.ip_network(address) for address in HOST.values())
    found = plan_family(text_of(entry), SPECS["reject"], entry["family"], local=LOCAL._replace(own=own)).findings
    assert [item for item in found if item.kind in BEFORE_THE_DOORS] == []


FINDINGS = {
    "docker.v4.save": (2222, None, ""),
    "el-stock-live.v4.save": (22, "lost_effect", "accepts everyone on ports of door ssh"),
    "ufw.v4.save": (22, "lost_effect", "accepts everyone on ports of door ssh"),
    "ferm.v4.save": (22, "lost_effect", "accepts everyone on ports of door ssh"),
    "shorewall.v4.save": (22, "lost_effect", "accepts everyone on ports of door ssh"),
    "firewalld.v4.save": (22, "lost_effect", "accepts everyone on ports of door ssh"),
    "hand-written-live.v4.save": (22, "lost_effect", "accepts some sources on ports of door ssh"),
    "rules-5000.v4.save": (22, "lost_effect", "accepts everyone on ports of door ssh"),
    "fail2ban.v4.save": (22, None, ""),
    "empty-nft.v4.save": (22, None, ""),
}


@each([entry for entry in ENTRIES if FINDINGS.get(entry["file"])])
def test_findings(entry):
    port, kind, message = FINDINGS[entry["file"]]
    spec = spec_from_options({"doors": [{"name": "ssh", "knock": ["17005", "9100"], "opens": [str(port)]}]})
    findings = plan_family(text_of(entry), spec, entry["family"], local=LOCAL).findings
    if kind is None:
        assert findings == []
    else:
        assert [item for item in findings if item.kind == kind and message in item.message], findings
