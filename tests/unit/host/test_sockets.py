# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens, as the kernel says it: its own texts, and this machine's own sockets."""

import os
import socket

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._host.command import Command
from ansible_collections.sesame.portknock.plugins.module_utils._host.files import Filesystem
from ansible_collections.sesame.portknock.plugins.module_utils._host.sockets import Sockets, parse, parse_connected

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
LINE = "   0: {0} {1} {2} 00000000:00000000 00:00000000 00000000     0        0 {3} 1 0000000000000000 100 0 0 10 0\n"
NONE4, NONE6 = "00000000:0000", "0" * 32 + ":0000"


def table(*lines):
    return HEAD + "".join(LINE.format(*line) for line in lines)


def test_tcp():
    text = table(
        ("00000000:0016", NONE4, "0A", 11),
        ("0100007F:0CEA", NONE4, "0A", 12),
        ("010200C0:01BB", NONE4, "0A", 13),
        ("010200C0:0016", "070200C0:C350", "01", 14),
        ("010200C0:0016", "070200C0:C351", "06", 0),
    )
    assert [tuple(each) for each in parse("tcp", text)] == [("tcp", "0.0.0.0", 22, 11), ("tcp", "192.0.2.1", 443, 13)]


def test_tcp6():
    text = table(
        ("0" * 32 + ":0016", NONE6, "0A", 21),
        ("0" * 24 + "01000000:0CEA", NONE6, "0A", 22),
        ("B80D0120000000000000000001000000:01BB", NONE6, "0A", 23),
        ("0000000000000000FFFF0000010200C0:0050", NONE6, "0A", 24),
        ("0000000000000000FFFF00000100007F:0051", NONE6, "0A", 25),
    )
    assert [tuple(each)[1:] for each in parse("tcp", text)] == [
        ("::", 22, 21), ("2001:db8::1", 443, 23), ("192.0.2.1", 80, 24)
    ]  # fmt: skip


def test_udp_that_is_connected_listens_to_one_alone():
    text = table(
        ("00000000:CA6C", NONE4, "07", 31),
        ("010200C0:CA6D", "080808080:0035", "01", 32),
        ("010200C0:CA6E", "08080808:0035", "07", 33),
    )
    assert [tuple(each) for each in parse("udp", text)] == [("udp", "0.0.0.0", 51820, 31)]


def test_who_is_connected():
    """Not who listens, nor what is closing, nor what stays on this host."""
    text = table(
        ("00000000:0016", NONE4, "0A", 11),
        ("010200C0:0016", "070200C0:C350", "01", 14),
        ("0100007F:0016", "0100007F:C351", "01", 15),
        ("010200C0:0016", "070200C0:C352", "06", 0),
    )
    mapped = table(("0000000000000000FFFF0000010200C0:0016", "0000000000000000FFFF0000070200C0:C353", "01", 16))
    own = table(("B80D0120000000000000000001000000:0016", "B80D0120000000000000000007000000:C354", "01", 17))
    found = [flow for one in (text, mapped, own) for flow in parse_connected(one)]
    assert [(str(flow.source), flow.source_port, str(flow.destination), flow.destination_port) for flow in found] == [
        ("192.0.2.7", 50000, "192.0.2.1", 22),
        ("192.0.2.7", 50003, "192.0.2.1", 22),
        ("2001:db8::7", 50004, "2001:db8::1", 22),
    ]


def test_nothing_is_read_of_nothing():
    assert list(parse_connected("")) == list(parse_connected(HEAD + "cut short\n")) == []
    assert list(parse("tcp", "")) == list(parse("tcp", HEAD)) == list(parse("tcp", HEAD + "cut short\n")) == []


class Module:
    def run_command(self, *_words, **_more):
        return 0, "", ""

    def get_bin_path(self, _name):
        return None


@pytest.fixture
def here():
    return Sockets(Command(Module()), Filesystem(Module()))


