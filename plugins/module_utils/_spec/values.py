# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Single values of options: each is checked and converted, or refused with the option's path. Pure.

A knock is a secret, so no message repeats a step.
"""

import ipaddress
import re

from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import PROTOCOLS, Step, family_of
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports

MAX_STEPS = 8

DAY = 86400

_PORT = re.compile(r"^(0|[1-9][0-9]*)\Z")

DOOR_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_]{0,15}\Z")

_INTERFACE = re.compile(r"^[A-Za-z0-9_.:@-]{1,15}\Z|^[A-Za-z0-9_.:@-]{1,14}\+\Z")

COMMENT_TEXT = re.compile(r"^[A-Za-z0-9 ,.:;/_()@+#=-]{0,80}\Z")


def read_items(value, path):
    if not isinstance(value, (list, tuple)):
        raise SpecError(path, "must be a list.")
    return [(item, "{0}[{1}]".format(path, index)) for index, item in enumerate(value)]


def read_choice(value, path, choices):
    if value not in choices:
        raise SpecError(path, "is {0!r}, but must be one of {1}.".format(str(value), ", ".join(choices)))
    return str(value)


def read_flag(value, path):
    if isinstance(value, bool):
        return value
    words = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}
    try:
        return words[str(value).lower()]
    except KeyError:
        raise SpecError(path, "must be true or false.") from None


def read_number(value, path, least, most):
    text = str(value)
    if isinstance(value, (bool, float)) or not _PORT.match(text) or not least <= int(text) <= most:
        raise SpecError(path, "must be a whole number from {0} to {1}.".format(least, most))
    return int(text)


def check_keys(item, path, known):
    if not isinstance(item, dict):
        raise SpecError(path, "must be a dictionary with the keys {0}.".format(", ".join(known)))
    for key in item:
        if key not in known:
            raise SpecError(
                "{0}.{1}".format(path, key),
                "there is no such key. The keys are {0}.".format(", ".join(known)),
            )


def _port(text, path, shown=True):
    """Return a port's number; a text with a leading zero is refused, YAML may have read it as octal elsewhere."""
    if not _PORT.match(text) or not 1 <= int(text) <= 65535:
        what = "{0!r} is no port".format(text) if shown else "this is no port"
        raise SpecError(path, what + ". A port is a whole number from 1 to 65535, with no leading zero.")
    return int(text)


def split_protocol(value, path, shown=True):
    text = str(value)
    if isinstance(value, (bool, float, dict, list)):
        raise SpecError(path, "must be PORT, PORT/tcp or PORT/udp.")
    port, slash, protocol = text.partition("/")
    if slash and protocol not in PROTOCOLS:
        what = "{0!r} has no known protocol".format(text) if shown else "the protocol is not known"
        raise SpecError(path, what + ". Write PORT, PORT/tcp or PORT/udp.")
    return port, protocol or "tcp"


def _step(value, path):
    port, protocol = split_protocol(value, path, shown=False)
    return Step(_port(port, path, shown=False), protocol)


def read_ports(value, path, protocol=None):
    text, found = split_protocol(value, path)
    first, dash, last = text.partition("-")
    ports = Ports(_port(first, path), _port(last if dash else first, path), protocol or found)
    if ports.first > ports.last:
        raise SpecError(path, "the range {0!r} ends before it begins. Write FIRST-LAST.".format(text))
    return ports


def read_network(value, path, versions):
    try:
        network = ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        raise SpecError(
            path,
            "{0!r} is no address and no network. Write an address or a CIDR such as 192.0.2.0/24.".format(str(value)),
        ) from None
    if "/" in str(value) and ipaddress.ip_address(str(value).split("/", 1)[0]) != network.network_address:
        raise SpecError(path, "{0!r} has bits behind its prefix. Did you mean {1}?".format(str(value), network))
    if family_of(network) not in versions:
        raise SpecError(
            path,
            "{0} is an {1} network, but ip_versions does not name {2}. Add it there or take this one out.".format(
                network, "IPv4" if network.version == 4 else "IPv6", family_of(network)
            ),
        )
    return network


def read_trusted_network(value, path, versions):
    network = read_network(value, path, versions)
    if network.prefixlen == 0:
        raise SpecError(
            path, "{0} is everybody, so no door would need a knock. Name the addresses that are yours.".format(network)
        )
    return network


def read_networks(value, path, versions):
    return tuple(read_network(item, where, versions) for item, where in read_items(value or [], path))


def read_interface(value, path):
    if not _INTERFACE.match(str(value)):
        raise SpecError(
            path, "{0!r} is no interface name. Write one such as wg0, or wg+ for all that begin so.".format(str(value))
        )
    return str(value)


def read_single_interface(value, path):
    if not _INTERFACE.match(str(value)) or "+" in str(value):
        raise SpecError(path, "{0!r} is no interface name. Write one such as eth0.".format(str(value)))
    return str(value)


def read_steps(value, path, least):
    steps = tuple(_step(item, where) for item, where in read_items(value or [], path))
    if not least <= len(steps) <= MAX_STEPS:
        raise SpecError(path, "has {0} steps. Give it 1 to {1}.".format(len(steps), MAX_STEPS))
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
