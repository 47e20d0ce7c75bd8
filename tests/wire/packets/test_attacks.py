# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ways to get in without a knock: packets that no honest client sends."""

import random

import pytest
from rig import packets
from rig.engines import ASKED, EVERY_TIME
from rig.packets import ACK, CWR, ECE, FIN, IPV4, IPV6, PSH, RST, SYN, TCP, UDP, URG
from rig.peer import OPEN, TARGET
from rig.target import door

pytestmark = [ASKED, EVERY_TIME]

KNOCK = (7000, "9100/udp", 3100)
PORT, UDP_PORT = 2222, 514
POLICIES = ("reject", "accept")


@pytest.fixture(params=POLICIES)
def closed(rig, family, request):
    """A door that has not been knocked at; at the end it must still open to its knock and to nothing else."""
    # Something is tracked and answers before: an attacker may have what is allowed.
    rig.target.apply(door(*KNOCK, opens=(PORT, f"{UDP_PORT}/udp")), allow=[{"port": "443"}], policy=request.param)
    yield Attack(rig, family)
    assert rig.client.probe(PORT, family) != OPEN
    rig.client.knock(*KNOCK, family=family)
    assert rig.client.probe(PORT, family) == OPEN


class Attack:
    """Sends what a test makes up, and tells whether the door's port ever answered as an open one does."""

    def __init__(self, rig, family):
        """Take the rig and the family."""
        self.rig, self.family, self.client = rig, family, rig.client
        self.source, self.target = rig.client.addresses[family], TARGET[family]

    def tcp(self, flags=SYN, sport=None, port=PORT, **more):
        """Return a TCP segment."""
        return packets.tcp(self.source, self.target, sport or self.client.fresh_port(), port, flags, **more)

    def ip(self, protocol, data, **more):
        """Return an IP packet."""
        return packets.ip(self.source, self.target, protocol, data, **more)

    def gets_in(self, sent, patience=0.4):
        """Send packets and tell whether one was answered from the door with a SYN of its own, or with data."""
        self.client.drain()
        for data in sent:
            self.client.send(data)

        def inside(seen):
            if seen.icmp or seen.sport not in (PORT, UDP_PORT):
                return False
            return seen.protocol == UDP or bool(seen.flags & SYN)

        return next(self.client.answers(self.family, inside, patience), None)


ODD = (
    SYN | FIN, SYN | URG | PSH, SYN | ECE | CWR, SYN | PSH, SYN | URG, SYN | FIN | URG | PSH, SYN | RST, SYN | ACK, ACK, FIN, 0, PSH, URG,
    FIN | ACK, PSH | ACK, FIN | PSH | URG, RST | ACK, RST, 255, ECE, CWR,
)  # fmt: skip


def test_the_check_itself(rig, family):
    """With no ruleset it sees that the door's port is open; otherwise nothing here could fail."""
    attack = Attack(rig, family)
    assert attack.gets_in([attack.ip(TCP, attack.tcp())])
    assert attack.gets_in([attack.ip(UDP, packets.udp(attack.source, attack.target, 4000, UDP_PORT))])
    whole = attack.tcp(options=b"\x01" * 20)
    assert attack.gets_in(fragments(attack, TCP, whole, 24)), "the kernel puts fragments together"


def test_odd_flags(closed):
    assert not closed.gets_in([closed.ip(TCP, closed.tcp(flags)) for flags in ODD])


def test_odd_flags_and_then_a_syn(closed):
    """The same source port, at once: before the host can answer the first."""
    sent = []
    for flags in ODD:
        sport = closed.client.fresh_port()
        segments = closed.tcp(flags, sport, ack=7), closed.tcp(SYN, sport), closed.tcp(SYN, sport, seq=9)
        sent += [closed.ip(TCP, segment) for segment in segments]
    assert not closed.gets_in(sent)


def test_ack_then_syn_many_times(closed):
    for _turn in range(50):
        sport = closed.client.fresh_port()
        burst = [closed.ip(TCP, closed.tcp(ACK, sport, ack=1)) for _again in range(3)] + [
            closed.ip(TCP, closed.tcp(SYN, sport))
        ]
        assert not closed.gets_in(burst, patience=0.01)
    assert not closed.gets_in([])


def test_a_segment_of_a_session_that_never_was(closed):
    sport = closed.client.fresh_port()
    assert not closed.gets_in(
        [closed.ip(TCP, closed.tcp(PSH | ACK, sport, seq=n, ack=n, payload=b"let me in")) for n in range(1, 20)]
    )


def test_source_ports(closed):
    ports = (1, 20, 21, 22, 53, 67, 68, 80, 123, 443, 500, 546, 547, 1900, 5353, PORT, 65535)
    sent = [closed.ip(TCP, closed.tcp(sport=sport)) for sport in ports]
    sent += [closed.ip(UDP, packets.udp(closed.source, closed.target, sport, UDP_PORT)) for sport in ports]
    assert not closed.gets_in(sent)


