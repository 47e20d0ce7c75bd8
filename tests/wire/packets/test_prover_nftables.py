# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The packet that the prover names gets past the table of nftables, sent for real; without what lets it in, all is proved."""

import ipaddress

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.foreign import Foreign
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import TABLE
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.proven import prove_installed
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from rig import packets
from rig.packets import IPV4, IPV6
from rig.peer import OPEN, OWN, TARGET
from rig.target import door

pytestmark = pytest.mark.only("nft")

OPTIONS = {
    "doors": [door(7000, "9100/udp", 3100, opens=("2222-2223",))],
    "allow": [{"port": "443"}],
    "trusted_sources": [OWN["other"][IPV4]],
}
SPEC = spec_from_options(OPTIONS)
LOCAL = LocalNetwork(tuple(ipaddress.ip_network(address) for address in TARGET.values()), ())
BESIDE = "inet void"

VOIDS = {
    "an accept": ["insert rule {table} input {from} tcp dport 2000-2300 accept"],
    "the door's chain": ["insert rule {table} service2 {from} accept"],
    "instead of a refusal": ["insert rule {table} refuse {from} meta l4proto tcp accept"],
    "a chain of its own": [
        "add chain {table} mine",
        "add rule {table} mine {from} accept",
        "insert rule {table} input tcp dport != 443 jump mine",
    ],
    "a map": ["insert rule {table} input {from} tcp dport vmap {{ 2222 : accept, 2223 : accept }}"],
    "flags": ["insert rule {table} input {from} tcp flags & psh == psh accept"],
    "a source port": ["insert rule {table} input {from} tcp sport 4321 accept"],
    "an interface": ['insert rule {table} input {from} iifname "et*" ct state {{ new, untracked }} accept'],
    "a mark": [
        "add table {beside}",
        "add chain {beside} marks {{ type filter hook prerouting priority -150; }}",
        "add rule {beside} marks {from} meta mark set 0x40",
        "insert rule {table} input meta mark & 0xff == 0x40 accept",
    ],
    "who has knocked": [
        "insert rule {table} knocks_or_services {from} tcp dport 100-200 update @open{digit}_ssh {{ {saddr} timeout 1h }}"
    ],
    "what was redirected": [
        "add table {nat}",
        "add chain {nat} sent {{ type nat hook prerouting priority -100; }}",
        "add rule {nat} sent {from} tcp dport 8222 redirect to :2222",
        "insert rule {table} input ct status dnat accept",
    ],
}


def judged(table, family):
    """Return what the prover says of the door in what is in the kernel."""
    proofs = prove_installed(SPEC, family, Foreign(table.items(), ()), LOCAL)
    return next(proof for proof in proofs if proof.entry["door"] == "ssh")


def answers(rig, family, name, packet):
    """Return what comes of a packet, and of one to the door behind it."""
    sport = packet["source_port"] if name == "a source port" else rig.client.fresh_port()
    flags = sum(getattr(packets, name) for name in packet["flags"])
    first = rig.client.probe(packet["port"], family, source=packet["source"], sport=sport, flags=flags)
    return first if name != "who has knocked" else rig.client.probe(2222, family)


@pytest.mark.parametrize("name", VOIDS)
def test_the_packet_gets_in(rig, table, name):
    family = (IPV4, IPV6)[list(VOIDS).index(name) % 2]
    table.apply(**OPTIONS)
    assert judged(table, family).entry["result"] == "proved"
    protocol, address = {IPV4: "ip", IPV6: "ip6"}[family], OWN["client"][family]
    words = {
        "table": TABLE, "beside": BESIDE, "nat": f"{protocol} void", "from": f"{protocol} saddr {address}",
        "saddr": f"{protocol} saddr", "digit": "4" if family == IPV4 else "6",
    }  # fmt: skip
    try:
        table.load("".join(f"{line.format(**words)}\n" for line in VOIDS[name]))
        proof = judged(table, family)
        # Of what nat redirects it is not said for certain where it goes.
        assert (proof.entry["result"], proof.is_certain) == ("void", name != "what was redirected"), proof.entry
        assert answers(rig, family, name, proof.entry["packet"]) == OPEN, proof.entry
        other = IPV6 if family == IPV4 else IPV4
        assert judged(table, other).entry["result"] == "proved"
    finally:
        for beside in (words["beside"], words["nat"]):
            rig.target.namespace.run("nft", "delete", "table", *beside.split(), check=False)
        table.remove()
    table.apply(**OPTIONS)
    assert judged(table, family).entry["result"] == "proved"
    assert answers(rig, family, name, proof.entry["packet"]) != OPEN
