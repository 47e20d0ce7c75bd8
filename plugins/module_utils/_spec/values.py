# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Single values of options: each is checked and converted, or refused with the option's path. Pure.

A knock is a secret, so no message repeats a step.
"""

import ipaddress
import re
from typing import Any, List, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import PROTOCOLS, Network, Step, family_of
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports

MAX_STEPS = 8

DAY = 86400

_PORT = re.compile(r"^(0|[1-9][0-9]*)\Z")

DOOR_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_]{0,15}\Z")

_INTERFACE = re.compile(r"^[A-Za-z0-9_.-]{1,15}\Z|^[A-Za-z0-9_.-]{1,14}\+\Z")
_MORE_THAN_A_NAME = re.compile(r"^([A-Za-z0-9_.-]{1,15})[:@][A-Za-z0-9_.-]*\Z")
"""An address's label (``eth0:1``), or an interface with its parent as ``ip link`` shows it (``eth0@if3``)."""

COMMENT_TEXT = re.compile(r"^[A-Za-z0-9 ,.:;/_()@+#=-]{0,80}\Z")


def read_items(value: Any, path: str) -> List[Tuple[Any, str]]:
    """Return the items of a list, each with its own path."""
    if not isinstance(value, (list, tuple)):
        raise SpecError(path, "must be a list.")
    return [(item, f"{path}[{index}]") for index, item in enumerate(value)]


def read_choice(value: Any, path: str, choices: Sequence[str]) -> str:
    """Return one of some words."""
    if value not in choices:
        raise SpecError(path, f"is {str(value)!r}, but must be one of {', '.join(choices)}.")
    return str(value)


def read_flag(value: Any, path: str) -> bool:
    """Return a boolean, also from the words that YAML 1.1 and the command line have for it."""
    if isinstance(value, bool):
        return value
    words = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}
    try:
        return words[str(value).lower()]
    except KeyError:
        raise SpecError(path, "must be true or false.") from None


def read_number(value: Any, path: str, least: int, most: int) -> int:
    """Return a whole number from least to most."""
    text = str(value)
    if isinstance(value, (bool, float)) or not _PORT.match(text) or not least <= int(text) <= most:
        raise SpecError(path, f"must be a whole number from {least} to {most}.")
    return int(text)


def check_keys(item: Any, path: str, known: Sequence[str]) -> None:
    """Refuse what is not a dictionary of known keys."""
    if not isinstance(item, dict):
        raise SpecError(path, f"must be a dictionary with the keys {', '.join(known)}.")
    for key in item:
        if key not in known:
            raise SpecError(
                f"{path}.{key}",
                f"there is no such key. The keys are {', '.join(known)}.",
            )


def _port(text: str, path: str, shown: bool = True) -> int:
    """Return a port's number; a text with a leading zero is refused, YAML may have read it as octal elsewhere."""
    if not _PORT.match(text) or not 1 <= int(text) <= 65535:
        what = f"{text!r} is not a valid port" if shown else "this is not a valid port"
        raise SpecError(path, what + ". A port is a whole number from 1 to 65535, with no leading zero.")
    return int(text)


def split_protocol(value: Any, path: str, shown: bool = True) -> Tuple[str, str]:
    """Return the port's text and the protocol of ``PORT/PROTOCOL``.

    :param shown: whether messages may repeat the value; a step is secret.
    """
    text = str(value)
    if isinstance(value, (bool, float, dict, list)):
        raise SpecError(path, "must be PORT, PORT/tcp or PORT/udp.")
    port, slash, protocol = text.partition("/")
    if slash and protocol not in PROTOCOLS:
        what = f"{text!r} names an unknown protocol" if shown else "the protocol is unknown"
        raise SpecError(path, what + ". Write PORT, PORT/tcp or PORT/udp.")
    return port, protocol or "tcp"


