# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of a host: read whole, and replaced in two steps, staged beside their places first and then renamed."""

import contextlib
import errno
import glob
import hashlib
import os
import shutil
import stat
import tempfile
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple, Union

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import (
    DIRECTORY,
    LOCK_DIRECTORY,
    RUN,
    STAGED_PREFIX,
)

Files = Dict[str, Tuple[Optional[str], Optional[int]]]
"""Path to text, None where there is to be no file, and permission bits."""
Staged = List[List[str]]
"""[temporary path, path] of each staged file."""
_PRIVATE = (DIRECTORY, RUN, LOCK_DIRECTORY)


class Filesystem:
    """The files of a host."""

    def __init__(self, module: Any) -> None:
        """Take an AnsibleModule or a PlainRunner, for its set_default_selinux_context."""
        self._module = module

    def read(self, path: str) -> str:
        """Return a file's text, '' where there is none; bytes that are not UTF-8 become surrogate escapes.

        :raises HostError: if it is there and cannot be read.
        """
        try:
            with open(path, encoding="utf-8", errors="surrogateescape", newline="") as handle:
                return handle.read()
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return ""
            raise HostError(f"{path} cannot be read: {error.strerror}.") from error

    def paths_in(self, directory: str) -> List[str]:
        """Return the paths of the files in a directory, sorted; none where it is not there."""
        return sorted(glob.glob(os.path.join(directory, "*")))

    def digest(self, path: str) -> str:
        """Return the SHA-256 of a file's bytes, '' where there is none or where it cannot be read."""
        try:
            with open(path, "rb") as handle:
                return hashlib.sha256(handle.read()).hexdigest()
        except OSError:
            return ""

    def identity(self, path: str) -> str:
        """Return what differs once a file was written or another one is in its place, '' where there is none."""
        try:
            found = os.stat(path)
        except OSError:
            return ""
        numbers = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        return f"{os.path.realpath(path)} {' '.join(map(str, numbers))}"

    def mode(self, path: str) -> Optional[int]:
        """Return the permission bits of a file, or None where there is none."""
        try:
            return stat.S_IMODE(os.stat(path).st_mode)
        except OSError:
            return None

    def replace_files(self, files: Files) -> None:
        """Write or remove files: all are staged and synced first, then moved into place one by one.

        :raises HostError: if one cannot be staged (then none was touched) or moved.
        """
        self.settle(self.stage(files), [path for path, (text, _mode) in files.items() if text is None])

    def stage(self, files: Files) -> Staged:
        """Write and sync files beside the places where they belong.

        :raises HostError: if one cannot be written; then none is left.
        """
        staged: Staged = []
        path = ""
        try:
            for path, (text, mode) in sorted(files.items()):
                if text is not None:
                    staged.append([self._stage(path, text, mode), path])
        except OSError as error:
            self.discard(staged)
            raise HostError(f"{path} cannot be written: {error.strerror}. Nothing was kept.") from error
        return staged

    def settle(self, staged: Staged, gone: Sequence[str] = ()) -> None:
        """Move staged files into their places, and remove those that are to go; what was done already is passed over.

        :raises HostError: if that cannot be done.
        """
        for temporary, path in staged:
            if os.path.lexists(temporary):
                self._move(temporary, path)
        for path in sorted(gone):
            self.remove(path)
        paths = [path for _temporary, path in staged] + list(gone)
        for directory in {os.path.dirname(os.path.realpath(path)) for path in paths}:
            self._sync(directory)

    def discard(self, staged: Staged) -> None:
        """Remove staged files that were not moved."""
        for temporary, _path in staged:
            with contextlib.suppress(OSError):
                os.unlink(temporary)

    def discard_leftovers(self, directories: Iterable[str]) -> None:
        """Remove staged files that a run which was killed left behind; nothing may be pending."""
        for directory in directories:
            for path in glob.glob(os.path.join(os.path.realpath(directory), STAGED_PREFIX + "*")):
                self.discard([[path, ""]])

    def replace_bytes(self, path: str, data: bytes) -> None:
        """Write a file of bytes, for root alone.

        :raises HostError: if that cannot be done.
        """
        try:
            self._move(self._stage(path, data, 0o600), path)
        except OSError as error:
            raise HostError(f"{path} cannot be written: {error.strerror}.") from error

    def remove(self, path: str) -> None:
        """Remove a file, if it is there.

        :raises HostError: if that cannot be done.
        """
        try:
            os.unlink(path)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise HostError(f"{path} cannot be removed: {error.strerror}.") from error

    def remove_directory(self, path: str) -> None:
        """Remove a directory and what is left in it."""
        shutil.rmtree(path, ignore_errors=True)

    def remove_if_empty(self, directory: str) -> None:
        """Remove a directory if nothing is in it."""
        with contextlib.suppress(OSError):
            os.rmdir(directory)

    def _move(self, temporary: str, path: str) -> None:
        try:
            os.rename(temporary, os.path.realpath(path))
        except OSError as error:
            raise HostError(f"{path} cannot be replaced: {error.strerror}.") from error
        self._module.set_default_selinux_context(path, False)

    def _sync(self, directory: str) -> None:
        """Make renames last: they are only in memory until their directory is synced."""
        with contextlib.suppress(OSError):
            handle = os.open(directory, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def _stage(self, path: str, text: Union[str, bytes], mode: Optional[int]) -> str:
        directory = os.path.dirname(os.path.realpath(path))
        _make_directory(directory)
        handle, temporary = tempfile.mkstemp(prefix=STAGED_PREFIX, dir=directory)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o600 if mode is None else mode)
        except OSError:
            os.unlink(temporary)
            raise
        return temporary


def _make_directory(path: str) -> None:
    """Make a directory and those above it that are missing, ours for root alone, the others as is usual, whatever root's umask."""
    if not os.path.isdir(path):
        _make_directory(os.path.dirname(path))
        private = any(path == each or path.startswith(each + "/") for each in _PRIVATE)
        os.mkdir(path, 0o700)
        if not private:
            os.chmod(path, 0o755)


__all__ = ("Files", "Filesystem", "Staged")
