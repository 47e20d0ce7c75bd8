# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line that core's ssh connection plugin starts ssh with.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import os
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
