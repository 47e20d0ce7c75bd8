# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the options of a door do, packet by packet, with each engine: times, closing, sources, several doors."""

import time

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from rig.counter import close_doors
from rig.knockd import KNOCKD, WRONG
from rig.packets import IPV4, IPV6
from rig.peer import OPEN, OWN, REFUSED
from rig.sequences import PORT, PREFIX, UDP_PORT, WRONG_UDP, A, B, C, addresses, breaker, opened, prepare
from rig.target import door

pytestmark = pytest.mark.usefixtures("engine")


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
    # No refusals: those to an address that never answers wait in the kernel, until it sends none to anyone.
    rig.target.apply(door(A, B, C, opens=(PORT,)), reject_with="drop")
    for step in (A, B, C):
        for number, source in enumerate(sources):
            rig.client.send_step(step, family, source)
            if number % 3 == 0 and step == B:
                rig.client.send_step(breaker(rig), family, source)
    rig.client.settle()
    listed = addresses(rig.target.listed(PREFIX[family] + "ssh"))
    right = {source for number, source in enumerate(sources) if number % 3}
    assert listed == (set() if engine == KNOCKD else right)
    for source in sorted(right):
        rig.client.send_step(breaker(rig), family, source)
        rig.client.knock(A, B, C, family=family, source=source)
    assert addresses(rig.target.listed(PREFIX[family] + "ssh")) == right, "one after the other"
