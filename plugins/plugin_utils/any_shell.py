# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands for a host whose login shell, or ansible_shell_executable, may be any: sh, bash, zsh, csh, tcsh or fish. Pure.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import re

# Within single quotes csh takes ! for its history and knows no second line, fish takes a backslash for an escape.
_NOT_LITERAL = re.compile(r"['!\\\n\r]")


def for_any_shell(script: str) -> str:
    """Return the command that runs a script with sh, whichever shell reads it.

    :param script: one line for sh, without single quotes, exclamation marks and backslashes.
    :raises ValueError: if it has one of them.
    """
    if _NOT_LITERAL.search(script):
        raise ValueError("the script has a character that not every shell takes literally within single quotes")
    return f"/bin/sh -c '{script}'"
