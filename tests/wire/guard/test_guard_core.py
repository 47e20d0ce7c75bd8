# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guard in short, with releases of ansible-core: what must be confirmed is, what cuts off comes back."""

import contextlib
import time
from pathlib import Path

import pytest
from rig import faults
from rig.controller import CORES, PING, Controller
from rig.engines import ASKED, IN_SOAK
from rig.guard import ALLOW, DOOR, LONG, NEW, OLD, TIMEOUT
from rig.guard_nft import case_of

pytestmark = [ASKED, IN_SOAK]

PYTHONS = ("/", "/root/.pyenv/versions", str(Path.home() / ".pyenv" / "versions"))


@pytest.mark.every_core
def test_confirmed_through_the_door(rig, controller):
    """On by default; the controller knocks by itself, and the proof is a new connection."""
    case = case_of(rig, controller)
    run = controller.apply(DOOR)
    case.check(NEW, run)
    guard = run.only().result["guard"]
    assert guard["knocked"] == "ssh"
    assert guard["tries"] == 1
    assert guard["proof"]
    assert 0 < guard["seconds"] < 100
    case.check_door()
    again = controller.apply(DOOR).only().result
    assert (again["changed"], again["guard"]["state"]) == (False, "not_needed")


def test_confirmed_where_the_port_is_allowed(rig, controller):
    case = case_of(rig, controller)
    run = case.apply(allow=ALLOW, guard_timeout=LONG)
    case.check(NEW, run)
    assert run.only().result["guard"]["knocked"] == ""
    assert case.gets_in()


@pytest.mark.three_cores
def test_everything_cut_and_rolled_back(rig, controller):
    """The new rules drop the running session as well: no answer of the module comes through until they are gone."""
    case = case_of(rig, controller)
    with faults.cut_off(rig):
        case.remember()
        run = case.apply(reject_with="drop")
        case.check(OLD, run)
        # The module's answer may come through late, so that only what follows it is counted in the result.
        assert time.monotonic() - run.begun >= TIMEOUT
        assert run.only().result["guard"]["seconds"] < TIMEOUT + 60
    case.check_next()


def test_a_knock_that_cannot_arrive_and_rolled_back(rig, controller):
    """A firewall between drops the knock; the running session lives on."""
    case = case_of(rig, controller)
    with faults.way_blocked(rig, 7000):
        run = controller.play(
            PING,
            {
                "name": "sesame.portknock.knock_ruleset",
                "sesame.portknock.knock_ruleset": {"doors": [DOOR], "guard_timeout": TIMEOUT},
            },
            {"name": "after", "ansible.builtin.ping": {}},
        )
        case.check(OLD, run)
        assert run.only().result["guard"]["tries"] > 0
    assert not [event for event in run.events if event.kind == "unreachable" or event.task == "after"]
    case.check_next()


@pytest.fixture
def python36():
    """A Python 3.6 for the target, as EL 8 has it."""
    found = sorted(path for place in PYTHONS for path in Path(place).glob("*/bin/python3.6"))
    if not found:
        pytest.skip("this machine has no Python 3.6")
    return str(found[0])


@pytest.mark.on_one_backend
@pytest.mark.parametrize("end", [NEW, OLD])
def test_the_oldest_python_on_the_host(rig, python36, end):
    """With the last release of ansible-core that supports it: what confirms and what undoes run on it too."""
    key = rig.target.start_sshd()
    faults.clean_up(rig)
    controller = Controller(rig.client.namespace, key, rig.target.folder / "controller", CORES[0])
    try:
        case = case_of(rig, controller)
        hosts = {"target": {"ansible_python_interpreter": python36}}
        with faults.way_blocked(rig, 7000) if end == OLD else contextlib.nullcontext():
            case.check(end, case.apply(guard_timeout=LONG if end == NEW else TIMEOUT, run={"hosts": hosts}))
    finally:
        controller.close()
        faults.clean_up(rig)
