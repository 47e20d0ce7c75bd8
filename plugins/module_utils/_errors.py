# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The errors of the collection. Every one of them is a message for an operator."""

from typing import Any, Dict


class PortknockError(Exception):
    """What went wrong, where, and what to do now, in one sentence or two."""


class SpecError(PortknockError):
    """An option that cannot be as it is: names its path."""

    def __init__(self, option: str, what: str) -> None:
        """Take the option's path (``doors[0].knock``) and the sentence about it."""
        super().__init__(f"{option}: {what}")
        self.option = option
        self.what = what


class HostError(PortknockError):
    """The host did not do what it was asked: a command failed or a file cannot be used."""


class WrongWordError(PortknockError):
    """A word of a command line that cannot be as it is."""


class PendingError(HostError):
    """Another change waits to be confirmed."""

    def __init__(self, message: str, pending: Dict[str, Any]) -> None:
        """Take the message, and ``id``, ``owner`` and ``seconds_left`` of that change."""
        super().__init__(message)
        self.pending = pending


class AppliedError(HostError):
    """Applying failed after something was touched, and what had been done was undone."""

    def __init__(self, message: str, undo: str) -> None:
        """Take the message, and how it was undone: ``exact``, ``snapshot`` or ``emptied``."""
        super().__init__(message)
        self.undo = undo


__all__ = ("AppliedError", "HostError", "PendingError", "PortknockError", "SpecError", "WrongWordError")
