# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No step shows in what is said of others beside a table of nftables, whose rules name the steps in one way or another."""

import ipaddress

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Connection
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import UNKNOWN
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.foreign import (
    Foreign,
    Save,
    findings_of_others,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.foreign_reach import what_cuts
from hypothesis import assume, given
from nft_options import A_FIFTH, OPTIONS, spec_of
from shown_steps import steps_in

VERDICTS = ({"drop": None}, {"redirect": {"port": 1}}, {"queue": {"num": 0}})
FORMS = (
    "-A INPUT -p tcp -m tcp --dport {0} -j ACCEPT",
    "-A INPUT -s 192.0.2.77/32 -p udp -m udp --dport {0} -j DROP",
    "-A INPUT -p tcp -m multiport --dports 22,{0} -j DROP",
)
NAT = "-A PREROUTING -p tcp -m tcp --dport {0} -j REDIRECT --to-ports {0}"


def native(ports):
    """Return what nft lists of a table whose rules drop what is sent to a port, or send it elsewhere."""
    chain = dict(family="inet", table="t", name="c", hook="prerouting", type="filter", prio=-300, policy="accept")
    left = {"payload": {"protocol": "th", "field": "dport"}}
    rules = [
        [{"match": {"op": "==", "left": left, "right": port}}, VERDICTS[index % 3]] for index, port in enumerate(ports)
    ]
    return [{"chain": chain}, *[{"rule": dict(family="inet", table="t", chain="c", expr=expr)} for expr in rules]]


def save(ports):
    """Return what iptables-save prints of such rules."""
    nat = [NAT.format(port) for port in ports]
    rules = [form.format(port) for port in ports for form in FORMS]
    return "\n".join(["*nat", ":PREROUTING ACCEPT", *nat, "COMMIT", "*filter", ":INPUT ACCEPT", *rules, "COMMIT", ""])


@A_FIFTH
@given(OPTIONS)
def test_what_is_said_of_others(options):
    spec = spec_of(options)
    ports = sorted({step.port for door in spec.doors for step in door.knock + door.close})
    assume(ports)
    foreign = Foreign(native(ports), tuple(Save(family, "nft", save(ports)) for family in spec.ip_versions))
    found = findings_of_others(foreign, spec, spec.ip_versions, UNKNOWN)
    assert {each.kind for each in found} & {"native_table", "unguarded"}
    cut = what_cuts(foreign, Connection(ipaddress.ip_address("192.0.2.7"), "192.0.2.1", 22), UNKNOWN)
    assert steps_in(ports, " ".join(f"{each.rule} {each.message}" for each in found) + cut) == []
