# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Confirm and rollback at the same moment, two hundred times: exactly one ends the change, and both say which."""

import pytest
from rig import faults
from rig.engines import ASKED, EVERY_TIME, IN_SOAK
from rig.guard import DOOR, LONG
from rig.guard_nft import case_of

pytestmark = [ASKED, IN_SOAK]

# Seconds by which the second starts later: a confirmation takes about 0.3 s.
DELAYS = (0, 0.02, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5)
FEW = (0, 0.08, 0.12, 0.5)
TURNS = 25
RACE = f"""
python3 -ISB {faults.AGENT} {{0}} >/run/own/first 2>&1 &
sleep {{2}}
python3 -ISB {faults.AGENT} {{1}} >/run/own/second 2>&1
wait
"""
DONE = {"confirmed": "confirmed", "rolled_back": "rolled back"}


@EVERY_TIME
@pytest.mark.parametrize(
    "delay", [delay if delay in FEW else pytest.param(delay, marks=pytest.mark.soak) for delay in DELAYS]
)
def test_race(rig, controller, delay):
    run_race(rig, controller, delay, 0)


@pytest.mark.soak
@pytest.mark.parametrize("turn", range(1, TURNS))
@pytest.mark.parametrize("delay", DELAYS)
def test_more_races(rig, controller, delay, turn):
    run_race(rig, controller, delay, turn)


def run_race(rig, controller, delay, turn):
    """Apply a change, and have it confirmed and rolled back at the same time."""
    case = case_of(rig, controller)
    verbs = ("confirm", "rollback") if (turn + DELAYS.index(delay)) % 2 else ("rollback", "confirm")
    made = rig.target.module(doors=[DOOR], guard=True, guard_timeout=LONG)
    assert made["guard"]["state"] == "pending", made["guard"]
    assert case.applied()
    rig.target.namespace.run("sh", "-c", RACE.format(*verbs, delay), check=False)
    faults.settled(rig)
    outcome = faults.last(rig)["outcome"]
    said = {
        verb: faults.text_of(rig, f"/run/own/{name}") for verb, name in zip(verbs, ("first", "second"), strict=True)
    }
    for verb, words in said.items():
        assert DONE[outcome] in words, (outcome, verb, words)
    assert case.in_force() == (outcome == "confirmed"), outcome
    assert (case.kept in faults.files(rig)) == (outcome == "confirmed")
    if outcome == "rolled_back":
        case.check_target("old")
