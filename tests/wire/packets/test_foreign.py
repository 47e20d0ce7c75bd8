# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of others, before and behind the collection's: the door holds, and the foreign ones stay as they are."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.read_back import counters
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from rig.packets import IPV4, IPV6
from rig.peer import OPEN, PROHIBITED, REFUSED
from rig.shown import steps_in
from rig.target import door, without_empty_nat

KNOCK = (7000, "9100/udp", 3100)
DOOR = door(*KNOCK, opens=(2222,))
ICMP = {IPV4: "icmp", "ipv6": "ipv6-icmp"}
# How a foreign catch-all refuses, where a port that no door has must be refused by it or by us.
EL_STOCK = """
[11:660] -A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
[12:720] -A INPUT -p {icmp} -j ACCEPT
[13:780] -A INPUT -i lo -j ACCEPT
[14:840] -A INPUT -p tcp -m state --state NEW -m tcp --dport 2222 -j ACCEPT
[15:900] -A INPUT -j REJECT --reject-with {prohibited}
[16:960] -A FORWARD -j REJECT --reject-with {prohibited}
"""
FOREIGN = {
    "nothing": "",
    "the stock file of EL": EL_STOCK,
    "accept all first": "[3:180] -A INPUT -j ACCEPT",
    "drop all first": "[3:180] -A INPUT -j DROP",
    "reject all first": "[3:180] -A INPUT -j REJECT --reject-with {prohibited}",
    "reject tcp with a reset first": "[3:180] -A INPUT -p tcp -j REJECT --reject-with tcp-reset",
    "accept the port": "[3:180] -A INPUT -p tcp -m tcp --dport 2222 -j ACCEPT",
    "accept by multiport": "[3:180] -A INPUT -p tcp -m multiport --dports 80,2222 -j ACCEPT",
    "accept by range": "[3:180] -A INPUT -p tcp -m tcp --dport 2000:3000 -j ACCEPT",
    "accept by multiport range": "[3:180] -A INPUT -p tcp -m multiport --dports 25,2000:3000 -j ACCEPT",
    "accept by negation": "[3:180] -A INPUT -p tcp -m tcp ! --dport 1:1023 -j ACCEPT",
    "accept by protocol": "[3:180] -A INPUT -p tcp -j ACCEPT",
    "accept by negated protocol": "[3:180] -A INPUT ! -p udp -j ACCEPT",
    "accept by interface": "[3:180] -A INPUT -i eth0 -j ACCEPT",
    "accept by interface wildcard": "[3:180] -A INPUT -i eth+ -j ACCEPT",
    "accept new": "[3:180] -A INPUT -m conntrack --ctstate NEW -j ACCEPT",
    "accept by source": "[3:180] -A INPUT -s {net} -p tcp -j ACCEPT",
    "accept by negated source": "[3:180] -A INPUT ! -s {stranger} -j ACCEPT",
    "accept by flags": "[3:180] -A INPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT",
    "accept by packet type": "[3:180] -A INPUT -m pkttype --pkt-type unicast -j ACCEPT",
    "accept by limit": "[3:180] -A INPUT -m limit --limit 1000/sec --limit-burst 1000 -j ACCEPT",
    "accept by length": "[3:180] -A INPUT -m length --length 0:1500 -j ACCEPT",
    "accept deep in chains": """
:one - [0:0]
:two - [0:0]
:three - [0:0]
[3:180] -A INPUT -m comment --comment "down" -j one
[4:240] -A one -p tcp -j two
[5:300] -A two -g three
[6:360] -A three -s {stranger} -j RETURN
[7:420] -A three -m tcp -p tcp --dport 2222 -j ACCEPT
""",
    "refuse deep in chains": """
:one - [0:0]
:two - [0:0]
[3:180] -A INPUT -j one
[4:240] -A one -p tcp -g two
[6:360] -A two -j DROP
""",
    "a chain that returns": """
:one - [0:0]
[3:180] -A INPUT -j one
[4:240] -A one -j RETURN
[4:240] -A one -j DROP
[5:300] -A INPUT -p tcp -m tcp --dport 2222 -j ACCEPT
""",
    "log all first": "[3:180] -A INPUT -m limit --limit 1/hour --limit-burst 1 -j LOG\n[3:180] -A INPUT -j ACCEPT",
    "refuse a knock port": "[3:180] -A INPUT -p tcp -m tcp --dport 3100 -j DROP",
    "accept a knock port": "[3:180] -A INPUT -p tcp -m tcp --dport 3100 -j ACCEPT",
    "accept a datagram's knock port": "[3:180] -A INPUT -p udp -j ACCEPT",
    "policy drop": ":INPUT DROP [5:300]\n[3:180] -A INPUT -p tcp -m tcp --dport 80 -j ACCEPT",
    "only others' sources": "[3:180] -A INPUT -s {stranger} -j DROP\n[4:180] -A INPUT -s {stranger} -p tcp -j ACCEPT",
    "a comment with our word": '[3:180] -A INPUT -p tcp -m comment --comment "PORTKNOCK" -j ACCEPT',
}


