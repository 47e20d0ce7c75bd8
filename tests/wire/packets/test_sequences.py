# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What opens a door and what does not: sequences of one to eight steps, packet by packet, with each engine.

Where knockd does otherwise than the kernel's rules, a test says so by name and asserts what it does.
"""

import pytest
from rig.counter import close_doors
from rig.knockd import KNOCKD, WRONG
from rig.peer import OPEN
from rig.sequences import (
    EIGHT,
    PORT,
    PORTS,
    PUBLIC,
    PUBLIC_UDP,
    TCP_ONLY,
    UDP_PORT,
    WRONG_UDP,
    A,
    B,
    C,
    breaker,
    opened,
    prepare,
)

pytestmark = pytest.mark.usefixtures("engine")


@pytest.mark.parametrize("length", range(1, 9))
def test_right_order(rig, family, length):
    steps = EIGHT[:length]
    prepare(rig, *steps)
    for number in range(length):
        assert not opened(rig, family), f"after {number} of {length}"
        rig.client.knock(steps[number], family=family)
    assert opened(rig, family)
    assert rig.client.probe(UDP_PORT, family) == OPEN
    assert not opened(rig, family, peer=rig.other)


@pytest.mark.parametrize("length", range(1, 9))
def test_tcp_only(rig, family, length):
    steps = PORTS[:length]
    prepare(rig, *steps)
    rig.client.knock(*steps, family=family)
    assert opened(rig, family)


@pytest.mark.parametrize("length", range(1, 9))
def test_udp_only(rig, family, length):
    steps = [f"{port}/udp" for port in PORTS[:length]]
    prepare(rig, *steps)
    rig.client.knock(*steps, family=family)
    assert opened(rig, family)


@pytest.mark.parametrize("length", range(2, 7))
def test_each_step_left_out_or_swapped(rig, family, engine, length):
    """One door a variant, all beside each other, each knocked wrongly in its own way."""
    steps = EIGHT[:length]
    prepare(rig, *steps)
    wrong = [steps[::-1]]
    wrong += [steps[:number] + steps[number + 1 :] for number in range(length)]
    wrong += [(*steps[:n], steps[n + 1], steps[n], *steps[n + 2 :]) for n in range(length - 1)]
    wrong += [steps[:number] + (breaker(rig),) + steps[number:] for number in range(1, length)]
    for knock in wrong:
        rig.client.knock(breaker(rig), family=family)
        rig.client.knock(*knock, family=family)
        assert not opened(rig, family), knock
    for number in range(1, length):
        for between in (WRONG, WRONG_UDP):
            rig.client.knock(breaker(rig), family=family)
            rig.client.knock(*steps[:number], between, *steps[number:], family=family)
            assert opened(rig, family) == (engine == KNOCKD), "knockd sees no port but its own"
            close_doors(rig)
    rig.client.knock(breaker(rig), *steps, family=family)
    assert opened(rig, family), "the right order after all the wrong ones"


RIGHT = {
    "each step twice": (A, A, B, B, C, C),
    "each step three times": (A, A, A, B, B, B, C, C, C),
    "an old step comes again late": (A, B, A, C),
    "the step before the last comes again late": (A, B, C, B),
    "early tries at the closed port": (A, PORT, B, PORT, UDP_PORT, C),
    "early tries first": (PORT, A, B, C),
    "broken off and restarted at once": (A, B, A, B, C),
    "broken off after one and restarted": (A, A, B, C),
    "restarted after a wrong port": (A, WRONG, A, B, C),
    "restarted after a wrong port late": (A, B, WRONG, A, B, C),
    "allowed ports between": (A, PUBLIC, B, PUBLIC_UDP, PUBLIC, C),
    "wrong port after it opened": (A, B, C, WRONG, WRONG_UDP),
    "knocked twice": (A, B, C, A, B, C),
    "wrong order first": (C, B, A, B, C),
}
WRONG_WAYS = {
    "wrong order": (B, A, C),
    "last two swapped": (A, C, B),
    "reversed": (C, B, A),
    "first missing": (B, C),
    "second missing": (A, C),
    "last missing": (A, B),
    "only the last, many times": (C, C, C, C),
    "wrong port after the first": (A, WRONG, B, C),
    "wrong port after the second": (A, B, WRONG, C),
    "wrong datagram after the first": (A, WRONG_UDP, B, C),
    "wrong, then the first again, then the last": (A, B, WRONG, A, C),
    "wrong, then the first twice, then the last": (A, B, WRONG, A, A, C),
    "wrong, then the second and the last": (A, B, WRONG, B, C),
    "wrong between every step": (A, WRONG, B, WRONG, C),
    "first over the wrong protocol": ("7000/udp", B, C),
    "second over the wrong protocol": (A, "9100", C),
    "last over the wrong protocol": (A, B, "3100/udp"),
    "wrong protocol between, of the first": (A, "7000/udp", B, C),
    "wrong protocol between, of the second": (A, "9100", B, C),
    "wrong protocol between, of the last": (A, B, "3100/udp", C),
}


STRICTER = (
    "each step twice",
    "each step three times",
    "an old step comes again late",
    "broken off and restarted at once",
    "broken off after one and restarted",
    "restarted after a wrong port",
    "restarted after a wrong port late",
)
"""Ways that open with the kernel's rules and not with knockd: to it a step that it does not wait for, a repeated one as well,
breaks the knock, and the packet that breaks one begins none."""

LAXER = (
    "wrong port after the first",
    "wrong port after the second",
    "wrong datagram after the first",
    "wrong between every step",
    "wrong protocol between, of the first",
    "wrong protocol between, of the second",
    "wrong protocol between, of the last",
)
"""Ways that stay shut with the kernel's rules and open with knockd: it sees no port but those of its own configuration, and
those only over their own protocol."""


assert set(STRICTER) <= set(RIGHT)
assert set(LAXER) <= set(WRONG_WAYS)


@pytest.mark.parametrize("way", RIGHT)
def test_opens(rig, family, engine, way):
    prepare(rig, A, B, C)
    rig.client.knock(*RIGHT[way], family=family)
    assert opened(rig, family) == (engine != KNOCKD or way not in STRICTER)


@pytest.mark.parametrize("way", WRONG_WAYS)
def test_stays_shut(rig, family, engine, way):
    prepare(rig, A, B, C)
    rig.client.knock(*WRONG_WAYS[way], family=family)
    assert opened(rig, family) == (engine == KNOCKD and way in LAXER)
    close_doors(rig)
    rig.client.knock(breaker(rig), A, B, C, family=family)
    assert opened(rig, family), "the right knock afterwards"


def test_tcp_door_ignores_other_datagrams(rig, family, engine):
    """An ordinary client's chatter over UDP does not break a knock of TCP steps, the right ports over UDP do."""
    prepare(rig, *TCP_ONLY)
    rig.client.knock(7000, WRONG_UDP, "53/udp", 9100, WRONG_UDP, 3100, family=family)
    assert opened(rig, family)
    prepare(rig, *TCP_ONLY, name="again")
    for between in ("7000/udp", "9100/udp", "3100/udp"):
        rig.client.knock(7000, 9100, between, 3100, family=family)
        assert opened(rig, family, "again") == (engine == KNOCKD), between
        close_doors(rig)


def test_udp_door_ignores_other_connections(rig, family, engine):
    prepare(rig, "7000/udp", "9100/udp", "3100/udp")
    rig.client.knock("7000/udp", WRONG, "9100/udp", 9999, "3100/udp", family=family)
    assert opened(rig, family)
    prepare(rig, "7000/udp", "9100/udp", "3100/udp", name="again")
    rig.client.knock("7000/udp", "9100/udp", 3100, "3100/udp", family=family)
    assert opened(rig, family, "again") == (engine == KNOCKD)
