# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Somebody sets the clock of the target while a change waits. Only its programs see that; no real clock is touched."""

import glob
import time

import pytest
from rig import faults
from rig.engines import ASKED, IN_SOAK
from rig.guard import LONG, NEW, OLD, TIMEOUT
from rig.guard_nft import case_of

pytestmark = [ASKED, IN_SOAK]

CLOCK = "/run/own/clock"


@pytest.fixture
def clock(rig):
    """Return a function that sets the clock which everything started by an ssh session on the target sees."""
    library = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")[0]
    values = {
        "LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": CLOCK, "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip

    def set_to(offset):
        faults.inside(rig, CLOCK).write_text(offset + "\n")

    set_to("+0")
    with faults.sshd_with(rig, "SetEnv " + " ".join(f"{name}={value}" for name, value in values.items())):
        yield set_to


@pytest.mark.parametrize(
    ("offset", "end"),
    [("+1h", NEW), ("-1h", OLD)]
    + [
        pytest.param(offset, end, marks=pytest.mark.soak)
        for offset, end in [("-1h", NEW), ("-9y", NEW), ("+1h", OLD), ("-9y", OLD)]
    ],
)
def test_the_clock_is_set(rig, controller, clock, offset, end):
    """The deadline counts seconds, whatever the clock says: neither at once nor in an hour."""
    case = case_of(rig, controller)
    begun = None
    with case.waiting():
        run = case.apply(start=True, guard_timeout=LONG if end == NEW else TIMEOUT + 4)
        run.until(case.applied)
        begun = time.monotonic()
        clock(offset)
        seen = float(controller.namespace.run(*over_the_master(controller, "date +%s")).stdout)
        assert abs(seen - time.time()) > 3000, "the clock was not set"
        if end == OLD:
            faults.settled(rig)
    assert end == NEW or TIMEOUT < time.monotonic() - begun < TIMEOUT + 240
    case.check(end, run.wait())
    clock("+0")
    case.check_next()


def over_the_master(controller, command):
    """Return a command line that runs a command over the play's own connection."""
    path = next((controller.folder / "cp").iterdir())
    return ["ssh", "-F", "/dev/null", "-o", f"ControlPath={path}", "root@10.77.0.1", command]
