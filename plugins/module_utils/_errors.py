# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""The errors of the collection. Every one of them is a message for an operator."""


class PortknockError(Exception):
    """What went wrong, where, and what to do now, in one sentence or two."""


class SpecError(PortknockError):
    """A wish that cannot be granted: names the option's path."""

    def __init__(self, option, what):
        """Take the option's path (``doors[0].knock``) and the sentence about it."""
        super().__init__("{0}: {1}".format(option, what))
        self.option = option
        self.what = what


class HostError(PortknockError):
    """The host did not do what it was asked: a command failed or a file cannot be used."""


__all__ = ("HostError", "PortknockError", "SpecError")
