# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the prover says of doors for what the host sends on, by rules of iptables: through nat, FORWARD and DOCKER-USER."""

import ipaddress
from pathlib import Path

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.forward_hooks import is_guarded
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.prove_doors import prove_doors
from ansible_collections.sesame.portknock.plugins.module_utils._names.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_iptables import FakeIptables
from walker import Packet, Walker

CORPUS = Path(__file__).resolve().parents[1] / "corpus"
DOCKERS = ("docker", "docker-trixie", "docker-legacy")
KNOCK = ["6144", "3791/udp", "8318"]
WEB = {"name": "web", "knock": KNOCK, "opens": ["8080", "8053/udp"]}
BARE = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
OWN = LocalNetwork((ipaddress.ip_network("192.0.2.1/32"), ipaddress.ip_network("2001:db8::1/128")), ())
NAT = "-d 203.0.113.9/32 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80"


def spec_of(*doors, **options):
    return spec_from_options(dict(options, doors=list(doors or [WEB])))


def host_of(save=BARE, spec=None, family="ipv4"):
    host = FakeIptables(save)
    host.restore(plan_family(host.save(), spec or spec_of(), family).change)
    return host


def entries(host, spec=None, family="ipv4", **more):
    spec = spec or spec_of()
    lists = {door.name: Lists(family, spec.ipv6_prefix).door(door) for door in spec.doors}
    proofs = prove_doors(parse(host.save()), family, spec, lists, OWN, **more)
    return {proof.entry["door"]: proof.entry for proof in proofs if proof.entry["door"]}


def words(*asked, **more):
    return {door: entry["result"] for door, entry in entries(*asked, **more).items()}


@pytest.mark.parametrize("name", DOCKERS)
@pytest.mark.parametrize("docker_later", [False, True])
@pytest.mark.parametrize("options", [{}, {"published": "policy"}, {"log": True}])
def test_the_doors_of_a_host_with_docker_are_proved(name, docker_later, options):
    spec = spec_of(**options)
    host = host_of((CORPUS / f"{name}.v4.save").read_text(), spec)
    if docker_later:
        rules = host.tables["filter"].chains["FORWARD"]
        rules.append(rules.pop(0))
    host.tables["nat"].chains["PREROUTING"].append(NAT)
    assert words(host, spec) == {"web": "proved"}


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("door", [dict(WEB, once=True), dict(WEB, sources=["198.51.100.0/24", "2001:db8:5::/48"])])
def test_without_docker(family, door):
    spec = spec_of(door)
    assert words(host_of(spec=spec, family=family), spec, family) == {"web": "proved"}


def test_a_note_that_others_leave_as_well_opens_a_door_of_one_connection():
    spec = spec_of(dict(WEB, once=True))
    host = host_of(spec=spec)
    host.tables["filter"].chains["FORWARD"].insert(
        0, "-m recent --set --name pk4_web.u --mask 255.255.255.255 --rsource"
    )
    assert words(host, spec) == {"web": "not proved"}


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_doors_to_hosts_behind(family):
    behind = dict(WEB, name="in", opens=["22"], to=["10.9.0.0/24", "fd00:9::/64"])
    spec = spec_of(behind, dict(WEB, knock=["5111", "900"]))
    host = host_of(spec=spec, family=family)
    assert words(host, spec, family) == {"in": "proved", "web": "proved"}
    for chain in ("FORWARD", "DOCKER-USER"):
        host.tables["filter"].chains[chain].insert(0, "-p tcp -m tcp --dport 22 -j ACCEPT")
    assert words(host, spec, family)["in"] == "void"


def void(*rules, nat=(NAT,), spec=None):
    """Return what is said of a host on which rules of FORWARD stand in front of ours, and of DOCKER-USER if they name it."""
    host = host_of(spec=spec)
    host.tables["nat"].chains["PREROUTING"] += nat
    for rule in rules:
        chain, _blank, text = rule.partition(" ")
        host.tables["filter"].chains.setdefault(chain, []).insert(0, text)
    return entries(host, spec)["web"]


def test_what_lets_strangers_past_is_shown_with_a_packet():
    entry = void("FORWARD -i eth0 -j ACCEPT")
    assert entry["result"] == "void"
    assert entry["rule"] == "-A FORWARD -i eth0 -j ACCEPT"
    assert (entry["packet"]["port"], entry["packet"]["interface"]) == (8080, "eth0")
    assert "gets in without the knock" in entry["message"]


