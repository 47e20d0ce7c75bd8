# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A callback plugin that keeps the modules which ansible-core has put together for sending, for the plays that follow."""

import contextlib
import hashlib
import importlib
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.callback import CallbackBase
from ansible.release import __version__

DOCUMENTATION = r"""
name: built_modules
type: aggregate
short_description: Keep the modules that were put together for sending
version_added: 1.1.0
description:
  - For the tests of this collection. Putting together what a module needs takes ansible-core longer than most plays of the
    tests take otherwise, and what comes of it is the same each time. Core keeps it in a directory that goes with the play.
  - What is kept in the directory that E(WIRE_BUILT_MODULES) names is that of one release of ansible-core, and of this
    collection as it is on disk. Without that variable nothing is kept.
requirements:
  - Enabled in the configuration.
"""


def _state_of(folder: Path) -> Iterable[str]:
    """Return what changes when a file below a folder does."""
    for path in sorted(folder.rglob("*.py")):
        found = path.stat()
        yield f"{path} {found.st_mtime_ns} {found.st_size}"


class CallbackModule(CallbackBase):
    """Gives core what was kept, and keeps what core has made."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "built_modules"
    CALLBACK_NEEDS_ENABLED = True

    _kept: Path
    _built: Path

    def v2_playbook_on_start(self, _playbook: Any) -> None:
        """Give core what was kept of the same release and the same files."""
        top = os.environ.get("WIRE_BUILT_MODULES")
        if not top:
            return
        collection = Path(importlib.import_module("ansible_collections.sesame.portknock").__path__[0]).resolve()
        key = "\n".join([__version__, sys.version, *_state_of(collection / "plugins")])
        self._kept = Path(top) / hashlib.sha256(key.encode()).hexdigest()[:16]
        self._kept.mkdir(parents=True, exist_ok=True)
        self._built = Path(constants.DEFAULT_LOCAL_TMP) / "ansiballz_cache"
        self._built.mkdir(exist_ok=True)
        for path in self._kept.glob("*-ZIP_*"):
            shutil.copyfile(path, self._built / path.name)

    def v2_playbook_on_stats(self, _stats: Any) -> None:
        """Keep what core has put together in this play."""
        if not os.environ.get("WIRE_BUILT_MODULES"):
            return
        for path in self._built.glob("*-ZIP_*"):
            if path.name.endswith((".lock", "-part")) or (self._kept / path.name).exists():
                continue
            # Other plays look at the same time: a file is there whole or not at all.
            unfinished = self._kept / f"{os.getpid()}.part"
            with contextlib.suppress(OSError):
                shutil.copyfile(path, unfinished)
                unfinished.rename(self._kept / path.name)
