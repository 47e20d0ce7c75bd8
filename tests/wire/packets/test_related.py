# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A client has the FTP helper of connection tracking expect a connection to a door's port: the door stays closed to it."""

import socket

import pytest
from rig.engines import ASKED, EVERY_TIME
from rig.packets import IPV4
from rig.peer import OPEN, TARGET
from rig.target import COMMANDS, FAMILIES, door

pytestmark = [ASKED, EVERY_TIME]

ALLOWED, GUARDED, UNGUARDED = 8000, 2222, 3333
KNOCK = (7005, 9100)
OTHERS = """
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
"""


@pytest.fixture
def helper(rig):
    """Have the helper of FTP look into what is said at the allowed port, where the server sends back what it gets."""
    rule = f"-A PREROUTING -p tcp -m tcp --dport {ALLOWED} -j CT --helper ftp"
    for family in FAMILIES:
        rig.target.restore(family, f"*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{rule}\nCOMMIT\n")
    yield
    for family in FAMILIES:
        rig.target.namespace.run(COMMANDS[family], "-t", "raw", "-F", "PREROUTING")


def passive(family, port):
    """Return what an FTP server says when it waits for the client at a port."""
    if family == IPV4:
        return "227 Entering Passive Mode ({0},{1},{2}).\r\n".format(
            TARGET[family].replace(".", ","), *divmod(port, 256)
        )
    return f"229 Entering Extended Passive Mode (|||{port}|)\r\n"


def connect(rig, family, port):
    """Return a connection from the client."""
    with rig.client.namespace.entered():
        return socket.create_connection((TARGET[family], port), timeout=10)


def expects(rig, family, port, use):
    """Have the target expect a connection to a port, and return what use() finds meanwhile."""
    with connect(rig, family, ALLOWED) as control:
        # The helper reads a line only behind one that it has seen end.
        for line in ("220 Welcome\r\n", passive(family, port)):
            control.sendall(line.encode())
            assert control.recv(100) == line.encode()
        return use()


@pytest.mark.usefixtures("helper")
@pytest.mark.parametrize("foreign", ["", OTHERS], ids=["bare", "stateful"])
def test_what_a_helper_expects_opens_no_door(rig, family, foreign):
    if foreign:
        rig.target.load(foreign)
    rig.target.apply(door(*KNOCK, opens=(GUARDED,)), allow=[{"port": ALLOWED}])
    closed = rig.client.probe(GUARDED, family)
    assert closed != OPEN
    assert expects(rig, family, GUARDED, lambda: rig.client.probe(GUARDED, family)) == closed
    rig.client.knock(*KNOCK, family=family)
    assert rig.client.probe(GUARDED, family) == OPEN


@pytest.mark.usefixtures("helper")
def test_data_of_an_allowed_service_comes_through(rig, family):
    rig.target.apply(door(*KNOCK, opens=(GUARDED,)), allow=[{"port": ALLOWED}])
    assert rig.client.probe(UNGUARDED, family) != OPEN
    assert expects(rig, family, UNGUARDED, lambda: rig.client.probe(UNGUARDED, family)) == OPEN
    assert rig.client.probe(UNGUARDED, family) != OPEN, "what was expected has come"
