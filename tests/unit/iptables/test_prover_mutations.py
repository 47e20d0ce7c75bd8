# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults put into what the planner gives: what the packet walker tells from the right ruleset, the prover must not call proved.

And whatever doors are asked for, what the planner gives without a fault is proved.
"""

import ipaddress
import random
import re

import pytest
import random_rules
from ansible_collections.sesame.portknock.plugins.module_utils._engine import Connection
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import Hook
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.prove_doors import prove_doors
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.proven import would_be
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import UNKNOWN
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from prover_questions import PROMISED, named_lists
from walker import Packet, Walker

FAMILIES = ("ipv4", "ipv6")
STRANGER = {"ipv4": "192.0.2.77", "ipv6": "2001:db8:1::77"}
SPECS = [
    spec_from_options(dict(PROMISED, **more)) for more in ({}, {"policy": "accept"}, {"log": True}, {"ipv6_prefix": 64})
]
FOREIGN = (
    [],
    ["-p tcp -m tcp --dport 22 -j ACCEPT", "-p tcp -m tcp --dport 80 -j ACCEPT"],
    ["-s 198.51.100.0/24 -j DROP", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-j ACCEPT"],
    ["-i lo -j ACCEPT", "-p tcp -m multiport --dports 20:30,8443 -j ACCEPT", "-p udp -j ACCEPT", "-j REJECT"],
)


def planned(rng):
    family, spec = rng.choice(FAMILIES), rng.choice(SPECS)
    rules = [rule for rule in rng.choice(FOREIGN) if family == "ipv4" or "198.51" not in rule]
    return plan_family(random_rules.save_text("ACCEPT", rules, {}), spec, family), spec, family


def knocks(spec):
    """Return sequences of (port, protocol): right ones, and such as must not open."""
    for door in spec.doors:
        steps, opened = [tuple(step) for step in door.knock], [(ports.first, ports.protocol) for ports in door.opens]
        wrong = [steps[1:], steps[:1] + steps[2:], steps[:-1], steps[::-1], steps[-1:]] if len(steps) > 1 else [[]]
        wrong += [[*steps[:1], (6543, protocol), *steps[1:]] for protocol in ("tcp", "udp")] if len(steps) > 1 else []
        for sequence in [steps, *wrong]:
            for port in opened:
                yield [*sequence, port]


def behaviour(document, spec, family):
    """Return what becomes of a stranger's packets, of those who knock, and of those who knock wrongly."""
    found, source = [], STRANGER[family]
    for sequence in knocks(spec):
        for pause, state in ((0.5, "NEW"), (0.5, "RELATED"), (40, "NEW")):
            walker = Walker(document, oracle=lambda *_asked: False)
            for port, protocol in sequence[:-1]:
                walker.send(Packet(source, port, protocol))
                walker.later(0.5)
            walker.later(pause)
            port, protocol = sequence[-1]
            found.append(walker.send(Packet(source, port, protocol, state=state)).action == "ACCEPT")
    return found


def moved_hook(rng, plan):
    hooks = list(plan.then.hooks_of("INPUT"))
    index = rng.randrange(len(hooks))
    hook = hooks.pop(index)
    if rng.random() < 0.7:
        hooks.insert(rng.randrange(len(hooks) + 1), Hook(rng.randrange(len(plan.foreign["INPUT"]) + 1), hook.text))
        hooks.sort(key=lambda each: each.position)
    return plan.then._replace(hooks=(*hooks, *(hook for hook in plan.then.hooks if hook.chain != "INPUT")))


def _changed(rng, plan, change):
    chains = {name: list(rules) for name, rules in plan.then.chains.items()}
    name = rng.choice(sorted(name for name, rules in chains.items() if rules))
    change(chains[name], rng.randrange(len(chains[name])))
    return plan.then._replace(chains={name: tuple(rules) for name, rules in chains.items()})


def dropped_rule(rng, plan):
    return _changed(rng, plan, lambda rules, index: rules.pop(index))


def swapped_rules(rng, plan):
    def swap(rules, index):
        rules[index - 1], rules[index] = rules[index], rules[index - 1]

    return _changed(rng, plan, swap)


WIDER = (
    (r"--seconds \d+", "--seconds 3600"), (r"-s \S+ ", ""), (r"-m recent --rcheck --seconds \d+ \S+ \S+ --mask \S+ --rsource ", ""),
    (r"--dport \d+ ", "--dport 1:65535 "), (r"--dports \S+", "--dports 1:65535"), (r"--ctstate \S+", "--ctstate NEW"),
    (r"-i \S+ ", ""), (r"-p tcp -m tcp --dport \S+ ", "-p tcp "), (r"-g (PORTKNOCK_\w+)$", r"-j \1"), (r"-j REJECT.*", "-j ACCEPT"),
    (r"-g PORTKNOCK_REFUSE", "-j RETURN"), (r"-m recent --remove \S+ \S+ --mask \S+ --rsource ", ""), (r"-j ACCEPT", "-j DROP"),
)  # fmt: skip


def widened_match(rng, plan):
    def widen(rules, index):
        pattern, wider = rng.choice([each for each in WIDER if re.search(each[0], rules[index])] or [("^", "")])
        rules[index] = re.sub(pattern, wider, rules[index], count=1)

    return _changed(rng, plan, widen)


