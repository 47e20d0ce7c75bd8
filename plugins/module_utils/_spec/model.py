# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was asked for: a checked, immutable Spec. Pure."""

import ipaddress
from typing import NamedTuple, Tuple, Union

from ansible_collections.sesame.portknock.plugins.module_utils._spec.choices import (
    DEFAULTS,
    ENGINES,
    FAMILIES,
    IPV4,
    IPV6,
    KERNEL,
    KNOCKD,
    NFTABLES,
    POLICIES,
    PROTOCOLS,
    PUBLISHED,
    PUBLISHED_DOORS,
    PUBLISHED_NONE,
    PUBLISHED_POLICY,
    REJECT_WITH,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


class Step(NamedTuple):
    """One packet of a knock. Secret."""

    port: int
    """Its destination port."""
    protocol: str
    """``tcp`` or ``udp``."""


class Door(NamedTuple):
    """Ports that open to a source after its knock."""

    name: str
    """A letter, then letters, digits or underscores, 16 characters at most."""
    knock: Tuple[Step, ...]
    """The steps that open it, in order."""
    opens: Tuple[Ports, ...]
    """The ports that it opens."""
    window: int
    """Seconds after the last step in which new connections are accepted."""
    step_timeout: int
    """The longest pause between two steps, in seconds."""
    sources: Tuple[Network, ...]
    """Who may knock; empty for everyone."""
    close: Tuple[Step, ...]
    """The steps that close it before its window ends; empty for none."""
    once: bool
    """Whether a knock is good for one connection only."""
    to: Tuple[Network, ...] = ()
    """Hosts behind this one that the ports are on, without overlaps; empty for this host itself and what nat publishes on it."""

    @property
    def here(self) -> Tuple[Ports, ...]:
        """The ports of this host that it opens, and of what nat publishes on it: none where ``to`` names hosts behind."""
        return () if self.to else self.opens


class Allow(NamedTuple):
    """Ports that need no knock."""

    ports: Ports
    """The ports."""
    sources: Tuple[Network, ...]
    """Who may connect; empty for everyone."""
    comment: str
    """The administrator's words, '' for none."""


class Spec(NamedTuple):
    """Everything that was asked for, checked."""

    doors: Tuple[Door, ...]
    """In the order of the option."""
    policy: str
    """``reject``: refuse what nothing accepts; ``accept``: refuse the doors' ports only."""
    reject_with: str
    """How packets are refused: one of REJECT_WITH."""
    published: str
    """What holds for ports that nat sends on, one of PUBLISHED: ``doors`` guard theirs; ``policy`` too; ``none`` of the two."""
    allow: Tuple[Allow, ...]
    """Ports that need no knock."""
    trusted_sources: Tuple[Network, ...]
    """Sources that never need a knock."""
    trusted_interfaces: Tuple[str, ...]
    """Interfaces on which no packet needs a knock; a name that ends in ``+`` is a prefix."""
    icmp: bool
    """Whether all ICMP is accepted, ping included."""
    ip_versions: Tuple[str, ...]
    """The families that are managed."""
    ipv6_prefix: int
    """How many leading bits of an IPv6 source must match."""
    list_size: int
    """Sources that the kernel is to remember per list."""
    log: bool
    """Whether opened and refused connections are logged."""
    engine: str
    """What recognises knocks: one of ENGINES."""
    knockd_interface: str
    """The interface that knockd listens on, '' for that of the default route."""
    acknowledge: Tuple[str, ...]
    """Kinds of findings that need not be shown again."""
    metrics_directory: str
    """Where metrics are written, '' for nowhere."""
    panic: bool = False
    """Whether doors and allowed ports are closed to all but trusted sources, until the command ``portknock resume``."""

    @property
    def guards_published(self) -> bool:
        """Whether doors guard what nat sends on from their ports."""
        return self.published != PUBLISHED_NONE and ENGINES[self.engine].uses_iptables


def family_of(network: Union[Address, Network]) -> str:
    """Return ``ipv4`` or ``ipv6`` for an ``ipaddress`` network or address."""
    return IPV4 if network.version == 4 else IPV6


__all__ = (
    "DEFAULTS",
    "ENGINES", "FAMILIES", "IPV4", "IPV6", "KERNEL", "KNOCKD", "NFTABLES", "POLICIES", "PROTOCOLS", "PUBLISHED",
    "PUBLISHED_DOORS", "PUBLISHED_NONE", "PUBLISHED_POLICY", "REJECT_WITH", "Address", "Allow", "Door", "Network", "Spec", "Step",
    "family_of",
)  # fmt: skip
