# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Marks differ wherever what they stand for does, and not by what passes or counts."""

import errno
import os
import socket
import struct

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host import marks
from ansible_collections.sesame.portknock.plugins.module_utils._host.files import Filesystem
from ansible_collections.sesame.portknock.plugins.module_utils._host.marks import Marks

UDP = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"
    "   42: 00000000:0044 00000000:0000 {0} 00000000:00000000 00:00000000 00000000     0        0 {1} 2 0000 {2}\n"
)
ROUTE = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\neth0\t00000000\t010011AC\t0003\t{0}\t{0}\t{1}\t00000000\n"
IGMP = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n2\teth0      :     1      V3\n\t\t\t\t{0}     1 0:{1}\t\t0\n"


class Kernel:
    """The files of /proc and /sys that a test names, and the answers of netlink."""

    def __init__(self):
        self.files, self.sockets, self.ipsec = {}, [], []
        self.error = 0

    def read(self, path):
        return self.files.get(path, "")

    def exchange(self, _request, protocol):
        found = {4: self.sockets, 6: self.ipsec}[protocol]
        if self.error:
            yield struct.pack("=IHHIIi", 20, 2, 0, 1, 0, -self.error)
        else:
            yield b"".join(struct.pack("=IHHII", 16 + len(body), 20, 2, 1, 0) + body for body in found) + struct.pack(
                "=IHHII", 16, 3, 2, 1, 0
            )

    def mark(self):
        return Marks(self, self.exchange).network()


@pytest.fixture
def kernel():
    return Kernel()


def listener(port=22, waiting=0, inode=7):
    """An inet_diag_msg (linux/inet_diag.h)."""
    head = struct.pack("=BBBB", socket.AF_INET, 10, 0, 0) + struct.pack(">HH", port, 0) + bytes(44)
    return head + struct.pack("=IIIII", 0, waiting, 128, 0, inode)


DIFFERENCES = [
    ("/proc/net/fib_trie", "|-- 192.0.2.1\n", "|-- 192.0.2.2\n"),
    ("/proc/net/udp", UDP.format("07", 1, 0), UDP.format("07", 2, 0)),
    ("/proc/net/raw6", UDP.format("07", 1, 0), ""),
    ("/proc/net/route", ROUTE.format(0, 0), ROUTE.format(0, 100)),
    ("/proc/net/igmp", IGMP.format("010000E0", "00"), IGMP.format("020000E0", "00")),
    ("/proc/sys/net/ipv4/ip_local_port_range", "32768 60999\n", "1024 60999\n"),
]
SAME = [
    ("/proc/net/udp", UDP.format("07", 1, 0), UDP.format("07", 1, 9)),
    ("/proc/net/udp", UDP.format("01", 1, 0), UDP.format("01", 2, 0)),
    ("/proc/net/route", ROUTE.format(0, 0), ROUTE.format(9, 0)),
    ("/proc/net/igmp", IGMP.format("010000E0", "00"), IGMP.format("010000E0", "99")),
]


@pytest.mark.parametrize(("path", "before", "after"), DIFFERENCES)
def test_the_network_differs(path, before, after, kernel):
    kernel.files[path] = before
    one = kernel.mark()
    kernel.files[path] = after
    assert kernel.mark() != one


@pytest.mark.parametrize(("path", "before", "after"), SAME)
def test_what_counts_or_passes_is_no_difference(path, before, after, kernel):
    kernel.files[path] = before
    one = kernel.mark()
    kernel.files[path] = after
    assert kernel.mark() == one


def test_sockets_of_tcp(kernel):
    kernel.sockets = [listener()]
    one = kernel.mark()
    kernel.sockets = [listener(waiting=3)]
    assert kernel.mark() == one, "who waits to be let in"
    kernel.sockets = [listener(443, inode=8), listener()]
    two = kernel.mark()
    assert two != one
    kernel.sockets = kernel.sockets[::-1]
    assert kernel.mark() == two, "in any order"
    kernel.sockets = [listener(inode=9)]
    assert kernel.mark() != one, "another socket on the same port"


