# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long ssh waits for each address, so that a door is still open for the last one."""

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.plugin_utils import send_knock
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.patience import (
    HURRIED,
    LONGEST,
    hurried_patience,
    is_too_short,
    longest_patience,
)
from hypothesis import given
from hypothesis import strategies as st

addresses, windows, timeouts = st.integers(1, 8), st.integers(1, 100), st.integers(0, 100)


@given(addresses, windows, timeouts, st.integers(0, 20))
def test_the_last_address_is_tried_while_the_door_is_open(count, window, timeout, turn):
    for seconds in (longest_patience(count, window, timeout), hurried_patience(count, window, timeout, turn)):
        assert 1 <= seconds <= max(1, timeout or LONGEST)
        assert is_too_short(count, window) or count == 1 or (count - 1) * seconds + 1 <= window


@given(addresses, windows, timeouts)
def test_a_longer_window_is_never_less_patience(count, window, timeout):
    assert longest_patience(count, window, timeout) <= longest_patience(count, window + 1, timeout)


@pytest.mark.parametrize(
    ("count", "window", "timeout", "first", "last"),
    [
        (1, 15, 10, HURRIED, 10),
        (1, 3, 10, HURRIED, 10),
        (2, 15, 10, HURRIED, 10),
        (2, 5, 10, HURRIED, 4),
        (2, 3, 10, 2, 2),
        (4, 15, 10, HURRIED, 4),
        (2, 0, 10, HURRIED, 10),
        (2, 15, 2, 2, 2),
        (1, 15, 0, HURRIED, LONGEST),
    ],
)
def test_some_of_them(count, window, timeout, first, last):
    assert (hurried_patience(count, window, timeout), longest_patience(count, window, timeout)) == (first, last)


@pytest.mark.parametrize(
    ("count", "window", "short"),
    [(1, 1, False), (2, 1, True), (2, 2, False), (4, 3, True), (4, 4, False), (9, 0, False)],
)
def test_a_window_that_is_too_short_for_all_addresses(count, window, short):
    assert is_too_short(count, window) is short


# The window and the door of a connection


SSH = {"name": "ssh", "knock": ["17005"], "opens": [22], "window": 4}
WEB = {"name": "web", "knock": ["18001"], "opens": ["443", "2222"]}


def test_a_door_that_says_nothing_of_its_window():
    assert spec_from_options({"doors": [WEB]}).doors[0].window == send_knock.DEFAULT_WINDOW


@pytest.mark.parametrize(
    ("doors", "port", "steps", "window"),
    [
        ([WEB, SSH], 22, [17005], 4),
        ([SSH, WEB], 443, [18001], 15),
        ([WEB, SSH], 2222, [18001], 15),
        # A router forwards the port to the host's own.
        ([WEB, SSH], 2022, [17005], 4),
        ([WEB], 2022, [], 15),
        ([dict(SSH, window="{{ x }}")], 22, [17005], 15),
        (None, 22, [], 15),
        ("nonsense", 22, [], 15),
    ],
)
def test_the_door_of_a_port(doors, port, steps, window):
    found = send_knock.steps_for_port(None, doors, port)
    assert [step.port for step in found] == steps
    assert send_knock.window_for_port(doors, port) == window
