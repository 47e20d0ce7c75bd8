# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The doors of a table, read from the text that it was loaded from. Pure.

nft lists a rule in other words from release to release; the text is ours, and the digest says whether it is what is in force.
"""

import ipaddress
import re
from typing import Any, Dict, Iterator, List, NamedTuple, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._names.comments import (
    ENTRANCE,
    REFUSE_PUBLISHED,
    STEP,
    meaning_of,
    wording_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import (
    BEHIND_CHAIN,
    DIGITS,
    FORWARD,
    INPUT,
    NUMBERS,
    SERVICES,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.rules import BEHIND, PUBLISHED_PORTS, SENT_ON
from ansible_collections.sesame.portknock.plugins.module_utils._open_doors import DoorHere
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import (
    PUBLISHED_DOORS,
    PUBLISHED_NONE,
    PUBLISHED_POLICY,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports, ports_name

_RULE = re.compile(r'add rule inet portknock (\w+) (.*) comment "portknock:\w+ ([^"]*)"\Z')
_SINGLE = re.compile(r"(6|17) \. ([0-9]+) : \w+ (\w+)")
_RANGE = re.compile(r"([0-9]+)-([0-9]+) : \w+ (\w+)")
_ENTRANCE = re.compile(r"@open([46])_(\w+)")
_SOURCES = re.compile(r"ip6? saddr (?:\{ ([^}]*) \}|([0-9a-f][0-9a-f.:/]*)) ")
_WINDOW = re.compile(r"update @open[46]_(\w+) \{[^}]* timeout ([0-9]+)s \}")
_ADDRESSES = re.compile(r"([0-9a-f][0-9a-f.:]*)(?:-([0-9a-f.:]+))? : jump (\w+)")
_VERDICT = re.compile(r" : \w+ (\w+)")
_MASK = re.compile(r"ip6 saddr & ([0-9a-f:]+) @open6_")
_PROTOCOLS = {str(number): protocol for protocol, number in NUMBERS.items()}
_VERSIONS = {digit: version for version, digit in DIGITS.items()}


class TextRule(NamedTuple):
    """A rule of a text."""

    chain: str
    """Its chain."""
    text: str
    """What it matches and does."""
    wording: str
    """What its comment says, without the id."""


class DoorsRead(NamedTuple):
    """What a text says of doors."""

    doors: Tuple[DoorHere, ...]
    """The doors, one of each IP version from which somebody may knock."""
    steps: Dict[str, int]
    """Door to how many steps its knock has."""
    ipv6_prefix: int
    """How many leading bits of an IPv6 source are remembered."""
    published: str
    """How what nat sends on from this host is guarded, as the option says it."""


def read_doors(text: str) -> DoorsRead:
    """Return the doors of a text that load_text() made."""
    rules = list(_rules(text))
    ports = _ports_of_chains(rules)
    opened: Dict[Tuple[str, str], Set[Ports]] = {}
    entrances: Dict[Tuple[str, str], TextRule] = {}
    windows: Dict[str, int] = {}
    steps: Dict[str, int] = {}
    for rule in rules:
        meaning, found = meaning_of(rule.wording), _ENTRANCE.search(rule.text)
        if meaning.kind == ENTRANCE and found:
            key = (found.group(2), _VERSIONS[found.group(1)])
            entrances[key] = rule
            opened.setdefault(key, set()).update(ports.get(rule.chain, ()))
        elif meaning.kind == STEP:
            steps[meaning.door] = meaning.total
            windows.update((name, int(seconds)) for name, seconds in _WINDOW.findall(rule.text))
    behind = _Behind(rules)
    doors = tuple(
        DoorHere(
            name,
            version,
            tuple(ports_name(each) for each in _merged(opened[name, version])),
            windows[name],
            _sources(rule.text),
            "delete @open" in rule.text,
            behind.networks(name, version),
        )
        for (name, version), rule in entrances.items()
        if not behind.opens_nothing(name, version)
    )
    mask = _MASK.search(text)
    bits = bin(int(ipaddress.IPv6Address(mask.group(1)))).count("1") if mask else 128
    return DoorsRead(doors, steps, bits, _published(rules))


def _rules(text: str) -> Iterator[TextRule]:
    for found in map(_RULE.match, text.splitlines()):
        if found:
            yield TextRule(*found.groups())


def _published(rules: List[TextRule]) -> str:
    words = {rule.wording for rule in rules if rule.chain == FORWARD}
    if wording_of(REFUSE_PUBLISHED) in words:
        return PUBLISHED_POLICY
    return PUBLISHED_DOORS if PUBLISHED_PORTS in words else PUBLISHED_NONE


def _ports_of_chains(rules: List[TextRule]) -> Dict[str, Set[Ports]]:
    ports: Dict[str, Set[Ports]] = {}
    for rule in rules:
        if (rule.chain in (INPUT, SERVICES) or rule.chain.startswith(BEHIND_CHAIN)) and not rule.text.startswith(
            SENT_ON
        ):
            for number, port, chain in _SINGLE.findall(rule.text):
                ports.setdefault(chain, set()).add(Ports(int(port), int(port), _PROTOCOLS[number]))
            for first, last, chain in _RANGE.findall(rule.text):
                ports.setdefault(chain, set()).add(Ports(int(first), int(last), rule.text.split(" ", 1)[0]))
    return ports


class _Behind:
    """The hosts behind this one that doors open their ports on: of an address to the chain for its ports, to those of the doors."""

    def __init__(self, rules: List[TextRule]) -> None:
        networks: Dict[Tuple[str, str], Set[Any]] = {}
        chains: Dict[str, Set[str]] = {}
        doors: Dict[str, Set[str]] = {}
        for rule in rules:
            for first, last, chain in _ADDRESSES.findall(rule.text) if rule.wording == BEHIND else ():
                ends = [ipaddress.ip_address(each) for each in (first, last or first)]
                version = _VERSIONS[str(ends[0].version)]
                networks.setdefault((chain, version), set()).update(ipaddress.summarize_address_range(*ends))
            if rule.chain.startswith(BEHIND_CHAIN):
                chains.setdefault(rule.chain, set()).update(_VERDICT.findall(rule.text))
            meaning = meaning_of(rule.wording)
            if meaning.kind == ENTRANCE:
                doors.setdefault(rule.chain, set()).add(meaning.door)
        self._networks: Dict[Tuple[str, str], Set[Any]] = {}
        self._names: Set[str] = set()
        for (chain, version), found in networks.items():
            for name in {door for service in chains.get(chain, ()) for door in doors.get(service, ())}:
                self._names.add(name)
                self._networks.setdefault((name, version), set()).update(found)

    def networks(self, door: str, version: str) -> Tuple[Any, ...]:
        """Return the networks of a door, of one IP version; none where its ports are this host's."""
        return tuple(ipaddress.collapse_addresses(self._networks.get((door, version), ())))

    def opens_nothing(self, door: str, version: str) -> bool:
        """Return whether all hosts of a door are of the other IP version."""
        return door in self._names and (door, version) not in self._networks


def _merged(pieces: Set[Ports]) -> List[Ports]:
    """Return ports with the pieces of a range put together again."""
    merged: List[Ports] = []
    for each in sorted(pieces, key=lambda ports: (ports.protocol, ports.first)):
        before = merged[-1] if merged else None
        if before and before.protocol == each.protocol and before.last + 1 == each.first and _has_range(before, each):
            merged[-1] = before._replace(last=each.last)
        else:
            merged.append(each)
    return merged


def _has_range(*ports: Ports) -> bool:
    return any(each.first != each.last for each in ports)


def _sources(text: str) -> Tuple[Any, ...]:
    found = _SOURCES.match(text)
    words = (found.group(1) or found.group(2)).split(", ") if found else []
    return tuple(ipaddress.ip_network(word) for word in words)


__all__ = ("DoorsRead", "read_doors")
