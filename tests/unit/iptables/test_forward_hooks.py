# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the hooks of FORWARD and DOCKER-USER stand, and when they move, come and go."""

from pathlib import Path

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import build_rules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.forward_hooks import is_guarded, lets_past
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import read_state
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.read_back import drift, expected_rules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.undo import is_undone, undo_text
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.module_utils._tables.installed_doors import read_installed
from fake_iptables import FakeIptables, without_empty_nat

CORPUS = Path(__file__).resolve().parents[1] / "corpus"
BARE = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
BEHIND = {"name": "in", "knock": ["6144", "3791/udp", "8318"], "opens": ["22"], "to": ["10.9.0.0/24"]}
SPEC = spec_from_options(
    {"doors": [{"name": "ssh", "knock": ["7144", "2791/udp", "9318"], "opens": ["22"]}, BEHIND]},
)
"""With hosts behind."""
DOCKER = ["-o docker0 -j DOCKER", "-i docker0 -j ACCEPT", "-j DOCKER-USER"]


def load(host, spec=SPEC):
    plan = plan_family(host.save(), spec, "ipv4")
    if plan.change:
        host.restore(plan.change)
    return plan


def chain(host, name):
    return ["ours" if "PORTKNOCK" in text else text for text in host.tables["filter"].chains[name]]


def start_docker(host):
    """Do what Docker does when it starts, of which each rule goes to the head of FORWARD."""
    chains = host.tables["filter"].chains
    chains.setdefault("DOCKER", ["-d 172.17.0.2/32 -j ACCEPT"])
    chains.setdefault("DOCKER-USER", []).append("-j RETURN")
    for rule in DOCKER:
        chains["FORWARD"].insert(0, rule)


def test_docker_comes_later_and_restarts():
    host = FakeIptables(BARE)
    load(host)
    assert (chain(host, "FORWARD"), chain(host, "DOCKER-USER")) == (["ours"], ["ours"])
    start_docker(host)
    assert chain(host, "FORWARD") == [*DOCKER[::-1], "ours"]
    assert load(host).change == "", "each packet passes DOCKER-USER before something accepts it"
    assert chain(host, "DOCKER-USER") == ["ours", "-j RETURN"]
    rules = host.tables["filter"].chains["FORWARD"]
    rules.insert(2, rules.pop(0))
    assert load(host).change, "what accepts in front of both hooks"
    assert chain(host, "FORWARD") == ["ours", "-i docker0 -j ACCEPT", "-o docker0 -j DOCKER", "-j DOCKER-USER"]
    rules.insert(0, rules.pop())
    assert load(host).change == "", "nothing in it accepts"
    load(host, None)
    assert sorted(chain(host, "FORWARD")) == sorted(DOCKER)
    assert chain(host, "DOCKER-USER") == ["-j RETURN"]


@pytest.mark.parametrize("command", [["-j ACCEPT"], ["-j RETURN"], ["-g DOCKER"]])
def test_it_is_drift_where_others_let_packets_past(command):
    host = FakeIptables(BARE)
    load(host)
    kept = host.save()
    if "-g DOCKER" in command:
        host.tables["filter"].chains["DOCKER"] = []
    host.tables["filter"].chains["DOCKER-USER"].insert(0, command[0])
    host.tables["filter"].chains["FORWARD"].insert(0, "-s 192.0.2.1/32 -j DROP")
    own = expected_rules(kept, read_state(parse(host.save())))
    found = drift(parse(host.save()), own, read_installed(own.chains), "ipv4")
    assert sorted(line[:15] for line in found) == ["+ -A DOCKER-USE", "- -A DOCKER-USE"], found
    assert all("PORTKNOCK_FWD" in line or command[0] in line for line in found)
    load(host)
    assert chain(host, "DOCKER-USER") == ["ours", *command]
    assert chain(host, "FORWARD") == ["-s 192.0.2.1/32 -j DROP", "ours"], "it only refuses"


def test_the_chain_is_made_and_goes():
    host = FakeIptables(BARE)
    load(host)
    assert "DOCKER-USER" in host.tables["filter"].chains
    load(host, None)
    assert without_empty_nat(host.save()).splitlines()[1:-1] == FakeIptables(BARE).save().splitlines()[1:-1]


@pytest.mark.parametrize("others", [{"DOCKER-USER": ["-j RETURN"]}, {"FORWARD": ["-j DOCKER-USER"]}])
def test_the_chain_stays_where_others_use_it(others):
    host = FakeIptables(BARE)
    load(host)
    for name, rules in others.items():
        host.tables["filter"].chains[name] += rules
    load(host, None)
    assert "DOCKER-USER" in host.tables["filter"].chains
    assert "PORTKNOCK" not in host.save()


