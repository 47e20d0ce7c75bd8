# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""What is left to do once a ruleset is to stay: files moved into place, our unit switched.

It has two halves. Staging needs room on the disk and may fail, then nothing was kept; finishing only renames.
"""

import os
from typing import NamedTuple

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.persistence import DIRECTORY
from ansible_collections.sesame.portknock.plugins.module_utils._knockd import daemon as _doorman

ENABLE, DISABLE = "enable", "disable"
PREVIOUS = DIRECTORY + "/previous"

Keeping = NamedTuple(
    "Keeping", [("files", dict), ("previous", tuple), ("unit", str), ("directory_goes", bool), ("doorman", str)]
)
"""files: path to (text or None, mode); previous: paths of which the version before is kept; unit: ``enable``,
``disable`` or ''; directory_goes: whether /etc/portknock is removed; doorman: see _doorman.finish()."""

Staged = NamedTuple(
    "Staged", [("staged", list), ("gone", list), ("unit", str), ("directory_goes", bool), ("doorman", str)]
)
"""staged: [temporary path, path]; gone: paths to remove."""


def stage(host, keeping):
    """Write everything beside the places where it belongs.

    :raises HostError: if a file cannot be written; then nothing is left behind.
    """
    host.tidy({os.path.dirname(path) for path in keeping.files} | {PREVIOUS})
    files = dict(keeping.files)
    for path in keeping.previous:
        if host.mode(path) is not None:
            files["{0}/{1}".format(PREVIOUS, os.path.basename(path))] = (host.read(path), 0o600)
    gone = sorted(path for path, (text, _mode) in files.items() if text is None)
    return Staged(host.stage(files), gone, keeping.unit, keeping.directory_goes, keeping.doorman)


def finish(host, staged):
    """Move everything into place; may be done again from the start.

    :param staged: a Staged, or whatever has its fields.
    :raises HostError: if that cannot be done.
    """
    if staged.unit == DISABLE:
        host.disable_unit()
    host.settle(staged.staged, staged.gone)
    _doorman.finish(host, staged.doorman)
    if staged.unit == ENABLE:
        host.enable_unit()
    elif staged.unit == DISABLE and (staged.staged or staged.gone):
        host.reload_units()
    if staged.directory_goes:
        host.remove_directory(DIRECTORY)


__all__ = ("DISABLE", "ENABLE", "PREVIOUS", "Keeping", "Staged", "finish", "stage")
