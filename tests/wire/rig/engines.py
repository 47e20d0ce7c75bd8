# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which engines a test is run with that asks for one."""

import pytest
from rig.knockd import KERNEL
from rig.nftables import NFTABLES

EVERY_TIME = pytest.mark.engines(KERNEL, NFTABLES)
"""Marks what is run with iptables and with nftables."""
IN_SOAK = pytest.mark.engines(KERNEL, NFTABLES, soak=(NFTABLES,))
"""Marks what is run with iptables every time, and with nftables in the soak."""
ASKED = pytest.mark.usefixtures("engine")
"""Marks what is run with an engine without taking its name."""

__all__ = ("ASKED", "EVERY_TIME", "IN_SOAK")
