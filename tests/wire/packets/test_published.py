# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Doors of ports that Docker publishes, and of hosts behind the target."""

import time

import pytest
from rig.docker_rules import (
    INNER,
    NETWORK,
    OTHER,
    PORT,
    UDP_PORT,
    docker_steps,
    goes_out,
    host_behind,
    start_docker,
    talking,
)
from rig.knockd import KERNEL, WRONG
from rig.packets import IPV4, IPV6
from rig.peer import OPEN, REFUSED
from rig.publishers import PUBLISHERS, published
from rig.sequences import A, B, C
from rig.target import FAMILIES, door

pytestmark = [pytest.mark.usefixtures("engine"), pytest.mark.engines(KERNEL)]
PORTS = (PORT, f"{UDP_PORT}/udp")
PUBLIC = {IPV4: "203.0.113.9", IPV6: "2001:db8:9::9"}
"""An address that is not the target's own; packets to it come to the target nevertheless."""
BY_WHOM = {
    "a rule": "",
    "kube-proxy": ":KUBE-SERVICES - [0:0]\n-I PREROUTING 1 -j KUBE-SERVICES\n",
}
"""Who sends that address on: a rule of the owner's, behind all others, or kube-proxy (externalIPs), in front of all others."""


@pytest.fixture
def inner(rig):
    with host_behind(rig) as made:
        yield made


def states(peer, family, ports=PORTS, **more):
    """What ports say in a word, where all say the same."""
    found = {peer.probe(port, family, **more) for port in ports}
    return {OPEN: "open", REFUSED[family]: "closed"}.get("".join(found), str(found))


def send_public_on(rig, family, whose):
    """Have nat send that address on to the host behind."""
    inner = INNER[family] if family == IPV4 else f"[{INNER[family]}]"
    chain = "KUBE-SERVICES" if BY_WHOM[whose] else "PREROUTING"
    rules = "".join(
        f"-A {chain} -d {PUBLIC[family]} -p {protocol} --dport {port} -j DNAT --to-destination {inner}:{there}\n"
        for protocol, port, there in (("tcp", PORT, 80), ("udp", UDP_PORT, 5353))
    )
    rig.target.restore(family, f"*nat\n{BY_WHOM[whose]}{rules}COMMIT\n", "--noflush")


def check_a_door(rig, family, inner):
    """Closed to all, open to who has knocked as long as its window lasts; what has no door, and containers, go on."""
    rig.target.apply(door(A, B, C, name="web", opens=PORTS, window=2))
    assert states(rig.client, family) == "closed"
    assert rig.client.probe(OTHER, family) == OPEN, "it has no door"
    assert goes_out(rig, inner, family)
    rig.client.knock(A, B, C, family=family)
    assert states(rig.client, family) == "open"
    assert states(rig.other, family) == "closed"
    time.sleep(2.1)
    assert states(rig.client, family) == "closed"


def test_what_docker_publishes(rig, family, inner):
    start_docker(rig)
    assert states(rig.client, family) == "open", "Docker alone"
    check_a_door(rig, family, inner)
    rig.target.apply(door(A, B, C, name="web", opens=PORTS), published="none")
    assert states(rig.client, family) == "open", "as before there was a door"


@pytest.mark.soak
@pytest.mark.parametrize("name", PUBLISHERS)
def test_what_others_publish(rig, family, inner, name):
    """By rules of iptables, or by those of nftables alone, which no chain of iptables' table nat comes before."""
    with published(rig, name):
        assert states(rig.client, family) == "open"
        check_a_door(rig, family, inner)


@pytest.mark.usefixtures("inner")
def test_one_connection_a_knock(rig, family):
    """Used up in FORWARD, and behind nat where Docker's rules accept it before that."""
    start_docker(rig)
    web = door(A, B, C, name="web", opens=(PORT,), once=True)
    for _place in ("FORWARD", "nat"):
        rig.target.apply(web)
        rig.client.knock(A, B, C, family=family)
        assert [rig.client.probe(PORT, family) for _turn in range(2)] == [OPEN, REFUSED[family]]
        text = next(hook.text for hook in rig.target.plan(family, doors=[web]).now.hooks if hook.chain == "FORWARD")
        rig.target.restore(family, f"*filter\n-D FORWARD {text}\nCOMMIT\n", "--noflush")
        rig.client.knock(A, B, C, family=family)
        assert [rig.client.probe(PORT, family) for _turn in range(2)] == [OPEN, REFUSED[family]]


def test_the_policy_holds_for_published_ports(rig, family, inner):
    start_docker(rig)
    sources = {IPV4: "10.77.0.2", IPV6: "fd77::2"}
    allow = [{"port": OTHER, "sources": list(sources.values())}]
    rig.target.apply(published="policy", allow=allow)
    assert states(rig.client, family) == "closed"
    assert rig.client.probe(OTHER, family) == OPEN
    assert rig.other.probe(OTHER, family) == REFUSED[family]
    assert rig.client.probe(80, family, to=INNER[family]) == OPEN, "nothing publishes it"
    assert goes_out(rig, inner, family)


@pytest.mark.usefixtures("inner")
def test_another_way_to_guard_what_is_published_cuts_nothing(rig, family):
    start_docker(rig)
    web = door(A, B, C, name="web", opens=(PORT,))
    rig.target.apply(web)
    rig.client.knock(A, B, C, family=family)
    with talking(rig.client, PORT, family):
        for way in ("policy", "none", "doors", "policy"):
            rig.target.apply(web, published=way)
            time.sleep(0.1)


