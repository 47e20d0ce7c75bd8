# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A rule before it is written, and its matches in the spelling of iptables-save. Pure."""

from typing import Dict, Iterable, List, NamedTuple

from ansible_collections.sesame.portknock.plugins.module_utils._names import comments
from ansible_collections.sesame.portknock.plugins.module_utils._names.comments import Meaning
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Door, Network, Spec, family_of
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports, multiport_text, port_text

SYN = "--tcp-flags FIN,SYN,RST,ACK SYN"
"""Matches a packet that begins a TCP connection."""
LOG_LIMIT = "-m limit --limit 10/min"


class RuleParts(NamedTuple):
    """A rule before its comment is written."""

    matches: str
    """What it matches, '' for everything."""
    meaning: Meaning
    """What its comment is to say."""
    target: str
    """``-j`` or ``-g`` and what follows, '' for a rule that only puts a source on lists."""


Chains = Dict[str, List[RuleParts]]
"""Name of a chain to its rules."""


def of_family(networks: Iterable[Network], family: str) -> List[Network]:
    """Return those networks that are of a family."""
    return [network for network in networks if family_of(network) == family]


def source_match(network: Network) -> str:
    """Return the match of a source; iptables-save prints none for the whole internet and always a prefix length."""
    return "" if network.prefixlen == 0 else f"-s {network}"


def joined(*parts: str) -> str:
    """Return parts of a rule as one text, empty ones left out."""
    return " ".join(part for part in parts if part)


def port_match(ports: Ports) -> str:
    """Return the match of a destination port or of a range of them."""
    return f"-p {ports.protocol} -m {ports.protocol} --dport {port_text(ports)}"


def multiport_match(protocol: str, group: List[Ports], new: bool = False) -> str:
    """Return the match of several destination ports.

    :param new: match of TCP only packets that begin a connection.
    """
    syn = f"-m tcp {SYN} " if new and protocol == "tcp" else ""
    return f"-p {protocol} {syn}-m multiport --dports {multiport_text(group)}"


def knocker_matches(door: Door, family: str) -> List[str]:
    """Return the matches of the sources that may knock: one empty match for everyone, none where no source of a family may."""
    if not door.sources:
        return [""]
    return [source_match(network) for network in of_family(door.sources, family)]


def trusted_rules(spec: Spec, family: str, target: str) -> List[RuleParts]:
    """Return the rules for trusted interfaces but the loopback, and for trusted sources."""
    interfaces = [name for name in spec.trusted_interfaces if name != "lo"]
    rules = [RuleParts("-i " + name, comments.TRUSTED_INTERFACE, target) for name in interfaces]
    return rules + [
        RuleParts(source_match(network), comments.TRUSTED_SOURCE, target)
        for network in of_family(spec.trusted_sources, family)
    ]


__all__ = (
    "LOG_LIMIT", "SYN", "Chains", "RuleParts", "joined", "knocker_matches", "multiport_match", "of_family", "port_match",
    "source_match", "trusted_rules",
)  # fmt: skip
