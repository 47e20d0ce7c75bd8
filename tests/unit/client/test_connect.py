# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Going in: a new knock before each further try, within a time, and what is told when it does not open."""

import errno
import socket

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._client import connect as _enter
from ansible_collections.sesame.portknock.plugins.module_utils._client.connect import PATIENCE, Line, ShutError, enter

HOST = "127.0.0.1"


class Script(Line):
    """Says what each connect does, one after the other and the last one for ever, and keeps a clock."""

    def __init__(self, *ends):
        self.clock, self.log, self._ends = 50.0, [], list(ends)

    def now(self):
        return self.clock

    def sleep(self, seconds):
        self.log.append("rest")
        self.clock += seconds

    def knock(self, turn):
        assert turn == self.log.count("knock")
        self.log.append("knock")
        self.clock += 0.3

    def connect(self, address, port, patience, banner):
        self.log.append(address)
        end = self._ends.pop(0) if len(self._ends) > 1 else self._ends[0]
        if end == "silent":
            self.clock += patience
            raise socket.timeout("timed out")
        if end:
            raise OSError(end, "said the system")
        return (address, port, banner)


def test_it_gets_in_at_once():
    line = Script(0)
    assert enter(line.knock, ["a", "b"], 22, 10, True, line) == (("a", 22, _enter.BANNER), "a", 1, 0.0)
    assert line.log == ["knock", "a"]


def test_each_round_begins_with_a_knock():
    line = Script(errno.ECONNREFUSED, errno.ENETUNREACH, errno.ECONNREFUSED, 0)
    entered = enter(line.knock, ["a", "b"], 22, 10, line=line)
    assert (entered.address, entered.tries) == ("b", 2)
    assert entered.seconds == pytest.approx(_enter.RESTS[0] + 0.3)
    assert line.log == ["knock", "a", "b", "rest", "knock", "a", "b"]


def test_it_ends_in_time_when_all_is_silent():
    line = Script("silent")
    with pytest.raises(ShutError) as caught:
        enter(line.knock, ["a"], 22, 10, line=line)
    assert (str(caught.value), caught.value.refused) == ("a: timed out", False)
    assert 10 - PATIENCE < line.clock - 50.3 <= 10.2
    assert caught.value.tries == line.log.count("knock") == 3


def test_it_ends_in_time_when_all_is_refused():
    line = Script(errno.ECONNREFUSED)
    with pytest.raises(ShutError) as caught:
        enter(line.knock, ["a"], 22, 5, line=line)
    assert (str(caught.value), caught.value.refused) == ("a: refused", True)
    assert 3.5 < line.clock - 50.3 <= 5
    assert caught.value.tries == line.log.count("knock")


def test_every_address_is_told():
    line = Script(errno.ECONNREFUSED, errno.EHOSTUNREACH)
    with pytest.raises(ShutError, match="^a: refused; b: said the system$"):
        enter(line.knock, ["a", "b"], 22, 0.1, line=line)


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
        Line()._hear(client, 2)
        assert client.recv(20) == b"SSH-2.0-x\r\n"
        peer.close()
        client.close()


def test_a_server_that_says_nothing_is_not_in(monkeypatch):
    monkeypatch.setattr(_enter, "BANNER", 0.1)
    with listener() as server, pytest.raises(ShutError, match="^127.0.0.1: accepted, but said nothing$"):
        enter(lambda _turn: None, [HOST], server.getsockname()[1], 0.1, True)


def test_a_connection_is_handed_out_as_ssh_wants_it():
    with listener() as server:
        entered = enter(lambda _turn: None, [HOST], server.getsockname()[1], 3)
        assert entered.socket.gettimeout() is None
        entered.socket.close()


def test_it_stands_alone():
    with open(_enter.__file__, encoding="utf-8") as stream:
        assert "import ansible" not in stream.read().replace("from ansible", "import ansible")
