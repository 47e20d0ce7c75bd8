# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connecting: a new knock before each further try, within a time, and what the error says when it does not open."""

import errno
import math
import socket
import time

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._client import connect as _connect
from ansible_collections.sesame.portknock.plugins.module_utils._client.connect import (
    CONNECT_SECONDS,
    NotOpenError,
    Sockets,
    connect_after_knock,
)

HOST = "127.0.0.1"
ENDS = {
    "late": (1, errno.ECONNREFUSED),
    "no host": (2.7, errno.EHOSTUNREACH),
    "no host, asked for a second before": (1.7, errno.EHOSTUNREACH),
    "no host, asked for before": (0.6, errno.EHOSTUNREACH),
}


class Script(Sockets):
    """Says what each connect does, one after the other and the last one for ever, and keeps a clock."""

    def __init__(self, *ends):
        self.clock, self.log, self.times, self._ends = 50.0, [], [], list(ends)
        self.takes, self.until, self.asked = 0.3, math.inf, 0

    def left(self):
        self.asked += 1
        return self.until - self.clock

    def now(self):
        return self.clock

    def sleep(self, seconds):
        self.log.append("rest")
        self.clock += seconds

    def knock(self, turn):
        assert turn == self.log.count("knock")
        self.log.append("knock")
        self.clock += self.takes
        self.times.append(("knock", self.clock))

    def connect(self, address, port, patience, banner):
        self.log.append(address)
        self.times.append((address, self.clock))
        end = self._ends.pop(0) if len(self._ends) > 1 else self._ends[0]
        if end == "silent":
            self.clock += patience
            raise socket.timeout("timed out")
        if end in ENDS:
            seconds, end = ENDS[end]
            self.clock += seconds
        if end:
            raise OSError(end, "said the system")
        return (address, port, banner)


def test_it_gets_in_at_once():
    script = Script(0)
    assert connect_after_knock(script.knock, ["a", "b"], 22, 10, True, script) == (
        ("a", 22, _connect.BANNER_SECONDS),
        "a",
        1,
        0.0,
    )
    assert script.log == ["knock", "a"]


def test_each_round_begins_with_a_knock():
    script = Script(errno.ECONNREFUSED, errno.ENETUNREACH, errno.ECONNREFUSED, 0)
    opened = connect_after_knock(script.knock, ["a", "b"], 22, 10, sockets=script)
    assert (opened.address, opened.tries) == ("b", 2)
    assert opened.seconds == pytest.approx(_connect.PAUSES[0] + 0.3)
    assert script.log == ["knock", "a", "b", "rest", "knock", "a", "b"]


def test_it_ends_in_time_when_all_is_silent():
    script = Script("silent")
    with pytest.raises(NotOpenError) as caught:
        connect_after_knock(script.knock, ["a"], 22, 10, sockets=script)
    assert (str(caught.value), caught.value.reasons) == ("a: timed out", {"a": _connect.SILENT})
    assert 10 - CONNECT_SECONDS < script.clock - 50.3 <= 10.2
    assert caught.value.tries == script.log.count("knock") == 3


def test_a_dead_first_address_does_not_take_the_window():
    """The time in which the other address is tried, from the end of each knock on."""
    script = Script("silent", errno.ECONNREFUSED)
    script._ends *= 6
    with pytest.raises(NotOpenError):
        connect_after_knock(script.knock, ["dead", "b"], 22, 14, sockets=script)
    knocked, tried = None, []
    for what, when in script.times:
        if what == "knock":
            knocked = when
        elif what == "b":
            tried.append(round(when - knocked, 6))
    assert tried[:4] == [1, 2, CONNECT_SECONDS, CONNECT_SECONDS]


def test_it_ends_in_time_when_all_is_refused():
    script = Script(errno.ECONNREFUSED)
    with pytest.raises(NotOpenError) as caught:
        connect_after_knock(script.knock, ["a"], 22, 5, sockets=script)
    assert (str(caught.value), caught.value.reasons) == ("a: refused", {"a": _connect.REFUSED})
    assert 3.5 < script.clock - 50.3 <= 5
    assert caught.value.tries == script.log.count("knock")


@pytest.mark.parametrize(
    ("end", "takes", "knocks"),
    [
        (errno.ECONNREFUSED, 0.1, 5),
        (errno.ECONNREFUSED, 0.3, 4),
        (errno.ECONNRESET, 0.3, 4),
        (errno.EHOSTUNREACH, 0.3, 4),
        # Eight steps, as slow as they are by default; and so slow that there is one more try, but no third.
        (errno.ECONNREFUSED, 0.8, 3),
        (errno.ECONNREFUSED, 4.0, 2),
    ],
)
def test_what_is_always_refused_ends_soon(end, takes, knocks):
    script = Script(end)
    script.takes = takes
    with pytest.raises(NotOpenError) as caught:
        connect_after_knock(script.knock, ["a"], 22, math.inf, True, script, _connect.ANSWERED_SECONDS)
    assert caught.value.tries == script.log.count("knock") == knocks
    assert script.clock - 50 < 3.5 or takes == 4


