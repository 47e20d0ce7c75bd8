# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that only their owner can read, written as a whole or not at all.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

FOLDER_MODE, FILE_MODE = 0o700, 0o600


def read_text(path: Path) -> str | None:
    """Return the text of a file, None where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None


def changes(folder: Path, files: Mapping[str, str], patterns: tuple[str, ...] = ()) -> list[str]:
    """Return what is not as it should be in a folder: names of files, '' for the folder itself.

    :param files: path within the folder to the text.
    :param patterns: those of files that must go where they are not among these.
    """
    found = [] if _mode(folder) == FOLDER_MODE else [""]
    found += [
        name
        for name, text in files.items()
        if read_text(folder / name) != text or _mode(folder / name) != FILE_MODE
    ]  # fmt: skip
    return found + [str(path.relative_to(folder)) for path in _stale_files(folder, files, patterns)]


def _stale_files(folder: Path, files: Mapping[str, str], patterns: tuple[str, ...]) -> list[Path]:
    """Return the files of these patterns that are not wanted any more."""
    return [
        path for each in patterns for path in sorted(folder.glob(each)) if str(path.relative_to(folder)) not in files
    ]


def write(folder: Path, files: Mapping[str, str], patterns: tuple[str, ...] = ()) -> None:
    """Write files in this order, each in one step, and remove those of the patterns that are not among them.

    :raises OSError: for what cannot be written.
    """
    _make(folder)
    for name, text in files.items():
        path = folder / name
        _make(path.parent)
        if read_text(path) == text and _mode(path) == FILE_MODE:
            continue
        # mkstemp gives it the mode 0600 from the beginning.
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
                stream.write(text)
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
    for path in _stale_files(folder, files, patterns):
        path.unlink()


def _make(folder: Path) -> None:
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    if _mode(folder) != FOLDER_MODE:
        folder.chmod(FOLDER_MODE)


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return -1


__all__ = ("changes", "read_text", "write")
