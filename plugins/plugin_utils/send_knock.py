# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sending a knock along the path that an ssh connection takes: from where, to which address, with which door's steps.

The connection plugin and the guard both knock with this. PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ansible.errors import AnsibleError, AnsibleOptionsError
from ansible.module_utils.common.validation import check_type_list
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import (
    ENGINES,
    PAUSE,
    KnockError,
    Steps,
    resolve,
    send_knock,
    settle_of,
    steps_of_turn,
)
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import DEFAULTS
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports
from ansible_collections.sesame.portknock.plugins.module_utils._spec.values import read_ports, read_steps
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.jump import knock_via_jump
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import SshPath, addresses_of

AUTO, DIRECT, JUMP, NONE = "auto", "direct", "jump", "none"
VIA = (AUTO, DIRECT, JUMP, NONE)
SSH_PORT = 22
DEFAULT_WINDOW = 15
"""Seconds for which a door is open that says nothing of it."""


class Knock(NamedTuple):
    """A knock and how it is sent."""

    steps: Steps = ()
    """Its steps; none for no knock."""
    pause: float = PAUSE
    """Seconds between two steps."""
    host: str = ""
    """The address to knock at, where it is not the one that ssh connects to."""
    via: str = AUTO
    """Where it is sent from, one of VIA."""
    engine: str = str(DEFAULTS["engine"])
    """What recognises it on the host."""

    @property
    def settle(self) -> float:
        """Seconds that the host needs after the last step."""
        return settle_of(self.engine)

    def of_turn(self, turn: int) -> Knock:
        """Return the knock for a try: turn 0 is the first one, each other follows one that was not let in."""
        return self._replace(steps=steps_of_turn(self.steps, turn, self.engine))


def knock_from_variables(variables: Mapping[str, Any], template: Callable[[Any], Any], engine: str) -> Knock:
    """Return how to knock, without steps, from the same variables as the connection plugin knock_ssh.

    :param variables: those of the task.
    :param template: function that resolves the templates in a value.
    :raises AnsibleError: for a variable that cannot be used.
    """
    names = ("pause", "host", "via")
    given = {
        name: template(variables[f"ansible_knock_{name}"]) for name in names if f"ansible_knock_{name}" in variables
    }
    via = given.get("via", AUTO)
    if via not in VIA:
        raise AnsibleError(f"ansible_knock_via: {via} is not valid. Use one of {', '.join(VIA)}.")
    try:
        pause = float(given.get("pause", PAUSE))
    except (TypeError, ValueError):
        raise AnsibleError("ansible_knock_pause: must be a number of seconds, such as 0.1.") from None
    return Knock(pause=pause, host=str(given.get("host") or ""), via=via, engine=engine)


def check_choices(variables: Mapping[str, Any]) -> None:
    """Check the variables of the connection plugin that have a choice of values.

    :raises AnsibleOptionsError: for the first one that has another value, with the choices.
    """
    engines = tuple(ENGINES)
    for name, choices in (("ansible_knock_engine", engines), ("portknock_engine", engines), ("ansible_knock_via", VIA)):
        if name in variables and variables[name] not in choices:
            raise AnsibleOptionsError(f"{name}: {variables[name]} is not valid. Use one of {', '.join(choices)}.")


def split_words(value: Any) -> list[Any]:
    """Return a list as Ansible reads an option of type list: a text is split at its commas. What cannot be one is empty."""
    try:
        words = check_type_list(list(value) if isinstance(value, tuple) else value)
    except TypeError:
        return []
    return [word.strip() if isinstance(word, str) else word for word in words if word != ""]


def steps_of(words: Any, where: str) -> Steps:
    """Check steps as the inventory has them, and return them as (port, protocol) pairs.

    :param where: the option's name, for messages.
    :raises KnockError: for the first one that is not valid; never shows it.
    """
    try:
        return tuple(read_steps(split_words(words), where, 1))
    except SpecError as error:
        raise KnockError(str(error)) from None


