# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""What was asked for: the user's words become a checked, immutable Spec.

Pure: values in, values out. Every refusal is a SpecError with the option's path.
A knock is a secret, so no message repeats a step.
"""

import ipaddress
import re
from typing import NamedTuple, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import PortIndex, Ports
from ansible_collections.sesame.portknock.plugins.module_utils._spec.sequences import check_first_steps, check_sequences

IPV4, IPV6 = "ipv4", "ipv6"
FAMILIES = (IPV4, IPV6)
PROTOCOLS = ("tcp", "udp")
POLICIES = ("reject", "accept")
REJECT_WITH = ("icmp-port-unreachable", "tcp-reset", "icmp-admin-prohibited", "drop")
KERNEL, KNOCKD = "iptables", "knockd"
ENGINES = (KERNEL, KNOCKD)
MAX_STEPS = 8
DAY = 86400
GUARD_TIMEOUT = (5, 600)

_PORT = re.compile(r"^(0|[1-9][0-9]*)\Z")
_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_]{0,15}\Z")
_INTERFACE = re.compile(r"^[A-Za-z0-9_.:@-]{1,15}\Z|^[A-Za-z0-9_.:@-]{1,14}\+\Z")
_COMMENT = re.compile(r"^[A-Za-z0-9 ,.:;/_()@+#=-]{0,80}\Z")

Step = NamedTuple("Step", [("port", int), ("protocol", str)])
Door = NamedTuple(
    "Door",
    [
        ("name", str),
        ("knock", Tuple[Step, ...]),
        ("opens", Tuple[Ports, ...]),
        ("window", int),
        ("step_timeout", int),
        ("sources", tuple),
        ("close", Tuple[Step, ...]),
        ("once", bool),
    ],
)
Allow = NamedTuple("Allow", [("ports", Ports), ("sources", tuple), ("comment", str)])
Spec = NamedTuple(
    "Spec",
    [
        ("doors", Tuple[Door, ...]),
        ("policy", str),
        ("reject_with", str),
        ("allow", Tuple[Allow, ...]),
        ("trusted_sources", tuple),
        ("trusted_interfaces", Tuple[str, ...]),
        ("icmp", bool),
        ("ip_versions", Tuple[str, ...]),
        ("ipv6_prefix", int),
        ("list_size", int),
        ("log", bool),
        ("engine", str),
        ("knockd_interface", str),
    ],
)

DEFAULTS = {
    "doors": [],
    "policy": "reject",
    "reject_with": "icmp-port-unreachable",
    "allow": [],
    "trusted_sources": [],
    "trusted_interfaces": ["lo"],
    "icmp": True,
    "ip_versions": [IPV4, IPV6],
    "ipv6_prefix": 128,
    "engine": KERNEL,
    "knockd_interface": "",
    "list_size": 4096,
    "log": False,
    "persist": True,
    "guard": True,
    "guard_timeout": 30,
    "state": "present",
}
DOOR_KEYS = ("name", "knock", "opens", "window", "step_timeout", "sources", "close", "once")
ALLOW_KEYS = ("port", "protocol", "sources", "comment")


def family_of(network):
    """Return ``ipv4`` or ``ipv6`` for an ``ipaddress`` network or address."""
    return IPV4 if network.version == 4 else IPV6


def spec_from_options(options, prefix=""):
    """Check a dictionary of options (those of the module) and return a Spec.

    :param options: option name to value, as YAML or the module gives them; missing ones take their default.
    :param prefix: put before the option's name in messages, ``portknock_`` for the role's variables.
    :raises SpecError: for the first thing that cannot be.
    """
    reader = _Reader(options, prefix)
    reader.choice("state", ("present", "absent"))
    reader.flag("persist")
    reader.flag("guard")
    reader.number("guard_timeout", *GUARD_TIMEOUT)
    versions = reader.ip_versions()
    spec = Spec(
        doors=tuple(_door(item, path, versions) for item, path in reader.items("doors")),
        policy=reader.choice("policy", POLICIES),
        reject_with=reader.choice("reject_with", REJECT_WITH),
        allow=tuple(_allow(item, path, versions) for item, path in reader.items("allow")),
        trusted_sources=tuple(_trusted(item, path, versions) for item, path in reader.items("trusted_sources")),
        trusted_interfaces=tuple(_interface(item, path) for item, path in reader.items("trusted_interfaces")),
        icmp=reader.flag("icmp"),
        ip_versions=versions,
        ipv6_prefix=reader.number("ipv6_prefix", 64, 128),
        list_size=reader.number("list_size", 1, 1000000),
        log=reader.flag("log"),
        engine=reader.choice("engine", ENGINES),
        knockd_interface=reader.interface("knockd_interface"),
    )
    _check_names(spec, prefix + "doors")
    _check_ports(spec, prefix)
    check_sequences(spec, prefix + "doors")
    if spec.engine == KNOCKD:
        check_first_steps(spec.doors, prefix + "doors")
    return spec


class _Reader:
    """Reads checked values out of the options, one method a kind."""

    def __init__(self, options, prefix):
        self._options = options
        self._prefix = prefix

    def _value(self, name):
        value = self._options.get(name)
        return DEFAULTS[name] if value is None else value

    def choice(self, name, choices):
        return _choice(self._value(name), self._prefix + name, choices)

    def flag(self, name):
        return _flag(self._value(name), self._prefix + name)

    def number(self, name, least, most):
        return _number(self._value(name), self._prefix + name, least, most)

    def interface(self, name):
        value = self._value(name)
        return _single_interface(value, self._prefix + name) if value else ""

    def items(self, name):
        return _items(self._value(name), self._prefix + name)

    def ip_versions(self):
        chosen = [_choice(item, path, FAMILIES) for item, path in self.items("ip_versions")]
        if not chosen:
            raise SpecError(self._prefix + "ip_versions", "is empty. Name ipv4, ipv6 or both.")
        return tuple(family for family in FAMILIES if family in chosen)


def _items(value, path):
    if not isinstance(value, (list, tuple)):
        raise SpecError(path, "must be a list.")
    return [(item, "{0}[{1}]".format(path, index)) for index, item in enumerate(value)]


def _choice(value, path, choices):
    if value not in choices:
        raise SpecError(path, "is {0!r}, but must be one of {1}.".format(str(value), ", ".join(choices)))
    return str(value)


def _flag(value, path):
    if isinstance(value, bool):
        return value
    words = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}
    try:
        return words[str(value).lower()]
    except KeyError:
        raise SpecError(path, "must be true or false.") from None


def _number(value, path, least, most):
    text = str(value)
    if isinstance(value, (bool, float)) or not _PORT.match(text) or not least <= int(text) <= most:
        raise SpecError(path, "must be a whole number from {0} to {1}.".format(least, most))
    return int(text)


def _keys(item, path, known):
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


def _split_protocol(value, path, shown=True):
    text = str(value)
    if isinstance(value, (bool, float, dict, list)):
        raise SpecError(path, "must be PORT, PORT/tcp or PORT/udp.")
    port, slash, protocol = text.partition("/")
    if slash and protocol not in PROTOCOLS:
        what = "{0!r} has no known protocol".format(text) if shown else "the protocol is not known"
        raise SpecError(path, what + ". Write PORT, PORT/tcp or PORT/udp.")
    return port, protocol or "tcp"


def _step(value, path):
    port, protocol = _split_protocol(value, path, shown=False)
    return Step(_port(port, path, shown=False), protocol)


def _ports(value, path, protocol=None):
    text, found = _split_protocol(value, path)
    first, dash, last = text.partition("-")
    ports = Ports(_port(first, path), _port(last if dash else first, path), protocol or found)
    if ports.first > ports.last:
        raise SpecError(path, "the range {0!r} ends before it begins. Write FIRST-LAST.".format(text))
    return ports


def _network(value, path, versions):
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


def _trusted(value, path, versions):
    network = _network(value, path, versions)
    if network.prefixlen == 0:
        raise SpecError(
            path, "{0} is everybody, so no door would need a knock. Name the addresses that are yours.".format(network)
        )
    return network


def _networks(value, path, versions):
    return tuple(_network(item, where, versions) for item, where in _items(value or [], path))


def _interface(value, path):
    if not _INTERFACE.match(str(value)):
        raise SpecError(
            path, "{0!r} is no interface name. Write one such as wg0, or wg+ for all that begin so.".format(str(value))
        )
    return str(value)


def _single_interface(value, path):
    if not _INTERFACE.match(str(value)) or "+" in str(value):
        raise SpecError(path, "{0!r} is no interface name. Write one such as eth0.".format(str(value)))
    return str(value)


def read_steps(value, path, least):
    steps = tuple(_step(item, where) for item, where in _items(value or [], path))
    if not least <= len(steps) <= MAX_STEPS:
        raise SpecError(path, "has {0} steps. Give it 1 to {1}.".format(len(steps), MAX_STEPS))
    return steps


def _door(item, path, versions):
    _keys(item, path, DOOR_KEYS)
    name = str(item.get("name", ""))
    if not _NAME.match(name):
        raise SpecError(
            path + ".name",
            "{0!r} is no name for a door: a letter, then letters, digits or '_', 16 in all at the most.".format(name),
        )
    opens = tuple(_ports(port, where) for port, where in _items(item.get("opens") or [], path + ".opens"))
    if not opens:
        raise SpecError(path + ".opens", "is empty. Name at least one port that the knock opens.")
    return Door(
        name=name,
        knock=read_steps(item.get("knock"), path + ".knock", 1),
        opens=opens,
        window=_number(_given(item, "window", 15), path + ".window", 1, DAY),
        step_timeout=_number(_given(item, "step_timeout", 5), path + ".step_timeout", 1, DAY),
        sources=_networks(item.get("sources"), path + ".sources", versions),
        close=read_steps(item.get("close"), path + ".close", 0),
        once=_flag(_given(item, "once", False), path + ".once"),
    )


def _given(item, key, default):
    return default if item.get(key) is None else item[key]


def _allow(item, path, versions):
    _keys(item, path, ALLOW_KEYS)
    if item.get("port") is None:
        raise SpecError(path + ".port", "is missing. Name the port that is open.")
    protocol = item.get("protocol")
    text, written = _split_protocol(item["port"], path + ".port")
    if protocol is not None:
        _choice(protocol, path + ".protocol", PROTOCOLS)
        if "/" in str(item["port"]) and written != protocol:
            raise SpecError(path + ".protocol", "is {0}, but the port says {1}.".format(protocol, written))
    comment = str(item.get("comment") or "")
    if not _COMMENT.match(comment):
        raise SpecError(path + ".comment", "must be at most 80 letters, digits, blanks and , . : ; / _ ( ) @ + # = -")
    return Allow(
        _ports(item["port"], path + ".port"), _networks(item.get("sources"), path + ".sources", versions), comment
    )._replace(ports=_ports(text, path + ".port", str(protocol or written)))


def _check_names(spec, path):
    seen = {}
    for index, door in enumerate(spec.doors):
        if door.name in seen:
            raise SpecError(
                "{0}[{1}].name".format(path, index),
                "{0!r} is already the name of {1}[{2}]. Give each door a name of its own.".format(
                    door.name, path, seen[door.name]
                ),
            )
        seen[door.name] = index


def _check_ports(spec, prefix):
    """Refuse a knock on a port that is opened or allowed, and an allowed port that makes a door void."""
    opened = PortIndex((ports, index) for index, door in enumerate(spec.doors) for ports in door.opens)
    allowed = PortIndex((allow.ports, index) for index, allow in enumerate(spec.allow))
    for index, door in enumerate(spec.doors):
        for key, steps in (("knock", door.knock), ("close", door.close)):
            for number, step in enumerate(steps):
                path = "{0}doors[{1}].{2}[{3}]".format(prefix, index, key, number)
                _check_step(path, Ports(step.port, step.port, step.protocol), opened, allowed, prefix)
    for number, allow in enumerate(spec.allow):
        to_everyone = not allow.sources or any(network.prefixlen == 0 for network in allow.sources)
        found = opened.find(allow.ports) if to_everyone else None
        if found is not None:
            raise SpecError(
                "{0}allow[{1}].port".format(prefix, number),
                "is open to everyone here, but door {0!r} is to open it: the door would be void. "
                "Name the sources that need no knock, or take one of the two out.".format(spec.doors[found].name),
            )


def _check_step(path, ports, opened, allowed, prefix):
    for index, option, verb in ((opened, "doors[{0}].opens", "opens"), (allowed, "allow[{0}]", "lets in")):
        found = index.find(ports)
        if found is not None:
            raise SpecError(
                path,
                "is a port that {0}{1} {2}. A knock port must stay shut: choose another.".format(
                    prefix, option.format(found), verb
                ),
            )


__all__ = (
    "DEFAULTS",
    "DOOR_KEYS",
    "ENGINES",
    "FAMILIES",
    "IPV4",
    "IPV6",
    "KERNEL",
    "KNOCKD",
    "POLICIES",
    "PROTOCOLS",
    "REJECT_WITH",
    "Allow",
    "Door",
    "Ports",
    "Spec",
    "Step",
    "family_of",
    "read_steps",
    "spec_from_options",
)
