# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said to a connection that could not be made: which knocks went before it, and what the answer at the port means.

Everything here happens after the connection has failed. No sentence holds a step. PRIVATE to the collection: it may change at
any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.sesame.portknock.plugins.module_utils._client.answers import (
    ABOUT_THE_KNOCK,
    MEANINGS,
    MUTE,
    verdict,
)
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import ENGINES
from ansible_collections.sesame.portknock.plugins.module_utils._client.probe import compare, local_address
from ansible_collections.sesame.portknock.plugins.plugin_utils import send_knock
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import SshPath, look_up, ssh_path

LOOK_SECONDS = 1.5
"""Seconds to look at a port that refused: the kernel repeats a SYN after one, and a host limits how much it refuses by ICMP."""

# What ssh says, in the words of probe().
_SAID = {
    "Connection refused": "refused",
    "timed out": "silent",
    "No route to host": "unreachable",
    "Network is unreachable": "unreachable",
}
_BANNER, _CONNECT = "during banner exchange", "ssh: connect to host"
# These errors have more than one cause, and another look tells which.
_UNCLEAR = ("refused", "unreachable")
_IF_CHANGED = " (where they are to be changed, give the old ones once, as ansible_knock)"


def explain(connection: Any, text: str, path: SshPath | None, knocks: int) -> str:
    """Return sentences for an operator about a connection that could not be made; '' where an empty knock says that none is wanted.

    :param connection: the connection plugin knock_ssh.
    :param text: what ssh printed.
    :param path: the path that was knocked along, None if no knock was sent.
    :param knocks: how many were sent.
    """
    doors, words = connection.get_option("knock_doors"), connection.get_option("knock")
    if words is not None and not words:
        # As the guard does, which sends its own.
        return ""
    path = path or ssh_path(connection)
    if path.jumps and _CONNECT in text:
        return "It is the jump host that ssh could not connect to."
    why_not = _why_no_knock(connection.get_option("knock_via"), words, doors, path.port)
    if why_not:
        return f"knock_ssh sent no knock: {why_not}"
    return _about_the_knocks(connection, text, path, knocks)


def _why_no_knock(via: str, words: Any, doors: Any, port: int) -> str:
    """Return why none is sent, and what to set where one is needed; '' where one is. Pure."""
    if via == send_knock.NONE:
        return "ansible_knock_via is none."
    if words:
        return ""
    set_it = f"If port {port} is behind a door, set ansible_knock to its steps, or have a door in portknock_doors open the port."
    if not doors:
        return f"neither ansible_knock nor portknock_doors is set for this host. {set_it}"
    if not send_knock.door_for_port(doors, port)[1]:
        return f"no door in portknock_doors opens port {port}. {set_it}"
    return ""


def _about_the_knocks(connection: Any, text: str, path: SshPath, knocks: int) -> str:
    host = connection.get_option("knock_host") or ""
    by_jump = send_knock.goes_by_jump(connection.get_option("knock_via"), host, path)
    steps = "ansible_knock"
    sentences = []
    door: Mapping[str, Any] = {}
    if connection.get_option("knock") is None:
        index, door = send_knock.door_for_port(connection.get_option("knock_doors"), path.port)
        steps = f"portknock_doors[{index}].knock"
        sentences += _about_forwarding(door, path.port)
    address, answer = _address_and_answer(connection, text, path)
    source = "" if by_jump else path.source or local_address(address)
    at = f" at the door {door['name']} of" if door.get("name") else " at"
    where = f"by the jump host {path.jump}".rstrip() if by_jump else f"directly, from {source or 'this machine'}"
    count = f"{knocks} time{'' if knocks == 1 else 's'}"
    engine = ENGINES[connection.get_option("knock_engine")]
    if answer in ABOUT_THE_KNOCK:
        sees = "the jump host's address" if by_jump else source or "this machine's address"
        sentences.append(
            f"Check that {steps} has the steps that the host has now{_IF_CHANGED if door else ''}, and that the knock reaches the "
            f"host from {sees}: NAT or a second uplink may change the address, and the door's sources may leave it out.{engine.advice}"
        )
    return " ".join(
        [
            f"knock_ssh knocked {count}{at} {host or path.host}, {where}. "
            f"Port {path.port} of {address or path.host}: {MEANINGS[answer]}.",
            *sentences,
        ]
    )


def _about_forwarding(door: Mapping[str, Any], port: int) -> list[str]:
    """Return what to set where no door opens the port of the connection, so that it was taken for a forwarded one. Pure."""
    if send_knock.door_opens(door, port):
        return []
    return [
        f"No door in portknock_doors opens port {port} (ansible_port), so it was taken for one that a router forwards to port "
        f"{send_knock.SSH_PORT}. If that is so, the router must forward the ports of the knock as well, or ansible_knock_host "
        f"must be an address that gets them. If sshd listens on {port} itself, add it to the opens of a door."
    ]


def _address_and_answer(connection: Any, text: str, path: SshPath) -> tuple[str, str]:
    """Return the address that was tried last, '' if only a jump host knows it, and a verdict of MEANINGS."""
    addresses = look_up(path).addresses
    address = addresses[-1] if addresses else ""
    if _BANNER in text:
        # Behind a jump host it is what ssh says of a connection that this one still tries to make.
        return address, MUTE if address else verdict("silent")
    said = next((answer for words, answer in _SAID.items() if words in text), "silent")
    if not address or said not in _UNCLEAR:
        return address, verdict(said)
    words, doors = connection.get_option("knock"), connection.get_option("knock_doors")
    steps = send_knock.steps_for_port(words, doors, path.port)
    answer, closed = compare((address, path.port, "tcp"), steps, LOOK_SECONDS, path.source, said)
    return address, verdict(answer, closed, routed=bool(local_address(address)))
