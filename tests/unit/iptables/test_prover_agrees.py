# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The prover and the packet walker of these tests, which know nothing of each other, on random packets.

The prover follows sets of packets. Here each set is one packet, so what it says can be compared: what the walker accepts, it must
hold to be possibly accepted, and what the walker refuses, to be possibly refused. Where it says both it cannot judge; that is counted.
"""

import random

import pytest
import random_rules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._names.lists import OWN_LIST
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_ruleset import ruleset_of
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_space import changed
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_walk import Walk
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports
from fake_iptables import FakeIptables
from prover_questions import PROMISED, box_of, recorded, terms_of
from walker import Packet, Walker

FAMILIES = ("ipv4", "ipv6")
RECORDED = recorded()
SPECS = [
    spec_from_options(dict(PROMISED, **more))
    for more in (
        {},
        {"policy": "accept", "reject_with": "tcp-reset"},
        {"engine": "knockd"},
        {"ipv6_prefix": 64, "log": True},
    )
]
FLAGS = ("SYN", "SYN", "SYN,PSH", "SYN,URG", "SYN,PSH,URG")


def packets(rng, family, count):
    """Return random packets, the first ones of connections to this host."""
    found = []
    for _turn in range(count):
        protocol = rng.choice(["tcp", "tcp", "udp"])
        port = rng.choice(random_rules.PORTS) if rng.random() < 0.8 else rng.randint(1, 65535)
        found.append(
            Packet(
                rng.choice(random_rules.SOURCES[family]), port, protocol, sport=rng.choice([22, 53, 40000]),
                flags=rng.choice(FLAGS) if protocol == "tcp" else "", interface=rng.choice(["eth0", "eth1", "wg0", "br0"]),
                state=rng.choice(["NEW", "NEW", "RELATED"]),
            )
        )  # fmt: skip
    return found


EVERY_PORT = (Ports(0, 65535, "tcp"), Ports(0, 65535, "udp"))


def on_no_list(asked):
    """Nobody has knocked yet; of foreign lists nothing is known."""
    return (EVERY_PORT, False) if OWN_LIST.match(asked.name) else ((), None)


def compare(text, family, sent, seed):
    """Return how many packets were judged, how many could not be, and those about which the two disagree."""
    document = parse(text)
    ruleset = ruleset_of(document, family)
    space = ruleset.space((), [term for packet in sent for term in terms_of(packet)])
    walk = Walk(ruleset, space, on_no_list)
    judged, unknown, wrong = 0, 0, []
    for packet in sent:
        answer = walk.answer([box_of(space, packet)])
        can = {name for name, hits in (("ACCEPT", answer.accepted), ("refuse", answer.refused)) if hits}
        walker = Walker(document, oracle=lambda *asked: random.Random(repr((seed, asked))).random() < 0.5)
        verdict = walker.send(packet)
        became = "ACCEPT" if verdict.action == "ACCEPT" else "refuse"
        if became not in can:
            wrong.append((packet, verdict, can))
        judged, unknown = judged + (len(can) == 1), unknown + (len(can) == 2)
    return judged, unknown, wrong


def made(rng, family):
    """Return a ruleset of others with the collection's rules in it, and more rules that came afterwards."""
    chains = {name: [random_rules.make_rule(rng, family, random_rules.CHAINS[number + 1 :]) for _turn in range(rng.randrange(4))]
              for number, name in enumerate(random_rules.CHAINS)}  # fmt: skip
    rules = [random_rules.make_rule(rng, family) for _turn in range(rng.randrange(7))]
    host = FakeIptables(random_rules.save_text(rng.choice(["ACCEPT", "DROP"]), rules, chains))
    host.restore(plan_family(host.save(), rng.choice(SPECS), family).change)
    for _turn in range(rng.randrange(3)):
        place = rng.randint(1, len(host.tables["filter"].chains["INPUT"]) + 1)
        host.restore("*filter\n-I INPUT {0} {1}\nCOMMIT\n".format(place, random_rules.make_rule(rng, family)))
    return host.save()


def agree(rulesets, each):
    judged = unknown = 0
    for seed in range(rulesets):
        rng, family = random.Random(seed), FAMILIES[seed % 2]
        text = made(rng, family)
        found = compare(text, family, packets(rng, family, each), seed)
        assert found[2] == [], text
        judged, unknown = judged + found[0], unknown + found[1]
    assert unknown < 0.1 * (judged + unknown), (judged, unknown)
    return judged + unknown


def test_they_agree_on_generated_rulesets():
    assert agree(40, 10) == 400


@pytest.mark.slow
def test_they_agree_on_very_many(request):
    """A hundred thousand packets with --slow."""
    rulesets = 2500 if request.config.getoption("--slow") else 100
    assert agree(rulesets, 40) == rulesets * 40


@pytest.mark.parametrize("entry", RECORDED, ids=[entry["file"] for entry in RECORDED])
def test_they_agree_on_recorded_rulesets(entry):
    family, rng = entry["family"], random.Random(entry["file"])
    host = FakeIptables(entry["text"])
    host.restore(plan_family(host.save(), SPECS[0], family).change)
    judged, unknown, wrong = compare(host.save(), family, packets(rng, family, 6), entry["file"])
    assert wrong == []
    assert judged + unknown == 6


def test_what_they_are_asked_is_one_packet():
    space = ruleset_of(parse("*filter\nCOMMIT\n"), "ipv4").space((), terms_of(Packet("192.0.2.1", 22)))
    box = box_of(space, Packet("192.0.2.1", 22))
    assert all(bits and not bits & (bits - 1) for bits in changed(box, 6, 1))
    assert space.packet(box)[:6] == ("eth0", "192.0.2.1", "203.0.113.1", "tcp", 40000, 22)
