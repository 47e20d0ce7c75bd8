# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A knock as it leaves this machine: what is sent, how often, in which order and when."""

import errno
import random
import socket
import time
from itertools import product

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._client import knock as _knock
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import (
    ENGINES,
    HOLD,
    PAUSE,
    SETTLE,
    KnockError,
    Network,
    resolve,
    send_knock,
    settle_of,
    steps_of_turn,
)
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import ENGINES as SPEC_ENGINES
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import KNOCKD, Step
from ansible_collections.sesame.portknock.plugins.module_utils._spec.values import read_steps
from shown_steps import steps_in

HOST = "127.0.0.1"
LONG = 5.0


class Recorder(Network):
    """Writes down what would be sent and when; a wait takes the whole pause, or nothing where told."""

    def __init__(self, unreachable=(), answers=False):
        self.log = []
        self.clock = 100.0
        self._unreachable = unreachable
        self._answers = answers

    def now(self):
        return self.clock

    def send(self, address, port, protocol, source):
        if address in self._unreachable:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        self.log.append((round(self.clock, 3), address, port, protocol, source))
        return (address, port)

    def wait(self, sockets, seconds):
        self.log.append((round(self.clock, 3), "wait", len(sockets)))
        self.clock += 0 if self._answers else seconds

    def rest(self, seconds):
        if seconds:
            self.log.append((round(self.clock, 3), "rest", seconds))
        self.clock += seconds


def bound(kind):
    """A socket on a free port, as what a knock meets."""
    opened = socket.socket(socket.AF_INET, kind)
    opened.bind((HOST, 0))
    opened.settimeout(20)
    return opened


def closed_port():
    """A port that nobody listens on."""
    with bound(socket.SOCK_STREAM) as opened:
        return opened.getsockname()[1]


def silent_port():
    """A listener whose queue is full: the kernel drops what comes, as a firewall does. Returns what to keep."""
    listener = bound(socket.SOCK_STREAM)
    listener.listen(0)
    kept = [listener]
    for _number in range(8):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
        kept.append(client)
    return listener.getsockname()[1], kept


def test_steps_are_read_as_those_of_a_door():
    assert read_steps(["7005", 9100, "3100/udp"], "knock", 1) == (
        Step(7005, "tcp"),
        Step(9100, "tcp"),
        Step(3100, "udp"),
    )


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ([], "knock"),
        ("7005", "knock"),
        (["7005", "65536"], "knock[1]"),
        (["17005/icmp"], "knock[0]"),
        (["017005"], "knock[0]"),
    ],
)
def test_a_wrong_step_is_named_by_its_place_alone(words, path):
    with pytest.raises(SpecError) as caught:
        read_steps(words, "knock", 1)
    assert caught.value.option == path
    assert steps_in(["7005", "17005", "017005", "65536"], str(caught.value)) == []


def test_every_address_gets_a_step_before_any_gets_the_next():
    network = Recorder()
    took = send_knock(["192.0.2.1", "2001:db8::1"], [Step(7005, "tcp"), Step(9100, "udp")], 0.25, "", network)
    assert network.log == [
        (100.0, "192.0.2.1", 7005, "tcp", ""),
        (100.0, "2001:db8::1", 7005, "tcp", ""),
        (100.0, "wait", 2),
        (100.25, "192.0.2.1", 9100, "udp", ""),
        (100.25, "2001:db8::1", 9100, "udp", ""),
        (100.25, "wait", 2),
    ]
    assert took == pytest.approx(0.5)


def test_an_address_that_cannot_be_sent_to_is_left_out():
    network = Recorder(unreachable=["2001:db8::1"])
    send_knock(["2001:db8::1", "192.0.2.1"], [(7005, "tcp"), (9100, "tcp")], 0.1, "192.0.2.9", network)
    assert [entry[1:] for entry in network.log if entry[1] != "wait"] == [
        ("192.0.2.1", 7005, "tcp", "192.0.2.9"),
        ("192.0.2.1", 9100, "tcp", "192.0.2.9"),
    ]


@pytest.mark.parametrize("addresses", [["192.0.2.1"], ["2001:db8::1", "192.0.2.1"], []])
def test_no_address_that_can_be_sent_to_is_an_error_without_a_step(addresses):
    network = Recorder(unreachable=addresses)
    with pytest.raises(KnockError, match="cannot leave this machine") as caught:
        send_knock(addresses, [(17005, "tcp")], 0.1, "", network)
    assert steps_in(["17005"], str(caught.value)) == []
    assert all(address + ": Network is unreachable" in str(caught.value) for address in addresses)
    assert network.log == []


