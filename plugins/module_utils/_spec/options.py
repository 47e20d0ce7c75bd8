# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of the module and the role become a checked, immutable Spec. Pure.

Every refusal is a SpecError with the option's path. A knock is a secret, so no message repeats a step.
"""

import re
from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import ERROR, SEVERITIES
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.coverage import check_coverage
from ansible_collections.sesame.portknock.plugins.module_utils._spec.hosts_behind import (
    check_hosts_behind,
    read_hosts_behind,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import (
    DEFAULTS,
    ENGINES,
    FAMILIES,
    IPV4,
    KERNEL,
    POLICIES,
    PROTOCOLS,
    PUBLISHED,
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
    DAY,
    DOOR_NAME,
    check_given,
    check_keys,
    did_you_mean,
    read_choice,
    read_comment,
    read_flag,
    read_interface,
    read_items,
    read_networks,
    read_number,
    read_ports,
    read_single_interface,
    read_steps,
    read_strings,
    read_text,
    read_trusted_network,
    shown,
    split_protocol,
)

GUARD_TIMEOUT = (5, 600)

DOOR_KEYS = ("name", "knock", "opens", "window", "step_timeout", "sources", "close", "once", "to")

ALLOW_KEYS = ("port", "protocol", "sources", "comment")


def _choice(*choices: str) -> Callable[[Any, str], str]:
    return lambda value, path: read_choice(value, path, choices)


def _number(least: int, most: int) -> Callable[[Any, str], int]:
    return lambda value, path: read_number(value, path, least, most)


def _read_list(value: Any, path: str) -> List[Any]:
    return [item for item, _path in read_items(value, path)]


def _read_strings(value: Any, path: str) -> List[str]:
    return [read_text(item, where) for item, where in read_strings(value, path)]


def _read_versions(value: Any, path: str) -> List[str]:
    chosen = [read_choice(item, where, FAMILIES) for item, where in read_strings(value, path)]
    if not chosen:
        raise SpecError(path, "is empty. Name ipv4, ipv6 or both.")
    return [family for family in FAMILIES if family in chosen]


def _read_interface(value: Any, path: str) -> str:
    return read_single_interface(value, path) if value != "" else ""


def _read_directory(value: Any, path: str) -> str:
    """Return a directory; it stands in a unit, so nothing that systemd or a shell would replace may be in it."""
    text = read_text(value, path)
    if text and not DIRECTORY.match(text):
        raise SpecError(
            path, f"{shown(text)}is not the full path of a directory: use letters, digits and . _ - after each '/'."
        )
    return text.rstrip("/")


def _read_kinds(value: Any, path: str) -> List[str]:
    """Return kinds of findings that may be hidden: none that says that the doors, or the way in, are not what was asked for."""
    kinds = [(read_text(item, where), where) for item, where in read_strings(value, path)]
    for kind, where in kinds:
        if kind not in SEVERITIES:
            able = ", ".join(sorted(each for each, severity in SEVERITIES.items() if severity != ERROR))
            near = did_you_mean(kind, SEVERITIES)
            raise SpecError(where, f"{shown(kind)}is not a kind of finding.{near} What can be acknowledged is {able}.")
        if SEVERITIES[kind] == ERROR:
            raise SpecError(
                where,
                f"{kind} is an error: the doors or your way in are not what you asked for, so it is always shown. "
                "docs/findings.md says what to do about it.",
            )
    return [kind for kind, _where in kinds]


DIRECTORY = re.compile(r"(?:/[A-Za-z0-9._-]+)+/?\Z")

READERS: Dict[str, Callable[[Any, str], Any]] = {
    "state": _choice("present", "absent"),
    "persist": read_flag,
    "guard": read_flag,
    "guard_timeout": _number(*GUARD_TIMEOUT),
    "prove": read_flag,
    "conflicting_firewall": _choice("fail", "disable"),
    "ip_versions": _read_versions,
    "policy": _choice(*POLICIES),
    "published": _choice(*PUBLISHED),
    "reject_with": _choice(*REJECT_WITH),
    "icmp": read_flag,
    "ipv6_prefix": _number(64, 128),
    "list_size": _number(1, 1000000),
    "log": read_flag,
    "engine": _choice(*ENGINES),
    "knockd_interface": _read_interface,
    "trusted_sources": _read_strings,
    "trusted_interfaces": _read_strings,
    "doors": _read_list,
    "allow": _read_list,
    "acknowledge": _read_kinds,
    "metrics_directory": _read_directory,
}
"""Every option to what checks its value alone and returns it in its type, given the value and its path."""


def checked_options(options: Mapping[str, Any], prefix: str = "") -> Dict[str, Any]:
    """Return the options with their defaults, each of its type; what a door or an allowed port holds is not looked into.

    :param options: option name to value, as YAML or the module gives them; missing ones take their default.
    :param prefix: put before the option's name in messages, ``portknock_`` for the role's variables.
    :raises SpecError: for the first thing that cannot be.
    """
    values = {}
    for name, read in READERS.items():
        value = options.get(name, DEFAULTS[name])
        check_given(value, prefix + name)
        values[name] = read(value, prefix + name)
    return values


def spec_from_options(options: Mapping[str, Any], prefix: str = "") -> Spec:
    """Check a dictionary of options (those of the module) and return a Spec.

    :param options: as for checked_options().
    :param prefix: as there.
    :raises SpecError: for the first thing that cannot be.
    """
    values = checked_options(options, prefix)
    versions = tuple(values["ip_versions"])

    def items(name: str) -> List[Tuple[Any, str]]:
        return read_items(values[name], prefix + name)

    spec = Spec(
        doors=tuple(_door(item, path, versions) for item, path in items("doors")),
        policy=values["policy"],
        published=values["published"],
        reject_with=values["reject_with"],
        allow=tuple(_allow(item, path, versions) for item, path in items("allow")),
        trusted_sources=tuple(read_trusted_network(item, path, versions) for item, path in items("trusted_sources")),
        trusted_interfaces=tuple(read_interface(item, path) for item, path in items("trusted_interfaces")),
        icmp=values["icmp"],
        ip_versions=versions,
        ipv6_prefix=values["ipv6_prefix"],
        list_size=values["list_size"],
        log=values["log"],
        engine=values["engine"],
        knockd_interface=values["knockd_interface"],
        acknowledge=tuple(values["acknowledge"]),
        metrics_directory=values["metrics_directory"],
    )
    _check_names(spec, prefix + "doors")
    _check_ports(spec, prefix)
    check_hosts_behind(spec, prefix)
    check_coverage(spec, prefix)
    check_sequences(spec, prefix + "doors")
    if ENGINES[spec.engine].first_steps_differ:
        check_first_steps(spec.doors, prefix + "doors")
    return spec


def _door(item: Any, path: str, versions: Sequence[str]) -> Door:
    check_keys(item, path, DOOR_KEYS)
    _check_has(item, path, "name", "Give the door one, such as ssh.")
    _check_has(item, path, "knock", "Give it 1 to 8 steps.")
    _check_has(item, path, "opens", "Name at least one port that the knock opens.")
    name = read_text(item["name"], path + ".name")
    if not DOOR_NAME.match(name):
        raise SpecError(
            path + ".name",
            f"{shown(name)}is not a valid name: use a letter, then letters, digits or '_', at most 16 characters.",
        )
    opens = tuple(read_ports(port, where) for port, where in read_strings(item["opens"], path + ".opens"))
    if not opens:
        raise SpecError(path + ".opens", "is empty. Name at least one port that the knock opens.")
    return Door(
        name=name,
        knock=read_steps(item["knock"], path + ".knock", 1),
        opens=opens,
        window=read_number(item.get("window", 15), path + ".window", 1, DAY),
        step_timeout=read_number(item.get("step_timeout", 5), path + ".step_timeout", 1, DAY),
        sources=read_networks(item.get("sources", []), path + ".sources", versions),
        close=read_steps(item.get("close", []), path + ".close", 0),
        once=read_flag(item.get("once", False), path + ".once"),
        to=read_hosts_behind(item.get("to", []), path + ".to", versions),
    )


def _check_has(item: Mapping[str, Any], path: str, key: str, advice: str) -> None:
    if key not in item:
        raise SpecError(f"{path}.{key}", f"is missing. {advice}")


def _allow(item: Any, path: str, versions: Sequence[str]) -> Allow:
    check_keys(item, path, ALLOW_KEYS)
    _check_has(item, path, "port", "Name the port that is open.")
    protocol = item.get("protocol")
    text, written = split_protocol(item["port"], path + ".port")
    if protocol is not None:
        read_choice(protocol, path + ".protocol", PROTOCOLS)
        if "/" in str(item["port"]) and written != protocol:
            raise SpecError(path + ".protocol", f"is {protocol}, but the port says {written}.")
    return Allow(
        read_ports(item["port"], path + ".port"),
        read_networks(item.get("sources", []), path + ".sources", versions),
        read_comment(item.get("comment", ""), path + ".comment"),
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
    """Refuse a knock on a port that is opened or allowed, and an allowed port that makes a door void.

    Knocks may be addressed to hosts behind too, so it is no matter on which of them a port is opened. What is allowed is
    a port of this host, so it makes no door to hosts behind void.
    """
    opened = PortIndex((ports, index) for index, door in enumerate(spec.doors) for ports in door.opens)
    opened_here = PortIndex((ports, index) for index, door in enumerate(spec.doors) for ports in door.here)
    allowed = PortIndex((allow.ports, index) for index, allow in enumerate(spec.allow))
    for index, door in enumerate(spec.doors):
        for key, steps in (("knock", door.knock), ("close", door.close)):
            for number, step in enumerate(steps):
                path = f"{prefix}doors[{index}].{key}[{number}]"
                _check_step(path, Ports(step.port, step.port, step.protocol), opened, allowed, prefix)
    for number, allow in enumerate(spec.allow):
        to_everyone = not allow.sources or any(network.prefixlen == 0 for network in allow.sources)
        found = opened_here.find(allow.ports) if to_everyone else None
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
    "READERS",
    "REJECT_WITH",
    "Allow",
    "Door",
    "Spec",
    "Step",
    "checked_options",
    "family_of",
    "read_steps",
    "spec_from_options",
)
