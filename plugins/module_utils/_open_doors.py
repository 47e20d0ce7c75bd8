# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Doors opened and closed by hand: what the command ``portknock`` asks of an engine, whichever it is."""

from typing import Any, List, NamedTuple, Tuple


class DoorHere(NamedTuple):
    """A door as it is in force, for one IP version."""

    name: str
    """Its name."""
    ip_version: str
    """``ipv4`` or ``ipv6``."""
    opens: Tuple[str, ...]
    """The ports that it opens, as ``PORT/PROTOCOL``."""
    window: int
    """Seconds for which it is open to a source."""
    sources: Tuple[Any, ...]
    """The ``ipaddress`` networks that it can be open to; empty for everyone."""
    once: bool
    """Whether it is open for one new connection only."""
    to: Tuple[Any, ...] = ()
    """The ``ipaddress`` networks of the hosts behind this one that it opens its ports on; empty for this host itself."""


class OpenDoors:
    """Who has doors open, looked at and changed by hand."""

    def doors(self) -> List[DoorHere]:
        """Return the doors that are in force.

        :raises HostError: if they cannot be read.
        """
        raise NotImplementedError

    def open(self, door: str, source: Any) -> None:
        """Open a door to an ``ipaddress`` address for the door's window from now on, as its knock does.

        :raises HostError: if that cannot be done.
        """
        raise NotImplementedError

    def close(self, door: str, source: Any = None) -> List[str]:
        """Close a door to an ``ipaddress`` address, or to everyone, and return the sources that were remembered."""
        raise NotImplementedError

    def remembers(self, door: str, source: Any) -> bool:
        """Return whether a source that a door was opened to has not been forgotten meanwhile."""
        raise NotImplementedError


__all__ = ("DoorHere", "OpenDoors")
