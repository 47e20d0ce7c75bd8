# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After a boot with a rules file that does not load."""

import time

import pytest
from harness import DOORS, WINDOW


def test_it_can_be_seen(host):
    assert host.run("systemctl is-failed portknock.service").stdout.strip() == "failed"
    assert host.run("systemctl is-system-running").stdout.strip() == "degraded"


def test_journal_says_what_to_do(host):
    journal = host.check_output("journalctl --no-pager --unit=portknock.service --output=cat")
    assert "rules" in journal


@pytest.mark.parametrize("port", [22, 7007, 7009])
def test_doors_are_closed_all_the_same(visitor, port):
    assert not visitor.finds_open(port)


def test_doors_open_to_a_knock_all_the_same(visitor):
    visitor.knock(DOORS["shell"]["knock"])
    assert visitor.finds_open(7007)
    time.sleep(WINDOW + 0.5)
    assert not visitor.finds_open(7007)
