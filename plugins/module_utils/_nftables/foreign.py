# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What others in the packet filter do to packets that the collection's table lets in, or that it must see. Pure.

What a table accepts goes on to the next one, and what it drops is gone. So nothing that others accept opens a door; what they refuse
keeps one shut, wherever they stand, and a knock counts if nothing in front of the table takes it.
"""

from typing import FrozenSet, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.findings import (
    Names,
    capped,
    doors_named,
    findings_before_input,
    rule_text,
)
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.input_rules import (
    arrival_of,
    borders_of,
    watched_packets,
)
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.native_findings import (
    MAY,
    REDIRECTS,
    UNTRACKS,
    chain_findings,
    is_of_iptables,
    what_becomes,
)
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.untracked import ASKED
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.condition import RATE, Arrival
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_condition import (
    EPHEMERAL,
    NewPacket,
    Sender,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item, expressions, rules_in
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_walk import (
    DROPPED,
    POLICY_DROPPED,
    UNTRACKED,
    BaseChain,
    NftWalker,
    base_chains,
    families_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.packet_walk import (
    ACCEPT,
    MAYBE,
    REFUSE,
    Decision,
    Port,
    Walker,
    packets_of,
    ports_in,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document, Table, parse
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.foreign_forward import findings_behind
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import PRIORITY, TABLE
from ansible_collections.sesame.portknock.plugins.module_utils._paths import IPTABLES
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import PROTOCOLS, PUBLISHED_NONE, Spec
from ansible_collections.sesame.portknock.plugins.module_utils._tables.commands import NFT, NFT_FAMILIES
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import without_own

_TRACKING = -200
"""The priority of connection tracking."""


class Save(NamedTuple):
    """What one backend of iptables has of one IP version."""

    family: str
    """The IP version."""
    backend: str
    """``nft`` or ``legacy``."""
    text: str
    """What its iptables-save prints."""

    @property
    def command(self) -> str:
        """The command that changes it."""
        return f"{IPTABLES[self.family]}-{self.backend}"


class Foreign(NamedTuple):
    """What there is in the packet filter of a host."""

    items: Optional[Sequence[Item]]
    """All that nft lists, the collection's own table as well; None where that is not known."""
    saves: Tuple[Save, ...]
    """What iptables-save prints, as far as there is such a command; nft's listing says the rest."""

    def chains(self) -> List[BaseChain]:
        """Return the chains of others that packets to this host meet, but for those of iptables that a save holds."""
        saved = {NFT_FAMILIES[save.family] for save in self.saves if save.backend == NFT}
        return [
            chain
            for chain in base_chains(self.items or ())
            if f"{chain.family} {chain.table}" != TABLE and not (chain.family in saved and is_of_iptables(chain))
        ]

    def sets_marks(self) -> bool:
        """Return whether any rule may put a mark on packets."""
        native = any(
            "mangle" in each or "xt" in each for rule in rules_in(self.items or ()) for each in expressions(rule)
        )
        return native or any("MARK" in save.text or "TPROXY" in save.text for save in self.saves)


def is_before(chain: BaseChain) -> bool:
    """Return whether packets may meet a chain before they meet the collection's."""
    return chain.hook != "input" or chain.priority <= PRIORITY


def findings_of_others(foreign: Foreign, spec: Spec, families: Sequence[str], local: LocalNetwork) -> List[Finding]:
    """Return what there is to say of what others do to packets of doors, knocks and allowed ports.

    :param families: the IP versions that are managed.
    :param local: what is known of the host's network.
    """
    found: List[Optional[Finding]] = []
    if foreign.items is None:
        message = (
            "'nft -j list' does not work for all tables on this host, so whether others drop packets to the doors could not be looked at. "
            "Run 'nft -j list ruleset' by hand to see why."
        )
        found.append(Finding("native_unknown", "", "", message))
    else:
        found += _Native(foreign, spec, families, local).findings()
        found += findings_behind(foreign.items, spec, families)
    for save in foreign.saves:
        if save.family in families:
            found += _findings_of_save(save, spec, local)
    return capped(found)