def test_data_in_the_syn(closed):
    """Also with a fast-open cookie."""
    options = (b"", b"\x22\x02\x01\x01", b"\x22\x0a" + b"12345678" + b"\x01\x01", b"\x02\x04\x05\xb4")
    assert not closed.gets_in([closed.ip(TCP, closed.tcp(options=option, payload=b"data")) for option in options])


def fragments(attack, protocol, data, size, overlap=False):
    """Return IP packets that carry the data in pieces."""
    ident = random.randrange(1, 65535)
    pieces = []
    for start in range(0, len(data), size):
        more = start + size < len(data)
        part = data[start : start + size]
        if attack.family == IPV4:
            pieces.append(attack.ip(protocol, part, fragment=start // 8, more=more, ident=ident))
        else:
            pieces.append(
                attack.ip(packets.FRAGMENT, packets.fragment_header(protocol, start // 8, more, ident) + part)
            )
    return pieces * 2 if overlap else pieces


@pytest.mark.parametrize("size", [8, 16, 24])
def test_fragments(closed, size):
    whole = closed.tcp(options=b"\x01" * 20, payload=b"x" * 32)
    for order in (1, -1):
        assert not closed.gets_in(fragments(closed, TCP, whole, size)[::order])
        assert not closed.gets_in(fragments(closed, TCP, whole, size, overlap=True)[::order])
        datagram = packets.udp(closed.source, closed.target, closed.client.fresh_port(), UDP_PORT, b"x" * 64)
        assert not closed.gets_in(fragments(closed, UDP, datagram, size)[::order])


def test_a_first_fragment_for_an_allowed_port(closed):
    """The head of a segment to an allowed port, then overlapping pieces that name the door's."""
    ident = 4711
    allowed, shut = closed.tcp(port=443, sport=4711, options=b"\x01" * 20), closed.tcp(sport=4711, options=b"\x01" * 20)
    for start in (0, 8):
        parts = ((0, True, allowed[:16]), (start // 8, True, shut[start:24]), (3, False, shut[24:]))
        if closed.family == IPV4:
            sent = [closed.ip(TCP, part, fragment=offset, more=more, ident=ident) for offset, more, part in parts]
        else:
            sent = [
                closed.ip(packets.FRAGMENT, packets.fragment_header(TCP, offset, more, ident) + part)
                for offset, more, part in parts
            ]
        assert not closed.gets_in(sent)
        ident += 1


def test_datagrams_that_look_like_answers(closed):
    sent = []
    for sport in (53, 123, 500, UDP_PORT):
        for payload in (b"", b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0", b"x" * 1200):
            sent.append(closed.ip(UDP, packets.udp(closed.source, closed.target, sport, UDP_PORT, payload)))
    assert not closed.gets_in(sent)


def test_errors_about_packets_that_never_were(closed):
    """An ICMP error is only related to what is tracked; it opens nothing."""
    inner = packets.ip(
        closed.target, closed.source, TCP, packets.tcp(closed.target, closed.source, PORT, 4000, SYN | ACK)
    )
    if closed.family == IPV4:
        body = b"\x03\x03\0\0\0\0\0\0" + inner[:48]
        error = closed.ip(packets.ICMP, body[:2] + packets.checksum(body).to_bytes(2, "big") + body[4:])
    else:
        error = closed.ip(packets.ICMPV6, b"\x01\x04\0\0\0\0\0\0" + inner)
    assert not closed.gets_in([error, closed.ip(TCP, closed.tcp(sport=4000))])


def test_one_address_does_not_open_another(closed):
    """A knock with a forged source opens the door for that source alone."""
    forged = {IPV4: "10.77.0.22", IPV6: "fd77::22"}[closed.family]
    closed.client.knock(*KNOCK, family=closed.family, source=forged)
    assert not closed.gets_in([closed.ip(TCP, closed.tcp())])
    assert closed.client.probe(PORT, closed.family, source=forged) == OPEN


def test_knock_packets_that_are_none(closed):
    """Only a SYN knocks: no other segment to the right ports does, nor a ping."""
    for flags in (FIN, 0, ACK, RST, SYN | FIN, SYN | RST, SYN | ACK, FIN | PSH | URG):
        for step in (7000, 3100):
            closed.client.send(closed.ip(TCP, closed.tcp(flags, port=step)))
            if step == 7000:
                closed.client.knock("9100/udp", family=closed.family)
        assert not closed.gets_in([closed.ip(TCP, closed.tcp())], patience=0.1), flags


def test_a_syn_with_ecn_knocks(closed):
    """Clients that ask for explicit congestion notification set two flags more in their SYN."""
    closed.client.send(closed.ip(TCP, closed.tcp(SYN | ECE | CWR, port=7000)))
    closed.client.knock("9100/udp", family=closed.family)
    closed.client.send(closed.ip(TCP, closed.tcp(SYN | ECE | CWR, port=3100)))
    assert closed.gets_in([closed.ip(TCP, closed.tcp(SYN | ECE | CWR))])
    # The fixture wants it shut at its end.
    closed.rig.target.reset()
    closed.rig.target.apply(door(*KNOCK, opens=(PORT,)))


def test_ipv4_options(rig):
    for policy in POLICIES:
        rig.target.reset()
        rig.target.apply(door(*KNOCK, opens=(PORT,)), policy=policy)
        attack = Attack(rig, IPV4)
        target = packets.packed(TARGET[IPV4])
        loose, strict = (kind + b"\x07\x04" + target + b"\0" for kind in (b"\x83", b"\x89"))
        options = (b"\x01" * 4, b"\x07\x07\x04\0\0\0\0\0", loose, strict, b"\x94\x04\0\0", b"\x01" * 40)
        assert not attack.gets_in([attack.ip(TCP, attack.tcp(), options=option) for option in options])


def _extended(attack, data, protocol=TCP):
    """Return the segment behind all sorts of extension headers."""
    hop, destination = packets.extension(protocol), packets.extension(protocol)
    atomic = packets.fragment_header(protocol, 0, False, 99)
    chain = (
        packets.extension(packets.DESTINATION)
        + packets.extension(packets.FRAGMENT)
        + packets.fragment_header(protocol, 0, False, 98)
    )
    many = packets.extension(packets.DESTINATION) * 7 + packets.extension(protocol)
    routing = bytes((protocol, 0, 4, 0, 0, 0, 0, 0))
    return [
        attack.ip(packets.HOP_BY_HOP, hop + data),
        attack.ip(packets.DESTINATION, destination + data),
        attack.ip(packets.FRAGMENT, atomic + data),
        attack.ip(packets.HOP_BY_HOP, chain + data),
        attack.ip(packets.DESTINATION, many + data),
        attack.ip(packets.ROUTING, routing + data),
    ]


def test_ipv6_extension_headers(rig):
    attack = Attack(rig, IPV6)
    without = [bool(attack.gets_in([data])) for data in _extended(attack, attack.tcp())]
    assert without[:4] == [True] * 4, "with no ruleset such packets are answered"
    for policy in POLICIES:
        rig.target.reset()
        rig.target.apply(door(*KNOCK, opens=(PORT, f"{UDP_PORT}/udp")), policy=policy)
        sent = [data for _turn in range(5) for data in _extended(attack, attack.tcp())]
        sent += _extended(attack, packets.udp(attack.source, attack.target, attack.client.fresh_port(), UDP_PORT), UDP)
        assert not attack.gets_in(sent)


def test_ipv4_mapped_sources(rig):
    """An IPv6 packet that claims to come from an IPv4 address which has knocked."""
    rig.target.apply(door(*KNOCK, opens=(PORT,)))
    rig.client.knock(*KNOCK, family=IPV4)
    assert rig.client.probe(PORT, IPV4) == OPEN
    for source in ("::ffff:10.77.0.2", "::10.77.0.2", "64:ff9b::10.77.0.2", "::1", "fe80::1"):
        assert rig.client.probe(PORT, IPV6, source=source, patience=0.1) != OPEN


def _random_attack(rig, family, rounds, seed):
    choose = random.Random(seed)
    attack = Attack(rig, family)
    for _turn in range(rounds):
        sport = choose.choice((attack.client.fresh_port(), 53, 443, PORT))
        sent = []
        for _packet in range(choose.randrange(2, 8)):
            flags = choose.choice((SYN, choose.randrange(256)))
            numbers = {"seq": choose.randrange(1 << 32), "ack": choose.randrange(1 << 32)}
            data = attack.tcp(flags, sport, options=b"\x01" * choose.choice((0, 4, 20)), **numbers)
            way = choose.randrange(3)
            if way == 0:
                sent += fragments(attack, TCP, data, choose.choice((8, 16)))
            elif way == 1 and family == IPV6:
                sent.append(choose.choice(_extended(attack, data)))
            else:
                sent.append(attack.ip(TCP, data))
        choose.shuffle(sent)
        assert not attack.gets_in(sent, patience=0.02)


@pytest.mark.parametrize("policy", POLICIES)
def test_fifty_random_attacks(rig, family, policy):
    rig.target.apply(door(*KNOCK, opens=(PORT,)), allow=[{"port": "443"}], policy=policy)
    _random_attack(rig, family, 50, 1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("policy", POLICIES)
def test_many_random_attacks(rig, family, policy, seed):
    rig.target.apply(door(*KNOCK, opens=(PORT,)), allow=[{"port": "443"}], policy=policy)
    _random_attack(rig, family, 500, 100 + seed)
