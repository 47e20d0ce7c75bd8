# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an answer to a connect or a datagram means."""

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible_collections.sesame.portknock.plugins.module_utils._client.probe import (
    OPEN,
    REFUSED,
    RESET,
    SILENT,
    UNREACHABLE,
)
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.answers import let_in, look_of


@pytest.mark.parametrize(
    ("answer", "reject_with", "expected"),
    [
        (OPEN, "icmp-port-unreachable", "yes"),
        (OPEN, "drop", "yes"),
        (RESET, "icmp-port-unreachable", "yes"),
        (RESET, "tcp-reset", "maybe"),
        (RESET, "icmp-admin-prohibited", "yes"),
        (RESET, "drop", "yes"),
        (REFUSED, "icmp-port-unreachable", "maybe"),
        (REFUSED, "tcp-reset", "maybe"),
        (REFUSED, "icmp-admin-prohibited", "maybe"),
        (REFUSED, "drop", "yes"),
        ("icmp 3/3", "icmp-port-unreachable", "no"),
        ("icmp 3/13", "icmp-admin-prohibited", "no"),
        ("icmp 3/13 by 192.0.2.254", "drop", "no"),
        (SILENT, "icmp-port-unreachable", "no"),
        (SILENT, "drop", "no"),
        (UNREACHABLE, "drop", "no"),
    ],
)
def test_what_a_connect_means(answer, reject_with, expected):
    assert let_in(answer, "tcp", reject_with) == expected


@pytest.mark.parametrize(
    ("answer", "reject_with", "expected"),
    [
        (OPEN, "drop", "yes"),
        # The kernel's own answer where nothing listens is the same as the firewall's.
        ("icmp 3/3", "icmp-port-unreachable", "maybe"),
        ("icmp 1/4", "tcp-reset", "maybe"),
        ("icmp 3/3", "icmp-admin-prohibited", "yes"),
        ("icmp 3/3", "drop", "yes"),
        ("icmp 3/13", "icmp-admin-prohibited", "no"),
        (REFUSED, "icmp-port-unreachable", "maybe"),
        (SILENT, "icmp-port-unreachable", "maybe"),
        (SILENT, "drop", "maybe"),
        (UNREACHABLE, "drop", "no"),
    ],
)
def test_what_a_datagram_means(answer, reject_with, expected):
    assert let_in(answer, "udp", reject_with) == expected


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"22/tcp": "icmp 3/3", "23/tcp": SILENT}, "refused (icmp 3/3)"),
        ({"22/tcp": OPEN, "23/tcp": RESET}, "open"),
        ({"22/tcp": RESET, "23/tcp": SILENT}, "refused (reset)"),
        ({"22/tcp": REFUSED}, "refused"),
        ({"22/tcp": SILENT}, "silent"),
        ({"22/tcp": UNREACHABLE}, "no way there"),
        ({}, "-"),
    ],
)
def test_what_it_looks_like(answers, expected):
    assert look_of(answers) == expected
