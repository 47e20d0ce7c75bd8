# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""IP protocols without ports that a host uses and policy reject refuses. Pure."""

import ipaddress
import re
from typing import Any, Dict, Iterable, List, Optional, Sequence

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding, address_of
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.condition import is_interface
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document, Table
from ansible_collections.sesame.portknock.plugins.module_utils._paths import IPTABLES
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Spec
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import foreign_rules

_NAMES = {
    2: ("igmp",), 4: ("ipencap", "ipv4"), 41: ("ipv6",), 46: ("rsvp",), 47: ("gre",), 50: ("esp", "ipv6-crypt"),
    51: ("ah", "ipv6-auth"), 88: ("eigrp",), 89: ("ospf", "ospfigp"), 94: ("ipip",), 103: ("pim",), 112: ("vrrp",),
    115: ("l2tp",), 132: ("sctp",),
}  # fmt: skip
"""Number of an IP protocol to how rules name it, the usual name first."""


def may_accept(table: Optional[Table], protocol: int) -> bool:
    """Return whether a foreign rule may accept packets of an IP protocol; what else the rule asks of them is not looked into."""
    rules = [rule.text for chain in table.chains.values() for rule in chain] if table else []
    names = "|".join((str(protocol), *_NAMES.get(protocol, ())))
    mentioned = re.compile(rf"-p ({names})(?![\w-])")
    return any(mentioned.search(text) for text in rules) or any(
        _accepts_any(rule.text) for rule in foreign_rules(table)
    )


def _accepts_any(text: str) -> bool:
    return text.endswith("-j ACCEPT") and "-p " not in text and "ESTABLISHED" not in text and "-i lo " not in text


def is_trusted(address: str, spec: Spec) -> bool:
    """Return whether packets from an address are let in without a knock because of their source."""
    return bool(address) and any(address_of(address) in ipaddress.ip_network(each) for each in spec.trusted_sources)


def protocol_findings(
    in_use: Iterable[Any],
    spec: Spec,
    documents: Dict[str, Document],
    local: LocalNetwork,
    without: Sequence[str] = (),
) -> List[Finding]:
    """Return a Finding for each IP protocol without ports that the host uses and that policy reject refuses.

    :param in_use: what the host's Protocols say.
    :param documents: the live rulesets of the IP versions that are managed.
    :param without: the IP versions that are managed, and of which no rule of others can except anything from the refusal.
    """
    refused: Dict[int, List[Any]] = {}
    for each in in_use if spec.policy == "reject" else ():
        found = documents.get(each.family)
        kept = found is None or may_accept(found.table("filter"), each.protocol)
        is_refused = each.family in without or not kept
        if is_refused and not _needs_nothing(each.peer, spec, local):
            refused.setdefault(each.protocol, []).append(each)
    return [_finding(protocol, uses, without) for protocol, uses in sorted(refused.items())]


def _needs_nothing(peer: str, spec: Spec, local: LocalNetwork) -> bool:
    """Return whether a peer is trusted, or is this host itself."""
    if not peer:
        return False
    address = address_of(peer)
    interface = local.interface_to(address)
    through = bool(interface) and any(is_interface(name, interface) for name in spec.trusted_interfaces)
    return through or is_trusted(peer, spec) or any(address in network for network in local.own)


def _finding(protocol: int, uses: List[Any], without: Sequence[str]) -> Finding:
    name = _NAMES.get(protocol, ("",))[0]
    users = list(dict.fromkeys(each.by for each in uses))
    families = list(dict.fromkeys(each.family for each in uses))
    peers = list(dict.fromkeys(each.peer for each in uses if each.peer))
    named = bool(peers) and all(each.peer for each in uses)
    trust = f"name {', '.join(peers)} in trusted_sources" if named else ""
    if set(families) & set(without):
        advice = (
            trust
            or "name the other ends in trusted_sources, or the interface that they are behind in trusted_interfaces"
        )
    else:
        rules = " and ".join(f"{IPTABLES[family]} -I INPUT -p {protocol} -j ACCEPT" for family in families)
        advice = f"{trust}{', or ' if trust else ''}add a rule of your own: {rules}"
    known = "" if named else " Where the other ends are in trusted_sources already, acknowledge this finding."
    message = (
        f"policy: {', '.join(users)} {'uses' if len(users) == 1 else 'use'} IP protocol {protocol}{f' ({name})' if name else ''}, and "
        "policy reject refuses its packets, unless this host has sent some to their source shortly before. To keep it, "
        f"{advice}.{known}"
    )
    return Finding("protocol_refused", families[0] if len(families) == 1 else "", "", message)


__all__ = ("is_trusted", "may_accept", "protocol_findings")
