# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's lists read back: who has a door open, and for how long."""

import ipaddress

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.recent_lists import (
    HERTZ,
    guess_hertz,
    network_of,
    read_list,
    seconds_left,
)
from hypothesis import given
from hypothesis import strategies as st

WRAP = 2**32


def jiffies(uptime, hertz):
    """The kernel begins to count five minutes before its counter runs over."""
    return int((uptime - 300) * hertz) % WRAP


def proc_file(stamps):
    line = "src={0} ttl: 64 last_seen: {1} oldest_pkt: 1 {1}\n"
    return "".join(line.format(source, stamp) for source, stamp in stamps)


def test_read_list():
    text = (
        "src=192.0.2.1 ttl: 64 last_seen: 4295000000 oldest_pkt: 2 4294990000, 4295000000\n"
        "src=2001:0db8:0000:0000:0000:0000:0000:0001 ttl: 64 last_seen: 12 oldest_pkt: 1 12\n"
    )
    assert [tuple(entry) for entry in read_list(text)] == [
        ("192.0.2.1", 4295000000),
        ("2001:0db8:0000:0000:0000:0000:0000:0001", 12),
    ]
    assert read_list("") == []


@pytest.mark.parametrize("hertz", HERTZ)
@pytest.mark.parametrize("uptime", [20.0, 299.0, 301.0, 5000.0, 86400.0 * 40])
def test_seconds_left(hertz, uptime):
    stamps = [
        ("192.0.2.1", jiffies(uptime - 4, hertz)),
        ("192.0.2.2", jiffies(uptime - 16, hertz)),
        ("192.0.2.3", jiffies(uptime, hertz)),
    ]
    entries = read_list(proc_file(stamps))
    assert guess_hertz(entries, uptime) == hertz
    assert seconds_left(entries, 15, uptime, hertz) == {"192.0.2.1": 11, "192.0.2.3": 15}


def test_nothing_to_guess_from():
    assert guess_hertz([], 5000.0) is None
    assert seconds_left([], 15, 5000.0, 250) == {}


@given(uptime=st.floats(60, 10**7), hertz=st.sampled_from(HERTZ), age=st.floats(0, 30), window=st.integers(1, 60))
def test_never_more_than_the_window_and_never_less_than_what_is_left(uptime, hertz, age, window):
    entries = read_list(proc_file([("192.0.2.1", jiffies(uptime - age, hertz))]))
    left = seconds_left(entries, window, uptime, hertz).get("192.0.2.1", 0)
    assert 0 <= left <= window
    assert abs(left - max(0, window - age)) <= 1.1


@pytest.mark.parametrize(
    ("source", "prefix", "held"),
    [
        ("192.0.2.7", 128, "192.0.2.7"),
        ("192.0.2.7", 64, "192.0.2.7"),
        ("2001:db8:1:2:3::7", 128, "2001:db8:1:2:3::7"),
        ("2001:db8:1:2:3::7", 64, "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::7", 65, "2001:db8:1:2:8000::"),
    ],
)
def test_network_of(source, prefix, held):
    assert network_of(ipaddress.ip_address(source), prefix) == ipaddress.ip_address(held)
