# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lock of a host: two runs that change it never meet."""

import contextlib
import fcntl
import os
import time
from typing import Iterator, TextIO

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import LOCK


class Lock:
    """A lock that is held as long as its file is open."""

    @contextlib.contextmanager
    def hold(self, seconds: float = 30) -> Iterator[None]:
        """Hold the lock for the length of a block.

        :param seconds: how long to wait for another run that holds it.
        :raises HostError: if it is held for longer than that, or cannot be taken at all.
        """
        with self._open() as handle:
            self._take(handle, time.monotonic() + seconds, seconds)
            yield

    def is_held(self) -> bool:
        """Return whether a process holds the lock now."""
        with self._open() as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def _open(self) -> TextIO:
        try:
            handle = open(LOCK, "a")  # noqa: SIM115 - a lock is held as long as it is open
            os.chmod(LOCK, 0o600)
        except OSError as error:
            return self._open_to_read(error)
        return handle

    def _open_to_read(self, problem: OSError) -> TextIO:
        """Open the lock where /run has become read-only: enough to hold it, and what is pending must end even so."""
        try:
            return open(LOCK)
        except OSError as error:
            raise HostError(
                f"{LOCK} cannot be written: {problem.strerror}. A change without a lock could meet another one, so nothing "
                "is done. Make /run writable."
            ) from error

    def _take(self, handle: TextIO, end: float, seconds: float) -> None:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if time.monotonic() >= end:
                    raise HostError(
                        f"another run of knock_ruleset has held {LOCK} for {seconds} s. Wait for it, or end it."
                    ) from None
            time.sleep(0.05)


__all__ = ("Lock",)