def text_of(name, family):
    """Return a foreign ruleset for a family."""
    six = family != IPV4
    return FOREIGN[name].format(
        icmp=ICMP[family], prohibited="icmp6-adm-prohibited" if six else "icmp-host-prohibited",
        net="fd77::/64" if six else "10.77.0.0/24", stranger="fd99::1/128" if six else "10.99.0.1/32",
    )  # fmt: skip


def load(rig, text, family):
    """Load a foreign ruleset with its counters."""
    lines = text.strip().splitlines()
    chains = [line for line in lines if line.startswith(":")]
    built_in = [
        f":{name} ACCEPT [0:0]"
        for name in ("INPUT", "FORWARD", "OUTPUT")
        if not text.startswith((f":{name}", f"\n:{name}"))
    ]
    rules = [line for line in lines if not line.startswith(":")]
    rig.target.restore(family, "\n".join(["*filter", *built_in, *chains, *rules, "COMMIT", ""]), "-c")


def foreign_lines(save):
    """Return the lines of a save that are neither the collection's nor built-in chains or comments, which count on their own."""
    others = [line + "\n" for line in save.splitlines() if "PORTKNOCK" not in line.replace('"PORTKNOCK"', "")]
    return [line for line in without_empty_nat("".join(others)).splitlines() if line[0] not in ":#"]


def chains_of(save):
    """Return the chains of others; Docker's for the rules of others is ours where nobody else uses it."""
    used = any("DOCKER-USER" in line for line in foreign_lines(save))
    ours = (":PORTKNOCK",) if used else (":PORTKNOCK", ":DOCKER-USER ")
    save = without_empty_nat("".join(line + "\n" for line in save.splitlines() if "PORTKNOCK" not in line))
    return sorted(
        line.split(" [")[0] for line in save.splitlines() if line.startswith(":") and not line.startswith(ours)
    )


def apply_beside(rig, text, family, **options):
    """Load foreign rules, then the collection's; check that the foreign ones are as they were."""
    load(rig, text, family)
    before = rig.target.save(family, counters=True)
    plan = rig.target.plan(family, doors=[DOOR], **options)
    rig.target.restore(family, plan.change, "--noflush")
    after = rig.target.save(family, counters=True)
    assert foreign_lines(after) == foreign_lines(before)
    assert chains_of(after) == chains_of(before)
    assert rig.target.plan(family, doors=[DOOR], **options).change == "", "a second run finds something to do"
    return plan


@pytest.mark.parametrize(("by", "policy"), [(IPV4, "reject"), (IPV6, "accept")])
@pytest.mark.parametrize("name", FOREIGN)
def test_the_door_holds(rig, name, by, policy):
    check_the_door_holds(rig, by, name, policy)


@pytest.mark.soak
@pytest.mark.parametrize(("by", "policy"), [(IPV4, "accept"), (IPV6, "reject")])
@pytest.mark.parametrize("name", FOREIGN)
def test_the_door_holds_the_other_way_round(rig, name, by, policy):
    check_the_door_holds(rig, by, name, policy)


