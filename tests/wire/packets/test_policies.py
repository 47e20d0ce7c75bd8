# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a client sees under each policy and each way to refuse."""

import pytest
from rig import packets
from rig.engines import ASKED, EVERY_TIME
from rig.packets import IPV4
from rig.peer import OPEN, PROHIBITED, REFUSED, RESET, SILENT, TARGET
from rig.target import door

pytestmark = [ASKED, EVERY_TIME]

KNOCK = (7000, "9100/udp", 3100)
DOOR = door(*KNOCK, opens=("2222", "3333-3335", "514/udp"))
DOOR_STEPS = (2222, 3333, 3334, "514/udp")
OTHERS = (22, 80, 443, 2221, 2223, 3332, 3336, 9999, 514, "2222/udp", "515/udp", "5353/udp", "9999/udp")
WAYS = ("icmp-port-unreachable", "tcp-reset", "icmp-admin-prohibited", "drop")
FLAGS = (
    packets.SYN,
    packets.ACK,
    packets.FIN,
    0,
    packets.SYN | packets.ECE | packets.CWR,
    packets.SYN | packets.FIN,
    packets.RST,
)


def refusal(way, family, step):
    """Return how a refused step answers."""
    udp = str(step).endswith("/udp")
    return {
        "icmp-port-unreachable": REFUSED[family],
        "tcp-reset": REFUSED[family] if udp else RESET,
        "icmp-admin-prohibited": PROHIBITED[family],
        "drop": SILENT,
    }[way]


@pytest.mark.parametrize("way", WAYS)
def test_reject_refuses_everything(rig, family, way):
    rig.target.apply(DOOR, reject_with=way)
    patience = 0.2 if way == "drop" else 1.0
    for step in (*DOOR_STEPS, *OTHERS, *KNOCK):
        assert rig.client.probe(step, family, patience=patience) == refusal(way, family, step), step
    rig.client.knock(*KNOCK, family=family)
    for step in (2222, 3333, "514/udp"):
        assert rig.client.probe(step, family) == OPEN
    assert rig.client.probe(80, family, patience=patience) == refusal(way, family, 80)


@pytest.mark.parametrize("way", WAYS)
def test_accept_closes_only_the_doors(rig, family, way):
    before = {step: rig.client.probe(step, family) for step in (*OTHERS, *KNOCK)}
    assert before[80] == OPEN
    assert before[9999] == RESET
    for step in DOOR_STEPS:
        assert rig.client.probe(step, family) not in (SILENT, PROHIBITED[family])
    rig.target.apply(DOOR, policy="accept", reject_with=way)
    patience = 0.2 if way == "drop" else 1.0
    for step in DOOR_STEPS:
        assert rig.client.probe(step, family, patience=patience) == refusal(way, family, step), step
    assert {step: rig.client.probe(step, family) for step in before} == before
    rig.client.knock(*KNOCK, family=family)
    for step in (2222, 3333, "514/udp"):
        assert rig.client.probe(step, family) == OPEN
    assert rig.other.probe(2222, family, patience=patience) == refusal(way, family, 2222)


def still_speaks(handle):
    """Return whether what the client says comes back."""
    try:
        handle.sendall(b"still here")
        return handle.recv(100) == b"still here"
    except TimeoutError:
        return False


@pytest.mark.parametrize("policy", ["reject", "accept"])
def test_sessions_that_ran_before_live_on(rig, family, policy):
    """The kernel had tracked them: some rule before the collection's asked for that."""
    rig.target.load("-A INPUT -m conntrack --ctstate INVALID -j DROP")
    handle = rig.client.connect(2222, family)
    assert not isinstance(handle, OSError), handle
    with handle:
        assert still_speaks(handle)
        rig.target.apply(DOOR, policy=policy)
        assert still_speaks(handle)
        assert rig.client.probe(2222, family) == REFUSED[family]


@pytest.mark.xfail(
    reason="a session that was idle on a host which tracked none hangs until the host's side sends something"
)
@pytest.mark.parametrize("policy", ["reject", "accept"])
def test_sessions_that_were_not_tracked_live_on(rig, family, policy):
    handle = rig.client.connect(2222, family)
    assert not isinstance(handle, OSError), handle
    with handle:
        rig.target.apply(DOOR, policy=policy)
        assert still_speaks(handle)


def fingerprint(rig, family, port, protocol, flags):
    """Return all of the answer to a packet that does not depend on its port or the time."""
    client, target = rig.client, TARGET[family]
    source, sport = client.addresses[family], client.fresh_port()
    if protocol == "udp":
        number, data = packets.UDP, packets.udp(source, target, sport, port)
    else:
        number, data = packets.TCP, packets.tcp(source, target, sport, port, flags)
    client.drain()
    client.send(packets.ip(source, target, number, data))
    mine = next(client.answers(family, lambda seen: sport in (seen.sport, seen.dport), patience=0.08), None)
    return mine and (mine.protocol, mine.flags, mine.icmp, len(mine.payload))


@pytest.mark.parametrize(("policy", "way"), [("accept", WAYS[0])] + [("reject", way) for way in WAYS])
def test_knock_ports_look_like_any_closed_port(rig, family, policy, way):
    rig.target.apply(
        DOOR, door(7500, 9500, name="two", opens=(8000,), close=["6500", "8500"]), policy=policy, reject_with=way
    )
    for protocol, knocks in (("tcp", (7000, 3100, 7500, 9500, 6500, 9100)), ("udp", (9100, 7000))):
        for flags in FLAGS if protocol == "tcp" else (0,):
            closed = fingerprint(rig, family, 12345, protocol, flags)
            assert closed == fingerprint(rig, family, 54321, protocol, flags)
            if flags == packets.SYN and way != "drop":
                assert closed is not None
            for port in knocks:
                assert fingerprint(rig, family, port, protocol, flags) == closed, (port, protocol, flags)


def test_allowed_ports(rig, family):
    mine = rig.client.addresses[family]
    rig.target.apply(
        DOOR, allow=[{"port": "443"}, {"port": "5353/udp"}, {"port": "8000", "sources": [mine]}, {"port": "80-81"}]
    )
    for step in (443, "5353/udp", 80):
        assert rig.other.probe(step, family) == OPEN
    assert rig.client.probe(81, family) == RESET
    assert rig.client.probe(82, family) == REFUSED[family]
    assert rig.client.probe(8000, family) == OPEN
    assert rig.other.probe(8000, family) == REFUSED[family]


def test_trusted_interfaces(rig, family):
    rig.target.apply(DOOR, trusted_interfaces=["lo", "eth0"])
    assert rig.client.probe(2222, family) == OPEN
    assert rig.client.probe(9999, family) == RESET


def test_a_family_that_is_not_managed_is_left_alone(rig):
    if rig.target.table:
        rig.target.apply(DOOR, ip_versions=["ipv4"])
    else:
        plan = rig.target.plan(IPV4, doors=[DOOR], ip_versions=["ipv4"])
        rig.target.restore(IPV4, plan.change, "--noflush")
    assert rig.client.probe(2222, IPV4) == REFUSED[IPV4]
    assert rig.client.probe(2222, "ipv6") == OPEN
