# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts as the tests find them: with the role applied, knockd as its engine, and nothing pending."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared" / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared" / "tests" / "removed"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "guard" / "tests"))

from harness import NAME
from rig_console import soon
from rig_knockd import Machine, Operator


@pytest.fixture(scope="session")
def machine():
    """The throwaway host that both/test_both.py names, and the machine beside it."""
    found = Machine(os.environ.get("PORTKNOCK_HOST", NAME))
    # A fresh IPv6 address is not usable before the host has made sure that no other host has it.
    assert soon(lambda: not found.out("ip -6 address show tentative"))
    return found


@pytest.fixture(scope="session")
def arrival(machine):
    """What the role did on the bare host: in check mode, for real, and once more."""
    machine.said.unlink(missing_ok=True)
    seen = SimpleNamespace(before=machine.snapshot())
    operator = Operator(machine)
    try:
        seen.check = operator.play("site.yml", "--check")
        seen.after_check = machine.snapshot()
        seen.converge = operator.play("site.yml")
        seen.pid = machine.main_pid()
        seen.again = operator.play("site.yml")
        seen.pid_again = machine.main_pid()
    finally:
        operator.close()
    assert not seen.converge.failed, seen.converge.output[-9000:]
    return seen


@pytest.fixture
def served(machine, arrival):
    """The host with the role applied, its door shut and knockd at work. A test leaves it so."""
    # What waits for the end of a change looks twice a second whether it has come.
    assert arrival.pid and machine.listens() and soon(lambda: not machine.guards()), machine.guards()
    machine.shut()
    return machine


@pytest.fixture
def operator(machine):
    """Who runs the role, and whose masters of ssh end with the test."""
    made = Operator(machine)
    yield made
    made.close()