@pytest.mark.usefixtures("inner")
def test_hosts_behind(rig, family):
    behind = door(A, B, C, name="behind", opens=(80, "5353/udp"), window=2, to=list(NETWORK.values()))
    ports, to = (80, "5353/udp"), INNER[family]
    rig.target.apply(behind, policy="accept")
    assert states(rig.client, family, ports) == "open", "the host's own ports are not behind it"
    for where in ("", to):
        assert states(rig.client, family, ports, to=to) == "closed"
        assert rig.client.probe(443, family, to=to) == OPEN, "another port"
        rig.client.knock(A, B, WRONG, C, family=family, to=where)
        assert states(rig.client, family, ports, to=to) == "closed"
        rig.client.knock(A, B, C, family=family, to=where)
        assert states(rig.client, family, ports, to=to) == "open"
        assert states(rig.other, family, ports, to=to) == "closed"
        time.sleep(2.1)
    assert states(rig.client, family, ports, to=to) == "closed"


@pytest.mark.usefixtures("inner")
def test_docker_comes_later(rig):
    """From its first rule on the door is closed, and Docker's are as they were once ours are gone."""
    web = door(A, B, C, name="web", opens=PORTS)
    rig.target.apply(web)
    for family in FAMILIES:
        for step in docker_steps(rig, family):
            assert states(rig.client, family, (PORT,)) != "open", step
    assert {states(rig.client, family) for family in FAMILIES} == {"closed"}
    assert [plan.change for plan in rig.target.apply(web).values()] == ["", ""], "what Docker puts in front is no drift"
    for family in FAMILIES:
        rig.client.knock(A, B, C, family=family)
        assert states(rig.client, family) == "open"
    rig.target.apply(state="absent")
    for family in FAMILIES:
        save = rig.target.save(family)
        assert "PORTKNOCK" not in save
        assert "-A FORWARD -j DOCKER-USER" in save
        assert "-A DOCKER-USER -j RETURN" in save


@pytest.mark.parametrize("whose", BY_WHOM)
@pytest.mark.parametrize("first", ["the door", "Docker"])
@pytest.mark.usefixtures("inner")
def test_an_address_that_is_not_the_hosts_own(rig, family, first, whose):
    """Closed whoever came first, and while Docker makes a network, whose rules stand in front of its jump for a while."""
    web, to = door(A, B, C, name="web", opens=PORTS, window=2), PUBLIC[family]
    if first == "the door":
        rig.target.apply(web)
    start_docker(rig)
    send_public_on(rig, family, whose)
    if first == "Docker":
        assert states(rig.client, family, to=to) == "open"
        rig.target.apply(web)
    assert states(rig.client, family, to=to) == "closed"
    command = "iptables" if family == IPV4 else "ip6tables"
    rig.target.namespace.run(command, "-w", "-I", "FORWARD", "-i", "br-0", "-j", "ACCEPT")
    assert states(rig.client, family, to=to) == "closed"
    rig.client.knock(A, B, C, family=family)
    assert states(rig.client, family, to=to) == "open"
    assert states(rig.other, family, to=to) == "closed"
    time.sleep(2.1)
    assert states(rig.client, family, to=to) == "closed"
    rig.target.apply(web)
    assert rig.target.apply(web)[family].change == ""
    assert states(rig.client, family, to=to) == "closed"


@pytest.mark.parametrize("first", ["the door", "Docker"])
@pytest.mark.usefixtures("inner")
def test_one_connection_a_knock_where_packets_pass_twice(rig, first):
    """Whichever of the two hooks they pass first."""
    web, to = door(A, B, C, name="web", opens=(PORT,), once=True), PUBLIC[IPV4]
    if first == "the door":
        rig.target.apply(web)
    start_docker(rig)
    send_public_on(rig, IPV4, "a rule")
    rig.target.apply(web)
    for _turn in range(2):
        rig.client.knock(A, B, C)
        assert [rig.client.probe(PORT, to=to) for _turn in range(3)] == [OPEN, REFUSED[IPV4], REFUSED[IPV4]]


@pytest.mark.usefixtures("inner")
def test_who_accepts_in_front_of_all_hooks_is_drift(rig, family):
    """As netavark with rules of iptables might: there is no DOCKER-USER, and each run puts the hook in front again."""
    web, to = door(A, B, C, name="web", opens=PORTS), PUBLIC[family]
    rig.target.apply(web)
    send_public_on(rig, family, "a rule")
    netavark = f":NETAVARK_FORWARD - [0:0]\n-A NETAVARK_FORWARD -d {NETWORK[family]} -j ACCEPT\n-I FORWARD 1 -j NETAVARK_FORWARD\n"
    rig.target.restore(family, f"*filter\n{netavark}COMMIT\n", "--noflush")
    assert rig.target.plan(family, doors=[web], engine=rig.target.engine).change
    rig.target.apply(web)
    assert states(rig.client, family, to=to) == "closed"
    assert rig.target.plan(family, doors=[web], engine=rig.target.engine).change == ""


@pytest.mark.usefixtures("inner")
def test_nothing_stays_of_the_chain_for_docker(rig):
    before = [rig.target.save(family).count("\n:") for family in FAMILIES]
    rig.target.apply(door(A, B, C, to=list(NETWORK.values())), policy="accept")
    rig.target.apply(state="absent")
    assert [rig.target.save(family).count("\n:") for family in FAMILIES] == before
