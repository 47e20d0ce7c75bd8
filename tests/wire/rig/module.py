# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the module knock_ruleset from this tree on the arguments in a file, as Ansible does on a host."""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rig.target import use_collection

if __name__ == "__main__":
    use_collection()
    runpy.run_module("ansible_collections.sesame.portknock.plugins.modules.knock_ruleset", run_name="__main__")
