# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""IP protocols without ports that are in use, as the kernel's tables say it; a plain host uses none."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._host.protocols import (
    InUse,
    Protocols,
    ipsec_states,
    multicast_groups,
    raw_sockets,
    sctp_sockets,
)
from ansible_collections.sesame.portknock.plugins.module_utils._host.sockets import Carrier

RAW = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  85: 00000000:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 14063712 2 00000000f3ae5a5e 0
 174: 00000000:00FF 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 14063713 2 00000000d20835d5 0
 239: 00000000:0070 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 14063710 2 00000000daec21e2 0
"""
RAW6 = RAW.replace("00000000:00", "0" * 32 + ":00").replace(":0070", ":0059").replace(":0001", ":003A")
IGMP = """\
Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter
1\tlo        :     1      V3
\t\t\t\t070303EF     1 0:00000000\t\t0
3\td0        :     3      V3
\t\t\t\t{0}
\t\t\t\tFB0000E0     1 0:00000000\t\t0
\t\t\t\t6A0000E0     1 0:00000000\t\t0
\t\t\t\t010000E0     1 0:00000000\t\t0
"""
JOINED = "030201EF     1 0:00000000\t\t0"
SCTP = """\
 ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS
ffff8d1a 0 2   10  29   9999   0 {0} {1}
ffff8d1b 0 2   7  29   9998   0 8 0.0.0.0
"""
XFRM = """\
src 192.0.2.7 dst 192.0.2.1
\tproto esp spi 0x00000001 reqid 0 mode tunnel
\treplay-window 0
src 2001:db8::7 dst 2001:db8::1
\tproto ah spi 0x00000002 reqid 0 mode transport
src 198.51.100.9 dst 192.0.2.1
\tproto esp spi 0x00000003 reqid 0 mode tunnel
\tencap type espinudp sport 4500 dport 4500 addr 0.0.0.0
src 198.51.100.8 dst 192.0.2.1
\tproto comp spi 0x00000004 reqid 0 mode tunnel
"""


def test_raw_sockets():
    """Not ping's, nor those that only send."""
    assert raw_sockets(RAW) == [(112, 14063710)]
    assert raw_sockets(RAW6) == [(89, 14063710)]
    assert raw_sockets("") == []


def test_groups_that_are_received_as_long_as_their_queries_are_answered():
    assert multicast_groups(IGMP.format(JOINED)) == ["239.1.2.3"]
    assert multicast_groups(IGMP.format("")) == multicast_groups("") == []


@pytest.mark.parametrize(
    ("addresses", "families"),
    [("0.0.0.0", ["ipv4"]), ("::", ["ipv4", "ipv6"]), ("127.0.0.1", []), ("127.0.0.1 192.0.2.1", ["ipv4"])],
)
def test_sctp(addresses, families):
    assert sctp_sockets(SCTP.format(7, addresses)) == [(family, 7) for family in families]


def test_ipsec():
    """Not what is wrapped in UDP, which has a port, nor compression."""
    assert ipsec_states(XFRM) == [
        InUse(50, "ipv4", "IPsec with 192.0.2.7", "192.0.2.7"),
        InUse(51, "ipv6", "IPsec with 2001:db8::7", "2001:db8::7"),
    ]
    assert ipsec_states("") == []


class Machine:
    """The parts of a host that are asked."""

    def __init__(self, **files):
        self.files, self.runs = files, []
        self.up = ["0x1003"]

    def find(self, name):
        return f"/sbin/{name}"

    def run(self, words):
        self.runs.append(words)
        return 0, XFRM, ""

    def read(self, path):
        if path.endswith("/flags"):
            return self.up[0] if "gre" in path else ""
        return self.files.get(path.rpartition("/")[2], "")

    def interfaces(self):
        return ["bonding_masters", "eth0", "gre0", "gre1"]

    def carrier_of(self, interface):
        return {"gre0": Carrier(47, "ipv4", ""), "gre1": Carrier(47, "ipv4", "198.51.100.1")}.get(interface)

    def processes(self, inodes):
        return {inode: "keepalived" for inode in inodes if inode != 7}


def in_use(machine):
    return Protocols(machine, machine, machine, machine).in_use()


def test_what_a_host_uses():
    machine = Machine(raw=RAW, raw6=RAW6, igmp=IGMP.format(JOINED), eps=SCTP.format(7, "::"), modules="xfrm_user 1 0\n")
    gre = InUse(47, "ipv4", "tunnel gre1 to 198.51.100.1", "198.51.100.1")
    assert in_use(machine) == [
        InUse(2, "ipv4", "multicast of 239.1.2.3", ""),
        gre,
        *ipsec_states(XFRM),
        InUse(89, "ipv6", "keepalived", ""),
        InUse(112, "ipv4", "keepalived", ""),
        InUse(132, "ipv4", "a program", ""),
        InUse(132, "ipv6", "a program", ""),
    ]
    machine.up[0] = "0x1002"
    assert gre not in in_use(machine), "it is down"


def test_a_plain_host_uses_none_and_no_module_is_loaded_for_the_question():
    machine = Machine(raw=RAW.replace(":0070", ":0001"), igmp=IGMP.format(""), modules="nf_tables 1 0\n")
    machine.up[0] = "0x1002"
    assert (in_use(machine), machine.runs) == ([], [])
