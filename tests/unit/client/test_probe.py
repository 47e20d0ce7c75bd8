# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports of this machine, looked at over its loopback interface: open, refused in either way, or silent."""

import socket
import struct

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._client import probe as _probe
from ansible_collections.sesame.portknock.plugins.module_utils._client.probe import (
    OPEN,
    REFUSED,
    RESET,
    SILENT,
    local_address,
    probe,
    queues_errors,
    read_error,
)


@pytest.fixture(params=["127.0.0.1", "::1"])
def address(request):
    return request.param


def listener(address, kind):
    opened = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    opened.bind((address, 0))
    if kind == socket.SOCK_STREAM:
        opened.listen(1)
    return opened, opened.getsockname()[1]


def test_ports_that_listen_and_ports_that_do_not(address):
    opened, port = listener(address, socket.SOCK_STREAM)
    shut, other = listener(address, socket.SOCK_STREAM)
    shut.close()
    with opened:
        found = probe([(address, port, "tcp"), (address, other, "tcp")], 2.0)
    assert found == {(address, port, "tcp"): OPEN, (address, other, "tcp"): RESET if queues_errors() else REFUSED}


def probe_until_answered(targets, answered, patience):
    """Look until a port has answered, ten times at most, and return what the last look found.

    A kernel sends all ICMP errors of a processor by one socket, for all network namespaces. Where some of them wait for the address of
    a host that has gone, such as a container's, none is sent for seconds.
    """
    for _turn in range(10):
        found = probe(targets, patience)
        if found[answered] != SILENT:
            break
    return found


def test_datagrams(address):
    opened, port = listener(address, socket.SOCK_DGRAM)
    shut, other = listener(address, socket.SOCK_DGRAM)
    shut.close()
    with opened:
        found = probe_until_answered([(address, port, "udp"), (address, other, "udp")], (address, other, "udp"), 1.0)
        assert opened.recv(10) == b"\0"
    icmp = "icmp 1/4" if ":" in address else "icmp 3/3"
    assert found == {(address, port, "udp"): SILENT, (address, other, "udp"): icmp if queues_errors() else REFUSED}


def test_a_kernel_that_does_not_tell_icmp_from_a_reset(address, monkeypatch):
    monkeypatch.setattr(_probe, "queues_errors", lambda: False)
    shut, port = listener(address, socket.SOCK_STREAM)
    shut.close()
    assert probe([(address, port, "tcp")]) == {(address, port, "tcp"): REFUSED}


@pytest.mark.parametrize(
    ("platform", "release", "expected"),
    [
        ("linux", "5.8.0", True),
        ("linux", "6.1.0-9-amd64", True),
        ("linux", "4.18.0-553.el8", False),
        ("darwin", "23.1.0", False),
    ],
)
def test_which_kernels_tell(platform, release, expected):
    assert queues_errors(platform, release) is expected


def error(origin, kind, code, said):
    family = socket.AF_INET6 if ":" in said else socket.AF_INET
    packed = socket.inet_pton(family, said)
    address = struct.pack("=HH", family, 0) + (b"\0" * 4 + packed if family == socket.AF_INET6 else packed) + b"\0" * 8
    return struct.pack("=IBBBBII", 111, origin, kind, code, 0, 0, 0) + address


@pytest.mark.parametrize(
    ("data", "address", "expected"),
    [
        (error(2, 3, 3, "192.0.2.1"), "192.0.2.1", "icmp 3/3"),
        (error(2, 3, 13, "192.0.2.254"), "192.0.2.1", "icmp 3/13 by 192.0.2.254"),
        (error(3, 1, 4, "2001:db8::1"), "2001:db8::1", "icmp 1/4"),
        (error(3, 1, 4, "fe80::1"), "fe80::1%eth0", "icmp 1/4"),
        (error(1, 0, 0, "192.0.2.1"), "192.0.2.1", ""),
        (b"short", "192.0.2.1", ""),
    ],
)
def test_an_icmp_error_is_read(data, address, expected):
    assert read_error(data, address) == expected


def test_the_address_that_this_machine_sends_from(address):
    assert local_address(address) == address
