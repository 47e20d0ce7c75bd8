# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command on the host gives the same answers as with the kernel's own engine."""

import json
import time

from harness import Visitor
from rig_knockd import KNOCK, WINDOW


def status(served):
    return json.loads(served.out("portknock status --json"))


def test_status_open_close_and_panic(served):
    pid = served.main_pid()
    visitor = Visitor(served.address)
    visitor.wait_until_shut(7007)
    visitor.knock(KNOCK)
    time.sleep(0.2)
    found = status(served)
    assert found["engine"] == "knockd" and found["daemon"]["running"] and found["drift"] == []
    opened = [each for door in found["doors"] if door["name"] == "shell" for each in door["open_for"].items()]
    source, left = max(opened, key=lambda item: item[1])
    assert 0 < left <= WINDOW
    served.run(f"portknock close {source}")
    assert not visitor.finds_open(7007)
    served.run(f"portknock open shell {source}")
    assert visitor.finds_open(7007)
    served.run("portknock panic")
    assert not visitor.finds_open(7007) and not visitor.finds_open(7008)
    assert served.out("portknock status --check || true").startswith("portknock CRITICAL: PANIC since ")
    served.run("portknock resume")
    assert visitor.finds_open(7008) and status(served)["panic"] == 0
    assert served.main_pid() == pid and served.listens(), "the daemon has nothing to do with it"
