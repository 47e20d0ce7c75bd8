# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The other engine and back, and what the verifying playbook finds with either."""

import pytest
from rig_console import soon
from rig_knockd import OURS, Operator

MODULE = "Write the knock ruleset"


@pytest.fixture
def kernel_s(machine):
    """Who runs the role with the other engine."""
    made = Operator(machine, portknock_engine="iptables")
    yield made
    made.close()


def changed_lines(result):
    """Return the lines of the live ruleset's diff that are not the same on both sides."""
    parts = [part for part in result["diff"] if part["before_header"].endswith("in the kernel")]
    assert len(parts) == 2
    sides = [[set(part[side].splitlines()) for side in ("before", "after")] for part in parts]
    return [line for before, after in sides for line in before ^ after]


def check_verified(operator):
    """The verifying playbook has nothing to complain of."""
    played = operator.play("verify.yml")
    assert (played.failed, played.changed) == (0, 0), played.output[-9000:]
    rows = played.of("Try the doors from the controller")["rows"]
    assert {row["ip_version"] for row in rows if row["what"] == "door shell"} == {"ipv4", "ipv6"}, rows


def check_switched(played, machine):
    """A change of the engine is confirmed by a knock, and leaves the rules that let in alone."""
    result = played.of(MODULE)
    assert result["changed"] and result["guard"]["state"] == "confirmed", played.output[-9000:]
    assert result["guard"]["knocked"] == "shell" and soon(machine.is_tidy)
    lines = changed_lines(result)
    assert lines and not [line for line in lines if "-j ACCEPT" in line and "--rcheck" in line], lines
    return result


def test_other_engine_and_back(served, operator, kernel_s):
    check_verified(operator)
    entrances = [line for line in served.rules().splitlines() if "--rcheck" in line]
    assert entrances
    check_switched(kernel_s.play("site.yml"), served)
    assert served.shown("ActiveState", "UnitFileState") == {"ActiveState": "inactive", "UnitFileState": "disabled"}
    assert served.run("pgrep -x knockd", check=False).returncode == 1
    assert served.run(f"ls -d {' '.join(OURS)} /etc/systemd/system/knockd.service.d", check=False).stdout == ""
    assert served.out("systemctl list-units --all --no-legend 'portknock-addr*'") == ""
    assert not [line for line in served.out("dpkg --verify knockd || true").splitlines() if "/etc/" in line]
    assert served.opens_to()
    check_verified(kernel_s)
    told = kernel_s.doors()
    assert (told["engine"], told["daemon"], told["drift"]) == ("iptables", {}, [])
    assert [door["steps"] for door in told["doors"]] == [3, 3] and any(door["knocked"] for door in told["doors"])
    check_switched(operator.play("site.yml"), served)
    assert soon(served.listens) and [line for line in served.rules().splitlines() if "--rcheck" in line] == entrances
