# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the prover and the walker say of a packet, the kernel does: random packets by the hundred, on rulesets of all kinds."""

import contextlib
import ipaddress
import random
import re
import sys
from collections import Counter

import pytest
from rig.arrivals import EVERY_PORT, HOST, SPECS, Wire, check_enough, judged, some_packets
from rig.packets import IPV6
from rig.target import ROOT

sys.path.append(str(ROOT / "tests/unit/support"))
import random_rules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._names.lists import OWN_LIST
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_ruleset import ruleset_of
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_walk import TooManyCases
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from prover_questions import possible, recorded
from walker import ACCEPT, Walker

OWN = tuple(ipaddress.ip_network(address) for address in HOST.values())
NOT_HERE = ("geoip", "--match-set", "owner", "--ctproto", "--ctstatus")
MISPRINTED = ("! -i +", "! --sport 0:65535", "! --dport 0:65535")
"""With one of these a rule matches no packet, and iptables-legacy-save (1.8.9) prints it without, so as one that matches any."""
DOUBTFUL = re.compile("limit|statistic|string|u32|time|cpu|mac|recent|length|ttl|ctorig|mark")
RULESETS = [entry for entry in recorded() if "-A" in entry["text"]]


@pytest.fixture
def wire(rig):
    with contextlib.closing(Wire(rig)) as made:
        yield made


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
    sent = some_packets(rng, family, count, rig.client.namespace.mac)
    text = rig.target.save(family)
    document = parse(text)
    became = wire.let_in(family, sent)
    try:
        ruleset = ruleset_of(document, family)
        can = [possible(ruleset, OWN, on_no_list, sent, coarse) for coarse in (False, True)]
    except TooManyCases:
        return Counter({"too many cases": count}), []
    counts, wrong = judged(sent, became, can, text)
    for packet, said, let_in in zip(sent, walked(document, sent), became):
        if said is not None:
            counts["walker"] += 1
            if said != let_in:
                wrong.append(("walker", packet, let_in, text))
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
