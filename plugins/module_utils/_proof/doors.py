# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asks the prover about the doors, and says in an operator's words what it answers. Pure."""

from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Connection, Finding, address_of
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.access import door_for
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.findings import Names
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.input_rules import Protected
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove import prove, worst
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_asked import Asked
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_connection import prove_connection
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_question import (
    CASES,
    CONNECTION,
    HIDDEN,
    NO_KNOCK,
    NO_PACKET,
    NOT_COUNTED,
    NOT_PROVED,
    NOT_RESET,
    SETS_LIST,
    STEP,
    UNFOLLOWED,
    VOID,
    Arriving,
    GuardedDoor,
    Question,
    Unguarded,
    Word,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_rest import PortsWord, prove_ports
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_ruleset import Ruleset
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_sent_on import Sent, prove_sent_on
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_space import Packet
from ansible_collections.sesame.portknock.plugins.module_utils._redact import masked
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import (
    ENGINES,
    PUBLISHED_NONE,
    Network,
    Spec,
    family_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import is_own_rule
from ansible_collections.sesame.portknock.plugins.module_utils._tables.rule_parts import of_family

_WHY = {
    CASES: "its packets part into more cases than are followed",
    STEP: "packets to the port of a step are let in",
    HIDDEN: "it is let in but kept out of connection tracking, so it would stop when the door's window is over",
    NO_PACKET: "no packet from its address is one of a connection",
    NOT_RESET: "a packet to a wrong port does not undo the steps that were done",
    NO_KNOCK: "no rule puts a source on its list",
    NOT_COUNTED: "packets of its knock are decided before the rule that counts them",
    UNFOLLOWED: "what packets meet is not known",
    SETS_LIST: "a rule puts sources on its list that have not done all steps of the knock",
}


class Proof(NamedTuple):
    """What the prover says of one door in one family."""

    entry: Dict[str, Any]
    """As modules return it, but for the ruleset that it is about."""
    is_certain: bool
    """Whether a packet gets in without the knock, or this connection does not, and nothing had to be assumed for that."""
    finding: Optional[Finding]
    """What an operator should know."""


def prove_ruleset(
    ruleset: Ruleset,
    protected: Protected,
    lists: Mapping[str, str],
    local: LocalNetwork,
    panic: bool = False,
    refuses_rest: bool = False,
    connection: Optional[Connection] = None,
    shown: Optional[Callable[[str], str]] = None,
    sent: Sequence[Sent] = (),
) -> List[Proof]:
    """Return what the prover says of each door in one family.

    :param ruleset: the rules that are to be judged.
    :param protected: the doors that are to hold.
    :param lists: name of a door to that of its list.
    :param local: what is known of the host's network.
    :param panic: whether the doors are to open to nobody.
    :param refuses_rest: whether all other ports are to be refused.
    :param connection: the connection that this is asked through, None where it is not known, or need not get in again.
    :param shown: from a rule as the ruleset prints it to one that names no step; None for rules of iptables.
    :param sent: the packets that the host sends on, as far as rules for these are to be judged as well.
    """
    family = ruleset.family
    question = _question(family, protected, lists, local, panic, refuses_rest)._replace(sent_on=bool(sent))
    asked = Asked(ruleset, question._replace(connection=_arriving(connection, family, protected, local)))
    told = _Told(family, Names(protected), shown, ruleset.unfollowed)
    proofs = [told.proof(told.followed(word)) for word in _words(asked, protected, sent)]
    proofs += [told.ports(each._replace(word=told.followed(each.word))) for each in prove_ports(asked)]
    word = prove_connection(asked)
    return proofs + ([told.connection(told.followed(word))] if word is not None else [])


def _arriving(
    connection: Optional[Connection], family: str, protected: Protected, local: LocalNetwork
) -> Optional[Arriving]:
    if connection is None or family_of(connection.source) != family:
        return None
    address = address_of(connection.address) if connection.address else None
    door = door_for(protected, connection.port, connection.source)
    return Arriving(connection.source, address, connection.port, door, local.interface_to(connection.source))


class _Told:
    """Says in an operator's words what the prover answers."""

    def __init__(self, family: str, names: Names, shown: Optional[Callable[[str], str]], unfollowed: str) -> None:
        self._family, self._names, self._unfollowed = family, names, unfollowed
        self._shown = shown or self._masked

    def _masked(self, text: str) -> str:
        """Return a rule for a message, its ports masked if it names a step."""
        return masked(text) if self._names.names_step(text) else text

    def followed(self, word: Word) -> Word:
        """Return a Word, or that nothing is proved where more may happen to packets than is followed."""
        if not self._unfollowed:
            return word
        return Word(word.door, NOT_PROVED, None, None, self._unfollowed, (), False, False, UNFOLLOWED)

    def proof(self, word: Word) -> Proof:
        """Return the Proof of a door."""
        entry = self._result(word)
        # What nat sends elsewhere, who is refused, and what else sets lists, has findings of its own.
        if word.word != VOID or word.packet is None or word.away or not word.gets_in:
            return Proof(entry, False, None)
        text = (
            f"door {word.door}: {entry['message']} Remove that rule, or trust the sources that it is for (trusted_sources, "
            "trusted_interfaces)."
        )
        return Proof(entry, not word.assumed, Finding("void", self._family, entry["rule"], text))

    def connection(self, word: Word) -> Proof:
        """Return the Proof of the connection that is asked about."""
        entry = dict(self._result(word, " although it is to get in"), what=CONNECTION, door="")
        if not word.is_certain:
            return Proof(entry, False, None)
        text = f"a new connection like this one: {entry['message']} Remove that rule, or have it let this address in."
        return Proof(entry, True, Finding("void", self._family, entry["rule"], text))

    def ports(self, each: PortsWord) -> Proof:
        """Return the Proof of an allowed port, or of the rest."""
        word = each.word
        if word.packet is not None and self._names.names_step(f"--dport {word.packet.port}"):
            word = word._replace(packet=None, why=STEP)
        entry = self._result(word, " although its port is allowed")
        shown = [self._shown(text) for text in each.exceptions]
        return Proof(dict(entry, what=word.door, door="", exceptions=shown), False, None)

    def _result(self, word: Word, in_spite: str = " although its source has knocked") -> Dict[str, Any]:
        result: Dict[str, Any] = dict(
            what=f"door {word.door}",
            door=word.door,
            ip_version=self._family,
            result=word.word,
            packet={},
            rule="",
            exceptions=[],
            message="",
        )
        packet, place = word.packet, word.place
        if packet is not None and word.why and self._names.names_step(f"--dport {packet.port}"):
            packet = None
        if packet is not None:
            result["packet"] = dict(
                interface=packet.interface,
                source=packet.source,
                protocol=packet.protocol,
                source_port=packet.sport,
                port=packet.port,
                flags=list(packet.flags),
                state=packet.state,
            )
        if word.why:
            result["rule"] = self._shown(word.rule)
            where = f": {result['rule']}" if result["rule"] else ""
            where += f" in table {place.table}" if place is not None else ""
            where += f", as for {_sent(packet)}" if packet is not None else ""
            return dict(result, message=f"{word.word.capitalize()}: {_WHY[word.why]}{where}.")
        if packet is None or place is None:
            return result
        rule = self._shown(word.rule)
        assumed = [self._shown(text) for text in word.assumed]
        return dict(result, rule=rule, message=_message(word, rule, place.table, assumed, in_spite))


def void_findings(proofs: Iterable[Proof]) -> List[Finding]:
    """Return what an operator should know of what was not proved."""
    return [proof.finding for proof in proofs if proof.finding is not None]


def refusal(entry: Dict[str, Any], path: str = "") -> SpecError:
    """Return why a change is refused.

    :param entry: of a Proof that is certain.
    :param path: the file that a boot loads, '' where it is about what would be in the kernel.
    """
    where = f"{path}, which a boot loads," if path else "the ruleset"
    if entry["what"] == CONNECTION:
        return SpecError(
            "prove",
            f"a new connection like this one would not get in over {entry['ip_version']} under {where} as it would be. "
            f"{entry['message']} Nothing was changed. Remove that rule, or have it let this address in; with prove set to false this "
            "is a finding.",
        )
    return SpecError(
        "prove",
        f"door {entry['door']} would be void over {entry['ip_version']} under {where} as it would be. {entry['message']} Nothing was "
        "changed. Remove that rule, or trust the sources that it is for (trusted_sources, trusted_interfaces); with prove set to "
        "false this is a finding.",
    )


def _question(
    family: str,
    protected: Protected,
    lists: Mapping[str, str],
    local: LocalNetwork,
    panic: bool,
    refuses_rest: bool,
) -> Question:
    recognise = not isinstance(protected, Spec) or ENGINES[protected.engine].rules_recognise
    doors = [
        GuardedDoor(
            door.name,
            tuple(door.here),
            lists.get(door.name, ""),
            door.window,
            _sources(door.sources, family),
            panic,
            tuple(door.knock) if recognise else (),
            getattr(door, "step_timeout", 0),
            tuple(door.close) if recognise else (),
        )
        for door in protected.doors
    ]
    return Question(
        doors=tuple(doors),
        allow=tuple(Unguarded(each.ports, _sources(each.sources, family)) for each in protected.allow),
        trusted_interfaces=tuple(protected.trusted_interfaces),
        trusted_sources=tuple(of_family(protected.trusted_sources, family)),
        own=tuple(local.own),
        refuses_rest=refuses_rest,
        is_ours=is_own_rule,
    )


def _words(asked: Asked, protected: Protected, sent: Sequence[Sent]) -> List[Word]:
    """Return a Word of each door; none of doors to hosts behind where what is sent on is not asked about, or these have no such address."""
    family = asked.ruleset.family
    behind = {door.name: tuple(of_family(door.to, family)) for door in protected.doors if door.to}
    words = {word.door: word for word in prove(asked)}
    if not sent:
        return [word for door, word in words.items() if door not in behind]
    published = protected.published != PUBLISHED_NONE if isinstance(protected, Spec) else protected.guards_published
    opens = {door.name: tuple(door.opens) for door in protected.doors}
    doors = [
        door._replace(opens=opens[door.name], to=behind.get(door.name, ()))
        for door in asked.question.doors
        if behind.get(door.name, published)
    ]
    further = {word.door: word for word in prove_sent_on(sent, asked.question._replace(doors=tuple(doors)))}
    found = [worst(word, further.get(door, word)) for door, word in words.items()]
    return [word for word in found if behind.get(word.door, True)]


def _sources(sources: Sequence[Network], family: str) -> Optional[Tuple[Network, ...]]:
    found = tuple(of_family(sources, family))
    return None if sources and not found else found


def _message(word: Word, rule: str, table: str, assumed: List[str], in_spite: str) -> str:
    packet = word.packet
    if packet is None:
        return ""
    becomes = "is sent elsewhere" if word.away else "gets in without the knock"
    if not word.gets_in:
        becomes = "is refused" + in_spite
    text = f"{word.word.capitalize()}: {_sent(packet)} {becomes}, by {rule} in table {table}"
    others = [each for each in assumed if each != rule]
    if rule in assumed:
        text += ", if the packet meets all that this rule asks"
    if others:
        text += ", if it meets what cannot be told from the rules: " + "; ".join(others)
    return text + "."


def _sent(packet: Packet) -> str:
    flags = f" ({', '.join(packet.flags)})" if packet.flags else ""
    return f"{packet.protocol.upper()} from {packet.source} port {packet.sport} to port {packet.port}{flags} on {packet.interface}"


__all__ = (
    "Proof",
    "prove_ruleset",
    "refusal",
    "void_findings",
)
