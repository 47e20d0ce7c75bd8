# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a connection is tracked: what the kernel is asked, and how its answers are read."""

import errno
import struct
from ipaddress import ip_address

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._host import netlink
from ansible_collections.sesame.portknock.plugins.module_utils._host.conntrack import (
    TRACKED,
    UNKNOWN,
    UNTRACKED,
    Conntrack,
    Flow,
    answers_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.netlink import attribute

V4 = "192.0.2.7 50001 192.0.2.1 22".split()
V6 = "2001:db8::7 50001 2001:db8::1 22".split()
SEEN, UNREPLIED = 0x0E, 0x08
# The direction from this host to the client, as the kernel writes it.
TUPLE = bytes.fromhex(
    "1400 0180 0800 0100 c0000201 0800 0200 c0000207 1c00 0280 0500 0100 06000000 0600 0200 00160000 0600 0300 c3510000"
)


def message(kind, body):
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


def entry(ends, status, other=b""):
    """An entry as the kernel sends it: both directions, then its status."""
    parts = [(1, other or TUPLE[:4]), (2, ends), (3, struct.pack(">I", status))]
    return message(0x100, bytes(4) + b"".join(attribute(kind, data) for kind, data in parts))


def refusal(number):
    return message(2, struct.pack("=i", -number) + bytes(16))


DONE = message(3, bytes(4))


class Files:
    """The host's files: the list of connections, or none."""

    def __init__(self, text=None):
        self.text = text

    def mode(self, path):
        assert path == "/proc/net/nf_conntrack"
        return None if self.text is None else 0o440

    def read(self, _path):
        return self.text


def conntrack(*answers, text=None):
    """A Conntrack whose kernel answers each request with the next list of datagrams."""
    left, asked = list(answers), []

    def exchange(request):
        asked.append(request)
        answer = left.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return iter(answer)

    made = Conntrack(Files(text), exchange)
    return made, asked


def test_what_the_kernel_is_asked():
    made, asked = conntrack([entry(TUPLE, SEEN)])
    assert made.state_of(V4) == TRACKED
    assert len(asked) == 1
    size, kind, flags = struct.unpack_from("=IHH", asked[0])
    assert (size, kind, flags) == (len(asked[0]), 0x101, 1)
    assert asked[0][16:20] == bytes([2, 0, 0, 0])
    assert asked[0][20:] == attribute(0x8001, TUPLE)


@pytest.mark.parametrize(
    "words",
    [V4, "::ffff:192.0.2.7 50001 ::ffff:192.0.2.1 22".split()],
    ids=["ipv4", "mapped"],
)
def test_addresses_as_sshd_writes_them(words):
    assert conntrack([entry(TUPLE, SEEN)])[0].state_of(words) == TRACKED
    assert answers_of("fe80::7%eth0 50001 fe80::1%eth0 22".split()) == answers_of("fe80::7 50001 fe80::1 22".split())


def test_one_direction_alone_is_not_tracked():
    """As it is where a rule of the table raw leaves out the other direction."""
    assert conntrack([entry(TUPLE, UNREPLIED)])[0].state_of(V4) == UNTRACKED


@pytest.mark.parametrize(
    ("found", "state"),
    [
        ([[entry(b"other", SEEN), entry(TUPLE, SEEN)], [DONE]], TRACKED),
        ([[entry(b"other", SEEN)], [entry(TUPLE, UNREPLIED)], [DONE]], UNTRACKED),
        ([[entry(b"other", SEEN)], [DONE]], UNTRACKED),
        ([[DONE]], UNTRACKED),
    ],
)
def test_another_zone_is_looked_at_before_it_is_not_tracked(found, state):
    made, asked = conntrack([refusal(errno.ENOENT)], [b"".join(datagram) for datagram in found])
    assert made.state_of(V4) == state
    assert struct.unpack_from("=IHH", asked[1])[2] == 0x301


LINES = (
    "ipv4     2 udp      17 29 src=192.0.2.7 dst=192.0.2.1 sport=50001 dport=22 src=192.0.2.1 dst=192.0.2.7 sport=22 dport=50001 "
    "mark=0 zone=0 use=2\n"
    "ipv4     2 tcp      6 431999 ESTABLISHED src=192.0.2.8 dst=192.0.2.1 sport=50001 dport=22 src=192.0.2.1 dst=192.0.2.8 "
    "sport=22 dport=50001 [ASSURED] mark=0 zone=0 use=2\n"
)
OURS = (
    "ipv4     2 tcp      6 431999 ESTABLISHED src=192.0.2.7 dst=203.0.113.1 sport=50001 dport=2222 src=192.0.2.1 dst=192.0.2.7 "
    "sport=22 dport=50001 [ASSURED] mark=0 zone=0 use=2\n"
)
HALF = (
    "ipv4     2 tcp      6 299 src=192.0.2.1 dst=192.0.2.7 sport=22 dport=50001 [UNREPLIED] src=192.0.2.7 dst=192.0.2.1 "
    "sport=50001 dport=22 mark=0\n"
)
OURS6 = (
    "ipv6     10 tcp      6 431999 ESTABLISHED src=2001:0db8:0000:0000:0000:0000:0000:0007 "
    "dst=2001:0db8:0000:0000:0000:0000:0000:0001 sport=50001 dport=22 src=2001:0db8:0000:0000:0000:0000:0000:0001 "
    "dst=2001:0db8:0000:0000:0000:0000:0000:0007 sport=22 dport=50001 [ASSURED] mark=0 zone=0 use=2\n"
)


@pytest.mark.parametrize(
    "refused",
    [
        OSError(errno.EPROTONOSUPPORT, "not supported"),
        [refusal(errno.EINVAL)],
        [refusal(errno.EPERM)],
        OSError("timed out"),
    ],
    ids=["no netlink", "no nfnetlink_conntrack", "not allowed", "no answer"],
)
@pytest.mark.parametrize(
    ("text", "words", "state"),
    [
        (None, V4, UNKNOWN),
        (LINES, V4, UNTRACKED),
        (LINES + OURS, V4, TRACKED),
        (LINES + HALF, V4, UNTRACKED),
        (LINES + OURS6, V6, TRACKED),
        ("nonsense src= dst=x sport=y dport\n\n", V4, UNTRACKED),
    ],
)
def test_where_the_kernel_cannot_be_asked_its_list_is_read(refused, text, words, state):
    assert conntrack(refused, text=text)[0].state_of(words) == state


@pytest.mark.parametrize("words", [[], ["192.0.2.7"], "UNKNOWN 65535 UNKNOWN 65535".split(), "a b c d".split()])
def test_what_is_no_connection(words):
    """sshd writes UNKNOWN where it does not talk to a socket of the network."""
    assert conntrack()[0].state_of(words) == UNKNOWN


def test_this_kernel_answers(monkeypatch):
    """The real netlink socket, whatever is allowed here: an answer within its time, and no error."""
    monkeypatch.setattr(netlink, "_SECONDS", 2.0)
    assert Conntrack(Files(None)).state_of("192.0.2.254 1 192.0.2.253 2".split()) in (UNTRACKED, UNKNOWN)


FLOW = Flow(ip_address("192.0.2.9"), 50009, ip_address("192.0.2.1"), 5432)
# An entry that the kernel takes: both directions, seen and assured, for five days, established, and no sequence numbers known.
NEW_ENTRY = bytes.fromhex(
    "d4000000 0001 0506 01000000 00000000 02000000"
    "3400 0180 1400 0180 0800 0100 c0000209 0800 0200 c0000201 1c00 0280 0500 0100 06000000 0600 0200 c3590000 0600 0300 15380000"
    "3400 0280 1400 0180 0800 0100 c0000201 0800 0200 c0000209 1c00 0280 0500 0100 06000000 0600 0200 15380000 0600 0300 c3590000"
    "0800 0300 0000000e 0800 0700 00069780"
    "2000 0480 1c00 0180 0500 0100 03000000 0600 0400 08080000 0600 0500 08080000"
)


def test_connections_from_before_are_entered():
    made, asked = conntrack([refusal(0)])
    made.adopt([FLOW], V4)
    assert asked == [struct.pack("=I", len(NEW_ENTRY)) + NEW_ENTRY[4:]]


def test_the_play_s_own_is_left_out():
    made, asked = conntrack()
    made.adopt([Flow(ip_address("192.0.2.7"), 50001, ip_address("192.0.2.1"), 22)], V4)
    assert asked == []


@pytest.mark.parametrize(
    ("answers", "asked"), [([[refusal(0)], [refusal(errno.EEXIST)], []], 3), ([OSError(errno.ENOBUFS, "")], 1)]
)
def test_very_many_connections_are_entered_in_a_few_steps(answers, asked):
    made, requests = conntrack(*answers)
    made.adopt([FLOW._replace(source_port=port) for port in range(1024, 1024 + 250)], [])
    assert len(requests) == asked


def test_no_more_are_entered_than_there_is_room_for():
    made, requests = conntrack(*[[refusal(0)]] * 200)
    made.adopt([FLOW._replace(source_port=port) for port in range(1024, 1024 + 30000)], [])
    assert len(requests) == 200
