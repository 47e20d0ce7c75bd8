# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After --check on a host that may not even have iptables."""

from harness import before, snapshot


def test_check_mode_changed_nothing():
    assert snapshot() == before()
