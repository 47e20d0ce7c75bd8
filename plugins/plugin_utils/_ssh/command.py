# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line that core's ssh connection plugin starts ssh with, and commands that must end in time.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Any


def is_ssh(connection: Any) -> bool:
    """Return whether a connection plugin is core's ssh, or made of it."""
    return connection.transport == "ssh" and hasattr(connection, "_build_command")


def ssh_command(connection: Any, *more: str) -> list[str]:
    """Return the words that the plugin would start ssh with, without sshpass: nothing here asks for a password."""
    program = connection.get_option("ssh_executable")
    before = getattr(connection, "sshpass_pipe", None)
    built = connection._build_command(program, "ssh", *more)
    pipe = getattr(connection, "sshpass_pipe", None)
    if pipe is not None and pipe is not before:
        # Made for the command that we only look at; the plugin may be about to use the one it had.
        for number in pipe:
            os.close(number)
        connection.sshpass_pipe = before
    words = [os.fsdecode(word) for word in built]
    return words[words.index(program) :]


def host_of(connection: Any) -> str:
    """Return the name or address that a connection plugin of ssh is to reach."""
    return str(connection.get_option("host") or connection.host)


def run_within(words: Sequence[str], data: str, seconds: float) -> tuple[int, str, str]:
    """Run a command within a time; return (exit code, output, errors).

    Its output goes to files: a control master that ssh leaves behind would keep a pipe open.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        # In a session of its own it cannot ask for a password, and is ended with all that it started.
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=out, stderr=err, start_new_session=True)
        try:
            process.communicate(data.encode(), seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        out.seek(0)
        err.seek(0)
        return process.returncode, out.read().decode(errors="replace"), err.read().decode(errors="replace")
