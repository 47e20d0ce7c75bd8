# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After converge, before any reboot: rules that others keep only in the kernel are still there."""

import pytest
from harness import before, foreign, snapshot


@pytest.mark.parametrize("command", ["iptables", "ip6tables"])
def test_foreign_rules_are_as_they_were(command):
    # A rules file whose service did not run is loaded by the next boot, not by the role.
    assert foreign(snapshot()["live"][command]) == before()["live"][command]
