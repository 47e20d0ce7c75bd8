# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Knocking on the way that an ssh connection takes: who knocks, at which address, with which door's steps.

The connection plugin and the guard both knock with this. PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from typing import NamedTuple

from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import (
    PAUSE,
    KnockError,
    parse_steps,
    resolve,
    send_knock,
    settle_of,
    steps_of_turn,
)
from ansible_collections.sesame.portknock.plugins.module_utils._errors import PortknockError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import DEFAULTS
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import (
    SshPath,
    addresses_of,
    knock_via_jump,
)

AUTO, DIRECT, JUMP, NONE = "auto", "direct", "jump", "none"
WAYS = (AUTO, DIRECT, JUMP, NONE)
SSH_PORT = 22


class Knock(NamedTuple):
    """A knock and how it is sent."""

    steps: tuple = ()
    pause: float = PAUSE
    host: str = ""
    """The address to knock at, where it is not the one that ssh connects to."""
    via: str = AUTO
    engine: str = DEFAULTS["engine"]
    """Who recognises it on the host."""

    @property
    def settle(self) -> float:
        """Seconds that the host needs after the last step."""
        return settle_of(self.engine)

    def of_turn(self, turn: int) -> Knock:
        """Return the knock for a try: turn 0 is the first one, each other follows one that did not get in."""
        return self._replace(steps=steps_of_turn(self.steps, turn, self.engine))


def listed(value) -> list[str]:
    """Return a list as a module reads it: a text is split at its commas."""
    if isinstance(value, (list, tuple)):
        return [str(item).strip() for item in value]
    return [part.strip() for part in str(value).split(",")] if value not in (None, "") else []


def doors_of(value) -> list[dict]:
    """Return the doors as far as they are such; the module says what is wrong with the rest."""
    return [door for door in value if isinstance(door, dict)] if isinstance(value, (list, tuple)) else []


def opens(door: dict, port: int) -> bool:
    """Tell whether a door opens a TCP port."""
    for word in listed(door.get("opens")):
        ports, _slash, protocol = word.partition("/")
        first, _dash, last = ports.partition("-")
        if protocol in ("", "tcp") and first.isdigit() and int(first) <= port <= int(last if last.isdigit() else first):
            return True
    return False


def door_for_port(doors, port: int) -> dict:
    """Return the first door that opens a TCP port, or an empty dictionary."""
    return next((door for door in doors_of(doors) if opens(door, port)), {})


def steps_of(words, where: str) -> tuple:
    """Check steps, and return them as (port, protocol) pairs.

    :param where: the option's name, for messages.
    :raises KnockError: for the first thing that is no step; never shows it.
    """
    try:
        return tuple(parse_steps(listed(words), where))
    except PortknockError as error:
        raise KnockError(str(error)) from None


def send(connection, knock: Knock, path: SshPath, warn=None) -> None:
    """Send a knock the way that ssh takes.

    :param connection: core's ssh connection plugin, for reaching a jump host.
    :param warn: function of a message, for what will not help.
    :raises KnockError: if it cannot have arrived.
    """
    if not knock.steps or knock.via == NONE:
        return
    jumps = bool(path.jump or path.proxy_command)
    if knock.via == JUMP or (knock.via == AUTO and jumps and not knock.host):
        there = path._replace(host=knock.host or path.host)
        knock_via_jump(connection, there, knock.steps, knock.pause, settle=knock.settle)
        return
    if jumps and knock.via == DIRECT and warn and not knock.host:
        warn(
            f"ansible_knock_via is direct, but ssh reaches {path.host} through a jump host: the host sees the jump host's address "
            "and not this machine's, so a knock from here opens nothing for it. Set ansible_knock_via to jump."
        )
    addresses = resolve(knock.host) if knock.host else addresses_of(path)
    send_knock(addresses, knock.steps, knock.pause, path.source, settle=knock.settle)


@contextlib.contextmanager
def one_at_a_time(directory: str, key: str):
    """Keep this machine's knocks at one host apart: steps of two that mix are in no order."""
    name = os.path.join(directory, f"knock-{hashlib.sha256(key.encode()).hexdigest()[:16]}.lock")
    with contextlib.ExitStack() as stack:
        # A directory that cannot be written to is no reason not to knock.
        with contextlib.suppress(OSError):
            os.makedirs(directory, 0o700, exist_ok=True)
            handle = stack.enter_context(open(name, "a", encoding="ascii"))
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
