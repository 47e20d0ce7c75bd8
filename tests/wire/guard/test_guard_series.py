# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The long series: fifty changes in a row that must be confirmed, and fifty that must be rolled back."""

import statistics

import pytest
from rig import faults
from rig.engines import ASKED, IN_SOAK
from rig.guard import ALLOW, DOOR, KNOCK, NEW, OLD
from rig.guard_nft import case_of
from rig.target import door

pytestmark = [ASKED, IN_SOAK]

TURNS = 50


def tell(what, seconds):
    """Print one line of the table."""
    seconds = sorted(seconds)
    print(
        f"{what:<28} {len(seconds):3} runs  median {statistics.median(seconds):6.2f} s  "
        f"fastest {seconds[0]:6.2f} s  slowest {seconds[-1]:6.2f} s"
    )


@pytest.mark.soak
def test_fifty_confirmed(rig, controller, capsys):
    """Each one changes the knock, every other closes or opens the port for all."""
    case = case_of(rig, controller)
    seconds = []
    for turn in range(TURNS):
        options = {"opens": (80,)} if turn % 2 else {}
        allow = ALLOW if turn % 2 else []
        run = case.apply(door(*KNOCK[:-1], 3100 + turn, window=5, **options), guard_timeout=20, allow=allow)
        case.check(NEW, run)
        seconds.append(run.only().result["guard"]["seconds"])
    with capsys.disabled():
        tell(f"confirmed, {rig.backend}", seconds)


@pytest.mark.soak
def test_fifty_rolled_back(rig, controller, capsys):
    """By turns the knock is lost, or everything is cut."""
    case = case_of(rig, controller)
    seconds = []
    for turn in range(TURNS):
        with faults.cut_off(rig) if turn % 2 else faults.way_blocked(rig, 7000):
            case.remember()
            run = case.apply(DOOR, guard_timeout=5)
            case.check(OLD, run)
        case.remember()
        seconds.append(run.only().result["guard"]["seconds"] - 5)
    with capsys.disabled():
        tell(f"rolled back after, {rig.backend}", seconds)