class _Native:
    """The tables of nftables, as packets of strangers meet them."""

    def __init__(self, foreign: Foreign, spec: Spec, families: Sequence[str], local: LocalNetwork) -> None:
        unmarked = not foreign.sets_marks()
        self._foreign, self._spec, self._items = foreign, spec, foreign.items or ()
        self._names = Names(spec)
        self._senders = {
            family: Sender(
                arrival=arrival_of(local, family)._replace(unmarked=unmarked),
                trusted_interfaces=spec.trusted_interfaces,
                trusted_sources=spec.trusted_sources,
            )
            for family in families
        }

    def findings(self) -> Iterator[Finding]:
        for chain in self._foreign.chains():
            yield from self._of_chain(chain)

    def _of_chain(self, chain: BaseChain) -> Iterator[Finding]:
        walkers = {
            family: NftWalker(self._items, chain, sender)
            for family, sender in self._senders.items()
            if NFT_FAMILIES[family] in families_of(chain) and self._may_see(chain, sender.arrival)
        }
        borders = {port for walker in walkers.values() for port in walker.ports_named()}
        watched = watched_packets(self._spec, borders)
        opened = ports_in(watched.opened)
        ports = ports_in(watched.allowed) | (ports_in(watched.doors) if is_before(chain) else opened)
        seen = what_becomes(walkers, sorted(ports), opened)
        if not _is_before_tracking(chain):
            seen.pop(UNTRACKS, None)
        elif self._spec.policy == "reject":
            yield from self._answers(chain, walkers)
        if chain.devices and not all(sender.arrival.outside for sender in self._senders.values()):
            seen = {MAY: {port for found in seen.values() for port in found}} if seen else {}
        guarded = opened if self._is_guarded(chain) else set()
        redirected = seen.pop(REDIRECTS, set()) - guarded
        dropped = seen.pop(MAY, set()) - {port for port in guarded if not _may_drop(walkers, port)}
        seen.update({MAY: dropped} if dropped else {})
        if redirected:
            yield self._redirected(chain, redirected, sorted(walkers))
        yield from chain_findings(chain, sorted(walkers), seen, self._names)

    def _answers(self, chain: BaseChain, walkers: Mapping[str, NftWalker]) -> Iterator[Finding]:
        """Yield a Finding where a chain keeps answers to this host out of connection tracking."""
        rules = rules_in(self._items, chain.family, chain.table)
        if not any("notrack" in each for rule in rules for each in expressions(rule)):
            return
        hidden = [
            family
            for family, walker in walkers.items()
            for port in {*ASKED, *walker.ports_named()}
            for protocol in PROTOCOLS
            if UNTRACKED in walker.outcomes(NewPacket(NFT_FAMILIES[family], protocol, EPHEMERAL, port))
        ]
        if hidden:
            where = f"{chain.family} {chain.table}"
            message = (
                f"the chain {chain.name} of table {where} keeps answers to this host out of connection tracking, so policy reject refuses "
                "them, and the host loses what it asks others for there. Take the rule with notrack out, or name the others in "
                f"trusted_sources: nft list chain {where} {chain.name}."
            )
            yield Finding("untracked", hidden[0] if len(set(hidden)) == 1 else "", _rule(chain), message)

    def _is_guarded(self, chain: BaseChain) -> bool:
        """Return whether the doors guard their ports where a chain sends packets on: by the port that these were sent to."""
        return self._spec.published != PUBLISHED_NONE and chain.kind == "nat"

    @staticmethod
    def _may_see(chain: BaseChain, arrival: Arrival) -> bool:
        """Return whether packets of strangers come in by an interface that a chain is for."""
        return not chain.devices or not arrival.outside or bool(set(chain.devices) & set(arrival.outside))

    def _redirected(self, chain: BaseChain, ports: Set[Port], families: Sequence[str]) -> Finding:
        where = f"{chain.family} {chain.table}"
        message = (
            f"the chain {chain.name} of table {where} redirects packets to {', '.join(self._names.whose(packets_of(ports)))} before the "
            "doors see them, so the doors cannot guard or count them. Remove the port from one of the two, or bind the service to an "
            f"address of its own: nft list chain {where} {chain.name}."
        )
        return Finding("unguarded", families[0] if len(families) == 1 else "", _rule(chain), message)


def _may_drop(walkers: Mapping[str, NftWalker], port: Port) -> bool:
    """Return whether a chain may drop new packets to a port."""
    found = (walker.outcomes(NewPacket(NFT_FAMILIES[family], port[1], port[0])) for family, walker in walkers.items())
    return any(outcomes & {DROPPED, POLICY_DROPPED} for outcomes in found)


def _rule(chain: BaseChain) -> str:
    return f"table {chain.family} {chain.table}, chain {chain.name}, policy {chain.policy}"


def _is_before_tracking(chain: BaseChain) -> bool:
    """Return whether packets meet a chain before connection tracking looks at them."""
    return chain.hook == "ingress" or (chain.hook == "prerouting" and chain.priority < _TRACKING)


