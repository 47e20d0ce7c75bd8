# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking at a port without a connection: whoever listens there accepts none."""

import errno
import socket

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._client import half_open
from ansible_collections.sesame.portknock.plugins.module_utils._client.probe import OPEN, REFUSED, RESET, SILENT, probe


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request):
    opened = socket.socket(socket.AF_INET6 if ":" in request.param else socket.AF_INET)
    with opened:
        opened.bind((request.param, 0))
        opened.listen(1)
        opened.settimeout(0.2)
        yield opened


def can(listener):
    with socket.socket(listener.family) as opened:
        return half_open.attach(opened)


def test_this_machine_can():
    """As root at least; a kernel that has no memory left for filters refuses them to others."""
    with socket.socket() as opened:
        assert half_open.attach(opened)


def test_nobody_accepts_what_was_looked_at(listener):
    address, port = listener.getsockname()[:2]
    assert half_open.look(address, port, 5) is True
    assert probe([(address, port, "tcp")], 5, half_open=half_open) == {(address, port, "tcp"): OPEN}
    with pytest.raises(socket.timeout):
        listener.accept()


def test_a_port_where_nobody_listens(listener):
    address, port = listener.getsockname()[:2]
    listener.close()
    with pytest.raises(OSError, match="refused") as error:
        half_open.look(address, port, 5)
    assert error.value.errno == errno.ECONNREFUSED
    assert probe([(address, port, "tcp")], 5, half_open=half_open)[address, port, "tcp"] in (RESET, REFUSED)


def test_no_answer(monkeypatch, listener):
    """Nothing is dropped where nothing comes."""
    address, port = listener.getsockname()[:2]
    monkeypatch.setattr(half_open, "drops", lambda _opened: 0)
    with pytest.raises(socket.timeout):
        half_open.look(address, port, 0.1)
    assert probe([(address, port, "tcp")], 0.1, half_open=half_open) == {(address, port, "tcp"): SILENT}


def test_a_system_that_cannot_makes_a_connection(monkeypatch, listener):
    def refuse(_opened):
        raise OSError(errno.ENOPROTOOPT, "no")

    address, port = listener.getsockname()[:2]
    monkeypatch.setattr(half_open, "drops", refuse)
    assert can(listener) is False
    assert half_open.look(address, port, 5) is False
    assert probe([(address, port, "tcp")], 5, half_open=half_open) == {(address, port, "tcp"): OPEN}
    listener.accept()[0].close()