def test_refusals_that_come_late_are_fewer():
    """As a host's are that has refused a lot by ICMP, and then does so once a second."""
    script = Script("late")
    with pytest.raises(NotOpenError) as caught:
        connect_after_knock(script.knock, ["a"], 22, math.inf, True, script, _connect.ANSWERED_SECONDS)
    assert caught.value.tries == 2
    assert script.clock - 50 < 3.5


@pytest.mark.parametrize(
    ("first", "tries", "seconds"),
    [("no host", 1, 3.0), ("no host, asked for a second before", 1, 2.0), ("no host, asked for before", 2, 4.0)],
)
def test_a_host_that_is_not_there_is_not_asked_for_again(first, tries, seconds):
    """Its neighbours say so three seconds after they were first asked, and no other knock would change that."""
    script = Script(first, "no host")
    with pytest.raises(NotOpenError, match="^a: said the system$") as caught:
        connect_after_knock(script.knock, ["a"], 22, math.inf, True, script, _connect.ANSWERED_SECONDS)
    assert caught.value.tries == tries
    assert script.clock - 50 == pytest.approx(seconds, abs=0.01)


@pytest.mark.parametrize("end", ["silent", errno.ENOMSG])
def test_what_does_not_answer_is_tried_as_long_as_the_caller_waits(end):
    script = Script(end)
    script.until = 58
    with pytest.raises(NotOpenError) as caught:
        connect_after_knock(script.knock, ["a"], 22, math.inf, True, script, _connect.ANSWERED_SECONDS)
    assert caught.value.tries > 2
    assert 55 < script.clock < 62
    assert script.asked


def test_what_opens_at_once_asks_nobody_how_long_to_wait():
    script = Script(0)
    script.until = 0
    connect_after_knock(script.knock, ["a"], 22, math.inf, True, script, _connect.ANSWERED_SECONDS)
    assert script.asked == 0


def test_every_address_is_told():
    script = Script(errno.ECONNREFUSED, errno.EHOSTUNREACH)
    with pytest.raises(NotOpenError, match="^a: refused; b: said the system$"):
        connect_after_knock(script.knock, ["a", "b"], 22, 0.1, sockets=script)


def listener():
    opened = socket.socket()
    opened.bind((HOST, 0))
    opened.listen(4)
    return opened


def test_a_server_that_speaks_first_is_heard_and_nothing_is_lost():
    with listener() as server:
        client = socket.create_connection(server.getsockname())
        peer, _address = server.accept()
        peer.sendall(b"SSH-2.0-x\r\n")
        Sockets()._await_banner(client, 2)
        assert client.recv(20) == b"SSH-2.0-x\r\n"
        peer.close()
        client.close()


def test_a_server_that_says_nothing_is_not_in(monkeypatch):
    monkeypatch.setattr(_connect, "BANNER_SECONDS", 0.1)
    with listener() as server, pytest.raises(NotOpenError, match="^127.0.0.1: accepted, but said nothing$"):
        connect_after_knock(lambda _turn: None, [HOST], server.getsockname()[1], 0.1, True)


def test_a_server_that_hangs_up_at_once():
    with listener() as server:
        client = socket.create_connection(server.getsockname())
        server.accept()[0].close()
        with pytest.raises(OSError, match="reset") as caught:
            Sockets()._await_banner(client, 2)
        assert _connect.reason_of(caught.value) == _connect.HUNG_UP
        client.close()


def test_a_late_answer_is_waited_for_no_longer_than_the_caller_does():
    class Hurried(Sockets):
        def left(self):
            return 0.1

    began = time.monotonic()
    with listener() as server, pytest.raises(OSError, match="message") as caught:
        Hurried().connect(*server.getsockname(), 60, 60)
    assert _connect.reason_of(caught.value) == _connect.MUTE
    assert time.monotonic() - began < 30


def test_a_connection_is_handed_out_as_ssh_wants_it():
    with listener() as server:
        opened = connect_after_knock(lambda _turn: None, [HOST], server.getsockname()[1], 3)
        assert opened.socket.gettimeout() is None
        opened.socket.close()


def test_it_stands_alone():
    with open(_connect.__file__, encoding="utf-8") as stream:
        assert "import ansible" not in stream.read().replace("from ansible", "import ansible")
