# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fault matrix: whatever goes wrong while a change waits, the host ends old or new, whole and reachable."""

import pytest
from rig import faults
from rig.cells import CELLS, check_cell
from rig.guard import Case

# Each of these is of a kind with another cell, which is run every time.
IN_SOAK = {
    "everything is refused",
    "everything is prohibited",
    "the first step is lost",
    "the datagram is lost",
    "a host without IPv4, rolled back",
    "loading fails",
    "the first family fails",
    "loading is slow, and cuts off",
    "another user reaches for our lock, confirmed",
    "no room to stage the collection's files",
    "no room in /run",
    "no room for the collection's files when it is confirmed",
    "/etc becomes read-only, rolled back",
    "others add rules, confirmed",
    "others take rules away, rolled back",
    "running connections are not taken up, rolled back",
    "the sessions are killed, confirmed",
    "the sessions freeze, rolled back",
    "others are allowed, not we",
    # test_guard_core.py, with three releases.
    "everything is dropped",
    "the host cannot know, and all is well",
    "loading is slow",
    "no room in /run from the start",
    "/run/portknock is removed, confirmed",
    "the agent is killed, confirmed",
}


def cells():
    """Yield the cells as parameters."""
    for name, cell in CELLS.items():
        marks = (*cell.marks, pytest.mark.soak) if name in IN_SOAK else cell.marks
        yield pytest.param(cell, id=name, marks=marks)


@pytest.mark.parametrize("cell", list(cells()))
def test_cell(rig, controller, cell):
    check_cell(Case(rig, controller), cell)


def test_run_becomes_read_only(rig, controller):
    """Neither confirm nor rollback can be written down: the rules go back all the same, and the next run finds its way."""
    case = Case(rig, controller)
    with faults.way_blocked(rig, 7000):
        run = case.apply(start=True)
        run.until(case.applied)
        with faults.read_only(rig, "/run"):
            run.wait()
            assert run.only().kind == "failed", run.output
            assert faults.ruleset(rig) == case.before
            assert case.gets_in()
    case.check_next()