def _step(value: Any, path: str) -> Step:
    port, protocol = split_protocol(value, path, shown=False)
    return Step(_port(port, path, shown=False), protocol)


def read_ports(value: Any, path: str, protocol: Optional[str] = None) -> Ports:
    """Return the Ports of ``PORT`` or ``FIRST-LAST``, each perhaps with ``/PROTOCOL``.

    :param protocol: the protocol where the value names none.
    """
    text, found = split_protocol(value, path)
    first, dash, last = text.partition("-")
    ports = Ports(_port(first, path), _port(last if dash else first, path), protocol or found)
    if ports.first > ports.last:
        raise SpecError(path, f"the range {text!r} ends before it begins. Write FIRST-LAST.")
    return ports


def read_network(value: Any, path: str, versions: Sequence[str]) -> Network:
    """Return an address or a network of one of the families."""
    try:
        network = ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        raise SpecError(
            path,
            f"{str(value)!r} is neither an address nor a network. Write an address or a CIDR such as 192.0.2.0/24.",
        ) from None
    if "/" in str(value) and ipaddress.ip_address(str(value).split("/", 1)[0]) != network.network_address:
        raise SpecError(path, f"{str(value)!r} has host bits set. Did you mean {network}?")
    if family_of(network) not in versions:
        raise SpecError(
            path,
            f"{network} is an IPv{network.version} network, but ip_versions does not name {family_of(network)}. Add it there or "
            "remove the network.",
        )
    return network


def read_trusted_network(value: Any, path: str, versions: Sequence[str]) -> Network:
    """Return a network that never needs a knock; the whole internet is refused."""
    network = read_network(value, path, versions)
    if network.prefixlen == 0:
        raise SpecError(path, f"{network} includes everyone, so no door would need a knock. Name your own addresses.")
    return network


def read_networks(value: Any, path: str, versions: Sequence[str]) -> Tuple[Network, ...]:
    """Return a list of networks."""
    return tuple(read_network(item, where, versions) for item, where in read_items(value or [], path))


def read_interface(value: Any, path: str) -> str:
    """Return the name of an interface, or a prefix of names that ends in ``+``."""
    _check_is_a_name(str(value), path)
    if not _INTERFACE.match(str(value)):
        raise SpecError(
            path,
            f"{str(value)!r} is not an interface name. Write one such as wg0, or wg+ for a prefix.",
        )
    return str(value)


def read_single_interface(value: Any, path: str) -> str:
    """Return the name of one interface."""
    _check_is_a_name(str(value), path)
    if not _INTERFACE.match(str(value)) or "+" in str(value):
        raise SpecError(path, f"{str(value)!r} is not an interface name. Write one such as eth0.")
    return str(value)


def _check_is_a_name(text: str, path: str) -> None:
    """Refuse what people take for an interface's name and no packet comes in by."""
    found = _MORE_THAN_A_NAME.match(text)
    if found:
        what = "the label of an address" if ":" in text else "an interface with its parent, as ip link shows it"
        raise SpecError(
            path,
            f"{text!r} is {what}, and no packet comes in by that name. Write the interface's own: {found.group(1)}.",
        )


def read_steps(value: Any, path: str, least: int) -> Tuple[Step, ...]:
    """Return the steps of a knock, at least so many."""
    steps = tuple(_step(item, where) for item, where in read_items(value or [], path))
    if not least <= len(steps) <= MAX_STEPS:
        raise SpecError(path, f"has {len(steps)} steps. Give it 1 to {MAX_STEPS}.")
    return steps


__all__ = (
    "COMMENT_TEXT",
    "DAY",
    "DOOR_NAME",
    "MAX_STEPS",
    "check_keys",
    "read_choice",
    "read_flag",
    "read_interface",
    "read_items",
    "read_network",
    "read_networks",
    "read_number",
    "read_ports",
    "read_single_interface",
    "read_steps",
    "read_trusted_network",
    "split_protocol",
)
