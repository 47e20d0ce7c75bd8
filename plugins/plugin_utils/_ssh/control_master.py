# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ssh's control master (ControlMaster): whether one runs that a command can use, and whether its connection still works.

A control master whose network is gone answers ``ssh -O check`` as before, and every command over it hangs. So one that
was not used for a while, or whose packets would leave this machine from another address now, must run something before it is
trusted. PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

# Every task over knock_ssh loads this file anew, so it imports what is only needed now and then where it is needed.

TRUSTED_SECONDS = 5.0
"""Seconds after a command through a control master, in which it is trusted without a test."""

PROBE_SECONDS = 5.0
"""Seconds that it may take to run ``true``; then it is dead."""

CONTROL_SECONDS = 3.0
"""Seconds that it may take to answer a control command, which needs no network."""

_CONTROL_PATH = "ControlPath="

_FAR_AWAY = ("198.51.100.1", "2001:db8::1")
"""Addresses for documentation (RFC 5737, RFC 3849): which address this machine sends from by its default routes."""


def control_path(words: Sequence[bytes | str]) -> str:
    """Return the path of the control socket that an ssh command names, '' where only ssh knows it."""
    for word in map(os.fsdecode, words):
        if word.startswith(_CONTROL_PATH):
            path = word[len(_CONTROL_PATH) :].strip('"')
            return "" if "%" in path else os.path.expanduser(path)
    return ""


def is_shared(words: Sequence[bytes | str]) -> bool:
    """Return whether an ssh command may use a control master."""
    return not any(os.fsdecode(word).replace('"', "") == "ControlPath=none" for word in words)


class ControlMaster:
    """The control master that a connection plugin's commands use."""

    def __init__(self, connection: Any, host: str, directory: str, clock: Callable[[], float] = time.time) -> None:
        """Take core's ssh plugin, the host's name as it is given to ssh, and the directory of the time stamp."""
        self._connection, self._host, self._clock = connection, host, clock
        words = " ".join(map(str, (host, connection.get_option("port"), connection.get_option("remote_user"))))
        self._stamp = os.path.join(directory, f"knock-{hashlib.sha256(words.encode()).hexdigest()[:16]}.used")

    def serves(self, words: Sequence[bytes | str]) -> bool:
        """Return whether a command will use a control master whose connection works; one that does not work is ended."""
        if not is_shared(words) or not self._answers(words):
            return False
        if (self._age() <= TRUSTED_SECONDS and self._leaves_as_before()) or self._works():
            return True
        self.end(words)
        return False

    def note_use(self) -> None:
        """Write down that a command went through."""
        with contextlib.suppress(OSError):
            self._touch()

    def _touch(self) -> None:
        try:
            os.utime(self._stamp)
        except FileNotFoundError:
            self.note_path(())

    def note_path(self, addresses: Sequence[str]) -> None:
        """Write down which addresses this machine sends from on the way to the host, for a connection that is about to be made.

        :param addresses: the host's, as far as they are known.
        """
        with contextlib.suppress(OSError):
            lines = [f"{address} {_source_to(address)}\n" for address in (*addresses, *_FAR_AWAY)]
            with open(self._stamp, "w", encoding="ascii") as stream:
                stream.writelines(lines)

    def _noted_path(self) -> dict[str, str]:
        """Return address to the one that was sent from, as it was written down."""
        with contextlib.suppress(OSError, ValueError), open(self._stamp, encoding="ascii") as stream:
            return {
                address: source for address, _blank, source in (line.rstrip("\n").partition(" ") for line in stream)
            }
        return {}

    def _leaves_as_before(self) -> bool:
        """Return whether this machine still sends from the same addresses: else the connection's own may be gone."""
        noted = self._noted_path()
        return bool(noted) and all(_source_to(address) == source for address, source in noted.items())

    def end(self, words: Sequence[bytes | str]) -> None:
        """End the control master; the socket of one that hangs is removed, so that no ssh uses it any more."""
        self._run("-O", "exit", seconds=CONTROL_SECONDS)
        path = control_path(words)
        if path and _listens(path):
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _age(self) -> float:
        try:
            return abs(self._clock() - os.stat(self._stamp).st_mtime)
        except OSError:
            return float("inf")

    def _answers(self, words: Sequence[bytes | str]) -> bool:
        path = control_path(words)
        # Half a millisecond, where another ssh takes eight.
        return _listens(path) if path else self._run("-O", "check", seconds=CONTROL_SECONDS)

    def _works(self) -> bool:
        # Without its control master this ssh must not connect by itself: the door is closed, and no knock was sent.
        first = ("BatchMode=yes", "ControlMaster=no", "ProxyCommand=false")
        done = self._run(options=first, command=("true",), seconds=PROBE_SECONDS)
        if done:
            self.note_path([address for address in self._noted_path() if address not in _FAR_AWAY])
        return done

    def _run(self, *words: str, options: Sequence[str] = (), command: Sequence[str] = (), seconds: float) -> bool:
        from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.command import ssh_command

        built = ssh_command(self._connection, *words, self._host, *command)
        given = [word for option in options for word in ("-o", option)]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(
                [built[0], *given, *built[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=seconds,
                check=False,
            )
            return done.returncode == 0
        return False


def _source_to(address: str) -> str:
    """Return the address that this machine sends from to another one, '' if it has no way to it; nothing is sent for that.

    As local_address() of _client/probe.py, which every task would have to load.
    """
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(address, 9, 0, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)[0]
        with socket.socket(found[0], socket.SOCK_DGRAM) as opened:
            opened.connect(found[4])
            return str(opened.getsockname()[0])
    return ""


def _listens(path: str) -> bool:
    """Return whether a process listens at a control socket."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as opened:
        opened.settimeout(CONTROL_SECONDS)
        opened.connect(path)
        return True
    return False
