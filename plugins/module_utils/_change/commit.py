# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is left to do once a change is to stay: files moved into place, our unit switched, the parts informed.

It has two halves. Staging needs room on the disk and may fail, then nothing was kept; finishing only renames.
"""

import json
import os
from typing import Any, Dict, List, NamedTuple

from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import DISABLE, ENABLE, Change, State
from ansible_collections.sesame.portknock.plugins.module_utils._change.record import Record
from ansible_collections.sesame.portknock.plugins.module_utils._engine import Files, Part
from ansible_collections.sesame.portknock.plugins.module_utils._paths import (
    DIRECTORY,
    PREVIOUS,
    STATE_FILE,
    UNIT_NAME,
)


class Staged(NamedTuple):
    """What was staged; fields of a Record."""

    staged: List[List[str]]
    """[temporary path, path] of each file."""
    gone: List[str]
    """Paths of files that are to go."""


def stage(host: Any, change: Change, remembered: Dict[str, State]) -> Staged:
    """Write everything beside the places where it belongs.

    :param remembered: part to what it wants to be remembered, for those that were loaded.
    :raises HostError: if a file cannot be written; then nothing is left behind.
    """
    files = dict(change.kept_files)
    state = _next_state(host, change, files, remembered)
    if state != change.state and not change.absent:
        files[STATE_FILE] = (json.dumps(state, sort_keys=True) + "\n" if state else None, 0o600)
    host.filesystem.discard_leftovers({os.path.dirname(path) for path in files} | {PREVIOUS})
    for path in change.previous if change.persist else ():
        if host.filesystem.mode(path) is not None:
            files[f"{PREVIOUS}/{os.path.basename(path)}"] = (host.filesystem.read(path), 0o600)
    gone = sorted(path for path, (text, _mode) in files.items() if text is None)
    return Staged(host.filesystem.stage(files), gone)


def _next_state(host: Any, change: Change, files: Files, remembered: Dict[str, State]) -> State:
    """Return what is to be remembered: what the parts want, and modes of files before we came."""
    state: State = {key: dict(value) for key, value in change.state.items()}
    for wishes in [*remembered.values(), *(plan.remembered for plan in change.parts)]:
        state.update(wishes)
    for path, (text, mode) in files.items():
        before = host.filesystem.mode(path)
        if change.persist and text is not None and before not in (None, mode):
            state.setdefault("modes", {}).setdefault(path, before)
    return {key: value for key, value in state.items() if value}


def commit(host: Any, parts: List[Part], record: Record) -> None:
    """Move everything into place; may be done again from the start.

    :raises HostError: if that cannot be done.
    """
    if record.unit == DISABLE:
        host.systemd.disable(UNIT_NAME)
    host.filesystem.settle(record.staged, record.gone)
    for part in parts:
        part.keep(record.parts[part.name]["before"])
    if record.unit == ENABLE:
        host.systemd.enable(UNIT_NAME)
    elif record.unit == DISABLE and (record.staged or record.gone):
        host.systemd.reload()
    if record.directory_goes:
        host.filesystem.remove_directory(DIRECTORY)


__all__ = ("Staged", "commit", "stage")
