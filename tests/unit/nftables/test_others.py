# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what others have in the packet filter of a host, and says what there is to say of it."""

import ipaddress
import json
import os
from types import SimpleNamespace

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._engine import Connection, Wanted
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._host.protocols import InUse
from ansible_collections.sesame.portknock.plugins.module_utils._host.sockets import Carrier, Listener
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork, Route
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.build import build_table
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.others import look_at_others, read_foreign
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.prove_text import read_items
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.text import load_text
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options

CORPUS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "corpus")
FILTER = "*filter\n:INPUT ACCEPT [0:0]\n{0}COMMIT\n"
MIXED = "# Table `filter' is incompatible, use 'nft' tool.\n"
SPEC = spec_from_options({"doors": [{"name": "ssh", "knock": ["7000", "3100"], "opens": ["22"]}]})
CONNECTION = Connection(ipaddress.ip_address("198.51.100.7"), "192.0.2.10", 22)


class Host:
    """As much of a host as is asked."""

    def __init__(self, tables=(), saves=None, has_nft=True):
        self.tables, self.saves, self.has_nft = tables, saves or {}, has_nft
        self.asked = []
        self.command = self.filesystem = self.kernel = self.sockets = self.protocols = self
        self.held, self.kernel_tables = [], []
        self.nftables = SimpleNamespace(rules=lambda _family: self.held, tables=lambda _family: self.kernel_tables)

    def find(self, name):
        known = name == "nft" and self.has_nft
        return f"/usr/sbin/{name}" if known or (self.saves and name.startswith(("iptables", "ip6tables"))) else None

    def run(self, words, _text):
        name = words[0].rsplit("/", 1)[1]
        if "-V" in words:
            return 0, "iptables v1.8.9 (nf_tables)", ""
        if name.endswith("-save"):
            return 0, self.saves.get(name, ""), ""
        self.asked.append(words[1:])
        items = [{"table": dict(family=family, name=table)} for family, table, _items in self.tables]
        found = [each for family, table, each in self.tables if words[-2:] == [family, table]]
        if words[-1] == "tables":
            return 0, json.dumps({"nftables": items}), ""
        return (1, "", "Error") if found[0] is None else (0, json.dumps({"nftables": found[0]}), "")

    def read(self, path):
        return "filter\n" if "tables_names" in path else "nf_tables 1\n"

    def families(self):
        return ("ipv4", "ipv6")

    def local_network(self):
        return LocalNetwork((), (Route(ipaddress.ip_network("10.8.0.0/24"), "gre1", 0),))

    def listening(self):
        return [Listener("tcp", "0.0.0.0", 22, 1), Listener("tcp", "0.0.0.0", 80, 2)]

    def processes(self, _inodes):
        return {2: "nginx"}

    def of_tunnel(self, _interface):
        return []

    def carrier_of(self, interface):
        return Carrier(47, "ipv4", "198.51.100.9") if interface == "gre1" else None

    def in_use(self):
        return [InUse(112, "ipv4", "keepalived", "")]


def wanted(spec=SPEC, connection=CONNECTION):
    return Wanted(spec, ("ipv4", "ipv6"), True, False, connection, "", {})


def chain(*rules, policy="accept"):
    fields = dict(family="inet", table="t", name="c", hook="input", type="filter", prio=0, policy=policy)
    return [
        {"chain": fields},
        *[{"rule": dict(family="inet", table="t", chain="c", expr=list(expr))} for expr in rules],
    ]


def test_tables_are_listed_one_by_one_and_the_own_one_without_who_is_in_its_sets():
    host = Host([("inet", "t", chain()), ("inet", "portknock", []), ("ip", "portknock", [])])
    assert [item for item in read_foreign(host).items if "chain" in item] == chain()
    assert host.asked == [
        ["-j", "list", "tables"],
        ["-s", "-j", "list", "table", "inet", "t"],
        ["-s", "-j", "-t", "list", "table", "inet", "portknock"],
        ["-s", "-j", "list", "table", "ip", "portknock"],
    ]


def test_what_cannot_be_read_is_not_known():
    assert read_foreign(Host([("inet", "t", None)])).items is None
    assert read_foreign(Host(has_nft=False)).items is None
    assert read_foreign(Host()).saves == ()


def test_each_backend_of_iptables_is_read():
    texts = {
        "iptables-nft-save": FILTER.format(""),
        "ip6tables-nft-save": MIXED,
        "iptables-legacy-save": FILTER.format(""),
    }
    found = [(save.family, save.backend) for save in read_foreign(Host(saves=texts)).saves]
    assert found == [("ipv4", "nft"), ("ipv4", "legacy")], "what iptables cannot print, nft lists"


def test_what_iptables_prints_as_something_else_or_is_not_in_force_nft_lists():
    """A set of ports is printed as no condition at all."""
    with open(os.path.join(CORPUS, "native", "forms.json"), encoding="utf-8") as stream:
        form = next(each for each in json.load(stream) if each["rule"] == "tcp dport { 22, 80 } drop")
    host = Host(saves={"iptables-nft-save": FILTER.format(f"-A INPUT {form['printed']['1.8.9']}\n")})
    host.held = [bytes.fromhex(form["body"])]
    assert read_foreign(host).saves == ()
    host.held = []
    assert [save.backend for save in read_foreign(host).saves] == ["nft"]
    # Family and version; NFTA_TABLE_NAME and NFTA_TABLE_FLAGS, of which 1 is dormant.
    host.kernel_tables = [b"\x02\0\0\0" + b"\x0b\0\x01\0filter\0\0" + b"\x08\0\x02\0\0\0\0\x01"]
    assert read_foreign(host).saves == ()


