# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an operator should know: foreign rules that lost their effect, and what the doors cannot guard. Pure."""

from typing import Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.input_rules import (
    ForeignRules,
    Protected,
    WatchedPackets,
    arrival_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.published import sends_on
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.untracked import (
    Untracked,
    untracked_answers,
    untracked_served,
)
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import CHAIN
from ansible_collections.sesame.portknock.plugins.module_utils._names.lists import OWN_LIST
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.condition import RATE, Arrival
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import UNKNOWN, LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.packet_walk import (
    ACCEPT,
    DIVERT,
    MAYBE,
    REFUSE,
    UNTRACK,
    Decision,
    Packets,
    Walker,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.rule_text import options
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document
from ansible_collections.sesame.portknock.plugins.module_utils._redact import masked, ports_named
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import WIDE, PortIndex, Ports, port_samples

MOST_OF_A_KIND = 20
LIST_SHARED = (
    "changes a list of the doors, so that sources get in without the knock, or are shut out in spite of it. Give the rule a "
    "list whose name does not begin with pk4 or pk6."
)


class Names:
    """Which door or allowed port a port belongs to, in an operator's words; a knock's port stays unnamed."""

    def __init__(self, protected: Protected) -> None:
        """Read the names from a Spec, or from what was read back."""
        self._opened = _Labels((ports, door.name) for door in protected.doors for ports in door.here)
        self._allowed = _Labels((allow.ports, "") for allow in protected.allow)
        self._knocked = {
            (step.port, step.protocol): door.name for door in protected.doors for step in door.knock + door.close
        }
        self._steps = {port for port, _protocol in self._knocked}

    def names_step(self, text: str) -> bool:
        """Return whether a rule's text names the port of a step, so that it must not be shown as it is."""
        return any(int(number) in self._steps for number in ports_named(text))

    def split(self, packets: Packets) -> Tuple[List[str], List[str], List[str]]:
        """Return (doors that are opened there, doors that are knocked there, allowed ports) for Packets."""
        keys = [(port, "tcp") for port in packets.tcp] + [(port, "udp") for port in packets.udp]
        opened = {label for label in (self._opened.find(*key) for key in keys) if label is not None}
        knocked = {self._knocked[key] for key in keys if key in self._knocked}
        allowed = [
            f"{port}/{protocol}"
            for port, protocol in keys
            if self._allowed.find(port, protocol) is not None and self._opened.find(port, protocol) is None
        ]
        return sorted(opened), sorted(knocked), sorted(allowed)

    def whose(self, packets: Packets) -> List[str]:
        """Return what Packets are sent to, for a list in a message."""
        opened, knocked, allowed = self.split(packets)
        return [f"door {name}" for name in opened] + [f"the knock of door {name}" for name in knocked] + allowed


class _Labels:
    """A label for each of many ports; wide ranges are searched, the rest is looked up."""

    def __init__(self, pairs: Iterable[Tuple[Ports, str]]) -> None:
        self._single: Dict[Tuple[int, str], str] = {}
        wide = []
        for ports, label in pairs:
            if ports.last - ports.first >= WIDE:
                wide.append((ports, label))
            else:
                self._single.update({(port, ports.protocol): label for port in port_samples(ports)})
        self._wide = PortIndex(wide)

    def find(self, port: int, protocol: str) -> Optional[str]:
        found = self._single.get((port, protocol))
        return self._wide.find(Ports(port, port, protocol)) if found is None else found


class Hooked(NamedTuple):
    """Where the hooks stand among the foreign rules."""

    doors: int
    """The position of the doors' hook."""
    tail: Optional[int]
    """The position of the final reject, None where there is none."""


def ruleset_findings(
    document: Document,
    protected: Protected,
    family: str,
    foreign: ForeignRules,
    hooked: Hooked,
    local: LocalNetwork = UNKNOWN,
) -> List[Finding]:
    """Return what the foreign rules of one family give reason to say.

    :param document: the Document of the live ruleset.
    :param foreign: the foreign rules of its filter table.
    :param hooked: where our hooks stand.
    :param local: what is known of the host's network.
    """
    names = Names(protected)
    arrival = arrival_of(local, family)
    found = [_lost_effect(item, names, family, arrival, foreign.limits) for item in foreign.decisions(hooked.doors)]
    found += [_limited(item, names, family) for item in foreign.limits_before(hooked.doors)]
    found += findings_before_input(document, protected, family, foreign.watched, arrival, hooked.tail)
    found += _list_shared(document, family, names)
    return capped(found)


def findings_before_input(
    document: Document,
    protected: Protected,
    family: str,
    watched: WatchedPackets,
    arrival: Arrival,
    tail: Optional[int],
    excepts: bool = True,
    redirected: bool = False,
) -> List[Optional[Finding]]:
    """Return what there is to say of the tables that packets meet before they get to INPUT of table filter.

    :param watched: the packets to look at.
    :param tail: how many foreign rules stand in front of the refusal of the rest, None where there is no such refusal.
    :param excepts: whether such a rule can except anything from it.
    :param redirected: whether doors guard their ports wherever nat sends packets, also to another port of this host.
    """
    names = Names(protected)
    found = _unguarded(document, protected, family, names, watched, arrival, redirected)
    hidden = _untracked(document, protected, watched, arrival, tail)
    return [*found, *(_untracked_finding(each, names, family, excepts) for each in hidden)]


_CHANGES_A_LIST = frozenset(("--set", "--update", "--remove"))


def _list_shared(document: Document, family: str, names: Names) -> Iterable[Finding]:
    """Yield the foreign rules of any table that put sources on the doors' own lists, or take them off."""
    for table in document.tables:
        for chain, rules in table.chains.items():
            for rule in rules:
                if CHAIN.match(chain) or "--name pk" not in rule.text:
                    continue
                asked = [(option, values[:1]) for option, values, _negated in options(rule.text)]
                named = [values[0] for option, values in asked if option == "--name" and values]
                if _CHANGES_A_LIST & {option for option, _values in asked} and any(map(OWN_LIST.match, named)):
                    text = f"-A {chain} {rule.text.rstrip()}"
                    yield Finding("list_shared", family, masked(text) if names.names_step(text) else text, LIST_SHARED)


def capped(findings: Iterable[Optional[Finding]]) -> List[Finding]:
    """Return each of some findings once, and of one kind no more than a person wants to read."""
    kept: List[Finding] = []
    counts: Dict[str, int] = {}
    for finding in dict.fromkeys(each for each in findings if each):
        counts[finding.kind] = counts.get(finding.kind, 0) + 1
        if counts[finding.kind] <= MOST_OF_A_KIND:
            kept.append(finding)
    for kind, count in sorted(counts.items()):
        if count > MOST_OF_A_KIND:
            kept.append(Finding(kind, "", "", f"and {count - MOST_OF_A_KIND} more of this kind."))
    return kept


def rule_text(decision: Decision, names: Names, knocked: Sequence[str] = ()) -> str:
    """Return a foreign rule for a message, its ports masked if it has to do with a knock.

    A rule may name a step that an earlier rule has decided, so its text is looked at, too.
    """
    text = f"-A {decision.chain} {decision.text.strip()}"
    return masked(text) if knocked or names.names_step(text) else text


def _lost_effect(
    decision: Decision, names: Names, family: str, arrival: Arrival, limits: FrozenSet[str]
) -> Optional[Finding]:
    opened, knocked, allowed = names.split(decision.packets)
    if decision.verdict in (ACCEPT, MAYBE) and opened:
        whom, advice = "everyone", "Remove the rule if that is no longer wanted"
        if decision.particular:
            whom, advice = "some sources", "To accept these sources without a knock, name them in trusted_sources"
        elif decision.interface and decision.interface not in arrival.outside:
            whom = f"what comes in through {decision.interface}"
            advice = f"To accept that without a knock, name {decision.interface} in trusted_interfaces"
        elif decision.doubtful or decision.verdict == MAYBE:
            whom = "packets, depending on what else it asks of them,"
            advice = "To accept those without a knock, name their sources in trusted_sources"
        text = f"accepts {whom} on ports of {doors_named(opened)}; the doors now decide before it, so there it has no effect. {advice}."
        rule = rule_text(decision, names)
        return Finding("lost_effect", family, rule, text)
    explicit = "port" in decision.text
    if decision.verdict == REFUSE and explicit and (opened or allowed):
        what = doors_named(opened) if opened else "allowed ports " + ", ".join(allowed)
        if opened and decision.counts in limits:
            text = f"limits how often a source connects to {what}; the doors now decide before it, so there it has no effect."
            return Finding("lost_effect", family, rule_text(decision, names, knocked), text)
        text = f"refuses ports of {what}; these are decided before it now. Remove the rule, or do not open the port."
        return Finding("lost_effect", family, rule_text(decision, names, knocked), text)
    return None


def doors_named(names: List[str]) -> str:
    """Return doors for a message, as ``doors a, b``."""
    return ("door " if len(names) == 1 else "doors ") + ", ".join(names)


_BEFORE_INPUT = (("raw", "PREROUTING"), ("mangle", "PREROUTING"), ("nat", "PREROUTING"), ("mangle", "INPUT"))


def _unguarded(
    document: Document,
    protected: Protected,
    family: str,
    names: Names,
    watched: WatchedPackets,
    arrival: Arrival,
    redirected: bool,
) -> List[Optional[Finding]]:
    """Return findings about tables that a packet meets before INPUT of filter."""
    found: List[Optional[Finding]] = []
    for table_name, chain in _BEFORE_INPUT:
        table = document.table(table_name)
        if table is None or not table.rules(chain):
            continue
        unmarked = table_name == "raw" or not _sets_marks(document)
        walker = Walker(
            table,
            protected.trusted_interfaces,
            protected.trusted_sources,
            arrival=arrival._replace(unmarked=unmarked),
        )
        limits = walker.lists_fed_by(watched.doors) | {RATE}
        for packets in (watched.doors, watched.allowed):
            for decision in walker.chain_effect(chain, packets).decisions:
                if decision.verdict == REFUSE and decision.counts in limits:
                    found.append(_limited(decision, names, family))
                else:
                    guarded = protected.guards_published and sends_on(decision.text, arrival.own)
                    guarded = guarded or (redirected and table_name == "nat" and decision.verdict == DIVERT)
                    # Only who has knocked gets to rules of others in nat.
                    kept = protected.guards_published and table_name == "nat"
                    found.append(_before(decision, table_name, names, family, guarded, kept))
    return found


def _limited(decision: Decision, names: Names, family: str) -> Optional[Finding]:
    opened, knocked, _allowed = names.split(decision.packets)
    if not opened and not knocked:
        return None
    text = (
        f"refuses sources that send too much, before {doors_named(sorted(set(opened + knocked)))} can see it: an owner in a hurry, or "
        "knock_verify, is refused for a while as if the knock were wrong. Spare the ports of doors and knocks in the rule, or "
        "name your own addresses in trusted_sources."
    )
    return Finding("limited", family, rule_text(decision, names, knocked), text)


def _sets_marks(document: Document) -> bool:
    tables = [table for table in document.tables if table.name in ("raw", "mangle")]
    return any("MARK" in rule.text for table in tables for rules in table.chains.values() for rule in rules)


def _before(
    decision: Decision, table_name: str, names: Names, family: str, guarded: bool = False, kept: bool = False
) -> Optional[Finding]:
    """Return what there is to say of a decision before INPUT.

    :param guarded: whether the packets are sent on to others, and the doors guard that too: then it is about knocks alone.
    :param kept: whether it never sees packets to doors of sources that have not knocked.
    """
    if decision.verdict in (ACCEPT, UNTRACK) or (decision.verdict == REFUSE and decision.particular):
        return None
    opened, knocked, allowed = names.split(decision.packets)
    if guarded or kept:
        opened = []
    if guarded:
        allowed = []
    whose = " and ".join(
        text
        for text in (
            doors_named(opened) if opened else "",
            "knocks of " + doors_named(knocked) if knocked else "",
            "allowed ports " + ", ".join(allowed) if allowed else "",
        )
        if text
    )
    if not whose:
        return None
    rule = rule_text(decision, names, knocked)
    verb = {REFUSE: "refuse", DIVERT: "redirect"}.get(decision.verdict, "decide")
    if decision.is_perhaps or decision.verdict == MAYBE:
        text = (
            f"table {table_name} may {verb} packets to {whose} before INPUT sees them; whether they meet this rule, the ruleset "
            "alone does not tell. Look at the rule, and try a knock from outside."
        )
        return Finding("may_be_unguarded", family, rule, text)
    text = (
        f"table {table_name} {verb}s packets to {whose} before INPUT sees them, so the doors cannot guard or "
        "count them. Remove the port from one of the two, or bind the service to an address of its own."
    )
    return Finding("unguarded", family, rule, text)


def _untracked(
    document: Document, protected: Protected, watched: WatchedPackets, arrival: Arrival, tail: Optional[int]
) -> List[Untracked]:
    """Return what there is of packets that connection tracking does not see."""
    trusted = protected.trusted_interfaces, protected.trusted_sources
    hidden = untracked_served(document, watched.opened, trusted, arrival)
    return hidden if tail is None else hidden + untracked_answers(document, tail, trusted, arrival)


def _untracked_finding(hidden: Untracked, names: Names, family: str, excepts: bool) -> Finding:
    verb = "may keep" if hidden.rule.is_perhaps else "keeps"
    if hidden.answers:
        ways = "Remove the rule, name the others in trusted_sources, or accept their answers with a rule of your own in INPUT."
        text = (
            f"table raw {verb} answers to this host out of connection tracking, so policy reject refuses them, and the host loses "
            f"what it asks others for there. {ways if excepts else 'Remove the rule, or name the others in trusted_sources.'}"
        )
    else:
        opened = names.split(hidden.rule.packets)[0]
        text = (
            f"table raw {verb} packets of {doors_named(opened)} out of connection tracking, so no connection through it is ever "
            "established: each one stops when the door's window is over. Remove the rule."
        )
    return Finding("untracked", family, rule_text(hidden.rule, names), text)


__all__ = (
    "MOST_OF_A_KIND",
    "Hooked",
    "Names",
    "capped",
    "doors_named",
    "findings_before_input",
    "masked",
    "ports_named",
    "rule_text",
    "ruleset_findings",
)
