# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the prover and the walker say of a packet, the kernel does: random packets by the hundred, on rulesets of all kinds.

A raw socket of the target gets a copy of each packet that chain INPUT has let through, and of no other.
"""

import ipaddress
import os
import random
import re
import socket
import struct
import sys
from collections import Counter

import pytest
from rig import packets
from rig.packets import IPV4, IPV6
from rig.target import ROOT

sys.path.append(str(ROOT / "tests/unit/support"))
import random_rules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.lists import OWN_LIST
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_ruleset import ruleset_of
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_walk import TooManyCases, Walk
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import PROTOCOLS
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports
from prover_questions import PROMISED, box_of, recorded, terms_of
from walker import ACCEPT, Packet, Walker

HOST = {IPV4: "203.0.113.1", IPV6: "2001:db8:ffff::1"}
OWN = tuple(ipaddress.ip_network(address) for address in HOST.values())
SPECS = [spec_from_options(dict(PROMISED, **more)) for more in ({}, {"policy": "accept"}, {"reject_with": "drop"})]
LAST_STEPS = {(door.knock[-1].port, door.knock[-1].protocol) for door in SPECS[0].doors}
"""No packet of these tests opens a door: what the lists do is tested elsewhere."""
NOT_HERE = ("geoip", "--match-set", "owner", "--ctproto", "--ctstatus")
MISPRINTED = ("! -i +", "! --sport 0:65535", "! --dport 0:65535")
"""With one of these a rule matches no packet, and iptables-legacy-save (1.8.9) prints it without, so as one that matches any."""
DOUBTFUL = re.compile("limit|statistic|string|u32|time|cpu|mac|recent|length|ttl|ctorig|mark")
FLAGS = ("SYN", "SYN", "SYN,PSH", "SYN,URG", "SYN,PSH,URG")
EVERY_PORT = tuple(Ports(0, 65535, protocol) for protocol in PROTOCOLS)
TAIL, TAILS = 0x88B5, 8
"""A kind of frame that nothing looks at: once it has come in, everything before it has been decided."""
RULESETS = [entry for entry in recorded() if "-A" in entry["text"]]
USED = set()
"""Connections of all tests: the kernel knows those of the tests before, and another packet of theirs is not the first one."""


class Wire:
    """Sends numbered packets, and tells which of them were let in."""

    def __init__(self, rig):
        self.client, self.number = rig.client, 0
        namespace = rig.target.namespace
        for family, flag in ((IPV4, "-4"), (IPV6, "-6")):
            here = ["nodad"] if family == IPV6 else []
            namespace.run("ip", flag, "address", "replace", HOST[family], "dev", "eth0", *here)
            namespace.run("ip", flag, "route", "replace", "default", "dev", "eth0")
        with namespace.entered():
            self.raw = {
                (family, protocol): socket.socket(kind, socket.SOCK_RAW | socket.SOCK_NONBLOCK, number)
                for family, kind in ((IPV4, socket.AF_INET), (IPV6, socket.AF_INET6))
                for protocol, number in (("tcp", packets.TCP), ("udp", packets.UDP))
            }
            self.tail = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(TAIL))
        self.tail.settimeout(20)
        for handle in self.raw.values():
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.header = bytes.fromhex((namespace.mac + rig.client.namespace.mac).replace(":", ""))
        self.namespace = namespace

    def close(self):
        for handle in (self.tail, *self.raw.values()):
            handle.close()
        for family, flag in ((IPV4, "-4"), (IPV6, "-6")):
            self.namespace.run("ip", flag, "route", "del", "default", "dev", "eth0")
            length = "/32" if family == IPV4 else "/128"
            self.namespace.run("ip", flag, "address", "del", HOST[family] + length, "dev", "eth0")

    def let_in(self, family, sent):
        """Send packets, and return for each whether it was let in."""
        cores = os.sched_getaffinity(0)
        # What one core sends, is decided in that order.
        os.sched_setaffinity(0, {min(cores)})
        try:
            first = self.number
            for packet in sent:
                self.client.send(self._bytes(packet))
            for _turn in range(TAILS):
                self.client._out.send(self.header + struct.pack("!H", TAIL) + b"\0" * 46)
            for _turn in range(TAILS):
                self.tail.recv(2000)
        finally:
            os.sched_setaffinity(0, cores)
        seen = {number for protocol in PROTOCOLS for number in self._arrived(family, protocol)}
        return [first + place + 1 in seen for place in range(len(sent))]

    def _bytes(self, packet):
        self.number += 1
        ends = (packet.source, packet.destination, packet.sport, packet.port)
        if packet.protocol == "udp":
            kind, data = packets.UDP, packets.udp(*ends, payload=struct.pack("!I", self.number))
        else:
            flags = sum(getattr(packets, flag) for flag in packet.flags.split(","))
            kind, data = packets.TCP, packets.tcp(*ends, flags=flags, seq=self.number)
        return packets.ip(packet.source, packet.destination, kind, data)

    def _arrived(self, family, protocol):
        while True:
            try:
                data = self.raw[family, protocol].recv(4096)
            except BlockingIOError:
                return
            start = (data[0] & 15) * 4 if family == IPV4 else 0
            start += 4 if protocol == "tcp" else 8
            yield struct.unpack("!I", data[start : start + 4])[0]


@pytest.fixture
def wire(rig):
    made = Wire(rig)
    try:
        yield made
    finally:
        made.close()


def some_packets(rng, family, count, used, mac):
    """Return first packets of connections, each of another connection, from an Ethernet address."""
    found = []
    while len(found) < count:
        protocol = rng.choice(["tcp", "tcp", "udp"])
        port = rng.choice(random_rules.PORTS) if rng.random() < 0.8 else rng.randint(1, 65535)
        sport = rng.choice([22, 53]) if rng.random() < 0.1 else rng.randint(1024, 65535)
        source = rng.choice(random_rules.SOURCES[family])
        if (port, protocol) in LAST_STEPS or (source, sport, port, protocol) in used:
            continue
        used.add((source, sport, port, protocol))
        flags = rng.choice(FLAGS) if protocol == "tcp" else ""
        found.append(Packet(source, port, protocol, sport=sport, flags=flags, destination=HOST[family], mac=mac))
    return found


def some_rule(rng, family, later=random_rules.CHAINS):
    """Return a rule that this kernel takes; one of which nothing can be told less often than random_rules makes it."""
    while True:
        text = random_rules.make_rule(rng, family, later)
        if any(word in text for word in NOT_HERE + MISPRINTED) or (family == IPV6 and "-m ttl" in text):
            continue
        if not DOUBTFUL.search(text.partition("--comment")[0]) or rng.random() < 0.1:
            return text


def made(rng, family):
    """Return a ruleset of others."""
    chains = {name: [some_rule(rng, family, random_rules.CHAINS[number + 1 :]) for _turn in range(rng.randrange(4))]
              for number, name in enumerate(random_rules.CHAINS)}  # fmt: skip
    rules = [some_rule(rng, family) for _turn in range(rng.randrange(7))]
    return random_rules.save_text(rng.choice(["ACCEPT", "DROP"]), rules, chains)


def on_no_list(asked):
    return (EVERY_PORT, False) if OWN_LIST.match(asked.name) else ((), None)


def proved(document, family, sent):
    """Return what the prover holds to be possible for each packet."""
    ruleset = ruleset_of(document, family)
    space = ruleset.space(OWN, [term for packet in sent for term in terms_of(packet)])
    for coarse in (False, True):
        walk = Walk(ruleset, space, on_no_list, coarse=coarse)
        for packet in sent:
            answer = walk.answer([box_of(space, packet)])
            here = any(not hit.away for hit in answer.accepted)
            yield {name for name, can in ((True, here), (False, answer.refused or len(answer.accepted) > here)) if can}


def walked(document, sent):
    """Return what the walker says of each packet, None where it cannot tell."""
    tables = [document.table(name) for name in ("raw", "mangle", "nat")]
    others = any(rules for table in tables if table for chain, rules in table.chains.items() if chain != "OUTPUT")
    stateful = re.compile("-m recent(?! --(rcheck|set|remove|update).*--name pk[46])|limit|statistic")
    if others or any(
        stateful.search(rule.text) for rules in document.table("filter").chains.values() for rule in rules
    ):
        return [None] * len(sent)
    walkers = [Walker(document, oracle=lambda *_asked, guess=guess: guess) for guess in (False, True)]
    said = [{walker.send(packet).action == ACCEPT for walker in walkers} for packet in sent]
    return [answers.pop() if len(answers) == 1 else None for answers in said]


def compare(rig, wire, family, rng, count):
    """Send packets through the ruleset that is loaded, and return how many were judged, and what is wrong."""
    sent = some_packets(rng, family, count, USED, rig.client.namespace.mac)
    text = rig.target.save(family)
    document = parse(text)
    became = wire.let_in(family, sent)
    try:
        can = list(proved(document, family, sent))
    except TooManyCases:
        return Counter({"too many cases": count}), []
    said = walked(document, sent)
    counts, wrong = Counter(sent=count, let_in=sum(became)), []
    for place, packet in enumerate(sent):
        for kind, possible in (("exactly", can[place]), ("coarsely", can[count + place])):
            counts[f"prover, {kind}"] += len(possible) == 1
            if became[place] not in possible:
                wrong.append((kind, packet, became[place], text))
        if said[place] is not None:
            counts["walker"] += 1
            if said[place] != became[place]:
                wrong.append(("walker", packet, became[place], text))
    return counts, wrong


def load(rig, family, text, spec):
    """Load a ruleset, and doors into it; return whether this kernel takes it."""
    rig.target.reset()
    try:
        rig.target.restore(family, text)
    except RuntimeError:
        return False
    if spec is not None:
        change = plan_family(rig.target.save(family), spec, family).change
        if change:
            rig.target.restore(family, change, "--noflush")
    return True


def check(rig, wire, family, seed, rulesets, count):
    rng, counts = random.Random(f"{family} {seed}"), Counter()
    for _turn in range(rulesets):
        if not load(rig, family, made(rng, family), rng.choice([None, *SPECS])):
            counts["not loaded"] += 1
            continue
        for _more in range(rng.randrange(3)):
            place = rng.randint(1, rig.target.save(family).count("-A INPUT") + 1)
            try:
                line = f"-I INPUT {place} {some_rule(rng, family, ())}"
                rig.target.restore(family, f"*filter\n{line}\nCOMMIT\n", "--noflush")
            except RuntimeError:
                counts["rules not loaded"] += 1
        more, wrong = compare(rig, wire, family, rng, count)
        assert wrong == []
        counts += more
    print(f"{rig.backend} {family} {seed}: {dict(counts)}")
    return counts


def check_enough(counts):
    """What the prover cannot judge is less than a tenth; both verdicts were seen."""
    assert counts["prover, exactly"] > 0.9 * counts["sent"], counts
    assert 0.1 * counts["sent"] < counts["let_in"] < 0.9 * counts["sent"], counts


def test_the_kernel_agrees(rig, wire, family):
    check_enough(check(rig, wire, family, 0, 12, 25))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 26))
def test_the_kernel_agrees_for_long(rig, wire, family, seed):
    check_enough(check(rig, wire, family, seed, 40, 50))


@pytest.mark.soak
@pytest.mark.parametrize("entry", RULESETS, ids=[entry["file"] for entry in RULESETS])
def test_the_kernel_agrees_on_recorded_rulesets(rig, wire, entry):
    rng, family = random.Random(entry["file"]), entry["family"]
    if load(rig, family, entry["text"], SPECS[0]):
        counts, wrong = compare(rig, wire, family, rng, 50)
        assert wrong == []
        print(f"{rig.backend} {entry['file']}: {dict(counts)}")
    else:
        print(f"{rig.backend} {entry['file']}: not loaded")