@pytest.mark.parametrize("answers", [True, False])
def test_the_host_is_given_time_after_the_last_step_answered_or_not(answers):
    network = Recorder(answers=answers)
    took = send_knock([HOST], [(7005, "tcp"), (9100, "udp")], 0.25, "", network, settle=0.125)
    rests = [entry for entry in network.log if "rest" in entry]
    assert rests == [network.log[-1]], "after the last step alone"
    assert took == pytest.approx((0 if answers else 0.5) + 0.125)


def test_a_refusal_does_not_end_the_time_after_it():
    took = send_knock([HOST], [(closed_port(), "tcp")], LONG, settle=0.2)
    assert 0.2 <= took < LONG / 2


def test_which_engine_needs_time():
    assert set(ENGINES) == set(SPEC_ENGINES)
    assert {engine: settle_of(engine) for engine in ENGINES} == {"iptables": 0, "knockd": SETTLE}
    assert 0.05 <= SETTLE <= PAUSE


def test_what_is_no_address_is_an_error():
    with pytest.raises(KnockError, match="cannot leave this machine"):
        send_knock(["no.address.invalid"], [(17005, "tcp")])


def test_a_datagram_arrives_once():
    with bound(socket.SOCK_DGRAM) as receiver:
        took = send_knock([HOST], [(receiver.getsockname()[1], "udp")], 0.05)
        assert len(receiver.recv(100)) == 1
        receiver.settimeout(0.2)
        with pytest.raises(socket.timeout):
            receiver.recv(100)
    assert took >= 0.05


def test_datagrams_arrive_in_order_with_the_pause_between():
    with bound(socket.SOCK_DGRAM) as first, bound(socket.SOCK_DGRAM) as second:
        ports = [(opened.getsockname()[1], "udp") for opened in (second, first, second)]
        began = time.monotonic()
        took = send_knock([HOST], ports, 0.1)
        assert took == pytest.approx(time.monotonic() - began, abs=0.05)
        assert took >= 0.3
        assert (len(first.recv(9)), len(second.recv(9)), len(second.recv(9))) == (1, 1, 1)


def test_an_open_port_sees_one_connection_that_ends():
    with bound(socket.SOCK_STREAM) as listener:
        listener.listen(5)
        assert send_knock([HOST], [(listener.getsockname()[1], "tcp")], LONG) < LONG / 2
        connection, _peer = listener.accept()
        with connection:
            assert connection.recv(10) == b""
        listener.settimeout(0.2)
        with pytest.raises(socket.timeout):
            listener.accept()


def test_a_refusal_ends_the_wait():
    port = closed_port()
    assert send_knock([HOST], [(port, "tcp")] * 8, LONG) < LONG / 2


def test_a_step_that_nobody_answers_takes_the_pause():
    port, kept = silent_port()
    try:
        assert 0.1 <= send_knock([HOST], [(port, "tcp")], 0.1) < LONG / 2
    finally:
        for opened in kept:
            opened.close()


def test_one_answer_of_two_is_not_enough():
    port, kept = silent_port()
    network = Network()
    try:
        began = network.now()
        network.wait([network.send(HOST, port, "tcp", ""), network.send(HOST, closed_port(), "tcp", "")], 0.2)
        assert network.now() - began >= 0.2
    finally:
        for opened in kept:
            opened.close()


def test_a_long_pause_gives_the_socket_up_before_the_kernel_sends_again(monkeypatch):
    port, kept = silent_port()
    network = Network()
    sent = network.send(HOST, port, "tcp", "")
    open_while_asleep = []
    monkeypatch.setattr(_knock.time, "sleep", lambda seconds: open_while_asleep.append((sent.fileno() >= 0, seconds)))
    try:
        began = network.now()
        network.wait([sent], 3.0)
        assert HOLD <= network.now() - began < 3
    finally:
        for opened in kept:
            opened.close()
    assert HOLD < 1
    assert open_while_asleep == [(False, pytest.approx(3.0 - HOLD, abs=0.5))]


def test_nothing_stays_open():
    network = Network()
    with bound(socket.SOCK_DGRAM) as receiver:
        sockets = [network.send(HOST, receiver.getsockname()[1], kind, "") for kind in ("udp", "tcp")]
        network.wait(sockets, 0)
    assert [opened.fileno() for opened in sockets] == [-1, -1]


