# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of the collection read back: what doors there are. Pure."""

import ipaddress
from typing import Dict, Iterable, List, Mapping, NamedTuple, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import DOORS, HEAD
from ansible_collections.sesame.portknock.plugins.module_utils._names.comments import (
    ALLOWED,
    CLOSING_STEP,
    ENTRANCE,
    FORWARDED,
    STEP,
    TRUSTED_SOURCE,
    UNKNOWN,
    Meaning,
    read_comment,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.rule_text import options
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Allow, Network, Step
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports


class InstalledDoor(NamedTuple):
    """A door as the rules of one family have it."""

    name: str
    """Its name."""
    opens: Tuple[Ports, ...]
    """The ports that it opens."""
    window: int
    """Seconds after the last step in which new connections are accepted."""
    sources: Tuple[Network, ...]
    """Who may knock, of this family; empty for everyone."""
    once: bool
    """Whether a knock is good for one connection only."""
    knock: Tuple[Step, ...]
    """The steps that open it; empty where the rules do not recognise them (engine knockd). Secret."""
    close: Tuple[Step, ...]
    """The steps that close it. Secret."""
    to: Tuple[Network, ...] = ()
    """The hosts behind this one that it opens its ports on; empty for this host itself."""

    @property
    def here(self) -> Tuple[Ports, ...]:
        """The ports of this host that it opens: none where ``to`` names hosts behind."""
        return () if self.to else self.opens


class Installed(NamedTuple):
    """What the rules of one family do. The order of doors is that of their chains."""

    doors: Tuple[InstalledDoor, ...]
    """The doors."""
    allow: Tuple[Allow, ...]
    """Ports that need no knock."""
    trusted_sources: Tuple[Network, ...]
    """Sources that never need a knock."""
    trusted_interfaces: Tuple[str, ...]
    """Interfaces on which no packet needs a knock."""
    panic: bool
    """Whether doors and allowed ports are closed, because the host is in panic."""
    guards_published: bool = False
    """Whether doors guard what nat sends on from their ports."""


class InstalledRule:
    """One rule of the collection, taken apart."""

    def __init__(self, text: str) -> None:
        """Take its text, as iptables-save prints it."""
        self.options = list(options(text))
        comment = read_comment(text)
        self.meaning = comment.meaning if comment else Meaning(UNKNOWN)
        self.protocol = self.value("-p")
        self.source = self.value("-s")

    def value(self, name: str) -> str:
        """Return the first value of an option, '' where it has none."""
        return next((values[0] for option, values, _negated in self.options if option == name and values), "")

    def ports(self) -> Ports:
        """Return its destination ports; of a packet that is sent on those before nat.

        :raises ValueError: if it names none.
        """
        first, _colon, last = (self.value("--dport") or self.value("--ctorigdstport")).partition(":")
        return Ports(int(first), int(last or first), self.protocol)

    def behind(self) -> str:
        """Return the hosts behind that it is about, '' for none."""
        return self.value("-d") or self.value("--ctorigdst")

    def removes(self) -> bool:
        """Return whether it takes sources off a list."""
        return any(option == "--remove" for option, _values, _negated in self.options)


def read_installed(chains: Mapping[str, Iterable[str]]) -> Installed:
    """Return what chains of the collection do.

    :param chains: name to rules, of one family.
    """
    rules = {name: [InstalledRule(text) for text in texts] for name, texts in chains.items()}
    head = rules.get(HEAD, [])
    return Installed(
        doors=_doors(rules),
        allow=tuple(_allow(rule) for rule in rules.get(DOORS, []) if rule.meaning.kind == ALLOWED),
        trusted_sources=tuple(
            ipaddress.ip_network(rule.source) for rule in head if rule.meaning == TRUSTED_SOURCE and rule.source
        ),
        trusted_interfaces=tuple(rule.value("-i") for rule in head if rule.value("-i")),
        panic=any(rule.meaning.panic for each in rules.values() for rule in each),
        guards_published=any(
            rule.meaning.kind == FORWARDED and not rule.behind() for each in rules.values() for rule in each
        ),
    )


def _allow(rule: InstalledRule) -> Allow:
    sources = (ipaddress.ip_network(rule.source),) if rule.source else ()
    return Allow(rule.ports(), sources, rule.meaning.note)


_Steps = Dict[Tuple[str, str], Dict[int, Step]]
"""(door, STEP or CLOSING_STEP) to number to Step."""


def _doors(rules: Mapping[str, List[InstalledRule]]) -> Tuple[InstalledDoor, ...]:
    entrances: Dict[str, List[InstalledRule]] = {}
    steps: _Steps = {}
    for name in sorted(rules):
        for rule in rules[name]:
            kind, door, number = rule.meaning.kind, rule.meaning.door, rule.meaning.number
            if kind == ENTRANCE or (kind == FORWARDED and rule.behind()):
                entrances.setdefault(door, []).append(rule)
            elif kind in (STEP, CLOSING_STEP):
                steps.setdefault((door, kind), {})[number] = Step(rule.ports().first, rule.protocol)
    return tuple(_door(name, found, steps) for name, found in entrances.items())


def _door(name: str, entrances: List[InstalledRule], steps: _Steps) -> InstalledDoor:
    def sequence(kind: str) -> Tuple[Step, ...]:
        found = steps.get((name, kind), {})
        return tuple(found[number] for number in sorted(found))

    return InstalledDoor(
        name=name,
        opens=tuple(sorted({rule.ports() for rule in entrances})),
        window=int(entrances[0].value("--seconds")),
        sources=tuple(
            ipaddress.ip_network(text) for text in sorted({rule.source for rule in entrances if rule.source})
        ),
        once=entrances[0].removes(),
        knock=sequence(STEP),
        close=sequence(CLOSING_STEP),
        to=tuple(sorted({ipaddress.ip_network(rule.behind()) for rule in entrances if rule.behind()})),
    )


__all__ = ("Installed", "InstalledDoor", "InstalledRule", "read_installed")
