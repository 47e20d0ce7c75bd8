# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connecting: a new knock before each further try, within a time, and what the error says when it does not open."""

import errno
import socket

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._client import connect as _connect
from ansible_collections.sesame.portknock.plugins.module_utils._client.connect import (
    CONNECT_SECONDS,
    NotOpenError,
    Sockets,
    connect_after_knock,
)

HOST = "127.0.0.1"


class Script(Sockets):
    """Says what each connect does, one after the other and the last one for ever, and keeps a clock."""

    def __init__(self, *ends):
        self.clock, self.log, self.times, self._ends = 50.0, [], [], list(ends)

    def now(self):
        return self.clock

    def sleep(self, seconds):
        self.log.append("rest")
        self.clock += seconds

    def knock(self, turn):
        assert turn == self.log.count("knock")
        self.log.append("knock")
        self.clock += 0.3
        self.times.append(("knock", self.clock))

    def connect(self, address, port, patience, banner):
        self.log.append(address)
        self.times.append((address, self.clock))
        end = self._ends.pop(0) if len(self._ends) > 1 else self._ends[0]
        if end == "silent":
            self.clock += patience
            raise socket.timeout("timed out")
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
    assert (str(caught.value), caught.value.refused) == ("a: timed out", False)
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
    assert (str(caught.value), caught.value.refused) == ("a: refused", True)
    assert 3.5 < script.clock - 50.3 <= 5
    assert caught.value.tries == script.log.count("knock")


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


def test_a_connection_is_handed_out_as_ssh_wants_it():
    with listener() as server:
        opened = connect_after_knock(lambda _turn: None, [HOST], server.getsockname()[1], 3)
        assert opened.socket.gettimeout() is None
        opened.socket.close()


def test_it_stands_alone():
    with open(_connect.__file__, encoding="utf-8") as stream:
        assert "import ansible" not in stream.read().replace("from ansible", "import ansible")