@pytest.mark.parametrize(
    ("rules", "nat", "result"),
    [
        # Docker started after the door of a release that had no hook in DOCKER-USER.
        (["FORWARD -o docker0 -j DOCKER", "DOCKER -d 172.17.0.2/32 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT"], [NAT], "void"),
        (["FORWARD -o docker0 -j DOCKER", "DOCKER -d 172.17.0.2/32 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT",
          "FORWARD -j DOCKER-USER"], [NAT], "proved"),
        (["FORWARD -o docker0 -j DOCKER", "DOCKER -j ACCEPT", "FORWARD -j DOCKER-USER", "DOCKER-USER -i eth0 -j ACCEPT"], [NAT], "void"),
        (["FORWARD -s 198.51.100.7/32 -j DROP", "FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT"], [NAT], "proved"),
        # Nothing sends on what the hook in nat has not seen.
        (["FORWARD -i eth0 -j ACCEPT"], [], "not proved"),
        (["FORWARD -i eth0 -j ACCEPT"], ["-m addrtype --dst-type LOCAL -j DNAT --to-destination 172.17.0.2"], "not proved"),
        # Another port, and another one behind nat.
        (["FORWARD -p tcp -m conntrack --ctorigdstport 8081 -j ACCEPT"], [NAT], "proved"),
        (["FORWARD -p tcp -m conntrack --ctorigdstport 8000:8100 -j ACCEPT"], [NAT], "void"),
        (["FORWARD -p tcp -m tcp --dport 8081 -j ACCEPT"], [NAT], "void"),
    ],
)  # fmt: skip
def test_what_stands_in_front(rules, nat, result):
    assert void(*rules, nat=nat)["result"] == result


def test_who_has_knocked_is_refused_by_no_rule_of_ours():
    """What Docker's own rules refuse, and the policy of FORWARD, is not the door's matter."""
    spec = spec_of()
    host = host_of(BARE.replace("FORWARD ACCEPT", "FORWARD DROP"), spec)
    assert words(host, spec) == {"web": "proved"}
    chain = host.tables["filter"].chains["PORTKNOCK_FWD"]
    chain[:] = [text for text in chain if "--rcheck" not in text]
    entry = entries(host, spec)["web"]
    assert (entry["result"], entry["message"].count("is refused although its source has knocked")) == ("void", 1)


@pytest.mark.parametrize("name", DOCKERS)
@pytest.mark.parametrize("first", [0, 2, 4, 99])
@pytest.mark.parametrize("jump", [True, False])
def test_it_agrees_with_the_walker(name, first, jump):
    """Wherever the hook of FORWARD stands, with the jump to DOCKER-USER or without: proved means that no packet tried gets past."""
    spec = spec_of()
    host = host_of((CORPUS / f"{name}.v4.save").read_text(), spec)
    host.tables["nat"].chains["PREROUTING"].append(NAT)
    rules = host.tables["filter"].chains["FORWARD"]
    rules.insert(first, rules.pop(0))
    if not jump:
        rules.remove("-j DOCKER-USER")
    rules.insert(3, "-i eth0 -j ACCEPT")
    walker = Walker(parse(host.save()), oracle=lambda *_asked: True)
    past = [
        packet
        for source, to, port in (("198.51.100.9", "172.17.0.2", 80), ("198.51.100.9", "10.1.1.1", 22))
        for packet in [Packet(source, port, "tcp", destination=to, original=("203.0.113.9", 8080), interface="eth0")]
        if walker.send(packet, "FORWARD").action == "ACCEPT"
    ]
    proved = words(host, spec) == {"web": "proved"}
    assert proved is is_guarded(parse(host.save()))
    assert proved is (not past), past


@pytest.mark.parametrize("allowed", [True, False])
def test_who_has_knocked_is_sent_on_where_dockers_rules_allow_it(allowed):
    spec = spec_of()
    save = BARE.replace("FORWARD ACCEPT", "FORWARD DROP")
    host = host_of(save, spec)
    if allowed:
        host.tables["filter"].chains["FORWARD"].append("-d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j ACCEPT")
    walker = Walker(parse(host.save()))
    packet = Packet("198.51.100.9", 80, "tcp", destination="172.17.0.2", original=("203.0.113.9", 8080))
    assert walker.send(packet, "FORWARD").action != "ACCEPT"
    for step in KNOCK:
        port, _slash, protocol = step.partition("/")
        walker.send(Packet("198.51.100.9", int(port), protocol or "tcp"))
        walker.later(0.1)
    assert (walker.send(packet, "FORWARD").action == "ACCEPT") is allowed
    assert words(host, spec) == {"web": "proved"}
