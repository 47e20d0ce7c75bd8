# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is knockd's own: attempts that it keeps, traps, its life and death.

What both engines do is in test_sequences.py and test_doors.py.
"""

import signal
import time

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import steps_of_turn
from rig import packets
from rig.counter import close_doors
from rig.knockd import KERNEL, KNOCKD, WRONG
from rig.packets import ACK, FIN, IPV4, PSH, RST, SYN
from rig.peer import OPEN, REFUSED
from rig.target import FAMILIES, door

PORT = 2222
A, B, C = KNOCK = (7000, "9100/udp", 3100)
TCP_ONLY = (7000, 9100, 3100)


def prepare(rig, *knock, **more):
    """Load one door to PORT."""
    return rig.target.apply(door(*(knock or KNOCK), opens=(PORT,), **more))


def gets_in(rig, family, peer=None, **more):
    """Return whether the door's port answers as an open one does."""
    answer = (peer or rig.client).probe(PORT, family, **more)
    assert answer in (OPEN, REFUSED[family])
    return answer == OPEN


# With both engines


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("flags", [SYN | ACK, RST, RST | ACK, FIN, FIN | ACK, ACK, PSH | ACK, SYN | FIN, SYN | RST, 0])
def test_what_begins_no_connection_is_no_step(rig, family, flags):
    prepare(rig, *TCP_ONLY)
    for step in TCP_ONLY:
        rig.client.send_step(step, family, flags=flags)
    rig.client.settle()
    assert not gets_in(rig, family)
    for step in TCP_ONLY:
        rig.client.send_step(step, family)
        rig.client.send_step(TCP_ONLY[0], family, flags=flags)
        rig.client.send_step(WRONG, family, flags=flags)
    rig.client.settle()
    assert gets_in(rig, family), "nor does it break a knock"


@pytest.mark.usefixtures("engine")
def test_a_knock_over_one_family_opens_nothing_over_the_other(rig, family):
    prepare(rig)
    other = next(each for each in FAMILIES if each != family)
    rig.client.knock(*KNOCK, family=family)
    assert gets_in(rig, family)
    assert not gets_in(rig, other)
    rig.client.knock(A, family=family)
    rig.client.knock(*KNOCK[1:], family=other)
    assert not gets_in(rig, other), "nor do its steps count there"


def test_sessions_outlive_window_and_daemon(rig, family, engine):
    prepare(rig, window=2)
    rig.client.knock(*KNOCK, family=family)
    with rig.client.connect(PORT, family) as session:
        if engine == KNOCKD:
            rig.target.daemon.stop(signal.SIGKILL)
        assert gets_in(rig, family), "the window is the kernel's"
        time.sleep(2.2)
        assert not gets_in(rig, family), "it ends by itself"
        session.sendall(b"still here")
        assert session.recv(100) == b"still here"


# Attempts


@pytest.mark.usefixtures("knockd")
@pytest.mark.parametrize("done", range(len(KNOCK)))
def test_the_try_after_a_broken_one(rig, family, done):
    """A plain new knock behind one whose end got lost fails, and so does none that begins as the client's second try does."""
    prepare(rig)
    rig.client.knock(*KNOCK[:done], family=family)
    rig.client.knock(*KNOCK, family=family)
    assert gets_in(rig, family) == (done == 0), "the first step breaks what was left, and begins nothing"
    close_doors(rig)
    rig.client.knock(*KNOCK, family=family)
    assert gets_in(rig, family), "the one after that gets in"
    close_doors(rig)
    rig.client.knock(*KNOCK[:done], family=family)
    rig.client.knock(*steps_of_turn(KNOCK, 1, KNOCKD), family=family)
    assert gets_in(rig, family)


@pytest.mark.usefixtures("knockd")
def test_a_lost_packet_anywhere(rig, family):
    """Whatever packet of a knock is lost, the client's second try gets in."""
    prepare(rig)
    for lost in range(len(KNOCK)):
        rig.client.knock(*KNOCK[:lost], *KNOCK[lost + 1 :], family=family)
        assert not gets_in(rig, family)
        rig.client.knock(*steps_of_turn(KNOCK, 1, KNOCKD), family=family)
        assert gets_in(rig, family), lost
        close_doors(rig)


def test_another_source_can_end_an_attempt(rig, knockd, family):
    """knockd forgets all attempts with the one that it has had for the longest: when that ends, for better or worse."""
    prepare(rig)
    for end in (knockd.breaker, KNOCK[1:]):
        rig.other.knock(A, family=family)
        rig.client.knock(A, B, family=family)
        rig.other.knock(*(end if isinstance(end, tuple) else (end,)), family=family)
        rig.client.knock(C, family=family)
        assert not gets_in(rig, family)
        rig.client.knock(*steps_of_turn(KNOCK, 1, KNOCKD), family=family)
        assert gets_in(rig, family), "a new knock makes up for it"
        close_doors(rig)


def test_a_later_source_disturbs_nobody(rig, knockd, family):
    prepare(rig)
    rig.client.knock(A, family=family)
    rig.other.knock(A, knockd.breaker, B, family=family)
    rig.client.knock(B, C, family=family)
    assert gets_in(rig, family)
    assert not gets_in(rig, family, peer=rig.other)


# Traps


