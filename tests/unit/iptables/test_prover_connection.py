# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the prover says of the connection that a change is made through, and that ``access``, which refuses changes, says the same."""

import ipaddress
import random

import pytest
import random_rules
from ansible_collections.sesame.portknock.plugins.module_utils._engine import Connection, Wanted
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.access import door_for, lets_in
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import position_of
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.proven import prove_change, would_be
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import TAIL
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork, Route
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from prover_questions import PROMISED
from walker import Packet, Walker

EMPTY = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
FAMILIES = ("ipv4", "ipv6")
HOST = {"ipv4": "203.0.113.1", "ipv6": "2001:db8:ffff::1"}
LOCAL = LocalNetwork(
    tuple(ipaddress.ip_network(address) for address in HOST.values()),
    tuple(Route(ipaddress.ip_network(everywhere), "eth0", 100) for everywhere in ("0.0.0.0/0", "::/0")),
)
SPEC = spec_from_options(dict(PROMISED, trusted_interfaces=[]))


def connection(source="192.0.2.7", port=22):
    family = "ipv6" if ":" in source else "ipv4"
    return Connection(ipaddress.ip_address(source), HOST[family], port)


def word_of(text, spec=SPEC, arriving=None, prove=False, local=LOCAL):
    """Return what is said of a connection once a change is made on a host with this ruleset, and the findings about it."""
    arriving = arriving or connection()
    family = "ipv6" if arriving.source.version == 6 else "ipv4"
    plan = plan_family(text, spec, family)
    wanted = Wanted(spec, (family,), False, False, arriving, "", {}, prove=prove)
    proven = prove_change(wanted, [plan], {}, local)
    return next(entry for entry in proven.words if entry["what"] == "connection"), proven.findings


def with_rules(*rules, table=""):
    return random_rules.save_text("ACCEPT", list(rules), {}) + table


