# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who gets to this host past the rules of others and the collection's table: programs that listen, and this connection. Pure."""

import ipaddress
from typing import Iterator, List, Sequence, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Connection, address_of
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.input_rules import arrival_of
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.listeners import (
    Reach,
    diverted,
    interface_of,
    reached_now,
    served,
)
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.published import Published, published_ports
from ansible_collections.sesame.portknock.plugins.module_utils._names import comments
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.condition import Arrival
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_condition import NewPacket, Sender
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item, expressions, rules_in
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_walk import (
    ACCEPTED,
    DROPPED,
    POLICY_DROPPED,
    SENT_ELSEWHERE,
    UNTRACKED,
    BaseChain,
    NftWalker,
    base_chains,
    families_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.packet_walk import (
    REFUSE,
    Port,
    Walker,
    packets_of,
    ports_in,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document, parse
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.foreign import Foreign, Save
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import TABLE
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.services import refuses_published
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import PROTOCOLS, Spec, family_of
from ansible_collections.sesame.portknock.plugins.module_utils._tables.commands import NFT_FAMILIES
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import without_own

_TRUSTED = (comments.TRUSTED_INTERFACE, comments.TRUSTED_SOURCE)


def reach_of(foreign: Foreign, family: str, spec: Spec, local: LocalNetwork, changes: bool) -> Reach:
    """Return the Reach of one IP version under the table of a Spec.

    :param foreign: what there is, with the collection's own table as it is before.
    :param changes: whether that is changed.
    """
    documents = [parse(save.text) for save in foreign.saves if save.family == family]
    bare = [without_own(document) for document in documents]
    nft, items = NFT_FAMILIES[family], foreign.items or ()
    others, ours = _walkers(foreign, family, spec, local)

    def published(ports: Set[Port]) -> Set[Port]:
        found = {port for port in ports if any(SENT_ELSEWHERE in _outcomes(walker, nft, port) for walker in others)}
        return found.union(*(diverted(document, spec, ports) for document in documents))

    def sent_on(ports: Set[Port], refused: bool) -> Set[Port]:
        found = published(ports)
        return served(spec, found) if refused else found

    def after(ports: Set[Port]) -> Set[Port]:
        taken = served(spec, ports) if spec.policy == "reject" else ports
        return sent_on(ports, refuses_published(spec)) | _passing(taken, others, nft, bare, spec)

    refused_now = _refuses_published_now(items)
    named = {(port, protocol) for walker in others for port in walker.ports_named() for protocol in PROTOCOLS}
    closes = refuses_published(spec) and not refused_now
    closing = _closing(documents, published(named), spec, local) if closes else []
    return Reach(
        family,
        changes,
        lambda ports: sent_on(ports, refused_now) | _passing(ports, [*others, *ours], nft, documents, spec),
        after,
        published,
        closing=closing,
    )


def _passing(
    ports: Set[Port], walkers: Sequence[NftWalker], family: str, tables: Sequence[Document], spec: Spec
) -> Set[Port]:
    """Return those ports whose packets get through chains of nftables, and through tables of iptables.

    :param family: as nft names it.
    """
    found = {port for port in ports if all(ACCEPTED in _outcomes(walker, family, port) for walker in walkers)}
    for document in tables:
        found = reached_now(document, spec, found)
    return found


def _walkers(foreign: Foreign, family: str, spec: Spec, local: LocalNetwork) -> Tuple[List[NftWalker], List[NftWalker]]:
    """Return what walks packets of anybody through the chains of others, and through ours as it is."""
    sender = Sender(
        anybody=True,
        arrival=arrival_of(local, family),
        trusted_interfaces=spec.trusted_interfaces,
        trusted_sources=spec.trusted_sources,
    )
    nft, items = NFT_FAMILIES[family], foreign.items or ()
    others = [NftWalker(items, chain, sender) for chain in foreign.chains() if nft in families_of(chain)]
    ours = [NftWalker(_without_trust(items), chain, sender) for chain in base_chains(items) if _is_ours(chain)]
    return others, ours


def _refuses_published_now(items: Sequence[Item]) -> bool:
    """Return whether the table refuses already what nat publishes without a door."""
    wordings = map(_wording, rules_in(items, *TABLE.split()))
    return any(comments.meaning_of(wording) == comments.REFUSE_PUBLISHED for wording in wordings)


def _closing(documents: Sequence[Document], sent: Set[Port], spec: Spec, local: LocalNetwork) -> List[Published]:
    """Return what nat publishes that is no door's and not allowed: by rules of iptables, and the ports that nftables sends on."""
    trusted = spec.trusted_interfaces, spec.trusted_sources
    found = [each for document in documents for each in published_ports(document, local.own, trusted)]
    found += [Published(port, protocol, "") for port, protocol in sorted(sent)]
    return [each for each in found if not served(spec, {(each.port, each.protocol)})]


def _outcomes(walker: NftWalker, family: str, port: Port) -> Set[str]:
    return set(walker.outcomes(NewPacket(family, port[1], port[0])))


def _is_ours(chain: BaseChain) -> bool:
    return f"{chain.family} {chain.table}" == TABLE


def _wording(rule: Item) -> str:
    """Return what a comment of ours says, without its id."""
    return str(rule.get("comment", "")).partition(" ")[2]


def _without_trust(items: Sequence[Item]) -> List[Item]:
    """Return a listing without those rules of the table that let in who is trusted."""

    def trusts(item: Item) -> bool:
        rule = item.get("rule") or {}
        is_own = f"{rule.get('family')} {rule.get('table')}" == TABLE
        return is_own and comments.meaning_of(_wording(rule)) in _TRUSTED

    return [item for item in items if not trusts(item)]


def what_cuts(foreign: Foreign, connection: Connection, local: LocalNetwork) -> str:
    """Return why no new connection like one would get in, whatever the doors let in; '' where nothing of others certainly refuses it."""
    found = next(_refuse(foreign, connection, local), "")
    return found and (
        f"{found} refuses new connections from {connection.source} to port {connection.port}, by which this connection comes. A packet "
        "must pass that as well as the doors, so none like this one would get in again. Accept it there, then run this again."
    )


def _refuse(foreign: Foreign, connection: Connection, local: LocalNetwork) -> Iterator[str]:
    """Yield what certainly refuses new connections like one."""
    family = family_of(connection.source)
    interface = interface_of(connection, local)
    own = ipaddress.ip_network(str(address_of(connection.address)))
    arrival = Arrival((own,), (interface,) if interface else ())
    # What is sent to another port on its way came in by one that is not known.
    hooks = ["input"] if _sends_elsewhere(foreign) else ["ingress", "prerouting", "input"]
    for chain in foreign.chains():
        met = NFT_FAMILIES[family] in families_of(chain) and chain.hook in hooks
        if met and _is_refused(foreign.items or (), chain, connection, arrival, NFT_FAMILIES[family]):
            where = f"{chain.family} {chain.table}"
            yield f"chain {chain.name} of table {where} (nft list chain {where} {chain.name})"
    for save in foreign.saves:
        for name in _refusing(save, connection, arrival, hooks) if save.family == family else ():
            yield f"{name} of {save.command} ({save.command}-save)"


def _is_refused(items: Sequence[Item], chain: BaseChain, connection: Connection, arrival: Arrival, family: str) -> bool:
    if chain.devices and not set(chain.devices) & set(arrival.outside):
        return False
    walker = NftWalker(items, chain, Sender(connection.source, arrival=arrival))
    outcomes = _outcomes(walker, family, (connection.port, "tcp")) - {UNTRACKED}
    return bool(outcomes) and outcomes <= {DROPPED, POLICY_DROPPED}


def _refusing(save: Save, connection: Connection, arrival: Arrival, hooks: Sequence[str]) -> List[str]:
    """Return the chains that certainly refuse new connections like one."""
    document = without_own(parse(save.text))
    packets = packets_of([(connection.port, "tcp")])
    found = []
    for table in document.tables:
        for chain in map(str.upper, hooks) if table.name in ("raw", "mangle", "filter") else ():
            effect = Walker(table, source=connection.source, arrival=arrival).chain_effect(chain, packets)
            ends = bool(ports_in(effect.decided)) or table.policy(chain) != "ACCEPT"
            if ends and all(decision.verdict == REFUSE for decision in effect.decisions):
                found.append(f"{chain} of table {table.name}")
    return found


def _sends_elsewhere(foreign: Foreign) -> bool:
    """Return whether any rule sends packets to another address or port."""
    native = any(
        "dnat" in each or "redirect" in each for rule in rules_in(foreign.items or ()) for each in expressions(rule)
    )
    tables = [parse(save.text).table("nat") for save in foreign.saves]
    texts = [rule.text for table in tables if table for rules in table.chains.values() for rule in rules]
    return native or any("-j DNAT" in text or "-j REDIRECT" in text or "-j NETMAP" in text for text in texts)


__all__ = ("reach_of", "what_cuts")