def steps_for_port(words: Any, doors: Any, port: int) -> Steps:
    """Return the steps that open a TCP port: the host's own (``ansible_knock``), or those of the first door that opens it.

    Where none does, those of the door that opens port 22: the port may be one that a router forwards to it.

    :param words: ``ansible_knock``, None where it is not set; an empty list is no knock.
    :param doors: ``portknock_doors``; what is not a valid door opens nothing.
    :raises KnockError: for steps that are not valid; never shows one.
    """
    if words is not None:
        return steps_of(words, "ansible_knock") if words else ()
    index, door = door_for_port(doors, port)
    return steps_of(door["knock"], f"portknock_doors[{index}].knock") if door else ()


def window_for_port(doors: Any, port: int) -> float:
    """Return the seconds for which a knock opens a TCP port: those of the door that steps_for_port() takes, else the default.

    :param doors: ``portknock_doors``, in which a value may be no number.
    """
    _index, door = door_for_port(doors, port)
    try:
        return float(door.get("window") or DEFAULT_WINDOW)
    except (TypeError, ValueError):
        return float(DEFAULT_WINDOW)


def door_for_port(doors: Any, port: int) -> tuple[int, Mapping[str, Any]]:
    """Return the number of the first door that opens a TCP port, and the door; an empty one where there is none.

    Doors to hosts behind it are none of its own. A port that no door opens may be forwarded to the host,
    which knows it as another one: ssh's own, most likely.
    """
    usable = [
        (index, door)
        for index, door in enumerate(doors if isinstance(doors, (list, tuple)) else ())
        if isinstance(door, Mapping) and door.get("knock") and not door.get("to")
    ]
    found = [pair for wanted in (port, SSH_PORT) for pair in usable if door_opens(pair[1], wanted)]
    return found[0] if found else (0, {})


def door_opens(door: Mapping[str, Any], port: int) -> bool:
    """Return whether a door opens a TCP port; what is no port in it opens nothing."""
    for word in split_words(door.get("opens")):
        with contextlib.suppress(SpecError):
            if opens_port(read_ports(word, "opens"), port):
                return True
    return False


def opens_port(ports: Ports, port: int) -> bool:
    """Return whether a port or range includes a TCP port."""
    return ports.protocol == "tcp" and ports.first <= port <= ports.last


def goes_by_jump(via: str, host: str, path: SshPath) -> bool:
    """Return whether the jump host sends a knock, and not this machine.

    :param via: one of VIA.
    :param host: ``ansible_knock_host``, empty where it is not set.
    """
    return via == JUMP or (via == AUTO and path.jumps and not host)


def send(connection: Any, knock: Knock, path: SshPath, warn: Callable[[str], object] | None = None) -> None:
    """Send a knock along the path that ssh takes.

    :param connection: core's ssh connection plugin, for reaching a jump host.
    :param warn: function of a message, for settings that cannot work.
    :raises KnockError: if it cannot have arrived.
    """
    if not knock.steps or knock.via == NONE:
        return
    if goes_by_jump(knock.via, knock.host, path):
        target = path._replace(host=knock.host or path.host)
        knock_via_jump(connection, target, knock.steps, knock.pause, settle=knock.settle)
        return
    if path.jumps and knock.via == DIRECT and warn and not knock.host:
        warn(
            f"ansible_knock_via is direct, but ssh reaches {path.host} through a jump host: the host sees the jump host's "
            "address and not this machine's, so a knock from here opens nothing for it. Set ansible_knock_via to jump."
        )
    addresses = resolve(knock.host) if knock.host else addresses_of(path)
    send_knock(addresses, knock.steps, knock.pause, path.source, settle=knock.settle)


@contextlib.contextmanager
def one_at_a_time(directory: str, key: str) -> Iterator[None]:
    """Let only one process of this machine knock at a host at a time: the steps of two that mix are in no order."""
    name = os.path.join(directory, f"knock-{hashlib.sha256(key.encode()).hexdigest()[:16]}.lock")
    with contextlib.ExitStack() as stack:
        # A directory that cannot be written to is no reason not to knock.
        with contextlib.suppress(OSError):
            os.makedirs(directory, 0o700, exist_ok=True)
            handle = stack.enter_context(open(name, "a", encoding="ascii"))
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
