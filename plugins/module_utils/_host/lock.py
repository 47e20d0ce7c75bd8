# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lock of a host: two runs that change it never meet, and only root can hold it."""

import contextlib
import fcntl
import os
import re
import stat
import time
from typing import Iterator, Optional, TextIO

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import LOCK, LOCK_DIRECTORY


class LockedError(HostError):
    """Another process holds the lock."""


class Lock:
    """A lock that is held as long as its file is open."""

    @contextlib.contextmanager
    def hold(self, seconds: float = 30) -> Iterator[None]:
        """Hold the lock for the length of a block.

        :param seconds: how long to wait for another process that holds it.
        :raises LockedError: if it is held for longer than that, with the process that holds it.
        :raises HostError: if it cannot be taken at all.
        """
        with self._open() as handle:
            self._take(handle, time.monotonic() + seconds, seconds)
            yield

    def holder(self) -> Optional[int]:
        """Return the id of the process that holds the lock now, 0 where it cannot be seen, None where the lock is free."""
        with self._open() as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return _holder(handle)
        return None

    def _open(self) -> TextIO:
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(LOCK_DIRECTORY, 0o700)
            _check_directory()
            number = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            return _open_to_read(error)
        return os.fdopen(number, "r+")

    def _take(self, handle: TextIO, end: float, seconds: float) -> None:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if time.monotonic() >= end:
                    raise LockedError(
                        f"{_description(_holder(handle))} has held {LOCK} for {seconds} s: another change is at work. Wait for "
                        "it, or end that process, then run this again. Nothing was changed."
                    ) from None
            time.sleep(0.05)


def _check_directory() -> None:
    """Refuse a directory that another user may look into: whoever can open the lock can hold it.

    :raises HostError: if it is one.
    """
    found = os.lstat(LOCK_DIRECTORY)
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    if not private:
        raise HostError(
            f"{LOCK_DIRECTORY} is not a directory that belongs to root alone (mode 0700), so another user could hold the lock "
            f"in it. Nothing was changed. Look at who made it, remove it, and run this again."
        )


def _open_to_read(problem: OSError) -> TextIO:
    """Open the lock where /run has become read-only: enough to hold it, and what is pending must end even so.

    :raises HostError: if there is no lock, or this is not root.
    """
    try:
        return os.fdopen(os.open(LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
    except OSError as error:
        if os.geteuid():
            raise HostError(
                "only root can change packet filter rules, and this runs as another user. Nothing was changed. Set become: true "
                "on the task or the play, or run ansible-playbook with --become."
            ) from error
        raise HostError(
            f"{LOCK} cannot be written: {problem.strerror}. A change without a lock could meet another one, so nothing "
            "is done. Make /run writable."
        ) from error


def _holder(handle: TextIO) -> int:
    """Return the id of the process that holds the lock of an open file, 0 where the kernel does not say."""
    found = os.fstat(handle.fileno())
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    with contextlib.suppress(OSError), open("/proc/locks", encoding="ascii") as stream:
        for line in stream:
            holds = re.match(r"\d+: FLOCK +ADVISORY +\S+ +(\d+) +(\S+) ", line)
            if holds and holds.group(2) == place:
                return int(holds.group(1))
    return 0


def _description(pid: int) -> str:
    name = ""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
        name = stream.read().strip()
    return f"process {pid} ({name})" if name else "another process"


__all__ = ("Lock", "LockedError")
