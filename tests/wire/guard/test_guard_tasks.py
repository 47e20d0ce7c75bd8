# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guard with all that a play may ask of a task."""

import contextlib

import pytest
from rig import faults
from rig.controller import MODULE, PING, knock_task
from rig.engines import ASKED, EVERY_TIME, IN_SOAK
from rig.guard import ALLOW, DOOR, KNOCK, LONG, NEW, OLD, TIMEOUT
from rig.guard_nft import case_of
from rig.jump import OTHER
from rig.packets import IPV4
from rig.shown import steps_in
from rig.target import door

pytestmark = [ASKED, IN_SOAK]


def two_doors():
    """Return options for a loop: a port that is open, then a door that opens it."""
    return [{"doors": [], "allow": ALLOW}, {"doors": [DOOR], "allow": []}]


def looped(timeout=LONG, **more):
    """Return a task that applies one ruleset after the other."""
    options = {"doors": "{{ item.doors }}", "allow": "{{ item.allow }}", "guard_timeout": timeout}
    return dict(knock_task(**options), loop=two_doors(), **more)


def test_a_loop(rig, controller):
    """Each turn is a change of its own, confirmed before the next begins."""
    case = case_of(rig, controller)
    run = controller.play(looped())
    turns = [event for event in run.events if event.kind.startswith("item")]
    assert [event.kind for event in turns] == ["item ok"] * 2, run.output
    assert [event.result["guard"]["state"] for event in turns] == ["confirmed"] * 2
    assert [event.result["guard"]["knocked"] for event in turns] == ["", "ssh"]
    case.check_target(NEW)
    case.check_door()


def test_a_loop_whose_last_turn_cuts_off(rig, controller):
    """The turns before stay."""
    case = case_of(rig, controller)
    with faults.way_blocked(rig, 7000):
        run = controller.play(looped(TIMEOUT))
    turns = [event for event in run.events if event.kind.startswith("item")]
    assert [event.kind for event in turns] == ["item ok", "item failed"], run.output
    assert turns[1].result["rolled_back"] is True
    assert run.only().kind == "failed"
    case.check_target(NEW)
    assert case.gets_in()


def test_until(rig, controller):
    """A task that is tried again after it was rolled back works when what was in the way is gone."""
    case = case_of(rig, controller)
    with contextlib.ExitStack() as stack:
        stack.enter_context(faults.way_blocked(rig, 7000))
        task = {"register": "said", "until": "said is success", "retries": 3, "delay": 1}
        run = case.apply(start=True, task=task)
        run.until(lambda: [event for event in run.events if event.kind == "retry"])
        stack.close()
        run.wait()
    case.check(NEW, run)
    retries = [event for event in run.events if event.kind == "retry"]
    assert all(event.result["rolled_back"] for event in retries)
    case.check_door()


@pytest.mark.parametrize(
    "keywords",
    [
        pytest.param({"ignore_errors": True}, marks=pytest.mark.soak),
        {"ignore_unreachable": True, "ignore_errors": True},
    ],
    ids=["errors", "unreachable"],
)
def test_ignored(rig, controller, keywords):
    """The play goes on, over a connection that works."""
    case = case_of(rig, controller)
    with faults.way_blocked(rig, 7000):
        run = controller.play(dict(knock_task(DOOR, guard_timeout=TIMEOUT), **keywords), PING)
        case.check(OLD, run)
        assert run.only(task="ping").kind == "ok"
    assert run.code == 0


def test_rescued(rig, controller):
    """A block's rescue can look at what the guard said."""
    case = case_of(rig, controller)
    task = dict(knock_task(DOOR, guard_timeout=TIMEOUT), register="said")
    check = {
        "name": "look",
        "ansible.builtin.assert": {"that": ["said.rolled_back", "said.guard.state == 'rolled_back'"]},
    }
    with faults.cut_off(rig):
        case.remember()
        run = controller.play({"name": "block", "block": [task], "rescue": [check, PING]})
        case.check(OLD, run)
        assert run.only(task="look").kind == "ok", run.output
        assert run.only(task="ping").kind == "ok"


def test_a_handler(rig, controller):
    case = case_of(rig, controller)
    task = {"name": "notify", "ansible.builtin.command": "true", "notify": MODULE, "changed_when": True}
    run = controller.play(task, play={"handlers": [knock_task(DOOR)]})
    case.check(NEW, run)


@pytest.mark.usefixtures("jump")
@pytest.mark.parametrize(
    "keywords",
    [
        {"strategy": "free"},
        {"serial": 1, "order": "reverse_inventory"},
        pytest.param({"strategy": "linear"}, marks=pytest.mark.soak),
    ],
    ids=["free", "serial", "linear"],
)
def test_beside_other_hosts(rig, controller, keywords):
    """One host is cut off and rolled back; the others do not notice."""
    case = case_of(rig, controller)
    task = dict(knock_task(DOOR, guard_timeout=TIMEOUT), when="inventory_hostname == 'target'", throttle=1)
    with faults.way_blocked(rig, 7000):
        hosts = {"target": {}, "bystander": {"ansible_host": OTHER[IPV4]}}
        run = controller.play(task, PING, hosts=hosts, play=keywords)
        case.check(OLD, run)
    assert run.only("bystander", "ping").kind == "ok", run.output
    assert not [event for event in run.events if event.kind == "unreachable"]