def swapped_steps(rng, plan):
    """Two steps of a door change their ports, or their lists."""
    chains = {name: list(rules) for name, rules in plan.then.chains.items()}
    steps = [(name, index) for name, rules in chains.items() for index, text in enumerate(rules) if "step" in text]
    (one, i), (other, j) = rng.sample(steps, 2)
    pattern = rng.choice([r"--dport \d+", r"--set --name \S+", r"--rcheck --seconds \d+ --name pk\S+\.[2-9]"])
    first, second = re.search(pattern, chains[one][i]), re.search(pattern, chains[other][j])
    if first and second:
        a, b = chains[one][i], chains[other][j]
        chains[one][i], chains[other][j] = (
            a.replace(first.group(), second.group(), 1),
            b.replace(second.group(), first.group(), 1),
        )
    return plan.then._replace(chains={name: tuple(rules) for name, rules in chains.items()})


FAULTS = (moved_hook, dropped_rule, swapped_rules, widened_match, swapped_steps)


def hunt(seeds):
    """Return how many faults the walker tells apart, and those of them that the prover does not."""
    apart, missed = 0, []
    rights = {}
    for seed in range(seeds):
        rng = random.Random(seed)
        plan, spec, family = planned(rng)
        fault = FAULTS[seed % len(FAULTS)]
        then = fault(rng, plan)
        if then == plan.then:
            continue
        key = (family, SPECS.index(spec), tuple(plan.foreign["INPUT"]))
        if key not in rights:
            rights[key] = behaviour(would_be(plan.document, plan.then), spec, family)
        document = would_be(plan.document, then)
        if behaviour(document, spec, family) == rights[key]:
            continue
        apart += 1
        named, source = named_lists(spec, family), ipaddress.ip_address(STRANGER[family])
        proofs = prove_doors(
            document, family, spec, named, UNKNOWN, connection=Connection(source, "", rng.choice((22, 8443)))
        )
        if {proof.entry["result"] for proof in proofs} == {"proved"}:
            missed.append((seed, fault.__name__, set(plan.then.hooks) ^ set(then.hooks),
                           [(name, set(rules) ^ set(then.chains[name])) for name, rules in plan.then.chains.items()
                            if rules != then.chains[name]]))  # fmt: skip
    return apart, missed


@pytest.mark.slow
def test_faults_that_packets_tell_are_caught():
    apart, missed = hunt(150)
    assert apart > 40
    assert len(missed) <= 0.05 * apart, missed


@pytest.mark.slow
@pytest.mark.hunt
def test_more_faults():
    apart, missed = hunt(5000)
    assert len(missed) <= 0.05 * apart, missed


def test_what_keeps_the_connection_out_is_said_of_the_connection():
    """Of the faults by which one who knocks does not get in, those that the Word of a connection like his shows."""
    kept_out, missed = 0, []
    for seed in range(150):
        rng = random.Random(seed)
        plan, spec, family = planned(rng)
        then = FAULTS[seed % len(FAULTS)](rng, plan)
        document, door = would_be(plan.document, then), spec.doors[0]
        walker = Walker(document, oracle=lambda *_asked: False)
        for step in door.knock:
            walker.send(Packet(STRANGER[family], step.port, step.protocol))
            walker.later(0.5)
        if walker.send(Packet(STRANGER[family], 22)).action == "ACCEPT":
            continue
        kept_out += 1
        connection = Connection(ipaddress.ip_address(STRANGER[family]), "", 22)
        named = named_lists(spec, family)
        said = prove_doors(document, family, spec, named, UNKNOWN, connection=connection)
        words = {proof.entry["what"]: proof.entry["result"] for proof in said}
        # Of a list that nobody gets on, or by other steps, the door's own word says it.
        if words["connection"] == words["door ssh"] == "proved":
            missed.append((seed, words))
    assert kept_out > 10
    assert missed == []


def some_doors(rng):
    """Return random doors: long and short knocks, several at one port, that close, for one connection, for some sources."""
    doors = []
    for number in range(rng.randint(1, 6)):
        steps = rng.sample(range(20000, 60000, 7), rng.randint(1, 8))
        door = {
            "name": "d{0}".format(number),
            "knock": ["{0}/{1}".format(step, rng.choice(["tcp", "udp"])) for step in steps],
        }
        door["opens"] = rng.sample(["22", "443", "8000-8010", "53/udp", "9000", "8005/udp"], rng.randint(1, 3))
        close = [str(step) for step in rng.sample(range(60001, 65000, 7), 3)]
        more = [
            {},
            {"once": True},
            {"window": 3600},
            {"sources": ["192.0.2.0/24", "2001:db8::/32"]},
            {"sources": ["198.51.100.7"]},
        ]
        door.update(rng.choice([*more, {"close": close}]))
        doors.append(door)
    return doors


def all_are_proved(seeds):
    for seed in range(seeds):
        rng = random.Random(seed)
        options = {"doors": some_doors(rng), "policy": rng.choice(["accept", "reject"]), "log": rng.random() < 0.3,
                   "ipv6_prefix": rng.choice([64, 128]), "engine": rng.choice(["iptables", "iptables", "knockd"])}  # fmt: skip
        try:
            spec = spec_from_options(options)
        except SpecError:
            continue
        for family in FAMILIES:
            plan = plan_family(random_rules.save_text("ACCEPT", rng.choice(FOREIGN[:2]), {}), spec, family)
            words = prove_doors(would_be(plan.document, plan.then), family, spec, named_lists(spec, family), UNKNOWN)
            assert [(seed, word.entry["result"], word.entry["message"]) for word in words] == [
                (seed, "proved", "")
            ] * len(spec.doors)


def test_whatever_doors_are_asked_for_are_proved():
    all_are_proved(25)


@pytest.mark.slow
def test_many_more_doors_are_proved(request):
    all_are_proved(2000 if request.config.getoption("--slow") else 150)