def test_every_trap_breaks_a_knock(rig, knockd, family):
    prepare(rig)
    steps = {(str(step).partition("/")[0], str(step).partition("/")[2] or "tcp") for step in KNOCK}
    traps = [(int(port) if protocol == "tcp" else f"{port}/udp") for port, protocol in knockd.ports
             if (port, protocol) not in steps]  # fmt: skip
    assert len(traps) >= 128, "64 for each protocol"
    for trap in traps:
        rig.client.send_step(knockd.breaker, family)
        for step in (A, trap, B, C):
            rig.client.send_step(step, family)
    rig.client.settle()
    assert not gets_in(rig, family)
    for trap in traps[::16]:
        rig.client.knock(knockd.breaker, A, B, trap, C, family=family)
        assert not gets_in(rig, family), trap
    rig.client.knock(A, B, C, WRONG, family=family)
    assert gets_in(rig, family)


def test_no_trap_is_needed_for_anything(rig, knockd):
    """Ports that mean something are no traps, over either protocol where they are steps."""
    rig.target.apply(
        door(*KNOCK, opens=("10000-60000",), close=["6000", "8200/udp"]),
        allow=[{"port": "1024-3000"}, {"port": "53/udp"}],
    )
    traps = {int(port) for port, protocol in knockd.ports if protocol == "tcp"} - {7000, 3100, 6000}
    assert traps
    assert not [port for port in traps if 1024 <= port <= 3000 or 10000 <= port <= 60000 or port in (9100, 8200)]


# Its life


def test_dead_and_back(rig, knockd, family):
    """Without the daemon no new connection gets in and nothing stays open; once it runs again, knocks count."""
    prepare(rig)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        rig.client.knock(A, B, family=family)
        knockd.stop(sign)
        rig.client.knock(C, family=family)
        rig.client.knock(*KNOCK, family=family)
        assert not gets_in(rig, family)
        knockd.start()
        rig.client.knock(C, family=family)
        assert not gets_in(rig, family), "what was begun before is forgotten"
        rig.client.knock(*KNOCK, family=family)
        assert gets_in(rig, family)
        close_doors(rig)


def test_restarted_in_the_window(rig, knockd, family):
    prepare(rig)
    rig.client.knock(*KNOCK, family=family)
    knockd.stop()
    assert gets_in(rig, family)
    knockd.start()
    assert gets_in(rig, family)
    assert not gets_in(rig, family, peer=rig.other)


def test_addresses_that_come_later(rig, knockd):
    """Knocks at an address that its interface did not have when it began are not heard: why it is restarted then."""
    prepare(rig)
    late = "10.77.0.99"
    change = rig.target.namespace.run
    change("ip", "address", "add", late + "/24", "dev", "eth0")
    try:
        _knock_at(rig, late)
        assert not gets_in(rig, IPV4)
        knockd.stop()
        knockd.start()
        _knock_at(rig, late)
        assert gets_in(rig, IPV4)
    finally:
        change("ip", "address", "del", late + "/24", "dev", "eth0")


def _knock_at(rig, target):
    source = rig.client.addresses[IPV4]
    for step in KNOCK:
        protocol, data = packets.segment_to(source, target, step, rig.client.fresh_port())
        rig.client.send(packets.ip(source, target, protocol, data))
    rig.client.settle()


@pytest.mark.usefixtures("knockd")
def test_addresses_of_others_are_not_heard(rig):
    """A router's target sees knocks at hosts behind it, which are not knocks at itself."""
    prepare(rig)
    _knock_at(rig, "10.77.0.98")
    assert not gets_in(rig, IPV4)
    rig.client.knock(*KNOCK)
    assert gets_in(rig, IPV4)


# From one engine to the other


def test_changing_the_engine_keeps_who_has_knocked(rig, knockd, family):
    doors = [door(*KNOCK, opens=(PORT,)), door(4000, 4100, 4200, name="web", opens=(8000,))]
    rig.target.apply(*doors, engine=KERNEL)
    assert not knockd.running
    rig.client.knock(*KNOCK, family=family)
    before = rig.target.save(family)
    for engine in (KNOCKD, KERNEL):
        rig.target.apply(*doors, engine=engine)
        assert knockd.running == (engine == KNOCKD)
        assert gets_in(rig, family)
        assert not gets_in(rig, family, peer=rig.other)
        close_doors(rig)
        rig.client.knock(*KNOCK, family=family)
        assert gets_in(rig, family)
    assert _rules(rig.target.save(family)) == _rules(before)


@pytest.mark.usefixtures("knockd")
def test_changing_the_engine_is_a_small_change(rig, family):
    """What lets in and what refuses stays; knocks, stages and their reset go."""
    doors = [door(*KNOCK, opens=(PORT,)), door(4000, 4100, 4200, name="web", opens=(8000,))]
    rig.target.apply(*doors, engine=KERNEL)
    before = _rules(rig.target.save(family))
    rig.target.apply(*doors, engine=KNOCKD)
    after = _rules(rig.target.save(family))
    assert set(after) < set(before), "nothing is new"
    gone = [line for line in before if line not in after]
    chains, dispatch, resets, steps, stages, unused = 4, 2, 2, 6, 4, 2
    assert len(gone) == chains + dispatch + resets + steps + stages + unused, gone
    assert not [line for line in gone if "let in" in line or "REJECT" in line]


def _rules(text):
    return [line.partition(" [")[0] for line in text.splitlines() if line.startswith((":PORTKNOCK", "-A"))]
