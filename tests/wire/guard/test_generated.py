# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two hundred hosts with rules of all kinds: no foreign rule is lost, no word is false, the owner is never shut out."""

import contextlib
from collections import Counter

import pytest
from rig import faults, generated
from rig.guard import DOOR, LONG, NEW, OLD, REFUSED, STRANGER, TIMEOUT, Case
from rig.packets import IPV4
from rig.peer import OPEN

COUNT = 200
# With each backend one of every end, with a native rule and without, if it has them.
SAMPLE = (0, 2, 8, 12, 72, 9, 24)
NO_HOOKS = {"ipv4": 0, "ipv6": 0}


@pytest.mark.parametrize("number", SAMPLE)
def test_host(rig, controller, number):
    live_through(rig, controller, number)


@pytest.mark.soak
@pytest.mark.parametrize("number", [number for number in range(COUNT) if number not in SAMPLE])
def test_more_hosts(rig, controller, number):
    live_through(rig, controller, number)


def live_through(rig, controller, number):
    """Make a host, change it, and take everything out again."""
    made = generated.host(number, rig.backend)
    generated.load(rig, made)
    plain = lines_of_others(rig)
    if made.native and made.when == "before":
        generated.load_native(rig, made)
    case = Case(rig, controller, foreign=None)
    run = changed(case, made)
    faults.settled(rig)
    check(case, made, run)
    if made.native:
        assert lines_of_others(rig) > plain, made
        generated.drop_native(rig)
    nothing_lost(rig, plain, made)
    removed(case, made)
    nothing_lost(rig, plain, made)


def lines_of_others(rig):
    """Return what the kernel has of others; nft lists sets and chains in an order of its own."""
    return Counter(generated.foreign(generated.truth(rig)))


def nothing_lost(rig, plain, made):
    """Compare what there is of others with what there was."""
    now = lines_of_others(rig)
    assert (now - plain, plain - now) == (Counter(), Counter()), made


def changed(case, made):
    """Make the change, with what comes in its window."""
    rig = case.rig
    options = {"guard_timeout": TIMEOUT if made.end == OLD else LONG}
    with faults.way_blocked(rig, 7000) if made.blocked else contextlib.nullcontext():
        if not made.native or made.when == "before":
            return case.apply(DOOR, **options)
        with case.waiting():
            run = case.apply(DOOR, start=True, **options)
            run.until(case.applied)
            generated.load_native(rig, made)
        return run.wait()


def check(case, made, run):
    """Compare the host's truth, and the result's words with it."""
    event = run.only()
    hooks = generated.hooks(case.rig)
    if made.end == NEW:
        assert event.kind == "ok", run.output
        assert event.result["guard"]["state"] == "confirmed"
        assert all(count >= 2 for count in hooks.values()), hooks
        assert case.rig.client.probe(22, IPV4, source=STRANGER[IPV4]) != OPEN, made
        case.check_door()
        return
    assert event.kind == "failed", run.output
    assert event.result["changed"] is False, event.result
    assert case.gets_in(), made
    if made.end == REFUSED:
        assert not event.result.get("rolled_back"), event.result
        assert "nft" in event.result["msg"], event.result["msg"]
        assert hooks == NO_HOOKS
    else:
        assert event.result["rolled_back"] is True, event.result
        undo = event.result["guard"]["undo"]
        assert (undo == "exact") == (not made.unreadable), (undo, made)
        assert undo == "exact" or hooks == NO_HOOKS or "emptied" in undo, (undo, hooks)
        assert undo != "exact" or hooks == NO_HOOKS, hooks


def removed(case, made):
    """Take all of it away again, by the collection."""
    case.take_out()
    assert generated.hooks(case.rig) == NO_HOOKS
    left = generated.truth(case.rig)
    assert left == generated.foreign(left)
    assert case.gets_in(), made