def test_undone_after_docker_came():
    host = FakeIptables(BARE)
    load(host)
    before = host.save()
    once = dict(name="x", knock=["5", "900"], opens=["23"], once=True)
    load(host, spec_from_options({"doors": [once, BEHIND], "log": True}))
    start_docker(host)
    host.restore(undo_text(before, host.save()))
    assert is_undone(before, host.save())
    assert chain(host, "DOCKER-USER") == ["ours", "-j RETURN"]
    assert chain(host, "FORWARD") == [*DOCKER[::-1], "ours"], "DOCKER-USER comes before what accepts"
    host.tables["filter"].chains["FORWARD"].remove("-j DOCKER-USER")
    host.restore(undo_text(before, host.save()))
    assert chain(host, "FORWARD") == ["ours", "-i docker0 -j ACCEPT", "-o docker0 -j DOCKER"], (
        "what came meanwhile accepts"
    )


@pytest.mark.parametrize(
    ("forward", "docker", "guarded"),
    [
        (["ours"], [], True),
        (["-j DOCKER-USER", "-j ACCEPT", "ours"], ["ours", "-j RETURN"], True),
        (["-j DOCKER-USER", "-j ACCEPT"], ["-j RETURN", "ours"], False),
        (["-s 10.0.0.0/8 -j DOCKER-USER", "-j ACCEPT", "ours"], ["ours"], False),
        (["-j ACCEPT", "-j DOCKER-USER", "ours"], ["ours"], False),
        (["-s 10.0.0.0/8 -j DROP"], [], False),
    ],
)
def test_whether_a_hook_stands_in_front(forward, docker, guarded):
    host = FakeIptables(BARE)
    load(host)
    assert is_guarded(parse(host.save()))
    del host.tables["nat"]
    chains = host.tables["filter"].chains
    for name, wanted in (("FORWARD", forward), ("DOCKER-USER", docker)):
        (ours,) = chains[name]
        chains[name] = [ours if text == "ours" else text for text in wanted]
    assert is_guarded(parse(host.save())) is guarded


@pytest.mark.parametrize(
    ("rule", "passes"),
    [
        ("-j ACCEPT", True), ("-j RETURN", True), ("-j NFQUEUE --queue-num 1", True), ("-j ONE", True), ("-j TWO", False),
        ("-g TWO", True), ("-j DROP", False), ("-p tcp -j REJECT", False), ("-j LOG", False), ("", False), ("-j GONE", True),
        ("-j PORTKNOCK_FWD", False), ("-j CIRCLE", False), ('-m comment --comment "-j ACCEPT"', False),
    ],
)  # fmt: skip
def test_what_lets_packets_past(rule, passes):
    chains = ["ONE", "TWO", "CIRCLE"]
    lines = [
        "-A ONE -j TWO",
        "-A ONE -s 192.0.2.1/32 -j ACCEPT",
        "-A TWO -j RETURN",
        "-A TWO -j DROP",
        "-A CIRCLE -j CIRCLE",
    ]
    text = "\n".join(["*filter", *(f":{name} - [0:0]" for name in chains), *lines, "COMMIT", ""])
    assert lets_past(parse(text).table("filter"), rule) is passes


PUBLISHED = spec_from_options({"doors": [dict(name="x", knock=["5", "900"], opens=["8080"], once=True)]})
DNAT = "-p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80"


def in_nat(host, name):
    return ["ours" if "PORTKNOCK" in text else text for text in host.tables["nat"].chains[name]]


def test_what_stands_in_front_of_the_hooks_in_nat_is_drift_and_mended():
    """kube-proxy puts its rules at the head, and whoever translates sources ends the way of a packet before its knock is used up."""
    host = FakeIptables(BARE)
    load(host, PUBLISHED)
    kept, nat = host.save(), host.tables["nat"].chains
    assert (in_nat(host, "PREROUTING"), in_nat(host, "POSTROUTING")) == (["ours"], ["ours"])
    nat["PREROUTING"].append(DNAT)
    nat["POSTROUTING"].insert(0, "-j LOG")
    own = expected_rules(kept, read_state(parse(host.save())))
    assert drift(parse(host.save()), own, read_installed(own.chains), "ipv4") == []
    assert is_guarded(parse(host.save()))
    nat["PREROUTING"].insert(0, "-m addrtype --dst-type LOCAL -j MARK --set-xmark 0x1/0x1")
    nat["PREROUTING"].insert(1, DNAT)
    nat["POSTROUTING"].insert(0, "-j MASQUERADE")
    found = drift(parse(host.save()), own, read_installed(own.chains), "ipv4")
    assert sorted(line[:20] for line in found) == ["+ -A POSTROUTING -m ", "+ -A PREROUTING -m a", "- -A POSTROUTING -m ",
                                                   "- -A PREROUTING -m a"], found  # fmt: skip
    assert load(host, PUBLISHED).change
    assert in_nat(host, "PREROUTING")[0] == in_nat(host, "POSTROUTING")[0] == "ours"
    assert not load(host, PUBLISHED).change
    assert undo_text(kept, host.save()) == ""
    assert is_undone(kept, host.save())
    load(host, None)
    assert "PORTKNOCK" not in host.save()
    assert DNAT in nat["PREROUTING"]


