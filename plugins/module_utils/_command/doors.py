# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Opens a door to an address by hand, and closes it.

An engine opens a door for its window. For any other time a process of its own opens it again and again until the time is over,
and then closes it. What it works on lies in a file: without that, or with another id in it, it ends.
"""

import json
import math
import os
import sys
from typing import Any, Dict, List, NamedTuple, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._change.agent import detach, python_words
from ansible_collections.sesame.portknock.plugins.module_utils._change.engines import parts_on
from ansible_collections.sesame.portknock.plugins.module_utils._change.host_command import check_no_panic
from ansible_collections.sesame.portknock.plugins.module_utils._engine import address_of
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError, WrongWordError
from ansible_collections.sesame.portknock.plugins.module_utils._open_doors import DoorHere, OpenDoors
from ansible_collections.sesame.portknock.plugins.module_utils._paths import OPENED, STATE_FILE
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import family_of

MOST_SECONDS = 86400
_UNIT = "portknock-open"


class Opening(NamedTuple):
    """A door that was opened by hand for a time of its own."""

    id: str
    """Names it: another one for the same door and source takes its place."""
    door: str
    """The door."""
    source: str
    """The address that it is open to."""
    until: float
    """CLOCK_MONOTONIC seconds."""


class Openings:
    """What was opened by hand on a host, and until when."""

    def __init__(self, host: Any) -> None:
        """Take a Host."""
        self._files = host.filesystem

    def read(self, door: str, source: Any) -> Optional[Opening]:
        """Return what a door was opened to an address for, None for nothing."""
        text = self._files.read(_path(door, source))
        return Opening(**json.loads(text)) if text else None

    def write(self, opening: Opening) -> None:
        """Write it down, in the place of an earlier one for the same door and source."""
        path = _path(opening.door, address_of(opening.source))
        self._files.replace_files({path: (json.dumps(opening._asdict()), 0o600)})

    def forget(self, door: str = "", source: Any = None) -> None:
        """Forget those of a door, of an address, or of both."""
        gone = [each for each in self.all() if door in ("", each.door) and source in (None, address_of(each.source))]
        self._files.replace_files({_path(each.door, address_of(each.source)): (None, None) for each in gone})

    def all(self) -> List[Opening]:
        """Return all of them."""
        texts = [self._files.read(path) for path in self._files.paths_in(OPENED)]
        return [Opening(**json.loads(text)) for text in texts if text]


def _path(door: str, source: Any) -> str:
    return f"{OPENED}/{door}_{source}.json"


def open_doors(host: Any) -> OpenDoors:
    """Return the OpenDoors of the part of the host's engine that has some.

    :raises HostError: if none has.
    """
    found = [doors for doors in (part.open_doors() for part in parts_on(host)) if doors is not None]
    if not found:
        raise HostError("no engine here lets in by doors.")
    return found[0]


def open_door(host: Any, name: str, address: str, time: Optional[str]) -> str:
    """Open a door to an address, and return a sentence about it.

    :param time: seconds as a text, None for the door's window.
    :raises WrongWordError: for a word that cannot be as it is.
    :raises HostError: if it cannot be opened.
    """
    check_no_panic(json.loads(host.filesystem.read(STATE_FILE) or "{}"))
    doors, source = open_doors(host), read_address(address)
    if source is None:
        raise WrongWordError(f"ADDRESS: {address!r} is not an IPv4 or IPv6 address")
    door = _door_for(doors.doors(), name, source)
    seconds = _seconds(time) if time is not None else door.window
    openings = Openings(host)
    openings.forget(name, source)
    doors.open(name, source)
    if seconds != door.window:
        _start(host, openings, Opening(os.urandom(8).hex(), name, str(source), host.clock.monotonic() + seconds))
    once = ", for one new connection" if door.once else ""
    return f"Door {name} is open to {source} for {seconds} s: {' '.join(door.opens)}{once}."


def close(host: Any, what: str) -> str:
    """Close a door to everyone, or all doors to an address, and return a sentence about it.

    :raises WrongWordError: for a word that is neither.
    """
    doors, source = open_doors(host), read_address(what)
    names = sorted({door.name for door in doors.doors()})
    if source is None and what not in names:
        raise WrongWordError(f"{what!r} is neither a door of this host ({_listed(names)}) nor an IPv4 or IPv6 address")
    Openings(host).forget("" if source is not None else what, source)
    closed = [(name, each) for name in (names if source is not None else [what]) for each in doors.close(name, source)]
    if not closed:
        return "It was open to no address." if source is None else f"No door was open to {source}."
    told = ", ".join(sorted({each for _name, each in closed} if source is None else {name for name, _each in closed}))
    subject = f"Door {what} is closed; taken off its list: " if source is None else f"Closed to {source}: "
    return f"{subject}{told}. Established connections go on."


def hold_open(host: Any, ident: str, name: str, address: str) -> None:
    """Keep a door open to an address until its time is over, then close it; end where it was closed meanwhile."""
    doors, openings, source = open_doors(host), Openings(host), address_of(address)
    windows = [door.window for door in doors.doors() if door.name == name]
    while True:
        opening = openings.read(name, source)
        if opening is None or opening.id != ident:
            return
        left = opening.until - host.clock.monotonic()
        remembered = doors.remembers(name, source)
        if left <= 0 or not remembered or not windows:
            # Not on the list any more: the one connection that it was good for was made, or the close knock came.
            openings.forget(name, source)
            doors.close(name, source)
            return
        doors.open(name, source)
        host.clock.sleep(min(left, windows[0] / 2))


def add_openings(host: Any, doors: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Return doors as info has them, with the time that is left of what was opened by hand."""
    now, found = host.clock.monotonic(), Openings(host).all()
    return [dict(door, open_for=dict(door["open_for"], **_left(found, door, now))) for door in doors]


