# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host once the collection is removed: as it was, but for the packages."""

import pytest
from rig_console import soon
from rig_knockd import Operator
from test_removed import REGISTERS


@pytest.fixture(scope="module")
def removed(machine, arrival):
    """What the host has after the removal."""
    assert arrival.pid
    operator = Operator(machine, portknock_state="absent")
    try:
        played = operator.play("remove.yml")
    finally:
        operator.close()
    assert not played.failed and played.changed, played.output[-9000:]
    assert soon(machine.is_tidy), machine.leftovers()
    return machine.snapshot()


def test_rules_are_gone(machine, arrival, removed):
    assert (removed["live"], removed["stored"]) == (arrival.before["live"], arrival.before["stored"])
    assert machine.run("ls /proc/net/xt_recent | grep '^pk'", check=False).stdout == ""


def test_no_file_from_before_is_gone_or_changed(arrival, removed):
    was, now = arrival.before["files"], removed["files"]
    assert [path for path in was if now.get(path) != was[path] and not REGISTERS.match(path)] == []


def test_every_new_file_is_a_package_s(machine, arrival, removed):
    new = [path for path in removed["files"] if path not in arrival.before["files"] and not REGISTERS.match(path)]
    # A link that enables a unit is a package's if the unit is.
    origins = {path: removed["files"][path][1] if removed["files"][path][0] == "link" else path for path in new}
    assert new
    assert [
        path for path, origin in origins.items() if machine.run(f"dpkg -S '{origin}'", check=False).returncode
    ] == []
    assert machine.out("find /run /usr/local /var/lib -iname '*portknock*' ! -path '/run/portknock.d*'") == ""


@pytest.mark.usefixtures("removed")
def test_daemon_is_as_its_package_would_leave_it(machine):
    assert machine.shown("ActiveState", "UnitFileState", "DropInPaths") == {
        "ActiveState": "inactive",
        "UnitFileState": "disabled",
        "DropInPaths": "",
    }
    assert not [line for line in machine.out("dpkg --verify knockd || true").splitlines() if "/etc/" in line]


def test_units_and_programs_are_those_from_before(arrival, removed):
    assert removed["running"] == arrival.before["running"]
    kept = {name: state for name, state in removed["enabled"].items() if name in arrival.before["enabled"]}
    assert kept == arrival.before["enabled"]
    assert [name for name in removed["enabled"] if name.startswith("portknock")] == []
    assert set(removed["programs"]) <= set(arrival.before["programs"])


@pytest.mark.usefixtures("removed")
def test_former_door_is_as_open_as_before(machine):
    for address in machine.addresses():
        assert machine.client_finds(7007, address=address) == "open"
