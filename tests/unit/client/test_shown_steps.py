# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The search that other tests rely on finds steps, and nothing that only has the same digits."""

import pytest
from shown_steps import steps_in


@pytest.mark.parametrize(
    "text",
    [
        "9100",
        "port 9100.",
        "['9100/udp', 1]",
        '{"knock": ["9100"]}',
        "9100, 7",
        "--dport 9100 -j",
        "x=9100\n",
        "(9100)",
    ],
)
@pytest.mark.parametrize("step", ["9100", "9100/udp", 9100, (9100, "udp")])
def test_a_step_is_found(step, text):
    assert steps_in(["7000", step], text) == ["9100"]


@pytest.mark.parametrize(
    "text",
    ["process 19100", "91000 bytes", "took 0.9100 s", "9100.25 s", "10.0.0.1:9100:1", "0x9100", "a9100f", "12:9100"],
)
def test_other_numbers_are_none(text):
    assert steps_in(["9100"], text) == []
