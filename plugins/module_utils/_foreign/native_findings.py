# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What decides on packets beside the tables that are managed: chains of nftables, and the policy of the other backend. Pure."""

from typing import Any, Collection, Dict, Iterable, List, Mapping, Optional, Sequence, Set

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.findings import Names
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.input_rules import Protected, watched_packets
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
    Outcomes,
    base_chains,
    families_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.packet_walk import Port, packets_of, ports_in
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import BUILT_IN, TABLES
from ansible_collections.sesame.portknock.plugins.module_utils._paths import IPTABLES, NFT_TABLE
from ansible_collections.sesame.portknock.plugins.module_utils._tables.commands import NFT_FAMILIES, Iptables
from ansible_collections.sesame.portknock.plugins.module_utils._tables.native import Listing

MAY, UNTRACKS = "may drop or redirect", "keeps out of connection tracking the"
BY_POLICY, DROPS, REDIRECTS = "drops by its policy", "drops", "redirects"
_VERBS = {
    frozenset((POLICY_DROPPED,)): BY_POLICY, frozenset((DROPPED,)): DROPS,
    frozenset((DROPPED, POLICY_DROPPED)): DROPS, frozenset((SENT_ELSEWHERE,)): REDIRECTS,
}  # fmt: skip

_INSTALL_NFT = "Install the package nftables, without enabling its service, then run this again."


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
        if not _is_own(chain, own) and {NFT_FAMILIES[each] for each in families} & set(families_of(chain))
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
        if not _is_own(chain, own)
        for finding in _findings_of(chain, NftWalker(items, chain), protected, families)
    ]


def _is_own(chain: BaseChain, own: bool) -> bool:
    """Return whether iptables has a chain, or the collection's engine nftables, which goes when the doors are iptables'."""
    return (own and is_of_iptables(chain)) or f"{chain.family} {chain.table}" == NFT_TABLE


def is_of_iptables(chain: BaseChain) -> bool:
    """Return whether a chain is one of those that iptables keeps in nftables."""
    return chain.family in NFT_FAMILIES.values() and chain.table in TABLES and chain.name in BUILT_IN


def _findings_of(chain: BaseChain, walker: NftWalker, protected: Protected, families: Sequence[str]) -> List[Finding]:
    watched = watched_packets(protected)
    met = [family for family in families if NFT_FAMILIES[family] in families_of(chain)]
    ports = {port for each in watched[:2] for port in ports_in(each)}
    seen = what_becomes(dict.fromkeys(met, walker), ports, ports_in(watched.opened))
    return chain_findings(chain, met, seen, Names(protected), "which is nftables' own and not seen with iptables, ")


def what_becomes(
    walkers: Mapping[str, NftWalker], ports: Iterable[Port], opened: Collection[Port]
) -> Dict[str, Set[Port]]:
    """Return what a chain does to packets to ports other than to let them go on: DROPS and the like, to those ports.

    :param walkers: IP version to what walks its packets through the chain.
    :param opened: those ports of which connections must be tracked.
    """
    seen: Dict[str, Set[Port]] = {}
    known: Dict[Any, Outcomes] = {}
    for family, walker in walkers.items():
        for port, protocol in ports:
            key = (family, protocol, walker.alike(port))
            if key not in known:
                known[key] = walker.outcomes(NewPacket(NFT_FAMILIES[family], protocol, port))
            outcomes = known[key]
            if UNTRACKED in outcomes and (port, protocol) in opened:
                seen.setdefault(UNTRACKS, set()).add((port, protocol))
            if outcomes - {UNTRACKED} != {ACCEPTED}:
                seen.setdefault(_VERBS.get(outcomes - {UNTRACKED}, MAY), set()).add((port, protocol))
    return seen


def chain_findings(
    chain: BaseChain, families: Sequence[str], seen: Dict[str, Set[Port]], names: Names, which: str = ""
) -> List[Finding]:
    """Return the findings about a chain.

    :param families: the IP versions of packets that it sees.
    :param seen: what what_becomes() returned of it.
    :param which: what there is to say of the chain, with ``, `` behind it.
    """
    family = families[0] if len(families) == 1 else ""
    return [_finding(chain, verb, ports, family, names, which) for verb, ports in sorted(seen.items())]


def _finding(chain: BaseChain, verb: str, ports: Set[Port], family: str, names: Names, which: str) -> Finding:
    where = f"chain {chain.name} of table {chain.family} {chain.table}{',' if which else ''}"
    if verb == MAY:
        rest = "depending on what the rules alone do not decide. Look at it, and try a knock"
    elif verb == UNTRACKS:
        rest = "so that connections through the door stop when its window is over. Take the rule with notrack out"
    else:
        rest = "and a packet must pass both. Accept them there too, or remove that chain"
    message = (
        f"the {where} {which}{verb} packets to {', '.join(names.whose(packets_of(ports)))}, {rest}: "
        f"nft list chain {chain.family} {chain.table} {chain.name}."
    )
    rule = f"table {chain.family} {chain.table}, chain {chain.name}, policy {chain.policy}"
    if verb == UNTRACKS:
        return Finding("untracked", family, rule, message)
    return Finding("policy_drop" if verb == BY_POLICY else "native_table", family, rule, message)


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


__all__ = (
    "BY_POLICY", "DROPS", "MAY", "REDIRECTS", "UNTRACKS", "chain_findings", "findings_beside", "is_of_iptables", "native_findings",
    "other_policies", "what_becomes",
)  # fmt: skip