def inode_of(opened):
    return int(os.readlink("/proc/self/fd/{0}".format(opened.fileno()))[8:-1])


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")])
def test_this_machine(here, family, address):
    with socket.socket(family, socket.SOCK_STREAM) as opened, socket.socket(family, socket.SOCK_STREAM) as inner:
        try:
            opened.bind((address, 0))
        except OSError:
            pytest.skip("this machine does not speak IPv6")
        opened.listen(1)
        inner.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        inner.listen(1)
        inode = inode_of(opened)
        listening = here.listening()
        assert ("tcp", address, opened.getsockname()[1], inode) in [tuple(each) for each in listening]
        assert inode_of(inner) not in [each.inode for each in listening]
        name = open("/proc/self/comm").read().strip()  # noqa: SIM115
        assert here.processes([inode]) == {inode: name}


def test_a_program_that_asks_is_no_server(here):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking, socket.socket(
        socket.AF_INET, socket.SOCK_DGRAM
    ) as serving:
        asking.bind(("0.0.0.0", 0))
        serving.bind(("0.0.0.0", 20000 + os.getpid() % 9000))
        found = [each.inode for each in here.listening()]
        assert inode_of(asking) not in found
        assert inode_of(serving) in found


def test_no_tunnel(here):
    assert here.of_tunnel("lo") == []
    assert here.of_tunnel("nosuch0") == []


@pytest.mark.parametrize(
    ("kind", "peer", "carrier"),
    [
        ("776", "c6:33:64:01", (41, "ipv4", "198.51.100.1")),
        ("778", "00:00:00:00", (47, "ipv4", "")),
        ("769", "20:01:0d:b8:00:00:00:00:00:00:00:00:00:00:00:01", (41, "ipv6", "2001:db8::1")),
        ("1", "ff:ff:ff:ff:ff:ff", None),
        ("", "", None),
    ],
)
def test_the_protocol_that_carries_a_tunnel(kind, peer, carrier):
    kernel = Kernel("")
    kernel.files = {"/sys/class/net/he0/type": f"{kind}\n", "/sys/class/net/he0/broadcast": f"{peer}\n"}
    assert Sockets(kernel, kernel).carrier_of("he0") == carrier


class Kernel:
    """Files and commands of a host with WireGuard; nobody on this machine has these sockets."""

    def __init__(self, wg, keepalive="A=\t25\nB=\toff\n"):
        self.wg, self.keepalive = wg, keepalive
        self.files = {
            "/sys/class/net/wg0/uevent": "DEVTYPE=wireguard\nINTERFACE=wg0\nIFINDEX=5\n",
            "/sys/class/net/eth0/uevent": "INTERFACE=eth0\nIFINDEX=2\n",
            "/proc/net/udp": table(
                ("00000000:CA6C", NONE4, "07", 4026990001), ("00000000:0035", NONE4, "07", 4026990002)
            ),
            "/proc/net/udp6": table(("0" * 32 + ":CA6C", NONE6, "07", 4026990003)),
        }

    def read(self, path):
        return self.files.get(path, "")

    def find(self, name):
        return "/usr/bin/wg" if self.wg and name == "wg" else None

    def run(self, words):
        assert words[:3] == ["/usr/bin/wg", "show", "wg0"]
        return 0, {"listen-port": self.wg, "persistent-keepalive": self.keepalive}[words[3]], ""


@pytest.mark.parametrize(
    ("wg", "sockets"),
    [("51820\n", [4026990001, 4026990003]), ("", [4026990001, 4026990002, 4026990003])],
)
def test_wireguard(wg, sockets):
    """Its sockets are the kernel's own; without wg, all that no process has may be its."""
    kernel = Kernel(wg)
    here = Sockets(kernel, kernel)
    assert here.of_tunnel("wg0") == sockets
    assert here.of_tunnel("eth0") == []


@pytest.mark.parametrize(
    ("keepalive", "ends_here"), [("A=\t25\n", False), ("A=\t25\nB=\t15\n", False), ("A=\toff\n", True), ("", True)]
)
def test_a_tunnel_that_is_kept_up_from_here(keepalive, ends_here):
    kernel = Kernel("51820\n", keepalive)
    assert bool(Sockets(kernel, kernel).of_tunnel("wg0")) is ends_here
