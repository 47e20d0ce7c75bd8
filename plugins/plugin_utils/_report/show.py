# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows lines to a person as they are: a callback would print them as JSON, each in quotes.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ansible import constants

_FOR_PROGRAMS = ("json", "jsonl", "null")
"""Callbacks whose output a program reads; nothing else may stand in it."""


def show(lines: Sequence[str], display: Callable[[str], object], callback: str | None = None) -> None:
    """Print lines, all in one piece: those of other hosts come from other processes.

    :param display: prints a text.
    :param callback: what prints the results, by default the one that is configured.
    """
    name = callback if callback is not None else str(constants.DEFAULT_STDOUT_CALLBACK)
    if lines and name.rpartition(".")[2] not in _FOR_PROGRAMS:
        display("\n".join(lines))
