# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was asked for: a checked, immutable Spec. Pure."""

from typing import NamedTuple, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports

IPV4, IPV6 = "ipv4", "ipv6"

FAMILIES = (IPV4, IPV6)

PROTOCOLS = ("tcp", "udp")

POLICIES = ("reject", "accept")

REJECT_WITH = ("icmp-port-unreachable", "tcp-reset", "icmp-admin-prohibited", "drop")

KERNEL, KNOCKD = "iptables", "knockd"

ENGINES = (KERNEL, KNOCKD)

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


def family_of(network):
    """Return ``ipv4`` or ``ipv6`` for an ``ipaddress`` network or address."""
    return IPV4 if network.version == 4 else IPV6


__all__ = (
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
    "Spec",
    "Step",
    "family_of",
)
