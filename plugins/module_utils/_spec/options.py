# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of the module and the role become a checked, immutable Spec. Pure.

Every refusal is a SpecError with the option's path. A knock is a secret, so no message repeats a step.
"""

from typing import Any, Dict, List, Mapping, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.coverage import check_coverage
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import (
    DEFAULTS,
    ENGINES,
    FAMILIES,
    IPV4,
    KERNEL,
    POLICIES,
    PROTOCOLS,
    REJECT_WITH,
    Allow,
    Door,
    Spec,
    Step,
    family_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import PortIndex, Ports
from ansible_collections.sesame.portknock.plugins.module_utils._spec.sequences import check_first_steps, check_sequences
from ansible_collections.sesame.portknock.plugins.module_utils._spec.values import (
    COMMENT_TEXT,
    DAY,
    DOOR_NAME,
    check_keys,
    read_choice,
    read_flag,
    read_interface,
    read_items,
    read_networks,
    read_number,
    read_ports,
    read_single_interface,
    read_steps,
    read_strings,
    read_trusted_network,
    shown,
    split_protocol,
)

GUARD_TIMEOUT = (5, 600)

DOOR_KEYS = ("name", "knock", "opens", "window", "step_timeout", "sources", "close", "once")

ALLOW_KEYS = ("port", "protocol", "sources", "comment")


def spec_from_options(options: Mapping[str, Any], prefix: str = "") -> Spec:
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
        trusted_sources=tuple(
            read_trusted_network(item, path, versions) for item, path in reader.items("trusted_sources")
        ),
        trusted_interfaces=tuple(read_interface(item, path) for item, path in reader.items("trusted_interfaces")),
        icmp=reader.flag("icmp"),
        ip_versions=versions,
        ipv6_prefix=reader.number("ipv6_prefix", 64, 128),
        list_size=reader.number("list_size", 1, 1000000),
        log=reader.flag("log"),
        engine=reader.choice("engine", list(ENGINES)),
        knockd_interface=reader.interface("knockd_interface"),
    )
    _check_names(spec, prefix + "doors")
    _check_ports(spec, prefix)
    check_coverage(spec, prefix)
    check_sequences(spec, prefix + "doors")
    if ENGINES[spec.engine].first_steps_differ:
        check_first_steps(spec.doors, prefix + "doors")
    return spec


class _Reader:
    """Reads checked values out of the options, one method a kind."""

    def __init__(self, options: Mapping[str, Any], prefix: str) -> None:
        self._options = options
        self._prefix = prefix

    def _value(self, name: str) -> Any:
        value = self._options.get(name)
        return DEFAULTS[name] if value is None else value

    def choice(self, name: str, choices: Sequence[str]) -> str:
        return read_choice(self._value(name), self._prefix + name, choices)

    def flag(self, name: str) -> bool:
        return read_flag(self._value(name), self._prefix + name)

    def number(self, name: str, least: int, most: int) -> int:
        return read_number(self._value(name), self._prefix + name, least, most)

    def interface(self, name: str) -> str:
        value = self._value(name)
        return read_single_interface(value, self._prefix + name) if value else ""

    def items(self, name: str) -> List[Tuple[Any, str]]:
        return read_items(self._value(name), self._prefix + name)

    def ip_versions(self) -> Tuple[str, ...]:
        chosen = [read_choice(item, path, FAMILIES) for item, path in self.items("ip_versions")]
        if not chosen:
            raise SpecError(self._prefix + "ip_versions", "is empty. Name ipv4, ipv6 or both.")
        return tuple(family for family in FAMILIES if family in chosen)


def _door(item: Any, path: str, versions: Sequence[str]) -> Door:
    check_keys(item, path, DOOR_KEYS)
    name = str(item.get("name", ""))
    if not DOOR_NAME.match(name):
        raise SpecError(
            path + ".name",
            f"{shown(name)}is not a valid name: use a letter, then letters, digits or '_', at most 16 characters.",
        )
    opens = tuple(read_ports(port, where) for port, where in read_strings(item.get("opens"), path + ".opens"))
    if not opens:
        raise SpecError(path + ".opens", "is empty. Name at least one port that the knock opens.")
    return Door(
        name=name,
        knock=read_steps(item.get("knock"), path + ".knock", 1),
        opens=opens,
        window=read_number(_given(item, "window", 15), path + ".window", 1, DAY),
        step_timeout=read_number(_given(item, "step_timeout", 5), path + ".step_timeout", 1, DAY),
        sources=read_networks(item.get("sources"), path + ".sources", versions),
        close=read_steps(item.get("close"), path + ".close", 0),
        once=read_flag(_given(item, "once", False), path + ".once"),
    )


def _given(item: Mapping[str, Any], key: str, default: Any) -> Any:
    return default if item.get(key) is None else item[key]


def _allow(item: Any, path: str, versions: Sequence[str]) -> Allow:
    check_keys(item, path, ALLOW_KEYS)
    if item.get("port") is None:
        raise SpecError(path + ".port", "is missing. Name the port that is open.")
    protocol = item.get("protocol")
    text, written = split_protocol(item["port"], path + ".port")
    if protocol is not None:
        read_choice(protocol, path + ".protocol", PROTOCOLS)
        if "/" in str(item["port"]) and written != protocol:
            raise SpecError(path + ".protocol", f"is {protocol}, but the port says {written}.")
    comment = str(item.get("comment") or "")
    if not COMMENT_TEXT.match(comment):
        raise SpecError(path + ".comment", "must be at most 80 letters, digits, blanks and , . : ; / _ ( ) @ + # = -")
    return Allow(
        read_ports(item["port"], path + ".port"),
        read_networks(item.get("sources"), path + ".sources", versions),
        comment,
    )._replace(ports=read_ports(text, path + ".port", str(protocol or written)))


def _check_names(spec: Spec, path: str) -> None:
    seen: Dict[str, int] = {}
    for index, door in enumerate(spec.doors):
        if door.name in seen:
            raise SpecError(
                f"{path}[{index}].name",
                f"{door.name!r} is already the name of {path}[{seen[door.name]}]. Give each door a name of its own.",
            )
        seen[door.name] = index


def _check_ports(spec: Spec, prefix: str) -> None:
    """Refuse a knock on a port that is opened or allowed, and an allowed port that makes a door void."""
    opened = PortIndex((ports, index) for index, door in enumerate(spec.doors) for ports in door.opens)
    allowed = PortIndex((allow.ports, index) for index, allow in enumerate(spec.allow))
    for index, door in enumerate(spec.doors):
        for key, steps in (("knock", door.knock), ("close", door.close)):
            for number, step in enumerate(steps):
                path = f"{prefix}doors[{index}].{key}[{number}]"
                _check_step(path, Ports(step.port, step.port, step.protocol), opened, allowed, prefix)
    for number, allow in enumerate(spec.allow):
        to_everyone = not allow.sources or any(network.prefixlen == 0 for network in allow.sources)
        found = opened.find(allow.ports) if to_everyone else None
        if found is not None:
            raise SpecError(
                f"{prefix}allow[{number}].port",
                f"is open to everyone here, but is also opened by door {spec.doors[found].name!r}: the knock would have no effect. "
                "Name the sources that need no knock, or remove one of the two.",
            )


def _check_step(path: str, ports: Ports, opened: PortIndex, allowed: PortIndex, prefix: str) -> None:
    for index, option, verb in ((opened, "doors[{0}].opens", "opens"), (allowed, "allow[{0}]", "lets in")):
        found = index.find(ports)
        if found is not None:
            raise SpecError(
                path,
                f"is a port that {prefix}{option.format(found)} {verb}. A knock port must stay closed: choose another.",
            )


__all__ = (
    "ALLOW_KEYS",
    "DEFAULTS",
    "DOOR_KEYS",
    "FAMILIES",
    "GUARD_TIMEOUT",
    "IPV4",
    "KERNEL",
    "POLICIES",
    "PROTOCOLS",
    "REJECT_WITH",
    "Allow",
    "Door",
    "Spec",
    "Step",
    "family_of",
    "read_steps",
    "spec_from_options",
)
