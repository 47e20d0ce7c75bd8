# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of others beside the table of the engine nftables: what is said of them is what packets meet."""

import ipaddress

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._engine import Connection
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork, Route
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.foreign import (
    Foreign,
    Save,
    findings_of_others,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.foreign_reach import what_cuts
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from rig.packets import IPV4
from rig.peer import OPEN, OWN, REFUSED, TARGET
from rig.shown import steps_in
from rig.target import FAMILIES, ROOT, door

pytestmark = pytest.mark.only("nft")

KNOCK = (7000, "9100/udp", 3100)
OPTIONS = {"doors": [door(*KNOCK, opens=(2222,))], "allow": [{"port": "80"}]}
LOCAL = LocalNetwork(
    tuple(ipaddress.ip_network(address) for address in TARGET.values()),
    tuple(Route(ipaddress.ip_network(network), "eth0", 0) for network in ("0.0.0.0/0", "::/0")),
)
TABLE = "table inet others {{ chain c {{ type {0}; policy {1}; {2}; }}; }};"
ONLY_80 = "ct state established,related accept; meta l4proto ipv6-icmp accept; tcp dport 80 accept"
HOSTS = ROOT / "tests/unit/corpus/native/others"

# What nft or iptables-restore loads; the kinds of findings, and what they are about; whether new connections are said to be cut.
CASES = {
    "all is accepted in front and behind": (
        TABLE.format("filter hook prerouting priority -300", "accept", "accept")
        + TABLE.format("filter hook input priority -300", "accept", "accept").replace("others", "more")
        + TABLE.format("filter hook input priority 300", "accept", "accept").replace("others", "most"),
        [], set(), False),
    "a policy": (TABLE.format("filter hook input priority 0", "drop", ONLY_80), ["policy_drop"], {"door"}, True),
    "a policy in front": (
        TABLE.format("filter hook input priority -200", "drop", ONLY_80), ["policy_drop"], {"door", "knock"}, True),
    "an allowed port": (
        TABLE.format("filter hook input priority 50", "accept", "tcp dport 80 drop"), ["native_table"], {"allowed"}, False),
    "a knock in front": (
        TABLE.format("filter hook input priority -20", "accept", "tcp dport 3100 drop"), ["native_table"], {"knock"}, False),
    "a knock behind": (TABLE.format("filter hook input priority 0", "accept", "tcp dport 3100 drop"), [], set(), False),
    "a port that is sent elsewhere, and guarded": (
        TABLE.format("nat hook prerouting priority -100", "accept", "tcp dport 2222 redirect to :3333"), [], set(), False),
    "a knock that is sent elsewhere": (
        TABLE.format("nat hook prerouting priority -100", "accept", "tcp dport 3100 redirect to :3333"), ["unguarded"], {"knock"}, False),
    "at the interface": (
        "table netdev others { chain c { type filter hook ingress device eth0 priority 0; tcp dport 2222 drop; }; }",
        ["native_table"], {"door"}, True),
    "another mark on each packet": (
        TABLE.format("filter hook prerouting priority -150", "accept", "meta mark set numgen random mod 4294967295"), [], set(), False),
    "another source": (TABLE.format("filter hook input priority -1", "accept", "ip saddr 10.77.0.66 drop"), [], set(), False),
    "this source": (TABLE.format("filter hook input priority -1", "accept", "ip saddr 10.77.0.2 tcp dport 2222 drop"), [], set(), True),
    "INPUT of iptables": ("*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT\n"
                          "-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\nCOMMIT\n", ["policy_drop"], {"door"}, True),
    "raw of iptables": ("*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p udp -m udp --dport 9100 -j DROP\nCOMMIT\n",
                        ["unguarded"], {"knock"}, False),
    "firewalld": ((HOSTS / "firewalld.nft").read_text(), ["native_table"], {"door"}, True),
    "Docker": ((HOSTS / "docker.nft").read_text(), [], set(), False),
    "kube-proxy": ((HOSTS / "kube-proxy.nft").read_text(), [], set(), False),
}  # fmt: skip
ABOUT = {"door": "door ssh", "knock": "the knock of door ssh", "allowed": "80/tcp"}


@pytest.fixture
def load(rig, table):
    """What loads a text of others; all of theirs is taken out again."""
    table.apply(**OPTIONS)

    def load_text(text):
        if text.startswith("*"):
            rig.target.restore(IPV4, text)
        else:
            table.load(text)

    yield load_text
    for each in table.items():
        if "table" in each and each["table"]["name"] not in ("portknock", "filter"):
            rig.target.namespace.run("nft", "delete", "table", each["table"]["family"], each["table"]["name"])


@pytest.mark.parametrize("name", CASES)
def test_what_is_said_is_what_packets_meet(rig, table, load, name):
    text, kinds, about, is_cut = CASES[name]
    load(text)
    foreign = Foreign(table.items(), tuple(Save(family, "nft", rig.target.save(family)) for family in FAMILIES))
    findings = findings_of_others(foreign, spec_from_options(OPTIONS), FAMILIES, LOCAL)
    assert sorted({each.kind for each in findings}) == kinds, findings
    said = "; ".join(each.message for each in findings)
    knocks = said.replace("knocks of door ssh", ABOUT["knock"])
    told = {
        what
        for what, words in ABOUT.items()
        if words in (knocks.replace(ABOUT["knock"], "") if what == "door" else knocks)
    }
    assert told == about, said
    assert steps_in(KNOCK, said + "; ".join(each.rule for each in findings)) == []
    cut = what_cuts(foreign, Connection(ipaddress.ip_address(OWN["client"][IPV4]), TARGET[IPV4], 2222), LOCAL)
    assert bool(cut) == is_cut, cut

    assert rig.client.probe(2222) != OPEN, "nothing of others opens a door"
    rig.client.knock(*KNOCK)
    is_shut = is_cut or bool({"door", "knock"} & about)
    assert (rig.client.probe(2222) == OPEN) == (not is_shut)
    assert (rig.client.probe(80) == OPEN) == ("allowed" not in about)
    assert rig.other.probe(2222) != OPEN


def test_an_exception_of_others_is_none_any_more(rig, table, load):
    """They accept a port as they did, and the collection refuses the rest behind it or in front of it."""
    load(TABLE.format("filter hook input priority -50", "accept", "tcp dport 3333 accept"))
    assert rig.client.probe(3333) == REFUSED[IPV4]
    table.apply(**OPTIONS, policy="accept")
    assert rig.client.probe(3333) == OPEN
