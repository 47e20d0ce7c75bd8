# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What another machine finds: with the role applied, and again after every reboot."""

import time

import pytest
from harness import DOORS, WINDOW


@pytest.mark.parametrize("port", [22, 7007, 7009])
def test_door_is_closed_without_a_knock(visitor, port):
    assert not visitor.finds_open(port)


def test_allowed_port_is_open(visitor):
    assert visitor.finds_open(7008)


def test_knock_opens_for_the_knocker_alone_and_for_the_window_alone(visitor, stranger):
    visitor.knock(DOORS["shell"]["knock"])
    assert visitor.finds_open(7007)
    assert not stranger.finds_open(7007)
    assert stranger.finds_open(7008)
    assert not visitor.finds_open(7009)
    time.sleep(WINDOW + 0.5)
    assert not visitor.finds_open(7007)