def test_a_source_is_used_where_it_fits():
    with bound(socket.SOCK_DGRAM) as receiver:
        port = receiver.getsockname()[1]
        send_knock([HOST], [(port, "udp")], 0, "127.0.0.2")
        assert receiver.recvfrom(9)[1][0] == "127.0.0.2"
        send_knock([HOST], [(port, "udp")], 0, "2001:db8::1")
        assert receiver.recvfrom(9)[1][0] == HOST


def test_names_and_families_are_resolved_in_the_resolvers_order(monkeypatch):
    asked = []

    def answer(host, port, family, kind):
        asked.append((host, port, family, kind))
        return [
            (socket.AF_INET, kind, 6, "", ("192.0.2.2", 0)),
            (socket.AF_INET, kind, 6, "", ("192.0.2.1", 0)),
            (socket.AF_INET, kind, 6, "", ("192.0.2.2", 0)),
        ]

    monkeypatch.setattr(_knock.socket, "getaddrinfo", answer)
    monkeypatch.setattr(_knock.socket, "getnameinfo", lambda address, _flags: (address[0], "0"))
    assert resolve("host", "inet") == ("192.0.2.2", "192.0.2.1")
    assert asked == [("host", None, socket.AF_INET, socket.SOCK_STREAM)]


@pytest.mark.parametrize(
    ("host", "family", "wanted"), [(HOST, "any", (HOST,)), (HOST, "inet", (HOST,)), ("::1", "inet6", ("::1",))]
)
def test_addresses_resolve_to_themselves(host, family, wanted):
    assert resolve(host, family) == wanted


@pytest.mark.parametrize(
    ("host", "family"), [("no.such.host.invalid", "any"), (HOST, "inet6"), ("a" * 70 + ".b", "any")]
)
def test_a_host_without_an_address_is_an_error(host, family):
    with pytest.raises(KnockError, match="has no address to knock at"):
        resolve(host, family)


# Tries that follow one that did not get in


class Knockd:
    """What knockd 0.8 makes of one source's packets (sniff() in its knockd.c)."""

    def __init__(self, *doors):
        self._doors, self._attempts, self.opened = doors, [], []

    def hear(self, step):
        """Take a packet, unless it is to a port of no door: its filter drops that."""
        if not any(step in door for door in self._doors):
            return
        # What ended is forgotten when the next packet comes; and with the first of them all that came after it.
        running = [each for each in self._attempts if 0 <= each[1] < len(each[0])]
        self._attempts = running if running[:1] == self._attempts[:1] else []
        if not self._attempts:
            self._attempts = [[door, 1] for door in self._doors if door[0] == step]
        else:
            for each in self._attempts:
                each[1] = each[1] + 1 if each[0][each[1]] == step else -1
        self.opened += [door for door, stage in self._attempts if stage == len(door)]


def opens(daemon, door, steps):
    """Send steps, and tell whether the door opened."""
    daemon.opened.clear()
    for step in steps:
        daemon.hear(step)
    return door in daemon.opened


SETS = [
    ("two steps", ["ab"], 1),
    ("three", ["abc"], 1),
    ("eight", ["abcdefgh"], 1),
    ("doors that share nothing", ["abc", "xyz"], 1),
    ("a step between begins another", ["abc", "bxy"], 1),
    # What is left is another's then, begun by our own last step.
    ("shut by the same steps backwards", ["abc", "cba"], 2),
    ("the last step begins another", ["abc", "cxy"], 2),
    ("the last step is the first", ["aba"], 2),
    ("the last step is another's first and second", ["abc", "cdc"], 2),
]


@pytest.mark.parametrize(("doors", "tries"), [each[1:] for each in SETS], ids=[each[0] for each in SETS])
def test_behind_whatever_got_lost_knockd_opens_to_the_next_tries(doors, tries):
    """Every packet of one knock and of the one behind it may have got lost, or have arrived twice."""
    door = doors[0]
    for first, second in product(product((0, 1, 2), repeat=min(len(door), 4)), repeat=2):
        daemon = Knockd(*doors)
        for arrivals in (first, second):
            opens(daemon, door, [step for step, count in zip(door[-4:], arrivals) for _each in range(count)])
        took = next((turn for turn in range(1, 9) if opens(daemon, door, steps_of_turn(door, turn, KNOCKD))), 9)
        assert took <= tries, (first, second)


