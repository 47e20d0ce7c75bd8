# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel is asked of nftables, and how its answers are put together."""

import errno
import struct

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.nftables import Nftables
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.netlink import attribute, messages
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_kernel import (
    is_dormant,
    is_owned,
    read_rule,
)

CHANGED = 0x10


def message(kind, body, flags=0):
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def rule(handle, flags=0):
    parts = [(1, b"filter\0"), (2, b"INPUT\0"), (3, struct.pack(">Q", handle))]
    return message(0xA06, bytes([2, 0, 0, 0]) + b"".join(attribute(*part) for part in parts), flags)


def refusal(number):
    return message(2, struct.pack("=i", -number) + bytes(16))


DONE = message(3, bytes(4))


def nftables(*answers):
    """An Nftables whose kernel answers each request with the next list of datagrams."""
    left, asked = list(answers), []

    def exchange(request):
        asked.append(request)
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, OSError):
            raise answer
        return iter(answer)

    return Nftables(exchange), asked


def handles(made, family):
    return [read_rule(body).handle for body in made.rules(family)]


@pytest.mark.parametrize("counted", [(0, 0), (7, 420), (2**63, 1)])
def test_what_a_rule_has_counted_is_left_out(counted):
    """Else no run would meet what the run before met."""

    def body(packets, size):
        data = attribute(1, struct.pack(">Q", size)) + attribute(2, struct.pack(">Q", packets))
        element = attribute(1, b"counter\0") + attribute(2 | 0x8000, data)
        return bytes([2, 0, 0, 0]) + attribute(3, struct.pack(">Q", 3)) + attribute(4, attribute(1, element) * 2)

    assert nftables([message(0xA06, body(*counted)), DONE])[0].rules("ip") == [body(0, 0)]


@pytest.mark.parametrize(("family", "number"), [("ip", 2), ("ip6", 10)])
def test_rules(family, number):
    made, asked = nftables([rule(3) + rule(4), rule(5), DONE])
    assert handles(made, family) == [3, 4, 5]
    assert struct.unpack_from("=IHH", asked[0]) == (len(asked[0]), 0xA07, 0x301)
    assert asked[0][16:20] == bytes([number, 0, 0, 0])


def test_chains():
    body = bytes([2, 0, 0, 0]) + attribute(1, b"filter\0") + attribute(3, b"PORTKNOCK\0")
    made, asked = nftables([message(0xA03, body), DONE])
    assert made.chains() == [body]
    assert struct.unpack_from("=IHH", asked[0]) == (len(asked[0]), 0xA04, 0x301)
    assert asked[0][16] == 0


@pytest.mark.parametrize(
    ("name", "flags", "dormant", "owned"),
    [
        ("filter", 1, True, False),
        ("filter", 3, True, True),
        ("filter", 0, False, False),
        ("filter", 2, False, True),
        ("nat", 3, False, False),
    ],
)
def test_tables(name, flags, dormant, owned):
    body = bytes([2, 0, 0, 0]) + attribute(1, name.encode() + b"\0") + attribute(2, struct.pack(">I", flags))
    made, asked = nftables([message(0xA00, body), DONE])
    (table,) = made.tables("ip")
    assert (is_dormant(table, "filter"), is_owned(table, "filter")) == (dormant, owned)
    assert struct.unpack_from("=IHH", asked[0]) == (len(asked[0]), 0xA01, 0x301)
    assert asked[0][16] == 2


def test_what_changed_meanwhile_is_asked_for_again():
    made, asked = nftables([rule(3, CHANGED), DONE], [rule(3) + rule(4), DONE])
    assert handles(made, "ip") == [3, 4]
    assert len(asked) == 2


@pytest.mark.parametrize("answer", [[refusal(1)], OSError(93, "Protocol not supported"), [rule(3, CHANGED), DONE]])
def test_a_kernel_that_does_not_say(answer):
    made, asked = nftables(answer)
    with pytest.raises(HostError, match=r"the kernel does not list the rules of nftables \(.*it is not known whether"):
        made.rules("ip")
    with pytest.raises(HostError, match="the kernel does not list"):
        made.tables("ip")
    assert made.chains() is None
    assert len(asked) <= 60


def generation(number=b"\0\0\0\7", tables=(), acknowledged=True):
    """What the kernel answers to both questions about its generation."""
    told = message(0xA0F, bytes(4) + attribute(1, number))
    dump = [message(0xA00, bytes(4) + attribute(1, name)) for name in tables]
    made, asked = nftables([told + (refusal(0) if acknowledged else b"")], [b"".join(dump) + DONE])
    return made.generation(), asked


def test_the_generation_of_the_ruleset():
    first, asked = generation()
    assert [struct.unpack_from("=IHH", request)[1:] for request in asked] == [(0xA10, 0x5), (0xA01, 0x301)]
    assert generation()[0] == first
    assert generation(number=b"\0\0\0\10")[0] != first, "a transaction"
    assert generation(tables=[b"others\0"])[0] != first, "the table of a process that ended"


@pytest.mark.parametrize("answer", [[refusal(1)], [refusal(0)], [message(0xA0F, bytes(4)) + refusal(0)], OSError("no")])
def test_a_kernel_that_does_not_tell_its_generation(answer):
    with pytest.raises(HostError, match="does not tell the generation"):
        nftables(answer)[0].generation()


def named(*names):
    return b"".join(attribute(number, name.encode() + b"\0") for number, name in enumerate(names, 1))


@pytest.mark.parametrize(
    ("delete", "kind", "family", "names"),
    [
        (lambda made: made.delete_table("inet", "portknock"), 0xA02, 1, ("portknock",)),
        (lambda made: made.empty_chain("ip6", "filter", "PORTKNOCK"), 0xA08, 10, ("filter", "PORTKNOCK")),
    ],
)
@pytest.mark.parametrize("answer", [0, errno.ENOENT, errno.EPERM])
def test_what_is_deleted_without_a_command(delete, kind, family, names, answer):
    """In a transaction, without which the kernel takes nothing; what is not there need not be deleted."""
    made, asked = nftables([refusal(answer)])
    if answer == errno.EPERM:
        with pytest.raises(HostError, match="the kernel does not delete the rules of .*: .*not permitted"):
            delete(made)
    else:
        delete(made)
    begin, deletion, end = messages(asked[0])
    assert [each[0] for each in (begin, deletion, end)] == [0x10, kind, 0x11]
    assert begin[2] == end[2] == bytes([0, 0, 0, 10]), "the subsystem, as the network orders bytes"
    assert deletion[1] & 0x5 == 0x5, "it is answered"
    assert deletion[2] == bytes([family, 0, 0, 0]) + named(*names)
