# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where verify looks: which address of each family, and why one may say nothing from here. Pure.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import FAMILIES, IPV4, IPV6, Spec
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import is_address

FAMILY_NAMES = {IPV4: "IPv4", IPV6: "IPv6"}
_VIRTUAL = re.compile(r"^(docker|br-|veth|virbr|cni|flannel|cali|podman|lxc|lxd)")

# Runs on the host as the user who logged in: sudo takes the connection's addresses out of the environment.
FACTS_SCRIPT = (
    'PATH=$PATH:/usr/sbin:/sbin; echo "connection ${SSH_CONNECTION-}"; '
    "if found=$(ip -o address show up scope global 2>/dev/null); "
    'then echo listed; echo "$found" | sed -n "s/^[0-9]/address &/p"; fi'
)
"""A script for sh that prints which addresses the ssh connection has and which ones the host has, for read_facts()."""

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class HostAddress(NamedTuple):
    """An address of the host, and what is known of looking at it from here."""

    family: str
    """``ipv4`` or ``ipv6``."""
    address: str
    """The address as text, '' where none is known."""
    given: bool
    """Whether the inventory names it, and not the host itself."""
    client: str
    """The address that the host sees this controller come from."""
    interface: str
    """The interface of the host that has the address, '' where that is not known."""
    unseen: str
    """Why nothing can be seen from here, or ''."""


class InterfaceAddress(NamedTuple):
    """An address as the host lists it."""

    interface: str
    """The interface's name."""
    address: str
    """The address as text."""
    usable: bool
    """Whether others may use it: it is neither temporary nor deprecated nor still being checked."""


class HostFacts(NamedTuple):
    """What the host says of itself and of the connection."""

    client: str
    """The controller's address of the ssh connection, '' where it is none."""
    server: str
    """The host's address of the ssh connection, '' where it is none."""
    addresses: tuple[InterfaceAddress, ...]
    """The host's addresses."""
    listed: bool
    """Whether the host could list its addresses."""


def read_facts(text: str) -> HostFacts:
    """Read the output of FACTS_SCRIPT."""
    client = server = ""
    addresses, listed = [], False
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["connection"] and len(words) == 5:
            client, server = _without_mapping(words[1]), _without_mapping(words[3])
        elif words[:1] == ["listed"]:
            listed = True
        elif len(words) > 4 and words[0] == "address" and words[3] in ("inet", "inet6"):
            usable = not {"deprecated", "temporary", "tentative", "dadfailed"} & set(words[5:])
            addresses.append(InterfaceAddress(words[2].split("@", 1)[0], words[4].split("/", 1)[0], usable))
    return HostFacts(client, server, tuple(addresses), listed)


def _without_mapping(address: str) -> str:
    """sshd may write an IPv4 address as one that is mapped into IPv6."""
    address = address.split("%", 1)[0]
    return address[7:] if address.startswith("::ffff:") and "." in address else address


def family_of(address: str) -> str:
    """Return ``ipv4`` or ``ipv6`` for an address as text."""
    return IPV6 if ":" in address else IPV4


def addresses_to_try(
    known: Sequence[str], facts: HostFacts, spec: Spec, local_address: Callable[[str], str]
) -> list[HostAddress]:
    """Return a HostAddress for each family.

    :param known: the addresses that the inventory gives, a name's in the resolver's order.
    :param local_address: function of an address: the one that this machine sends from, '' if it has no route there.
    """
    return [_address_of_family(family, known, facts, spec, local_address) for family in FAMILIES]


def _address_of_family(
    family: str, known: Sequence[str], facts: HostFacts, spec: Spec, local_address: Callable[[str], str]
) -> HostAddress:
    given = [address for address in known if family_of(address) == family]
    address = given[0] if given else _address_from_host(family, known, facts)
    found = HostAddress(family, address, bool(given), "", "", "")
    name = FAMILY_NAMES[family]
    if not address:
        if facts.listed:
            return found._replace(unseen=f"the host has no {name} address that others could use")
        return found._replace(unseen=f"no {name} address of the host is known")
    if family not in spec.ip_versions:
        return found._replace(unseen="portknock_ip_versions leaves it out: nothing is guarded there")
    local = local_address(address)
    if not local:
        return found._replace(unseen=f"this controller has no route to {address}")
    client = facts.client if facts.client and family_of(facts.client) == family else local
    found = found._replace(client=client, interface=_interface_of(address, facts))
    return found._replace(unseen=_trust(found, local, spec))


def _address_from_host(family: str, known: Sequence[str], facts: HostFacts) -> str:
    """Return the host's own address of a family, best one on the interface that the connection comes in by."""
    interfaces = {each.address: each.interface for each in facts.addresses}
    interface = next((interfaces[address] for address in [facts.server, *known] if address in interfaces), "")
    candidates = sorted(
        (each.interface != interface, not each.usable, index, each.address)
        for index, each in enumerate(facts.addresses)
        if family_of(each.address) == family and (each.interface == interface or not _VIRTUAL.match(each.interface))
    )  # fmt: skip
    return candidates[0][-1] if candidates else ""


def _interface_of(address: str, facts: HostFacts) -> str:
    return next((each.interface for each in facts.addresses if each.address == address), "")


def _trust(found: HostAddress, local: str, spec: Spec) -> str:
    """Return why this controller needs no knock, or ''."""
    client = ipaddress.ip_address(found.client.split("%", 1)[0])
    if client.is_loopback or local == found.address:
        return "this controller is the host itself, which never needs a knock"
    if _within(client, spec.trusted_sources):
        return "this controller is in portknock_trusted_sources: it never needs a knock"
    for name in spec.trusted_interfaces:
        if found.interface and (found.interface == name or (name[-1] == "+" and found.interface.startswith(name[:-1]))):
            return f"this controller comes in by {found.interface}, a trusted interface: it never needs a knock"
    return ""


def _within(address: IpAddress, networks: Iterable[IpNetwork]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


def may_use(sources: Sequence[IpNetwork], found: HostAddress) -> bool:
    """Return whether a door or an exception that is for these sources is for this controller."""
    return not sources or _within(ipaddress.ip_address(found.client.split("%", 1)[0]), sources)


__all__ = (
    "FACTS_SCRIPT",
    "FAMILY_NAMES",
    "HostAddress",
    "HostFacts",
    "InterfaceAddress",
    "addresses_to_try",
    "family_of",
    "is_address",
    "may_use",
    "read_facts",
)
