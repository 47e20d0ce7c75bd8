# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of core's ssh connection plugin, computed from the one that is installed: a copy would go stale."""

from __future__ import annotations

from ansible.plugins.connection import ssh


def options_of(text: str) -> str:
    """Return the options of a plugin's documentation, the last part of it, as YAML.

    Without since when and until when core has an option: here that would be read as a version of this collection. Cut out of
    the text, because every task loads the plugin anew, and to parse it one time more would take longer than all the rest.
    """
    lines = text.splitlines(keepends=True)
    names = [line.strip() for line in lines]
    kept, skipped = [], None
    for line in lines[names.index("options:") if "options:" in names else len(names) :]:
        key = line.lstrip()
        indent = len(line) - len(key)
        if skipped is not None and (indent > skipped or not key):
            continue
        skipped = indent if key.startswith("deprecated:") else None
        if skipped is None and not key.startswith(("version_added:", "version_added_collection:")):
            kept.append(line)
    return "".join(kept) or "options: {}"


class ModuleDocFragment:
    """Read by ansible-doc and by the plugin loader alike."""

    DOCUMENTATION: str = options_of(ssh.DOCUMENTATION)
