# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What options may be, and what they are where they are not given. Pure, and imported by every run."""

from typing import NamedTuple

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

__all__ = (
    "DEFAULTS", "ENGINES", "FAMILIES", "IPV4", "IPV6", "KERNEL", "KNOCKD", "NFTABLES", "POLICIES", "PROTOCOLS", "PUBLISHED",
    "PUBLISHED_DOORS", "PUBLISHED_NONE", "PUBLISHED_POLICY", "REJECT_WITH", "EngineTraits",
)  # fmt: skip
