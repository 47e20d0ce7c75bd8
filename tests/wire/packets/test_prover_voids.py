# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The packet that the prover names gets in, sent for real; without what lets it in, the same ruleset is proved and it does not."""

import ipaddress
import random
import sys

import pytest
from rig import packets
from rig.packets import IPV4, IPV6
from rig.peer import OPEN, OWN, TARGET
from rig.target import ROOT, door

sys.path.append(str(ROOT / "tests/unit/support"))
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from prover_questions import word_of

OPTIONS = {"doors": [door(7000, "9100/udp", 3100, opens=("2222-2223",))], "allow": [{"port": "443"}]}
LOCAL = LocalNetwork(tuple(ipaddress.ip_network(address) for address in TARGET.values()), ())

VOIDS = {
    "an accept": ["filter -I INPUT {place} -s {client} -p tcp -m multiport --dports 2000:2300 -j ACCEPT"],
    "a source port": ["filter -I INPUT {place} -s {client} -p tcp -m tcp --sport {sport} -j ACCEPT"],
    "flags": ["filter -I INPUT {place} -s {client} -p tcp -m tcp --tcp-flags PSH PSH -j ACCEPT"],
    "a range": ["filter -I INPUT {place} -m iprange --src-range {client}-{client} -p tcp -j ACCEPT"],
    "an interface": ["filter -I INPUT {place} -i et+ -s {client} -j ACCEPT"],
    "all but others": ["filter -I INPUT {place} ! -s {other} -i eth0 -m addrtype ! --src-type LOCAL -j VOID1",
                       "filter -A VOID1 -s {client} -p tcp -j ACCEPT"],
    "deep": ["filter -A VOID3 -p tcp -j ACCEPT", "filter -A VOID2 -i eth0 -g VOID3", "filter -A VOID1 -s {client} -j VOID2",
             "filter -I INPUT {place} -p tcp -m tcp ! --dport 22 -j VOID1"],
    "a goto past a return": ["filter -A VOID2 -p tcp -j RETURN", "filter -A VOID2 -j DROP", "filter -A VOID1 -g VOID2",
                             "filter -A VOID1 -j DROP", "filter -I INPUT {place} -s {client} -j VOID1",
                             "filter -I INPUT {next} -s {client} -p tcp -j ACCEPT"],
    "a mark": ["mangle -A PREROUTING -s {client} -p tcp -j MARK --set-xmark 0x40/0xff",
               "filter -I INPUT {place} -m mark --mark 0x40/0x40 -j ACCEPT"],
    "a list": ["filter -I INPUT {place} -s {client} -m recent ! --rcheck --seconds 60 --name void --rsource -j ACCEPT"],
    "a limit": ["filter -I INPUT {place} -s {client} -p tcp -m limit --limit 50/sec -j ACCEPT"],
    "a hardware address": ["filter -I INPUT {place} -s {client} -m mac --mac-source {mac} -j ACCEPT"],
    "what is not known": ["filter -I INPUT {place} -s {client} -p tcp -m length --length 40:200 -j ACCEPT"],
    "no tracking": ["raw -A PREROUTING -s {client} -p tcp -m multiport --dports 2222,2223 -j CT --notrack",
                    "raw -A OUTPUT -d {client} -p tcp -j CT --notrack",
                    "filter -I INPUT {place} -m conntrack --ctstate UNTRACKED -j ACCEPT"],
    "another port": ["nat -I PREROUTING 1 -s {client} -p tcp -m tcp --dport 2222 -j REDIRECT --to-ports 3333",
                     "filter -I INPUT {place} -s {client} -p tcp -m tcp --dport 3333 -j ACCEPT"],
    "whatever was redirected": ["nat -A PREROUTING -s {client} -p tcp -m tcp --dport 8222 -j REDIRECT --to-ports 2222",
                                "filter -I INPUT {place} -m conntrack --ctstate RELATED,DNAT -j ACCEPT"],
    "our own chain": ["filter -I PORTKNOCK_D1 1 -s {client} -p tcp -j ACCEPT"],
    "the head": ["filter -I PORTKNOCK_HEAD 2 -s {client} -m conntrack --ctstate NEW -j ACCEPT"],
    "the way back from the doors": ["filter -I PORTKNOCK 1 -s {client} -p tcp -j RETURN", "filter -A PORTKNOCK_TAIL -j ACCEPT",
                                    "filter -I INPUT {last} -s {client} -p tcp -j ACCEPT"],
}  # fmt: skip
FEW = ("a mark", "deep", "flags", "another port", "no tracking", "what is not known")


def void(rig, family, name, rng):
    """Load what lets packets in; return the ruleset before."""
    before = rig.target.save(family)
    inputs = before.count("-A INPUT ")
    place = rng.randint(1, 2)
    words = dict(
        client=OWN["client"][family], other=OWN["other"][family], place=place, next=place + 1,
        last=inputs, sport=rng.randint(1024, 20000), mac=rig.client.namespace.mac,
    )  # fmt: skip
    chains = [":VOID1 - [0:0]", ":VOID2 - [0:0]", ":VOID3 - [0:0]"]
    for table in ("raw", "mangle", "nat", "filter"):
        lines = [line.format(**words) for line in VOIDS[name] if line.startswith(table)]
        if lines:
            text = [f"*{table}", *(chains if table == "filter" else []), *[line.split(" ", 1)[1] for line in lines]]
            rig.target.restore(family, "\n".join([*text, "COMMIT", ""]), "--noflush")
    return before


def answer(rig, family, packet, name):
    """Send a packet, from a fresh port where any will do: the kernel still knows the connections of the test before."""
    sport = packet["source_port"] if name == "a source port" else rig.client.fresh_port()
    flags = sum(getattr(packets, name) for name in packet["flags"])
    return rig.client.probe(packet["port"], family, source=packet["source"], sport=sport, flags=flags)


def check(rig, family, name, rng):
    rig.target.reset()
    rig.target.apply(**OPTIONS)
    spec = spec_from_options(OPTIONS)
    before = void(rig, family, name, rng)
    word = word_of(rig.target.save(family), spec, family, local=LOCAL)
    assert word["result"] == "void", (name, word)
    assert answer(rig, family, word["packet"], name) == OPEN, (name, word)
    other = IPV6 if family == IPV4 else IPV4
    assert word_of(rig.target.save(other), spec, other, local=LOCAL)["result"] == "proved"
    for table in ("raw", "mangle", "nat"):
        rig.target.restore(family, f"*{table}\nCOMMIT\n")
    rig.target.restore(family, before)
    assert word_of(rig.target.save(family), spec, family, local=LOCAL)["result"] == "proved", name
    assert answer(rig, family, word["packet"], "") != OPEN, name


@pytest.mark.parametrize("name", FEW)
def test_the_packet_gets_in(rig, family, name):
    check(rig, family, name, random.Random(name))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", VOIDS)
def test_many_packets_get_in(rig, family, name, seed):
    check(rig, family, name, random.Random(seed))
