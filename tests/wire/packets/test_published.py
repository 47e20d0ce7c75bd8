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


@pytest.fixture
def inner(rig):
    with host_behind(rig) as made:
        yield made


def states(peer, family, ports=PORTS, **more):
    """What ports say in a word, where all say the same."""
    found = {peer.probe(port, family, **more) for port in ports}
    return {OPEN: "open", REFUSED[family]: "closed"}.get("".join(found), str(found))


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


@pytest.mark.usefixtures("inner")
def test_nothing_stays_of_the_chain_for_docker(rig):
    before = [rig.target.save(family).count("\n:") for family in FAMILIES]
    rig.target.apply(door(A, B, C, to=list(NETWORK.values())), policy="accept")
    rig.target.apply(state="absent")
    assert [rig.target.save(family).count("\n:") for family in FAMILIES] == before
