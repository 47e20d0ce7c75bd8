# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The search for steps in a text, which the unit tests have."""

import sys

from rig.target import ROOT

sys.path.append(str(ROOT / "tests/unit/support"))

from shown_steps import steps_in

__all__ = ("steps_in",)