def test_a_kernel_that_does_not_tell_of_sockets(kernel):
    kernel.error = errno.ENOENT
    with pytest.raises(HostError, match="does not tell"):
        kernel.mark()


def test_ipsec(kernel):
    kernel.files["/proc/modules"] = "xfrm_user 1 0 - Live 0x0\n"
    one = kernel.mark()
    kernel.ipsec = [b"a state of IPsec"]
    assert kernel.mark() != one
    kernel.files["/proc/modules"] = "ext4 1 0 - Live 0x0\n"
    assert kernel.mark() == one, "its module would be loaded for that"


def test_a_tunnel_of_a_program_has_no_mark(kernel):
    kernel.files["/sys/class/net/wg0/uevent"] = "DEVTYPE=wireguard\nINTERFACE=wg0\n"
    kernel.files["/sys/class/net/tun0/tun_flags"] = "0x1001\n"
    for name in ("wg0", "tun0"):
        with pytest.raises(HostError, match=name):
            Marks(kernel).interface(name)
    before = Marks(kernel).interface("gre1")
    kernel.files["/sys/class/net/gre1/type"] = "778\n"
    assert Marks(kernel).interface("gre1") != before


@pytest.fixture
def units(tmp_path, monkeypatch):
    """Folders of units."""
    folders = [tmp_path / name for name in ("etc", "control", "run", "system")]
    for folder in [*folders, tmp_path / "etc" / "multi-user.target.wants", tmp_path / "units"]:
        folder.mkdir()
    monkeypatch.setattr(marks, "_UNIT_FOLDERS", tuple(map(str, folders)))
    monkeypatch.setattr(marks, "_SCRIPT_FOLDERS", (str(tmp_path / "init.d"),))
    monkeypatch.setattr(marks, "_INVOCATIONS", str(tmp_path / "units"))
    return tmp_path


def started(folder, name, number):
    link = folder / "units" / "invocation:{0}".format(name)
    if link.is_symlink():
        link.unlink()
    link.symlink_to(number)


UNIT_CHANGES = [
    ("it was started", lambda folder: started(folder, "a.service", "1")),
    ("it is wanted", lambda folder: (folder / "etc" / "multi-user.target.wants" / "a.service").symlink_to("/x")),
    ("it is there", lambda folder: (folder / "system" / "a.service").write_text("[Unit]\n")),
    ("it is masked", lambda folder: (folder / "etc" / "a.service").symlink_to("/dev/null")),
    ("systemd read its units again", lambda folder: (folder / "run" / "generator").mkdir()),
    ("an init script", lambda folder: (folder / "init.d").mkdir()),
]


@pytest.mark.parametrize("change", [item[1] for item in UNIT_CHANGES], ids=[item[0] for item in UNIT_CHANGES])
def test_units_differ(change, units):
    before = Marks(Filesystem(None)).units(["a.service"])
    assert Marks(Filesystem(None)).units(["a.service"]) == before
    # A change within the same tick of the kernel's clock has another number of the folder's, or it is a link of its own.
    os.utime(str(units / "etc"), (1, 1))
    before = Marks(Filesystem(None)).units(["a.service"])
    change(units)
    assert Marks(Filesystem(None)).units(["a.service"]) != before


def test_a_unit_that_was_started_anew(units):
    started(units, "a.service", "1")
    before = Marks(Filesystem(None)).units(["a.service"])
    started(units, "b.service", "7")
    assert Marks(Filesystem(None)).units(["a.service"]) == before, "another one"
    started(units, "a.service", "2")
    assert Marks(Filesystem(None)).units(["a.service"]) != before


def test_an_old_systemd_has_no_mark(units):
    (units / "units").rmdir()
    with pytest.raises(HostError, match="not there"):
        Marks(Filesystem(None)).units(["a.service"])


def test_this_kernel():
    """What the kernel tells of itself, and that it is the same twice; a listener makes a difference."""
    mark = Marks(Filesystem(None))
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        before = mark._listening()
        opened.listen(1)
        assert len(mark._listening()) > 0
        assert mark._listening() != before
