# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of core's ssh connection plugin, computed from the one that is installed: a copy would go stale."""

from __future__ import annotations

import json
from typing import Any

from ansible.module_utils.common.yaml import yaml_load
from ansible.plugins.connection import ssh


def _without_versions(value: Any) -> Any:
    """Leave out since when and until when core has an option: here that would be read as a version of this collection."""
    if isinstance(value, dict):
        gone = ("version_added", "version_added_collection", "deprecated")
        return {key: _without_versions(item) for key, item in value.items() if key not in gone}
    return [_without_versions(item) for item in value] if isinstance(value, list) else value


class ModuleDocFragment:
    """Read by ansible-doc and by the plugin loader alike."""

    # Every task loads the plugin anew: the C parser, and JSON, which is YAML too, take a tenth of the time.
    DOCUMENTATION: str = json.dumps({"options": _without_versions(yaml_load(ssh.DOCUMENTATION)["options"])})
