# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was asked for: a checked, immutable Spec. Pure."""

import ipaddress
from typing import NamedTuple, Tuple, Union

from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports

IPV4, IPV6 = "ipv4", "ipv6"
FAMILIES = (IPV4, IPV6)
PROTOCOLS = ("tcp", "udp")
POLICIES = ("reject", "accept")
REJECT_WITH = ("icmp-port-unreachable", "tcp-reset", "icmp-admin-prohibited", "drop")
KERNEL, KNOCKD, NFTABLES = "iptables", "knockd", "nftables"
PUBLISHED_DOORS, PUBLISHED_POLICY, PUBLISHED_NONE = "doors", "policy", "none"
PUBLISHED = (PUBLISHED_DOORS, PUBLISHED_POLICY, PUBLISHED_NONE)


class EngineTraits(NamedTuple):
    """What matters of an engine before it is known on which host it runs."""

    rules_recognise: bool
    """Whether rules of the packet filter recognise knocks."""
    first_steps_differ: bool
    """Whether no two sequences may begin with the same step."""
    uses_iptables: bool
    """Whether rules of iptables let in who has knocked."""


ENGINES = {
    KERNEL: EngineTraits(rules_recognise=True, first_steps_differ=False, uses_iptables=True),
    KNOCKD: EngineTraits(rules_recognise=False, first_steps_differ=True, uses_iptables=True),
    NFTABLES: EngineTraits(rules_recognise=True, first_steps_differ=False, uses_iptables=False),
}
"""Every engine by its name; which parts it has on a host, the registry in _change/engines.py says."""

DEFAULTS = {
    "doors": [],
    "policy": "reject",
    "published": PUBLISHED_DOORS,
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
    "conflicting_firewall": "fail",
    "guard": True,
    "guard_timeout": 30,
    "prove": True,
    "acknowledge": [],
    "metrics_directory": "",
    "state": "present",
}
"""What an option is that is not given."""

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