RAW = "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{0}\nCOMMIT\n"
NAT = "*nat\n:PREROUTING ACCEPT [0:0]\n{0}\nCOMMIT\n"
REFUSED = "-s 192.0.2.7/32 -p tcp -m tcp --dport 22 -j DROP"
SAID = {
    "a bare host": ("proved", [], ""),
    "refused": ("void", [REFUSED], ""),
    "refused before": ("void", [], RAW.format("-A PREROUTING -s 192.0.2.0/24 -p tcp -j DROP")),
    "another is refused": ("proved", ["-s 192.0.2.8/32 -j DROP"], ""),
    "on another interface": ("proved", ["-i eth1 -s 192.0.2.7/32 -j DROP"], ""),
    "on its interface alone": ("not proved", ["-i eth0 -s 192.0.2.7/32 -j DROP"], ""),
    "of a set": ("not proved", ["-m set --match-set bad src -j DROP"], ""),
    "to another address": ("proved", ["-d 203.0.113.9/32 -j DROP"], ""),
    "what no client begins with": ("proved", ["-p tcp -m tcp --tcp-flags SYN,URG SYN,URG -j DROP"], ""),
    "its knock": ("not proved", ["-s 192.0.2.7/32 -p udp -j DROP"], ""),
    "not tracked": ("not proved", [], RAW.format("-A PREROUTING -p tcp -m tcp --dport 22 -j CT --notrack")),
    "sent here": ("not proved", ["-m conntrack --ctstate DNAT -j ACCEPT", REFUSED],
                  NAT.format("-A PREROUTING -p tcp -m tcp --dport 2222 -j REDIRECT --to-ports 22")),
    "sent away": ("not proved", [], NAT.format("-A PREROUTING -p tcp -m tcp --dport 22 -j DNAT --to-destination 10.0.0.2:22")),
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_what_is_said(name):
    result, rules, table = SAID[name]
    entry, _findings = word_of(with_rules(*rules, table=table))
    assert entry["result"] == result, entry
    assert bool(entry["message"]) == (result != "proved")
    for step in ("7144", "2791", "9318"):
        assert step not in repr(entry)


def test_without_a_door():
    trusted = spec_from_options({"trusted_sources": ["192.0.2.7"]})
    assert word_of(EMPTY, trusted)[0]["result"] == "proved"
    assert word_of(EMPTY, spec_from_options({}))[0]["result"] == "void"
    assert word_of(EMPTY, spec_from_options({"policy": "accept"}))[0]["result"] == "proved"
    assert word_of(EMPTY, spec_from_options({"allow": [{"port": 22}]}))[0]["result"] == "proved"


def test_it_may_come_by_a_trusted_interface():
    """Routes do not tell by which one it comes, so nothing is refused for it."""
    entry, findings = word_of(with_rules(REFUSED), spec_from_options(PROMISED))
    assert (entry["result"], findings) == ("not proved", ())


def test_of_the_host_itself():
    """By its own address it comes in through the loopback interface."""
    assert word_of(EMPTY, spec_from_options({}), connection(HOST["ipv4"]))[0]["result"] == "proved"


def test_it_is_refused_before_anything_is_touched():
    with pytest.raises(SpecError) as refusal:
        word_of(with_rules(REFUSED), prove=True)
    message = (
        "Void: TCP from 192.0.2.7 port 12345 to port 22 (SYN) on eth0 is refused although it is to get in, by -A INPUT "
        f"{REFUSED} in table filter."
    )
    assert str(refusal.value) == (
        f"prove: a new connection like this one would not get in over ipv4 under the ruleset as it would be. {message} Nothing was "
        "changed. Remove that rule, or have it let this address in; with prove set to false this is a finding."
    )
    _entry, findings = word_of(with_rules(REFUSED))
    assert [(each.kind, each.ip_version, each.rule, each.message) for each in findings] == [
        ("void", "ipv4", f"-A INPUT {REFUSED}",
         f"a new connection like this one: {message} Remove that rule, or have it let this address in.")
    ]  # fmt: skip


def test_in_panic_it_need_not_get_in():
    spec = SPEC._replace(panic=True)
    wanted = Wanted(spec, ("ipv4",), False, False, connection(), "", {})
    words = prove_change(wanted, [plan_family(EMPTY, spec, "ipv4")], {}, LOCAL).words
    assert "connection" not in [entry["what"] for entry in words]


SPECS = [
    spec_from_options(options)
    for options in (
        PROMISED,
        dict(PROMISED, policy="accept"),
        dict(PROMISED, trusted_interfaces=[]),
        {"trusted_sources": ["192.0.2.0/25", "2001:db8:1::/48"]},
        {"allow": [{"port": "22", "sources": ["198.51.100.0/24", "2001:db8:2::/48"]}, {"port": 8443}]},
        {"doors": [dict(PROMISED["doors"][0], sources=["192.0.2.0/24", "2001:db8::/32"])], "policy": "reject"},
        {"doors": [dict(PROMISED["doors"][1], sources=["10.0.0.0/8", "fd00::/8"])], "policy": "accept"},
    )
]
PORTS = (22, 22, 22, 8443, 443, 9005, 80)


def verdict(document, spec, arriving, door):
    """Return whether the walker lets a new connection in, once its source has knocked."""
    source = str(arriving.source)
    answers = set()
    for guess in (False, True):
        walker = Walker(document, oracle=lambda *_asked, guess=guess: guess)
        for step in next(each for each in spec.doors if each.name == door).knock if door else ():
            walker.send(Packet(source, step.port, step.protocol))
            walker.later(0.5)
        destination = HOST["ipv6" if ":" in source else "ipv4"]
        answers.add(walker.send(Packet(source, arriving.port, "tcp", destination=destination)).action == "ACCEPT")
    return answers.pop() if len(answers) == 1 else None


def agree(seeds):
    """Return how often both say that it gets in, that it does not, that only the prover sees a rule, and what is against the rules."""
    counts, wrong = {}, []
    for seed in range(seeds):
        rng = random.Random(seed)
        family, spec = rng.choice(FAMILIES), rng.choice(SPECS)
        rules = [random_rules.make_rule(rng, family) for _turn in range(rng.randrange(4))]
        text = random_rules.save_text(rng.choice(["ACCEPT", "ACCEPT", "DROP"]), rules, {})
        arriving = connection(rng.choice(random_rules.SOURCES[family]), rng.choice(PORTS))
        plan = plan_family(text, spec, family)
        may = lets_in(plan.document.table("filter"), spec, position_of(plan.then, TAIL), arriving.port, arriving.source)
        result = word_of(text, spec, arriving)[0]["result"]
        counts[may, result] = counts.get((may, result), 0) + 1
        if may == (result == "proved"):
            continue
        document = would_be(plan.document, plan.then)
        seen = verdict(document, spec, arriving, door_for(spec, arriving.port, arriving.source))
        # What the walker, a third, sees decides: access looks at no rule in front of ours, and knows no interface.
        if (result == "proved" and seen is not True) or (result == "void" and seen is not False):
            wrong.append((seed, family, may, result, seen, rules, str(arriving.source), arriving.port))
    return counts, wrong


def check_agreement(seeds):
    counts, wrong = agree(seeds)
    assert wrong == []
    # Never is a connection proved that access refuses.
    assert counts.get((False, "proved"), 0) == 0, counts
    same = counts.get((True, "proved"), 0) + counts.get((False, "void"), 0) + counts.get((False, "not proved"), 0)
    assert same > 0.6 * seeds, counts
    assert counts.get((False, "void"), 0) > 0.05 * seeds, counts


def test_access_and_the_prover_agree():
    check_agreement(60)


@pytest.mark.slow
def test_they_agree_on_many_more(request):
    check_agreement(5000 if request.config.getoption("--slow") else 400)
