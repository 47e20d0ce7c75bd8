# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter with which the role validates on the controller, before it touches a host."""

import pytest

pytest.importorskip("ansible", reason="the filter runs on controllers, and this Python has no ansible-core")

from ansible_collections.sesame.portknock.plugins.filter.spec_problem import FilterModule
from shown_steps import steps_in

DOOR = {"name": "ssh", "knock": ["17005", "9100"], "opens": ["22"]}


def problem(options, **more):
    return FilterModule().filters()["spec_problem"](options, **more)


def test_nothing_wrong():
    assert problem({"doors": [DOOR]}) == ""


def test_the_message_names_the_variable():
    assert problem({"doors": [dict(DOOR, window=0)]}, prefix="portknock_") == (
        "portknock_doors[0].window: must be a whole number from 1 to 86400."
    )


def test_no_step_in_the_message():
    assert steps_in(["17005"], problem({"doors": [dict(DOOR, knock=["17005", "17005"])]}, prefix="portknock_")) == []
