# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The configuration of knockd, the daemon that recognises knocks where the kernel does not: texts of its files. Pure.

All that knockd does is to put a source on the door's own list of xt_recent, where the kernel would have put it. So
nothing is left behind when it dies, the window ends by itself, and the rules that let in are the same.

What is known of knockd 0.8 (its knockd.c), and what follows from it:

- It looks at packets to the ports of its own sections alone, so a wrong port breaks no knock. Ports that nothing uses
  are therefore named in sections that do nothing (decoys): a scan steps on them.
- It listens on one interface, and only to the addresses that this had when knockd began (see ADDRESSES_SCRIPT).
- ``seq_timeout`` counts from the first step, in whole seconds of the clock, so that its last second may be cut short.
- ``start_command_6`` that is missing falls back to the command for IPv4: both are always written.
- It has one list of attempts for all sources, and forgets all of them when the first one ends, well or not. So knocks that
  come at the same moment disturb each other, and the client knocks again.
- Its own sections ``[options]`` and those of doors share one space of names: the doors' begin with a word and a blank.
"""

import hashlib
import re
from typing import Any, Dict, List, Sequence

from ansible_collections.sesame.portknock.plugins.module_utils._knockd.decoys import decoy_ports, steps_in
from ansible_collections.sesame.portknock.plugins.module_utils._names.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._paths import KNOCKD_PREFIX_HELPER, RECENT_LISTS
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import FAMILIES, IPV4, IPV6
from ansible_collections.sesame.portknock.plugins.module_utils._spec.sequences import sequences_of
from ansible_collections.sesame.portknock.plugins.module_utils._tables.rule_parts import knocker_matches

_SEQUENCE = 32
"""Ports that a section can hold (SEQ_MAX)."""
_HEADER = "# Written by sesame.portknock, id {0}; changes to this file are lost.\n"
_ID = re.compile(r"\A# Written by sesame\.portknock, id ([0-9a-f]{16});")
_STEPS = re.compile(r"^\[open ([A-Za-z0-9_]+)\]\nsequence = (\S+)$", re.M)
_INTERFACE = re.compile(r"^interface = (\S+)$", re.M)


def seq_timeout(door: Any, steps: Sequence[Any]) -> int:
    """Return the seconds that knockd gives a whole knock: as many pauses as it has, and one for the clock's resolution."""
    return door.step_timeout * (len(steps) - 1) + 1


def config_text(spec: Any, families: Sequence[str], interface: str, directory: str) -> str:
    """Return knockd's configuration.

    :param spec: a Spec with doors.
    :param families: those that are managed; knocks over another one do nothing.
    :param interface: the one to listen on.
    :param directory: where the file and its helper lie.
    """
    lines = ["[options]", "interface = " + interface] + (["UseSyslog"] if spec.log else [])
    for index, key, steps in sequences_of(spec.doors):
        word, sign = _EFFECTS[key]
        lines += _section(spec, families, directory, spec.doors[index], steps, word, sign)
    for number, sequence in enumerate(_decoy_sequences(spec), 1):
        # Nothing but to break the attempt of whoever comes here; it is forgotten at once.
        lines += ["", f"[decoy {number}]", "sequence = " + sequence, "seq_timeout = 1", _FLAGS]
    body = "\n".join(lines) + "\n"
    return _HEADER.format(_digest(body)) + body


_EFFECTS = {"knock": ("open", "+"), "close": ("close", "-")}
"""How a section is called, and what its command does to a source."""

_FLAGS = "tcpflags = syn,!ack,!rst,!fin"
"""As the kernel's rules: a step is a packet that begins a connection."""


def _section(
    spec: Any, families: Sequence[str], directory: str, door: Any, steps: Sequence[Any], word: str, sign: str
) -> List[str]:
    commands = {family: _command(spec, family, directory, door, sign) for family in FAMILIES}
    quiet = ":"
    return [
        "",
        f"[{word} {door.name}]",
        "sequence = " + _sequence(steps),
        f"seq_timeout = {seq_timeout(door, steps)}",
        _FLAGS,
        "start_command = " + (commands[IPV4] if _may_knock(door, IPV4, families) else quiet),
        "start_command_6 = " + (commands[IPV6] if _may_knock(door, IPV6, families) else quiet),
    ]


def _may_knock(door: Any, family: str, families: Sequence[str]) -> bool:
    return family in families and bool(knocker_matches(door, family))


def _sequence(steps: Sequence[Any]) -> str:
    return ",".join(f"{step.port}:{step.protocol}" for step in steps)


def _command(spec: Any, family: str, directory: str, door: Any, sign: str) -> str:
    """Return what puts a source on a list, for system(3). %IP% is made by knockd from a packet's four or sixteen bytes."""
    address = "%IP%"
    if family == IPV6 and spec.ipv6_prefix != 128:
        # The kernel masks what a rule puts on a list, and not what is written to its file.
        address = f"$(sh {directory}/{KNOCKD_PREFIX_HELPER} {spec.ipv6_prefix} %IP%)"
    return f"echo {sign}{address} > {RECENT_LISTS}/{Lists(family, spec.ipv6_prefix).door(door)}"


def _decoy_sequences(spec: Any) -> List[str]:
    texts: List[str] = []
    for protocol in sorted({step.protocol for step in steps_in(spec)}):
        ports = decoy_ports(spec, protocol)
        for start in range(0, len(ports), _SEQUENCE):
            texts.append(",".join(f"{port}:{protocol}" for port in ports[start : start + _SEQUENCE]))
    return texts


def is_too_old(said: str) -> bool:
    """Return whether, by what ``knockd -V`` says, it lacks what the configuration needs (start_command_6, since 0.8)."""
    found = re.match(r"knockd (\d+)\.(\d+)", said)
    return found is not None and (int(found.group(1)), int(found.group(2))) < (0, 8)


def config_id(text: str) -> str:
    """Return the id that a configuration names, '' for one that the collection did not write."""
    found = _ID.search(text)
    return found.group(1) if found else ""


def is_edited(text: str) -> bool:
    """Return whether a configuration that the collection wrote was changed by hand."""
    return config_id(text) != _digest(text.partition("\n")[2])


def steps_of(text: str) -> Dict[str, int]:
    """Return door name to how many steps its knock has."""
    return {name: sequence.count(",") + 1 for name, sequence in _STEPS.findall(text)}


def interface_of(text: str) -> str:
    """Return the interface that a configuration names, or ''."""
    found = _INTERFACE.search(text)
    return found.group(1) if found else ""


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode("utf-8", "surrogateescape")).hexdigest()[:16]


__all__ = (
    "config_id",
    "config_text",
    "interface_of",
    "is_edited",
    "is_too_old",
    "seq_timeout",
    "steps_of",
)
