# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What other machines find, over both families."""

import time

import pytest
from harness import Visitor
from rig_knockd import CLOSE, KNOCK, WINDOW


@pytest.fixture(params=["ipv4", "ipv6"])
def door(request, served):
    """The host, and its address of one family."""
    served.visited = served.addresses()[request.param == "ipv6"]
    served.shut(served.visited)
    return served


def test_knock_opens_for_the_knocker_alone_and_for_the_window_alone(door):
    stranger = Visitor(door.visited)
    stranger.wait_until_shut(22)
    assert door.client_finds(7008, address=door.visited) == "open"
    assert door.opens_to(port=22, address=door.visited)
    assert not stranger.finds_open(7007) and not stranger.finds_open(22) and stranger.finds_open(7008)
    time.sleep(WINDOW + 0.5)
    assert door.client_finds(22, address=door.visited) == "shut"


def test_running_session_outlives_the_window(served):
    visitor = Visitor(served.address)
    visitor.wait_until_shut(7007)
    visitor.knock(KNOCK)
    time.sleep(0.2)
    with visitor.connect(7007) as session:
        time.sleep(WINDOW + 0.5)
        assert not visitor.finds_open(7007)
        session.sendall(b"still here\n")
        session.settimeout(50)
        assert session.recv(100) == b"still here\n"


def test_other_knock_shuts_the_door_before_its_time(served):
    assert served.opens_to()
    assert served.client_finds(7007, CLOSE) == "open shut"


def test_wrong_knock_opens_nothing(served):
    wrong_protocol = [str(step).split("/", 1)[0] for step in KNOCK]
    for steps in (KNOCK[:-1], KNOCK[::-1], wrong_protocol):
        assert not served.opens_to(steps), len(steps)
        # What is left of it would break the next one.
        served.shut()
        assert served.opens_to()
        served.shut()


def test_port_that_is_nobody_s_breaks_a_knock(served):
    trap = (
        served.out(r"sed -n '/^\[decoy 1\]/,/^seq/s/^sequence = //p' /etc/portknock/knockd.conf").strip().split(":")[0]
    )
    assert int(trap) > 1023
    assert not served.opens_to([*KNOCK[:-1], trap, KNOCK[-1]])
    assert served.opens_to()
