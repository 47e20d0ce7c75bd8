# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the prover says of a packet that comes to the table of nftables, the kernel does.

The table stands among random ones of others, with rules in it that somebody put there by hand.
"""

import contextlib
import ipaddress
import json
import random
import re
import sys
from collections import Counter

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import rules_in
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_nft import NftRuleset, Own
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_walk import TooManyCases
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import TABLE
from rig import random_nft
from rig.arrivals import EVERY_PORT, OPTIONS, Wire, check_enough, judged, some_packets
from rig.target import ROOT

sys.path.append(str(ROOT / "tests/unit/support"))
import random_rules
from prover_questions import possible

OWN_SET = re.compile("(paused|progress|stages|open)[46]")
CHAINS = re.compile("input|services|service[0-9]+|knocks_or_services|refuse|wrong|knock[0-9]+")
EARLY = {
    "raw": ("-j CT --notrack", "-j DROP", "-j ACCEPT"),
    "mangle": (
        "-j MARK --set-xmark 0x1/0xffffffff",
        "-j MARK --set-xmark 0x2/0x3",
        "-m mark --mark 0x1 -j DROP",
        "-j DROP",
    ),
    "nat": ("-j REDIRECT --to-ports 443", "-j REDIRECT --to-ports 8443", "-j ACCEPT"),
}
"""What rules of iptables do in front of table filter."""


@pytest.fixture
def wire(rig):
    with contextlib.closing(Wire(rig)) as made:
        yield made


def on_no_list(asked):
    return (EVERY_PORT, False) if OWN_SET.match(asked.name) else ((), None)


def addresses(rig):
    """Return all addresses of the target."""
    listed = json.loads(rig.target.namespace.run("ip", "-j", "address").stdout)
    return tuple(ipaddress.ip_network(each["local"]) for link in listed for each in link["addr_info"])


def tried(table, text):
    """Return whether this nft takes a text, which is loaded then."""
    try:
        table.load(text)
    except RuntimeError:
        return False
    return True


def put_among_ours(rng, family, table, counts):
    """Put rules of somebody else at any place of our table."""
    maker = random_nft.Maker(rng, family, "inet")
    table.load("".join(f"add {' '.join([each.split()[0], TABLE, *each.split()[1:]])}\n" for each in maker.named()))
    if rng.random() < 0.2 and not tried(table, f"table {TABLE} {{\n{maker.base('more', ())}\n}}\n"):
        counts["rules not loaded"] += 1
    for _turn in range(rng.randrange(5)):
        kind, _space, name = TABLE.partition(" ")
        places = Counter(rule["chain"] for rule in rules_in(table.items(), kind, name))
        chain = rng.choice(["input", "input", *sorted(filter(CHAINS.fullmatch, places))])
        index = rng.randrange(places[chain])
        later = ["refuse", "service1", "services"] if chain in ("input", "knocks_or_services") else []
        if not tried(table, f"insert rule {TABLE} {chain} index {index} {maker.rule(later)}\n"):
            counts["rules not loaded"] += 1


def others_of_iptables(rng, family):
    """Return rules of others in tables of iptables."""
    words = ("geoip", "--match-set", "owner", "--ctproto", "--ctstatus", "ttl", "! -i +", "recent", "0:65535")
    rules = [random_rules.make_rule(rng, family, ()) for _turn in range(4)]
    rules = [rule for rule in rules if not any(word in rule for word in words)]
    texts = [random_rules.save_text("ACCEPT", rules, {}) if rng.random() < 0.7 else ""]
    for name, ends in EARLY.items():
        if rng.random() < 0.3:
            port, end = rng.choice(random_rules.PORTS), rng.choice(ends)
            texts.append(
                f"*{name}\n-A PREROUTING -p tcp -m tcp --dport {rng.choice([port, f'1:{port}'])} {end}\nCOMMIT\n"
            )
    return "".join(texts)


def load(rig, table, family, rng, counts):
    """Load our table among those of others."""
    empty(rig)
    if rng.random() < 0.25:
        try:
            rig.target.restore(family, others_of_iptables(rng, family))
        except RuntimeError:
            counts["iptables not loaded"] += 1
    more, options = rng.randrange(3), rng.choice([*OPTIONS, OPTIONS[1], OPTIONS[1]])
    orders = [lambda: table.apply(**options)]
    for number in range(more):
        text = random_nft.table(rng, family, number)
        orders.append(lambda text=text: counts.update({"tables not loaded": not tried(table, text)}))
    rng.shuffle(orders)
    for order in orders:
        order()
    put_among_ours(rng, family, table, counts)
    return options


def empty(rig):
    """Take all rules away, of iptables too."""
    rig.target.namespace.run("nft", "flush", "ruleset")
    if rig.backend != "nft":
        rig.target.reset()


def ruleset_in(rig, table, family, options):
    """Return what is in the kernel as the prover takes it, and its text."""
    prefix = options.get("ipv6_prefix", 128)
    mask = "" if prefix == 128 else str(ipaddress.IPv6Network(f"::/{prefix}").netmask)
    save = rig.target.save(family)
    documents = {rig.backend: parse(save)}
    found = NftRuleset(family, Own(TABLE, mask, lambda _comment: False), table.items(), documents)
    return found, rig.target.namespace.run("nft", "list", "ruleset").stdout + save


def compare(rig, table, wire, family, rng, options, count):
    """Send packets through what is loaded, and return how many were judged, and what is wrong."""
    sent = some_packets(rng, family, count, rig.client.namespace.mac, alone=True)
    ruleset, text = ruleset_in(rig, table, family, options)
    if ruleset.unfollowed:
        return Counter({"not followed": count}), []
    became = wire.let_in(family, sent)
    try:
        can = [possible(ruleset, addresses(rig), on_no_list, sent, coarse) for coarse in (False, True)]
    except TooManyCases:
        return Counter({"too many cases": count}), []
    return judged(sent, became, can, text)


def check(rig, table, wire, family, seed, rulesets, count):
    rng, counts = random.Random(f"{family} {seed}"), Counter()
    try:
        for _turn in range(rulesets):
            options = load(rig, table, family, rng, counts)
            more, wrong = compare(rig, table, wire, family, rng, options, count)
            assert wrong == []
            counts += more
    finally:
        empty(rig)
    print(f"{rig.backend} {family} {seed}: {dict(counts)}")
    return counts


@pytest.mark.only("nft")
def test_the_kernel_agrees(rig, table, wire, family):
    check_enough(check(rig, table, wire, family, 0, 25, 25), 0.85)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 26))
def test_the_kernel_agrees_for_long(rig, table, wire, family, seed):
    check_enough(check(rig, table, wire, family, seed, 40, 50), 0.85)