def test_a_host_where_others_are_in_the_way():
    drop = [
        {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 22}},
        {"drop": None},
    ]
    others = look_at_others(Host([("inet", "t", chain(drop))]), wanted(), changes=True)
    assert [each.kind for each in others.findings] == ["native_table", "protocol_refused"]
    assert others.closes == [dict(port=80, protocol="tcp", process="nginx", address="0.0.0.0")]
    assert others.cuts.startswith(
        "chain c of table inet t (nft list chain inet t c) refuses new connections from 198.51.100.7 to port 22,"
    )
    assert look_at_others(Host(), wanted(), changes=False).closes == []
    assert look_at_others(Host(), wanted(connection=None), changes=True).cuts == ""


def test_a_door_for_this_connection_that_is_not_tracked_is_refused():
    raw = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -m tcp --dport 22 -j CT --notrack\nCOMMIT\n"
    host = Host(saves={"iptables-nft-save": raw + FILTER.format("")})
    with pytest.raises(SpecError) as failed:
        look_at_others(host, wanted(), changes=True)
    assert "a rule of table raw keeps port 22, by which this connection comes, out of connection tracking" in str(
        failed.value
    )
    assert look_at_others(host, wanted(SPEC._replace(doors=())), changes=True).cuts == ""


def test_a_command_that_is_still_to_be_installed_is_no_finding():
    kinds = [
        [each.kind for each in look_at_others(Host(has_nft=False), wanted()._replace(may_lack=check), False).findings]
        for check in (True, False)
    ]
    assert kinds == [["protocol_refused"], ["native_unknown", "protocol_refused"]]


def test_the_refusal_of_a_protocol_has_no_exceptions_but_trust():
    (finding,) = look_at_others(
        Host(saves={"iptables-nft-save": FILTER.format("-A INPUT -p 112 -j ACCEPT\n")}), wanted(), False
    ).findings
    assert finding.message == (
        "policy: keepalived uses IP protocol 112 (vrrp), and policy reject refuses its packets, unless this host has sent some to their "
        "source shortly before. To keep it, name the other ends in trusted_sources, or the interface that they are behind in "
        "trusted_interfaces. Where the other ends are in trusted_sources already, acknowledge this finding."
    )


def test_a_tunnel_that_carries_this_connection_has_no_exception_but_trust():
    through = Connection(ipaddress.ip_address("10.8.0.7"), "10.8.0.5", 22)
    text = FILTER.format("-A INPUT -p 47 -j ACCEPT\n")
    found = look_at_others(Host(saves={"iptables-nft-save": text}), wanted(connection=through), True).findings
    (finding,) = [each for each in found if each.kind == "tunnel_closes"]
    assert finding.message.endswith("no connection gets in through it. Name 198.51.100.9 in trusted_sources.")


def test_doors_to_nothing_and_a_connection_without_a_door():
    spec = spec_from_options(
        {"doors": [{"name": "web", "knock": ["7000", "3100"], "opens": ["8443"]}], "policy": "accept"}
    )
    others = look_at_others(Host(), wanted(spec), changes=True)
    assert [each.kind for each in others.findings] == ["connection_unguarded", "nothing_listens"]
    assert others.closes == []


def dnat(port, to):
    """Return a chain of nftables that sends a port on."""
    asks = {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": port}}
    fields = dict(family="inet", table="t", name="c", hook="prerouting", type="nat", prio=-100, policy="accept")
    rule = dict(family="inet", table="t", chain="c", expr=[asks, {"dnat": {"family": "ip", "addr": to, "port": 8000}}])
    return [{"chain": fields}, {"rule": rule}]


@pytest.mark.parametrize("published", ["doors", "policy"])
def test_what_the_policy_closes_of_what_nat_publishes(published):
    """Of nftables and of iptables, but for what a door opens or is allowed, and what was closed before."""
    options = {
        "doors": [{"name": "ssh", "knock": ["7000", "3100"], "opens": ["22", "8443"]}],
        "allow": [{"port": 9443}],
    }
    spec = spec_from_options(dict(options, published=published))
    ours = read_items(load_text(build_table(spec)).text)
    tables = [("inet", "t", dnat(8080, "172.17.0.2"))]
    nat = "*nat\n:PREROUTING ACCEPT [0:0]\n" + "".join(
        f"-A PREROUTING -p udp -m udp --dport {port} -j DNAT --to-destination 172.17.0.2:80\n" for port in (5353,)
    )
    nat += "".join(
        f"-A PREROUTING -p tcp -m tcp --dport {port} -j DNAT --to-destination 172.17.0.2:80\n" for port in (8443, 9443)
    )
    saves = {"iptables-nft-save": nat + "COMMIT\n"}
    found = look_at_others(Host(tables, saves), wanted(spec), changes=True).closes
    closed = [(each["port"], each["protocol"]) for each in found if each["process"] == "nat"]
    assert closed == ([(5353, "udp"), (8080, "tcp")] if published == "policy" else [])
    again = look_at_others(Host([*tables, ("inet", "portknock", ours)], saves), wanted(spec), changes=True).closes
    assert [each for each in again if each["process"] == "nat"] == []
