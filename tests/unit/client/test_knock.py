# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A knock as it leaves this machine: what is sent, how often, in which order and when."""

import errno
import socket
import time

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
)
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import ENGINES as SPEC_ENGINES
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Step
from ansible_collections.sesame.portknock.plugins.module_utils._spec.values import read_steps
from shown_steps import steps_in

HOST = "127.0.0.1"
LONG = 5.0


class Recorder(Network):
    """Writes down what would be sent and when; a wait takes the whole pause, or no time if so set."""

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
    """A port on which nothing listens."""
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
        ({"port": 7005}, "knock"),
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
    assert {engine: settle_of(engine) for engine in ENGINES} == {"iptables": 0, "knockd": SETTLE, "nftables": 0}
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
        # Whatever the machine does beside it.
        assert took <= time.monotonic() - began < took + 10
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
