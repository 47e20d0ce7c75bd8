# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who makes a change, and whether the process that began one still runs.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import re
import socket

OWNER = re.compile(r"^.* process (\d+) \(([0-9a-f]{8})\)$")


def machine_id() -> str:
    """Return what tells the process ids of this machine, and of this container, from others."""
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/etc/machine-id"):
        with contextlib.suppress(OSError), open(path, encoding="ascii") as stream:
            parts.append(stream.read())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def owner_of_this_run() -> str:
    """Return who makes a change: user and host for people, and process and machine for owner_is_dead()."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} process {os.getpid()} ({machine_id()})"


def owner_is_dead(owner: str) -> bool:
    """Return whether a change was begun on this machine by a process that does not run any more."""
    found = OWNER.match(owner)
    if not found or found.group(2) != machine_id() or int(found.group(1)) == os.getpid():
        return False
    pid = int(found.group(1))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Return whether a process has ended and only waits for its parent to notice, which may never happen."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
        return stream.read().rpartition(")")[2].split()[:1] in (["Z"], ["X"])
    return False