def test_docker_comes_and_goes_and_nat_stays():
    host = FakeIptables(BARE)
    load(host, PUBLISHED)
    assert chain(host, "DOCKER-USER") == ["ours"], (
        "for what is not for an address of this host, which nat does not ask about"
    )
    start_docker(host)
    host.tables["nat"].chains["PREROUTING"].append(DNAT)
    assert chain(host, "FORWARD") == [*DOCKER[::-1], "ours"]
    assert load(host, PUBLISHED).change == ""
    assert is_guarded(parse(host.save()))
    assert chain(host, "DOCKER-USER") == ["ours", "-j RETURN"]


@pytest.mark.parametrize("name", ["docker", "docker-trixie"])
def test_a_boot_on_which_docker_starts_after_our_rules_is_no_drift(name):
    """The recorded rules of Docker 20.10 and 26.1, with a network of its own."""
    host = FakeIptables((CORPUS / f"{name}.v4.save").read_text())
    load(host, PUBLISHED)
    kept, rules = host.save(), host.tables["filter"].chains["FORWARD"]
    assert chain(host, "FORWARD")[0] == "ours"
    rules.append(rules.pop(0))
    own = expected_rules(kept, read_state(parse(host.save())))
    assert drift(parse(host.save()), own, read_installed(own.chains), "ipv4") == []
    assert load(host, PUBLISHED).change == ""


@pytest.mark.parametrize(
    "rule", ["-j ACCEPT", "-i eth0 -j ACCEPT", "! -i docker0 -j ACCEPT", "-i br-lan -j ACCEPT", "-j OTHER"]
)
def test_the_hook_of_forward_moves_in_front_of_what_is_not_docker_s(rule):
    """What nat of nftables publishes, no hook in table nat of iptables sees."""
    host = FakeIptables(BARE)
    load(host, PUBLISHED)
    start_docker(host)
    host.tables["filter"].chains["OTHER"] = ["-j ACCEPT"]
    host.tables["filter"].chains["FORWARD"].insert(0, rule)
    assert load(host, PUBLISHED).change.startswith("*filter"), "the hook of FORWARD alone"
    assert chain(host, "FORWARD")[0] == "ours"


@pytest.mark.parametrize("gone", ["the hook", "the jump"])
def test_without_docker_user_that_of_forward_is_not_enough(gone):
    """What is for addresses that are not this host's, the hook in nat does not see either."""
    host = FakeIptables(BARE)
    load(host, PUBLISHED)
    start_docker(host)
    chains = host.tables["filter"].chains
    if gone == "the hook":
        chains["DOCKER-USER"].pop(0)
    else:
        chains["FORWARD"].remove("-j DOCKER-USER")
    assert not is_guarded(parse(host.save()))
    assert load(host, PUBLISHED).change
    assert is_guarded(parse(host.save()))
    assert load(host, PUBLISHED).change == ""


def test_rules_from_before_the_hook_in_nat_are_brought_over():
    host = FakeIptables(BARE)
    earlier = build_rules(PUBLISHED, "ipv4", nat=False)
    host.restore(plan_family(host.save(), PUBLISHED, "ipv4", earlier).change)
    start_docker(host)
    before = host.save()
    assert "*nat" not in before
    plan = load(host, PUBLISHED)
    assert [line for line in plan.change.splitlines() if line[:1] == "*"] == ["*nat"]
    back = undo_text(before, host.save())
    assert [line for line in back.splitlines() if line[:1] == "*"] == ["*nat"]
    host.restore(back)
    assert is_undone(before, host.save())
    assert chain(host, "DOCKER-USER") == ["ours", "-j RETURN"]
    assert "PORTKNOCK_NAT" not in host.save()
