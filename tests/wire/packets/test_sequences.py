# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What opens a door and what does not: sequences of one to eight steps, packet by packet, with both engines.

Where knockd does otherwise than the kernel's rules, a test says so by name and asserts what it does.
"""

import time

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from rig.counter import close_doors
from rig.knockd import KERNEL, KNOCKD, WRONG
from rig.packets import IPV4, IPV6
from rig.peer import OPEN, OWN, REFUSED
from rig.target import door

pytestmark = pytest.mark.usefixtures("engine")

PORT = 2222
UDP_PORT = "514/udp"
EIGHT = (7000, "9100/udp", 3100, "5200/udp", 8300, 4400, "6100/udp", 9900)
PORTS = (7000, 9100, 3100, 5200, 8300, 4400, 6100, 9900)
A, B, C = EIGHT[:3]
TCP_ONLY = (7000, 9100, 3100)
WRONG_UDP = f"{WRONG}/udp"
PUBLIC, PUBLIC_UDP = 443, "5353/udp"
ALLOW = [{"port": "443"}, {"port": "5353/udp"}]
PREFIX = {IPV4: "pk4_", IPV6: "pk6_"}


def prepare(rig, *knock, **more):
    """Load one door to PORT."""
    rig.target.apply(door(*knock, opens=(PORT, UDP_PORT), **more), allow=ALLOW)


def breaker(rig):
    """Return a port that breaks a knock: to knockd a wrong one is none, it looks at its own alone."""
    return rig.target.daemon.breaker if rig.target.daemon else WRONG


def opened(rig, family, name="ssh", port=PORT, peer=None):
    """Tell whether the door is open; list and answer must say the same, for TCP and for UDP."""
    peer = peer or rig.client
    answer = peer.probe(port, family)
    listed = peer.addresses[family] in addresses(rig.target.listed(PREFIX[family] + name))
    assert answer in (OPEN, REFUSED[family])
    assert listed == (answer == OPEN), (answer, listed)
    return listed


def addresses(listed):
    """Return addresses as ipaddress writes them; the kernel prints IPv6 in full."""
    import ipaddress

    return {str(ipaddress.ip_address(text)) for text in listed}


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
    assert opened(rig, family) == (engine == KERNEL or way not in STRICTER)


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


def test_broadcasts_of_the_client_do_not_count(rig, family):
    prepare(rig, A, B, C)
    for step in (A, B, C):
        rig.client.call_everyone(6543, family)
        rig.client.knock(step, family=family)
        rig.client.call_everyone(137, family)
    assert opened(rig, family)


def test_other_sources_neither_disturb_nor_profit(rig, family):
    prepare(rig, A, B, C)
    rig.client.knock(A, family=family)
    rig.other.knock(WRONG, A, family=family)
    rig.client.knock(B, family=family)
    rig.other.knock(WRONG_UDP, C, WRONG, family=family)
    assert not opened(rig, family)
    rig.other.knock(C, family=family)
    assert not opened(rig, family, peer=rig.other)
    assert not opened(rig, family)
    rig.client.knock(C, family=family)
    assert opened(rig, family)
    assert not opened(rig, family, peer=rig.other)


def test_two_doors_interleaved(rig, family, engine):
    one, two = (A, B, C), (7500, "9500/udp", 3500)
    rig.target.apply(door(*one, name="one", opens=(2222,)), door(*two, name="two", opens=(3333,)))
    rig.client.knock(one[0], two[0], one[1], two[1], one[2], family=family)
    if engine == KNOCKD:
        rig.client.knock(two[2], family=family)
        assert not opened(rig, family, "one", 2222), "knockd follows one knock of a source at a time"
        assert not opened(rig, family, "two", 3333)
        return
    assert opened(rig, family, "one", 2222)
    assert not opened(rig, family, "two", 3333)
    rig.client.knock(two[2], family=family)
    assert opened(rig, family, "two", 3333)


def test_doors_that_share_steps(rig, family, engine):
    doors = door(A, B, C, name="one", opens=(2222,)), door(A, C, B, name="two", opens=(3333,))
    if engine == KNOCKD:
        with pytest.raises(SpecError, match=r"doors\[1\]\.knock\[0\]"):
            rig.target.apply(*doors)
        doors = doors[0], door(4000, C, B, name="two", opens=(3333,))
    rig.target.apply(*doors)
    rig.client.knock(A, B, C, family=family)
    assert opened(rig, family, "one", 2222)
    assert not opened(rig, family, "two", 3333)


def test_too_slow(rig, family, engine):
    """Doors of several lengths at once, so that the waiting is done once."""
    if engine == KNOCKD:
        too_slow_for_knockd(rig, family)
        return
    doors = [
        door(7000 + n, 9100 + n, 3100 + n, name=f"d{n}", opens=(port,), step_timeout=1)
        for n, port in ((10, 2222), (20, 2223), (30, 3333), (40, 8000))
    ]
    rig.target.apply(*doors)
    slow, paced, revived, slow_first = ((7000 + n, 9100 + n, 3100 + n) for n in (10, 20, 30, 40))
    rig.client.knock(*slow[:2], *revived[:2], slow_first[0], family=family)
    time.sleep(1.3)
    rig.client.knock(slow[2], family=family)
    assert not opened(rig, family, "d10", 2222)
    rig.client.knock(*slow_first[1:], family=family)
    assert not opened(rig, family, "d40", 8000)
    rig.client.knock(revived[0], revived[2], family=family)
    assert not opened(rig, family, "d30", 3333), "an old step came to life again"
    rig.client.knock(*paced, family=family, pause=0.75)
    assert opened(rig, family, "d20", 2223), "each step may take its time"


def too_slow_for_knockd(rig, family):
    """The whole knock has as much time as all its pauses together, and up to a second more; one pause may take all of it."""
    prepare(rig, A, B, C, step_timeout=1)
    rig.client.knock(A, B, family=family)
    time.sleep(1.8)
    rig.client.knock(C, family=family)
    assert opened(rig, family), "one pause may take the time of both"
    close_doors(rig)
    rig.client.knock(A, B, family=family)
    time.sleep(3.1)
    rig.client.knock(C, family=family)
    assert not opened(rig, family)
    rig.client.knock(A, B, C, family=family)
    assert opened(rig, family), "what took too long is forgotten, so that it breaks nothing"


def test_the_window_counts_from_the_last_step(rig, family):
    prepare(rig, A, B, C, window=2, step_timeout=2)
    rig.client.knock(A, B, C, family=family)
    time.sleep(1.5)
    assert opened(rig, family)
    time.sleep(1.0)
    assert rig.client.probe(PORT, family) == REFUSED[family], "trying the door does not prolong the window"
    rig.client.knock(A, B, C, family=family)
    assert opened(rig, family), "a new knock opens it again"


def test_close_knock(rig, family):
    prepare(rig, A, B, C, close=["6000", "8200/udp", "2100"])
    rig.client.knock(A, B, C, family=family)
    assert opened(rig, family)
    rig.other.knock(A, B, C, family=family)
    rig.client.knock(6000, "8200/udp", family=family)
    assert opened(rig, family)
    rig.client.knock(breaker(rig), 2100, family=family)
    assert opened(rig, family), "a broken closing knock does nothing"
    rig.client.knock(6000, "8200/udp", 2100, family=family)
    assert not opened(rig, family)
    assert opened(rig, family, peer=rig.other), "it shuts the door for its own source alone"


def test_close_knock_of_one_step(rig, family):
    prepare(rig, A, B, C, close=["6000"])
    rig.client.knock(A, B, C, family=family)
    assert opened(rig, family)
    rig.client.knock(6000, family=family)
    assert not opened(rig, family)


def test_once_lets_in_one_connection(rig, family):
    prepare(rig, A, B, C, once=True)
    rig.client.knock(A, B, C, family=family)
    handle = rig.client.connect(PORT, family)
    assert not isinstance(handle, OSError), handle
    with handle:
        handle.sendall(b"the one connection")
        assert handle.recv(100) == b"the one connection"
        assert rig.client.probe(PORT, family) == REFUSED[family]
        assert rig.client.probe(UDP_PORT, family) == REFUSED[family]
        handle.sendall(b"goes on")
        assert handle.recv(100) == b"goes on"
    rig.client.knock(A, B, C, family=family)
    sport = rig.client.fresh_port()
    assert rig.client.probe(UDP_PORT, family, sport=sport) == OPEN
    assert rig.client.probe(UDP_PORT, family, sport=sport) == OPEN, "the same flow goes on"
    assert rig.client.probe(UDP_PORT, family) == REFUSED[family], "another one does not begin"


def test_only_given_sources_may_knock(rig, family, engine):
    """knockd puts everyone who knocks on the list, and the rule lets in those alone who may knock."""
    prepare(rig, A, B, C, sources=["10.77.0.2", "fd77::2"])
    rig.other.knock(A, B, C, family=family)
    assert rig.other.probe(PORT, family) == REFUSED[family]
    assert bool(rig.target.listed(PREFIX[family] + "ssh")) == (engine == KNOCKD)
    rig.client.knock(A, B, C, family=family)
    assert opened(rig, family)
    assert rig.other.probe(PORT, family) == REFUSED[family]


def test_sources_of_one_family_close_the_door_to_the_other(rig):
    prepare(rig, A, B, C, sources=["10.77.0.0/24"])
    rig.client.knock(A, B, C, family=IPV6)
    assert rig.client.probe(PORT, IPV6) == REFUSED[IPV6]
    rig.client.knock(A, B, C, family=IPV4)
    assert opened(rig, IPV4)
    assert rig.client.probe(PORT, IPV6) == REFUSED[IPV6]


@pytest.mark.parametrize(("prefix", "same"), [(64, OPEN), (128, REFUSED[IPV6])])
def test_ipv6_prefix(rig, prefix, same):
    """Another address of the client's /64 gets in where that is wished, one of another /64 never does."""
    rig.target.apply(door(A, B, C, opens=(PORT,)), ipv6_prefix=prefix)
    rig.client.knock(A, B, C, family=IPV6)
    assert rig.client.probe(PORT, IPV6) == OPEN
    assert rig.client.probe(PORT, IPV6, source="fd77::22") == same
    assert rig.client.probe(PORT, IPV6, source="fd78::2") == REFUSED[IPV6]
    rig.client.knock(A, B, C, family=IPV4)
    assert rig.client.probe(PORT, IPV4) == OPEN
    assert rig.client.probe(PORT, IPV4, source="10.77.0.22") == REFUSED[IPV4]


