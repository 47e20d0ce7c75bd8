# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What decides on packets beside the tables that are managed: chains of nftables, and the policy of the other backend. Pure."""

from typing import Dict, List, Optional, Sequence, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.commands import NFT_FAMILIES, Iptables
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.findings import Names
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.hooks import Protected, watched_packets
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.native import Listing
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_walk import (
    ACCEPTED,
    DROPPED,
    POLICY_DROPPED,
    SENT_ELSEWHERE,
    UNTRACKED,
    BaseChain,
    NewPacket,
    NftWalker,
    base_chains,
    families_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.packet_walk import packets_of
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import BUILT_IN, TABLES
from ansible_collections.sesame.portknock.plugins.module_utils._paths import IPTABLES

_MAY, _UNTRACKS = "may drop or redirect", "keeps out of connection tracking the"
_VERBS = {
    frozenset((POLICY_DROPPED,)): "drops by its policy", frozenset((DROPPED,)): "drops",
    frozenset((DROPPED, POLICY_DROPPED)): "drops", frozenset((SENT_ELSEWHERE,)): "redirects",
}  # fmt: skip

_INSTALL_NFT = "Install the package nftables, without enabling its service, then run this again."

Port = Tuple[int, str]


def findings_beside(
    iptables: Iptables, listing: Listing, protected: Protected, families: Sequence[str]
) -> List[Finding]:
    """Return findings about what decides on packets beside the tables of one backend.

    :param listing: what is in nftables.
    :param protected: what names the ports.
    :param families: the IP versions that are managed.
    """
    if listing.has_rules:
        found = native_findings(listing.items, protected, families, iptables.is_nft)
    else:
        found = _unread_tables(listing.items, families, iptables.is_nft)
    return found + other_policies(iptables.other(), families)


def _unread_tables(items: Optional[Sequence[Item]], families: Sequence[str], own: bool) -> List[Finding]:
    """Return a Finding where packets must pass, or may have to, chains beside iptables that cannot be looked at without nft."""
    if items is None:
        message = (
            "whether rules of nftables beside iptables drop packets to the doors is not known: the kernel does not list its chains, and "
            f"the command nft is not installed. {_INSTALL_NFT}"
        )
        return [Finding("native_unknown", "", "", message)]
    chains = [
        chain
        for chain in base_chains(items)
        if not (own and _is_of_iptables(chain)) and {NFT_FAMILIES[each] for each in families} & set(families_of(chain))
    ]
    tables = sorted({f"{chain.family} {chain.table}" for chain in chains})
    if not tables:
        return []
    message = (
        f"packets to this host pass chains of nftables beside iptables ({_tables(tables)}), and whether these drop packets to the doors "
        f"is not known, because the command nft is not installed. {_INSTALL_NFT}"
    )
    return [Finding("native_unknown", "", "", message)]


def _tables(names: Sequence[str]) -> str:
    return ("table " if len(names) == 1 else "tables ") + ", ".join(names)


def native_findings(
    items: Optional[Sequence[Item]], protected: Protected, families: Sequence[str], own: bool
) -> List[Finding]:
    """Return findings about chains of nftables that packets to doors, knocks and allowed ports must pass as well.

    :param items: what nft lists; None where it could not.
    :param protected: what names the ports.
    :param families: the IP versions that are managed.
    :param own: whether iptables keeps its own tables in there.
    """
    if items is None:
        message = (
            "'nft -j list ruleset' does not work on this host, so whether rules of nftables beside iptables drop packets to the doors "
            "could not be looked at. Run it by hand to see why."
        )
        return [Finding("native_unknown", "", "", message)]
    return [
        finding
        for chain in base_chains(items)
        if not (own and _is_of_iptables(chain))
        for finding in _findings_of(chain, NftWalker(items, chain), protected, families)
    ]


def _is_of_iptables(chain: BaseChain) -> bool:
    return chain.family in NFT_FAMILIES.values() and chain.table in TABLES and chain.name in BUILT_IN


def _findings_of(chain: BaseChain, walker: NftWalker, protected: Protected, families: Sequence[str]) -> List[Finding]:
    watched = watched_packets(protected)
    ports = {(port, name) for each in watched[:2] for name in ("tcp", "udp") for port in getattr(each, name)}
    seen: Dict[str, Set[Port]] = {}
    met = [family for family in families if NFT_FAMILIES[family] in families_of(chain)]
    for family in met:
        for port, protocol in sorted(ports):
            outcomes = walker.outcomes(NewPacket(NFT_FAMILIES[family], protocol, port))
            if UNTRACKED in outcomes and port in getattr(watched.opened, protocol):
                seen.setdefault(_UNTRACKS, set()).add((port, protocol))
            if outcomes - {UNTRACKED} != {ACCEPTED}:
                seen.setdefault(_VERBS.get(outcomes - {UNTRACKED}, _MAY), set()).add((port, protocol))
    family = met[0] if len(met) == 1 else ""
    return [_finding(chain, verb, met_ports, family, protected) for verb, met_ports in sorted(seen.items())]


def _finding(chain: BaseChain, verb: str, ports: Set[Port], family: str, protected: Protected) -> Finding:
    opened, knocked, allowed = Names(protected).split(packets_of(ports))
    whose = [f"door {name}" for name in opened] + [f"the knock of door {name}" for name in knocked] + allowed
    where = f"chain {chain.name} of table {chain.family} {chain.table}"
    if verb == _MAY:
        rest = "depending on what the rules alone do not decide. Look at it, and try a knock"
    elif verb == _UNTRACKS:
        rest = "so that connections through the door stop when its window is over. Take the rule with notrack out"
    else:
        rest = "and a packet must pass both. Accept them there too, or remove that chain"
    message = (
        f"the {where}, which is nftables' own and not seen with iptables, {verb} packets to {', '.join(whose)}, {rest}: "
        f"nft list chain {chain.family} {chain.table} {chain.name}."
    )
    rule = f"table {chain.family} {chain.table}, chain {chain.name}, policy {chain.policy}"
    if verb == _UNTRACKS:
        return Finding("untracked", family, rule, message)
    by_policy = verb == _VERBS[frozenset((POLICY_DROPPED,))]
    return Finding("policy_drop" if by_policy else "native_table", family, rule, message)


def other_policies(other: Iptables, families: Sequence[str]) -> List[Finding]:
    """Return findings about the other backend, where its INPUT drops everything and has no rule."""
    return [
        _other_policy(family, f"{IPTABLES[family]}-{other.backend}") for family in families if other.drops_all(family)
    ]


def _other_policy(family: str, command: str) -> Finding:
    message = (
        f"the policy of INPUT in the other backend of iptables is DROP, without a rule that accepts anything, and a packet must pass "
        f"both: nothing reaches this host over {family}. Set it back: {command} -P INPUT ACCEPT."
    )
    return Finding("policy_drop", family, f"{command} -P INPUT DROP", message)


__all__ = ("findings_beside", "native_findings", "other_policies")
