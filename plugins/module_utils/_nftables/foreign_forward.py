# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What chains of others do to packets that this host sends on to hosts behind it, and that a door has let through. Pure.

Only what they certainly refuse is told: where packets go, what others ask of that, and what nat does to published ports, is not known.
"""

from typing import Iterator, List, Sequence, Set

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_condition import NewPacket, Sender
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_walk import (
    DROPPED,
    POLICY_DROPPED,
    BaseChain,
    NftWalker,
    base_chains,
    families_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import TABLE
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Spec, family_of
from ansible_collections.sesame.portknock.plugins.module_utils._tables.commands import NFT_FAMILIES


def findings_behind(items: Sequence[Item], spec: Spec, families: Sequence[str]) -> List[Finding]:
    """Return what there is to say of chains that refuse packets to hosts behind this one.

    :param items: all that nft lists; chains of iptables-nft as well.
    :param families: the IP versions that are managed.
    """
    if not any(door.to for door in spec.doors):
        return []
    sender = Sender(trusted_interfaces=spec.trusted_interfaces, trusted_sources=spec.trusted_sources)
    chains = [chain for chain in base_chains(items, ("forward",)) if f"{chain.family} {chain.table}" != TABLE]
    return [
        finding for chain in chains for finding in _findings(chain, NftWalker(items, chain, sender), spec, families)
    ]


def _findings(chain: BaseChain, walker: NftWalker, spec: Spec, families: Sequence[str]) -> Iterator[Finding]:
    met = [family for family in families if NFT_FAMILIES[family] in families_of(chain)]
    shut: List[str] = []
    outcomes: Set[str] = set()
    for door in spec.doors:
        own = [family for family in met if any(family_of(network) == family for network in door.to)]
        packets = [NewPacket(NFT_FAMILIES[each], ports.protocol, ports.first) for each in own for ports in door.opens]
        found = [walker.outcomes(packet) for packet in packets]
        refused = [each for each in found if each and each <= {DROPPED, POLICY_DROPPED}]
        if refused:
            shut.append(door.name)
            outcomes.update(*refused)
    if shut:
        by_policy = outcomes == {POLICY_DROPPED}
        where = f"{chain.family} {chain.table}"
        message = (
            f"the chain {chain.name} of table {where} {'drops by its policy' if by_policy else 'drops'} packets to hosts behind this one "
            f"that door{'s' if len(shut) > 1 else ''} {', '.join(shut)} would let through, and a packet must pass both. Accept them there "
            f"too: nft list chain {where} {chain.name}."
        )
        rule = f"table {where}, chain {chain.name}, policy {chain.policy}"
        yield Finding("policy_drop" if by_policy else "native_table", met[0] if len(met) == 1 else "", rule, message)


__all__ = ("findings_behind",)