@pytest.mark.usefixtures("jump")
@pytest.mark.parametrize(
    ("keywords", "end"),
    [
        pytest.param({"run_once": True}, NEW, id="run_once, confirmed"),
        pytest.param({"run_once": True}, OLD, id="run_once, rolled back", marks=pytest.mark.soak),
        pytest.param(
            {"delegate_to": "target", "run_once": True}, NEW, id="delegate_to, confirmed", marks=pytest.mark.soak
        ),
        pytest.param({"delegate_to": "target", "run_once": True}, OLD, id="delegate_to, rolled back"),
    ],
)
def test_for_another_host(rig, controller, keywords, end):
    """The connection that is proved is that of the host that is changed."""
    case = case_of(rig, controller)
    hosts = {"target": {}, "bystander": {"ansible_host": OTHER[IPV4]}}
    if "delegate_to" in keywords:
        hosts = dict(reversed(hosts.items()))
    with faults.way_blocked(rig, 7000) if end == OLD else contextlib.nullcontext():
        timeout = TIMEOUT if end == OLD else LONG
        run = controller.play(dict(knock_task(DOOR, guard_timeout=timeout), **keywords), hosts=hosts)
        event = next(event for event in run.events if event.task == MODULE)
        assert event.kind == ("ok" if end == NEW else "failed"), run.output
        assert event.result["rolled_back"] is (end == OLD)
        case.check_target(end)


def test_check_mode(rig, controller):
    """Nothing is armed, loaded or written."""
    case = case_of(rig, controller)
    before = sorted(faults.inside(rig, "/run").glob("portknock*"))
    run = case.apply(run={"words": ["--check", "--diff"]})
    assert run.only().result["changed"] is True, run.output
    assert not run.only().result.get("rolled_back")
    case.check_target(OLD)
    assert sorted(faults.inside(rig, "/run").glob("portknock*")) == before
    assert steps_in(KNOCK, run.output) == [], run.output


def test_without_the_guard(rig, controller):
    """It works, and warns."""
    case = case_of(rig, controller)
    run = case.apply(guard=False)
    event = run.only()
    assert (event.kind, event.result["guard"]["state"], event.result["rolled_back"]) == ("ok", "off", False), run.output
    assert "guard" in run.output and "WARNING" in run.output
    assert not faults.pending(rig)
    case.check_target(NEW)


@EVERY_TIME
def test_taken_out_under_guard(rig, controller):
    """Also the removal is a change that must be confirmed."""
    case = case_of(rig, controller)
    case.check_next_play()
    run = controller.apply(state="absent")
    assert run.only().result["guard"]["state"] == "confirmed", run.output
    assert not case.in_force()
    assert case.gets_in()


def test_a_door_to_another_one(rig, controller):
    """The controller comes in through a door and changes its knock: it is the new one that is proved."""
    case = case_of(rig, controller)
    case.check_next_play()
    rig.client.knock(*KNOCK)
    new = door(7500, "9600/udp", 3500)
    run = controller.play(PING, knock_task(new, guard_timeout=LONG), {"name": "after", "ansible.builtin.ping": {}})
    event = run.only()
    assert event.result["guard"]["state"] == "confirmed", run.output
    assert run.only(task="after").kind == "ok"
    assert case.in_force()


def test_the_old_knock_gets_back_in(rig, controller):
    """Behind a door, changed to one whose knock is lost: what is rolled back is the door, and the report comes through it."""
    case = case_of(rig, controller)
    case.check_next_play()
    case.remember()
    new = door(7500, "9600/udp", 3500)
    rig.client.knock(*KNOCK)
    with faults.way_blocked(rig, 7500):
        run = controller.play(PING, knock_task(new, guard_timeout=TIMEOUT))
        event = run.only()
        case.check_rolled_back(event, run, "exact")
    assert case.rules_are_back()
    case.check_door()


# Unit tests have them all.
@pytest.mark.parametrize("timeout", ["4", *(pytest.param(text, marks=pytest.mark.soak) for text in ("601", "soon"))])
def test_a_deadline_that_makes_no_sense(rig, controller, timeout):
    case = case_of(rig, controller)
    run = case.apply(guard_timeout=timeout)
    assert "guard_timeout" in run.only().result["msg"]
    case.check("refused", run)


def test_a_deadline_too_short_for_the_knock(rig, controller):
    """It says so before it starts."""
    case = case_of(rig, controller)
    slow = {"ansible_knock_pause": 3}
    run = case.apply(guard_timeout=5, run={"hosts": {"target": slow}})
    assert "guard_timeout" in run.only().result["msg"]
    case.check("refused", run)


def test_steps_stay_secret(rig, controller):
    """At the highest verbosity, of a change that is confirmed and of one that is not; on the host in no process list."""
    case = case_of(rig, controller)
    secret = ("7113", "9127/udp", "3119")
    with faults.way_blocked(rig, 7113):
        run = case.apply(door(*secret), run={"words": ["-vvv", "--diff"]})
    assert run.only().result["rolled_back"] is True
    done = case.apply(door(*secret), run={"words": ["-vvv", "--diff"]})
    assert done.only().result["guard"]["state"] == "confirmed"
    for output in (run.output, done.output):
        assert steps_in(secret, output) == [], output