def _left(openings: List[Opening], door: Dict[str, Any], now: float) -> Dict[str, int]:
    known = {address_of(source): source for source in door["open_for"]}
    of_door = [(address_of(each.source), each) for each in openings if each.door == door["name"]]
    return {known[source]: max(0, math.ceil(each.until - now)) for source, each in of_door if source in known}


def read_address(text: str) -> Any:
    """Return the ``ipaddress`` address of a text, None where it is none."""
    try:
        address = address_of(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _door_for(doors: List[DoorHere], name: str, source: Any) -> DoorHere:
    """Return the door of a name that can be open to a source.

    :raises WrongWordError: if there is none.
    """
    named = [door for door in doors if door.name == name]
    if not named:
        raise WrongWordError(
            f"DOOR: there is no door {name!r} here. Doors: {_listed(sorted({each.name for each in doors}))}"
        )
    for door in named:
        if door.ip_version == family_of(source) and (not door.sources or any(source in each for each in door.sources)):
            return door
    networks = sorted({str(network) for door in named for network in door.sources})
    versions = " and ".join(sorted({door.ip_version for door in named}))
    limit = f"its sources: {', '.join(networks)}" if networks else versions
    raise WrongWordError(f"ADDRESS: door {name} cannot be open to {source}, only to {limit}")


def _seconds(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= MOST_SECONDS:
        raise WrongWordError(f"SECONDS: {text!r} is not a whole number from 1 to {MOST_SECONDS}")
    return int(text)


def _listed(names: List[str]) -> str:
    return ", ".join(names) or "none"


def _start(host: Any, openings: Openings, opening: Opening) -> None:
    """Start what closes the door in time."""
    openings.write(opening)
    words = [*python_words(os.path.abspath(sys.argv[0])), "hold", opening.id, opening.door, opening.source]
    run = host.command.find("systemd-run") if host.systemd.runs() else None
    unit = ["--quiet", "--collect", f"--unit={_UNIT}-{opening.id}", "--property=Restart=on-failure"]
    if not run or host.command.run([run, *unit, *words])[0]:
        detach(words)


__all__ = (
    "MOST_SECONDS",
    "Opening",
    "Openings",
    "add_openings",
    "close",
    "hold_open",
    "open_door",
    "open_doors",
    "read_address",
)
