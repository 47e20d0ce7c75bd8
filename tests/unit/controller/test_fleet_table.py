# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table that a roll-out ends with, as a person reads it."""

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible_collections.sesame.portknock.plugins.plugin_utils._report.fleet import Fleet, Outcome, fleet_table

SEVERE = [dict(severity="error"), dict(severity="warning"), dict(severity="warning", acknowledged=True)]
NOTHING = Outcome({}, {})
CHANGED, SAME = Outcome({"changed": True, "findings": SEVERE}, {}), Outcome({"changed": False}, {})
BACK = Outcome(
    {"failed": True}, {"rolled_back": True, "why": "Rolled back: the change\nwould have cut this controller off."}
)
FAILED = Outcome({}, {"rolled_back": False, "why": "x" * 301})
DOWN = Outcome({"unreachable": True}, {})


def lines_of(outcomes, batch, gone=(), check_mode=False):
    return fleet_table(Fleet(list(outcomes), batch, gone), outcomes, check_mode)


def test_all_is_well():
    assert lines_of({"a": CHANGED, "beta": SAME}, ["beta"]) == [
        "host  result     findings",
        "a     changed    1 error, 1 warning",
        "beta  unchanged  -",
        "1 changed, 1 unchanged",
    ]


def test_what_failed_is_said_with_its_reason_and_the_rest_is_not_begun():
    outcomes = {"a": SAME, "b": BACK, "c": FAILED, "d": NOTHING, "e": DOWN, "f": NOTHING}
    assert lines_of(outcomes, ["b", "c"], gone=["d"]) == [
        "host  result       findings",
        "a     unchanged    -",
        "b     rolled back  -         Rolled back: the change would have cut this controller off.",
        "c     failed       -         " + "x" * 300 + "… (all of it is above)",
        "d     not reached  -",
        "e     not reached  -",
        "f     not begun    -",
        "1 unchanged, 1 rolled back, 1 failed, 2 not reached, 1 not begun",
    ]


@pytest.mark.parametrize(
    ("outcomes", "batch"),
    [({"a": CHANGED}, ["a"]), ({"a": BACK}, ["a"]), ({"a": CHANGED, "b": NOTHING}, ["a"])],
    ids=["one host", "one host that failed", "there are more to come"],
)
def test_nothing_is_printed(outcomes, batch):
    assert lines_of(outcomes, batch) == []


def test_check_mode_and_tasks_that_did_not_run():
    assert lines_of({"a": CHANGED, "b": NOTHING}, ["b"], check_mode=True)[1:3] == [
        "a     would change  1 error, 1 warning",
        "b     done          -",
    ]