def test_trusted_sources_need_no_knock(rig, family):
    rig.target.apply(door(A, B, C, opens=(PORT,)), trusted_sources=[OWN["other"][family]])
    assert rig.other.probe(PORT, family) == OPEN
    assert rig.client.probe(PORT, family) == REFUSED[family]


def test_many_sources_at_once(rig, family, engine):
    """Forty sources knock step by step beside each other; each third one makes a mistake and stays out.

    knockd forgets all attempts when it takes away the one that it has had for the longest, be that because it succeeded:
    the first source here fails, and takes all the others with it.
    """
    base = {IPV4: "10.77.0.{}", IPV6: "fd77::{}"}[family]
    sources = [base.format(number) for number in range(100, 140)]
    # No refusals: those to an address that answers to nobody wait in the kernel, until it sends none to anyone.
    rig.target.apply(door(A, B, C, opens=(PORT,)), reject_with="drop")
    for step in (A, B, C):
        for number, source in enumerate(sources):
            rig.client.send_step(step, family, source)
            if number % 3 == 0 and step == B:
                rig.client.send_step(breaker(rig), family, source)
    rig.client.settle()
    listed = addresses(rig.target.listed(PREFIX[family] + "ssh"))
    right = {source for number, source in enumerate(sources) if number % 3}
    assert listed == (right if engine == KERNEL else set())
    for source in sorted(right):
        rig.client.send_step(breaker(rig), family, source)
        rig.client.knock(A, B, C, family=family, source=source)
    assert addresses(rig.target.listed(PREFIX[family] + "ssh")) == right, "one after the other"
