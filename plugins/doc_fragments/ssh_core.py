# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of core's ssh connection plugin, computed from the one that is installed: a copy would go stale."""

from __future__ import annotations

import yaml
from ansible.plugins.connection import ssh


class ModuleDocFragment:
    """Read by ansible-doc and by the plugin loader alike."""

    DOCUMENTATION: str = yaml.safe_dump({"options": yaml.safe_load(ssh.DOCUMENTATION)["options"]})