def check_the_door_holds(rig, family, name, policy):
    """No door without a knock, and a door with it, whatever stands before."""
    apply_beside(rig, text_of(name, family), family, policy=policy)
    assert rig.client.probe(2222, family) == REFUSED[family]
    rig.client.knock(7000, 6543, "9100/udp", 3100, family=family)
    if name not in ("accept a knock port", "accept a datagram's knock port"):
        assert rig.client.probe(2222, family) == REFUSED[family], "a wrong port between"
    rig.client.knock(6543, *KNOCK, family=family)
    assert rig.client.probe(2222, family) == OPEN
    assert rig.other.probe(2222, family) == REFUSED[family]
    handle = rig.client.connect(2222, family)
    assert not isinstance(handle, OSError), handle
    with handle:
        handle.sendall(b"a session runs")
        assert handle.recv(100) == b"a session runs"


@pytest.mark.parametrize("policy", ["reject", "accept"])
def test_taken_out_again(rig, family, policy):
    """Every foreign ruleset is as it was once the collection's is gone, counters of rules included."""
    for name in FOREIGN:
        apply_beside(rig, text_of(name, family), family, policy=policy)
        plan = rig.target.plan(family, state="absent")
        before = rig.target.save(family, counters=True)
        rig.target.restore(family, plan.change, "--noflush")
        after = rig.target.save(family, counters=True)
        assert "PORTKNOCK_" not in after, name
        assert foreign_lines(after) == foreign_lines(before), name
        assert chains_of(after) == chains_of(before), name


def test_foreign_exceptions_stay_exceptions(rig, family):
    """The final reject stands behind what others let in, and in front of what refuses everything."""
    text = text_of("the stock file of EL", family).replace("--dport 2222", "--dport 80")
    apply_beside(rig, text, family)
    assert rig.client.probe(80, family) == OPEN
    assert rig.client.probe(443, family) == REFUSED[family]
    assert rig.client.ping(family)


def test_foreign_refusals_stay_refusals(rig, family):
    """Policy accept changes nothing but the doors' ports."""
    prohibited = PROHIBITED[family] if family != IPV4 else "icmp 3/10"
    apply_beside(rig, text_of("the stock file of EL", family), family, policy="accept")
    assert rig.client.probe(80, family) == prohibited


def ban(rig, family):
    return f"""
:f2b-sshd - [0:0]
[9:540] -A INPUT -p tcp -m multiport --dports 2222 -j f2b-sshd
[3:180] -A f2b-sshd -s {rig.other.addresses[family]} -j REJECT --reject-with {REJECTED[family]}
[6:360] -A f2b-sshd -j RETURN
"""


REJECTED = {IPV4: "icmp-admin-prohibited", "ipv6": "icmp6-adm-prohibited"}


@pytest.mark.parametrize(
    "rest", ["", "[1:60] -A INPUT -p tcp -m tcp --dport 2222 -j ACCEPT", "[1:60] -A INPUT -j DROP"]
)
def test_a_ban_stays_in_force(rig, family, rest):
    """As fail2ban does it: the banned source is refused by its rule, knock or no knock."""
    apply_beside(rig, ban(rig, family) + rest, family)
    for peer in (rig.other, rig.client):
        peer.knock(*KNOCK, family=family)
    assert rig.other.probe(2222, family) == PROHIBITED[family]
    assert rig.client.probe(2222, family) == OPEN


def test_a_ban_that_comes_later_is_no_drift(rig, family):
    rig.target.apply(DOOR)
    command = {IPV4: "iptables", "ipv6": "ip6tables"}[family]
    address = rig.other.addresses[family]
    rig.target.namespace.run(command, "-N", "f2b-sshd")
    rig.target.namespace.run(
        command, "-A", "f2b-sshd", "-s", address, "-j", "REJECT", "--reject-with", REJECTED[family]
    )
    rig.target.namespace.run(
        command, "-I", "INPUT", "-p", "tcp", "-m", "multiport", "--dports", "2222", "-j", "f2b-sshd"
    )
    assert rig.target.plan(family, doors=[DOOR]).change == ""
    rig.other.knock(*KNOCK, family=family)
    assert rig.other.probe(2222, family) == PROHIBITED[family]