def test_the_model_of_knockd_is_as_forgetful_as_knockd():
    daemon = Knockd("abc")
    assert opens(daemon, "abc", "abc") and opens(daemon, "abc", "abc"), "one knock after the other"
    assert not opens(daemon, "abc", "aabc"), "a step that arrives twice breaks it, and the rest is nobody's"
    assert opens(daemon, "abc", "a?b?c"), "ports of no door are not seen"
    assert not opens(daemon, "abc", "ab")
    assert not opens(daemon, "abc", "abc"), "the restart after a break fails"
    assert opens(daemon, "abc", "abc")
    alike = Knockd("abc", "axy")
    assert opens(alike, "abc", "abc") and not opens(alike, "axy", "axy"), "which is why the two are refused"


def test_over_a_bad_path_every_knocker_gets_in():
    """One packet of fifty is lost, one arrives twice, and one changes places with the one behind it."""
    dice = random.Random(5)
    tries = [first_success(dice, turns=5) for _knocker in range(20000)]
    assert max(tries) <= 5
    assert sum(turn > 3 for turn in tries) < 20000 / 200


@pytest.mark.parametrize("lost", [(0, 1, 1), (1, 1, 0)])
def test_the_same_knock_again_would_be_for_nothing(lost):
    """What the steps of a further try are good for: a close knock that is the knock backwards."""
    daemon = Knockd("abc", "cba")
    opens(daemon, "abc", [step for step, count in zip("abc", lost) if count])
    assert not any(opens(daemon, "abc", "abc") for _turn in range(20))
    assert any(opens(daemon, "abc", steps_of_turn("abc", turn, KNOCKD)) for turn in (1, 2))


def first_success(dice, turns):
    daemon = Knockd("abc", "xyz")
    for turn in range(turns):
        if opens(daemon, "abc", disturbed(dice, steps_of_turn("abc", turn, KNOCKD))):
            return turn + 1
    return turns + 1


def disturbed(dice, steps):
    steps = list(steps)
    for place in range(len(steps) - 1):
        if dice.random() < 1 / 50:
            steps[place : place + 2] = steps[place + 1], steps[place]
    return [step for step in steps for _each in range(dice.choices((0, 1, 2), (1, 48, 1))[0])]


@pytest.mark.parametrize("engine", [name for name in sorted(ENGINES) if not ENGINES[name].keeps_broken_knocks])
def test_the_kernel_needs_no_other_steps(engine):
    steps = (Step(7005, "tcp"), Step(9100, "udp"))
    assert [steps_of_turn(steps, turn, engine) for turn in (0, 1, 2)] == [steps] * 3


def test_a_single_step_is_sent_once():
    assert steps_of_turn([(7005, "tcp")], 3, KNOCKD) == ((7005, "tcp"),)
    assert steps_of_turn([(7005, "tcp"), (9100, "udp")], 0, KNOCKD) == ((7005, "tcp"), (9100, "udp"))
    assert steps_of_turn([(7005, "tcp"), (9100, "udp")], 4, KNOCKD) == ((7005, "tcp"), (9100, "udp"))


def sent(network):
    return [entry[1:4] for entry in network.log if entry[1] not in ("wait", "rest")]


def test_knockd_gets_a_whole_knock_at_each_address_before_the_next():
    network = Recorder()
    send_knock(["192.0.2.1", "2001:db8::1"], [(7005, "tcp"), (9100, "udp")], 0.25, "", network, settle=0.125)
    assert sent(network) == [
        ("192.0.2.1", 7005, "tcp"),
        ("192.0.2.1", 9100, "udp"),
        ("2001:db8::1", 7005, "tcp"),
        ("2001:db8::1", 9100, "udp"),
    ]
    assert [entry[1] for entry in network.log].count("rest") == 1


def test_knockd_gets_its_knock_at_the_address_that_can_be_reached():
    network = Recorder(unreachable=["2001:db8::1"])
    send_knock(["2001:db8::1", "192.0.2.1"], [(7005, "tcp")], 0.25, "", network, settle=0.125)
    assert sent(network) == [("192.0.2.1", 7005, "tcp")]
    with pytest.raises(KnockError, match="cannot leave this machine"):
        send_knock(["2001:db8::1"], [(7005, "tcp")], 0.25, "", network, settle=0.125)
    with pytest.raises(KnockError, match="no address"):
        send_knock([], [(7005, "tcp")], 0.25, "", network, settle=0.125)
