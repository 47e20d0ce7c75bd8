# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the tests are of this scenario's engine."""

from harness import NFTABLES


def pytest_collection_modifyitems(config, items):
    """Leave out what the other engine has."""
    other = "test_rules" if NFTABLES else "test_table"
    out = [item for item in items if item.module.__name__ == other]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]