def test_an_accept_that_comes_later_is_overtaken(rig, family):
    rig.target.apply(DOOR)
    command = {IPV4: "iptables", "ipv6": "ip6tables"}[family]
    rig.target.namespace.run(command, "-I", "INPUT", "-p", "tcp", "--dport", "2222", "-j", "ACCEPT")
    assert rig.client.probe(2222, family) == OPEN, "the rule is there"
    rig.target.apply(DOOR)
    assert rig.client.probe(2222, family) == REFUSED[family]
    rig.client.knock(*KNOCK, family=family)
    assert rig.client.probe(2222, family) == OPEN


def test_a_port_sent_elsewhere_in_nat_is_a_finding(rig, family):
    """As Docker publishes a port: INPUT never sees its packets, and where FORWARD is left alone, that is said."""
    to = {IPV4: "172.17.0.2:80", "ipv6": "[fd17::2]:80"}[family]
    nat = f"*nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n" \
          f"-A DOCKER ! -i docker0 -p tcp -m tcp --dport 2222 -j DNAT --to-destination {to}\nCOMMIT\n"  # fmt: skip
    rig.target.restore(family, nat)
    said = {
        published: rig.target.plan(family, doors=[DOOR], published=published).findings
        for published in ("doors", "none")
    }
    found = [item for item in said["none"] if item.kind == "unguarded"]
    assert (len(found), [item.kind for item in said["doors"] if "unguarded" in item.kind]) == (1, [])
    assert "--dport 2222" in found[0].rule
    assert "ssh" in found[0].message
    assert steps_in(KNOCK, f"{found[0].rule} {found[0].message}") == []


def test_what_lost_its_effect_is_a_finding(rig, family):
    plan = apply_beside(rig, text_of("the stock file of EL", family), family)
    kinds = [(item.kind, item.rule) for item in plan.findings]
    assert any(kind == "lost_effect" and "--dport 2222" in rule for kind, rule in kinds), kinds


OPEN_TO_ALL = "[1:60] -A INPUT -p tcp -m tcp --dport 80 -j ACCEPT\n[1:60] -A INPUT -p tcp -m tcp --dport 8000 -j ACCEPT"


def test_panic_closes_what_others_let_in_at_an_allowed_port(rig, family):
    """Their rule stays as it is, and lets in again afterwards; what it opens beside allowed ports is not ours to close."""
    allow = [{"port": "80", "sources": ["192.0.2.0/24"]}]
    apply_beside(rig, OPEN_TO_ALL, family, allow=allow)
    wanted = {"before": OPEN, "panic": REFUSED[family], "after": OPEN}
    seen = {"before": rig.client.probe(80, family)}
    spec = spec_from_options(dict(doors=[DOOR], allow=allow))
    for name, panic in (("panic", True), ("after", False)):
        plan = plan_family(rig.target.save(family), spec._replace(panic=panic), family)
        rig.target.restore(family, plan.change, "--noflush")
        assert plan_family(rig.target.save(family), spec._replace(panic=panic), family).change == ""
        seen[name] = rig.client.probe(80, family)
        assert rig.client.probe(8000, family) == OPEN
    assert seen == wanted


def test_what_is_refused_is_counted_by_door(rig, family):
    """Also where both stand in one chain; a port of two doors counts for both."""
    doors = [DOOR, door(7300, 3200, name="web", opens=(3333, 2223)), door(7500, 3300, name="both", opens=(2223,))]
    rig.target.apply(*doors)
    for port, times in ((2222, 3), (3333, 2), (2223, 1)):
        assert {rig.client.probe(port, family) for _time in range(times)} == {REFUSED[family]}
    rig.client.knock(7300, 3200, family=family)
    assert rig.client.probe(3333, family) == OPEN
    found = counters(parse(rig.target.save(family, counters=True)).table("filter"))
    refused = {name: (numbers["refused"], numbers["let_in"]) for name, numbers in found.items()}
    assert refused == {"ssh": (3, 0), "web": (3, 1), "both": (1, 0)}