def _findings_of_save(save: Save, spec: Spec, local: LocalNetwork) -> List[Optional[Finding]]:
    """Return findings about the tables of iptables, the collection's rules in there left out: engine iptables has them taken out."""
    document, family, arrival = without_own(parse(save.text)), save.family, arrival_of(local, save.family)
    watched = watched_packets(spec, borders_of(document))
    # Whatever rules of others accept, the rest is refused before they see it.
    tail = 0 if spec.policy == "reject" else None
    found = findings_before_input(
        document, spec, family, watched, arrival, tail, excepts=False, redirected=spec.published != PUBLISHED_NONE
    )
    table = document.table("filter")
    if table is not None:
        ports = ports_in(watched.opened) | ports_in(watched.allowed)
        found += _Input(save, table, spec, arrival, _limits(document, spec, ports)).findings(ports)
    return found


def _limits(document: Document, spec: Spec, ports: Set[Port]) -> FrozenSet[str]:
    table = document.table("filter")
    walker = Walker(table, spec.trusted_interfaces, spec.trusted_sources) if table else None
    return (walker.lists_fed_by(packets_of(ports)) if walker else frozenset()) | {RATE}


class _Input:
    """INPUT of a filter table of iptables, as packets of strangers meet it that the doors have let in."""

    def __init__(self, save: Save, table: Table, spec: Spec, arrival: Arrival, limits: FrozenSet[str]) -> None:
        self._save, self._table, self._names, self._limits = save, table, Names(spec), limits
        self._outside = bool(arrival.outside)
        self._walker = Walker(table, spec.trusted_interfaces, spec.trusted_sources, arrival=arrival)
        self._accepted: Set[Port] = set()
        self._doubtful: Set[Port] = set()

    def findings(self, ports: Set[Port]) -> List[Optional[Finding]]:
        effect = self._walker.chain_effect("INPUT", packets_of(ports))
        found = [self._of(decision) for decision in effect.decisions]
        left = ports - self._accepted - ports_in(effect.decided)
        if self._table.policy("INPUT") != "ACCEPT":
            found += [self._policy(left - self._doubtful, False), self._policy(left & self._doubtful, True)]
        return found

    def _of(self, decision: Decision) -> Optional[Finding]:
        ports = ports_in(decision.packets)
        if decision.verdict == REFUSE:
            return self._refused(decision, ports - self._accepted)
        if decision.verdict in (ACCEPT, MAYBE):
            if decision.particular:
                return self._lost(decision, ports)
            sure = decision.verdict == ACCEPT and not decision.is_perhaps and (self._outside or not decision.interface)
            if sure:
                self._accepted |= ports
            elif not decision.elsewhere:
                self._doubtful |= ports
        return None

    def _refused(self, decision: Decision, ports: Set[Port]) -> Optional[Finding]:
        whose = self._names.whose(packets_of(ports))
        if not whose or decision.elsewhere:
            return None
        rule, command = rule_text(decision, self._names), self._save.command
        if decision.counts in self._limits:
            text = (
                f"refuses sources that connect to {', '.join(whose)} too often, after the doors have let them in: an owner in a hurry, or "
                "knock_verify, is refused for a while as if the knock were wrong. Spare these ports in the rule."
            )
            return Finding("limited", self._save.family, rule, text)
        if decision.particular:
            return None
        if decision.doubtful or ports & self._doubtful:
            text = (
                f"{command} may refuse packets to {', '.join(whose)} with this rule, which the doors let in, depending on what the rules "
                "alone do not decide. Look at it, and try a knock."
            )
        else:
            text = (
                f"{command} refuses packets to {', '.join(whose)} with this rule, which the doors let in, and a packet must pass both. "
                "Accept them there before it."
            )
        return Finding("native_table", self._save.family, rule, text)

    def _policy(self, ports: Set[Port], perhaps: bool) -> Optional[Finding]:
        if not ports:
            return None
        whose, command = ", ".join(self._names.whose(packets_of(ports))), self._save.command
        advice = "depending on what the rules alone do not decide. Look at it, and try a knock"
        if not perhaps:
            advice = "and a packet must pass both. Accept them there too"
        verb = "may drop" if perhaps else "drops"
        text = f"the policy of INPUT in {command} {verb} packets to {whose}, which the doors let in, {advice}."
        return Finding(
            "native_table" if perhaps else "policy_drop", self._save.family, f"{command} -P INPUT DROP", text
        )

    def _lost(self, decision: Decision, ports: Set[Port]) -> Optional[Finding]:
        opened = self._names.split(packets_of(ports))[0]
        if not opened or decision.verdict != ACCEPT:
            return None
        text = (
            f"accepts some sources on ports of {doors_named(opened)}; the doors decide before it, so these need the knock all the same. To "
            "accept them without a knock, name them in trusted_sources."
        )
        return Finding("lost_effect", self._save.family, rule_text(decision, self._names), text)


__all__ = ("Foreign", "Save", "findings_of_others", "is_before")
