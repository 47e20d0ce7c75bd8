# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where packets to given ports can get in a table: follows jumps and gotos and says who decides them. Pure."""

from bisect import bisect_left, bisect_right
from typing import Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.condition import (
    NOWHERE,
    AnyAddress,
    AnyNetwork,
    Arrival,
    Condition,
    Ranges,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.match import read_condition
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Table

ACCEPT, REFUSE, DIVERT, MAYBE, UNTRACK = "accept", "refuse", "divert", "perhaps", "untrack"

VERDICTS = {
    "ACCEPT": ACCEPT,
    "DROP": REFUSE, "REJECT": REFUSE, "TARPIT": REFUSE, "STEAL": REFUSE, "DELUDE": REFUSE, "CHAOS": REFUSE,
    "DNAT": DIVERT, "REDIRECT": DIVERT, "NETMAP": DIVERT, "TPROXY": DIVERT,
}  # fmt: skip
GOES_ON = frozenset(
    "AUDIT CHECKSUM CLASSIFY CONNMARK CONNSECMARK CT DSCP ECN HL HMARK IDLETIMER LED LOG MARK NFLOG NOTRACK "
    "RATEEST SECMARK SET TCPMSS TCPOPTSTRIP TEE TOS TRACE TTL ULOG ACCOUNT".split()
)
"""Targets after which a packet goes on to the next rule (iptables-extensions(8))."""

MARKS = frozenset(("MARK", "CONNMARK", "TPROXY"))
"""Targets that may change a packet's mark."""

NEW = frozenset(("NEW",))
RELATED = frozenset(("RELATED",))
ANY_STATE = frozenset(("NEW", "ESTABLISHED", "RELATED"))


class Packets(NamedTuple):
    """Packets in question, by their destination ports."""

    tcp: Tuple[int, ...]
    """Sorted TCP ports."""
    udp: Tuple[int, ...]
    """Sorted UDP ports."""
    other: bool
    """Whether packets of other protocols are meant, too."""


EVERYTHING = Packets((0, 1, 65535), (0, 1, 65535), True)
"""Stands for all packets: only a match on all ports of all protocols keeps it whole."""

NOTHING = Packets((), (), False)

Port = Tuple[int, str]
"""Port and protocol."""


class Decision(NamedTuple):
    """What one rule does to packets."""

    chain: str
    """The chain that it is in."""
    text: str
    """The rule."""
    verdict: str
    """ACCEPT, REFUSE, DIVERT or MAYBE; UNTRACK for packets that go on, and that connection tracking does not see."""
    particular: bool
    """Whether only packets of some sources meet it."""
    packets: Packets
    """Those that do."""
    doubtful: bool
    """Whether nothing says that any do."""
    interface: str
    """The interface that they must come in by, '' for any."""
    elsewhere: bool
    """Whether that is one which strangers do not come in by, as far as it is known; see Condition."""
    counts: str
    """What too many packets of a source are counted with, if only those meet it, else ''; see Condition."""

    @property
    def is_perhaps(self) -> bool:
        """Whether it is not known that any packet of a stranger meets it."""
        return self.doubtful or self.elsewhere


class Way(NamedTuple):
    """What was asked of packets on their way to a rule."""

    particular: bool = False
    """Whether only those of some sources get there."""
    doubtful: bool = False
    """Whether nothing says that any do."""
    interface: str = ""
    """The interface that they must have come in by, '' for any."""
    elsewhere: bool = False
    """Whether strangers do not come in by that one, as far as it is known."""
    counts: str = ""
    """What too many of a source's are counted with, if only those get there, else ''."""

    def through(self, condition: Condition) -> "Way":
        """Return the Way of packets that meet a condition as well."""
        return Way(
            self.particular or condition.particular,
            self.doubtful or condition.doubtful,
            self.interface or condition.interface,
            self.elsewhere or condition.elsewhere,
            self.counts or condition.counts,
        )


class Effect:
    """What a rule or a chain may do to the packets in question."""

    def __init__(self) -> None:
        """Begin with no effect."""
        self.accepts = self.refuses_everyone = self.refuses_some = self.diverts = self.terminal = False
        self.decisions: List[Decision] = []
        self.decided = NOTHING
        """The packets of which nothing is left behind it: a verdict ends all of them."""

    def decide(self, decision: Decision) -> None:
        """Add one decision."""
        self.decisions.append(decision)
        self.accepts |= decision.verdict in (ACCEPT, MAYBE)
        self.diverts |= decision.verdict in (DIVERT, MAYBE)
        if decision.verdict in (REFUSE, MAYBE):
            if decision.particular:
                self.refuses_some = True
            else:
                self.refuses_everyone = True

    def add(self, other: "Effect") -> None:
        """Add what a chain that is jumped to may do."""
        self.accepts |= other.accepts
        self.diverts |= other.diverts
        self.refuses_everyone |= other.refuses_everyone
        self.refuses_some |= other.refuses_some
        self.decisions += other.decisions


def packets_of(ports: Iterable[Port]) -> Packets:
    """Return Packets for (port, protocol) pairs."""
    chosen = set(ports)
    return Packets(
        tuple(sorted(port for port, protocol in chosen if protocol == "tcp")),
        tuple(sorted(port for port, protocol in chosen if protocol == "udp")),
        False,
    )


def ports_in(packets: Packets) -> Set[Port]:
    """Return the (port, protocol) pairs of Packets."""
    return {(port, "tcp") for port in packets.tcp} | {(port, "udp") for port in packets.udp}


class Walker:
    """Walks one table for packets that come in anywhere but through a trusted interface or source."""

    def __init__(
        self,
        table: Table,
        trusted_interfaces: Sequence[str] = (),
        trusted_sources: Sequence[AnyNetwork] = (),
        states: FrozenSet[str] = NEW,
        source: Optional[AnyAddress] = None,
        arrival: Arrival = NOWHERE,
        like: Optional["Walker"] = None,
    ) -> None:
        """Take a Table, the conntrack states that the packets may have, their source if it is one, and how they arrive.

        :param like: a Walker that may have read the same rules already, for packets of which the same is known.
        """
        self._table = table
        self._trusted = (tuple(trusted_interfaces), tuple(trusted_sources), source, states == NEW, arrival)
        self._states = states
        self._conditions: Dict[str, Condition] = {}
        if like is not None and like._trusted == self._trusted:
            self._conditions = like._conditions
        self._effects: Dict[Tuple[str, Packets, Way], Effect] = {}

    def condition(self, text: str) -> Condition:
        """Return the Condition of a rule's text, read once."""
        if text not in self._conditions:
            self._conditions[text] = read_condition(text, *self._trusted)
        return self._conditions[text]

    def rule_effect(self, chain: str, text: str, packets: Packets) -> Effect:
        """Return the Effect of one rule of a built-in chain; a goto or return there ends at the policy."""
        effect = Effect()
        matched, sure = self._matched(self.condition(text), packets)
        if matched is not None:
            ended, decided = self._apply(effect, chain, text, matched, Way())
            if sure:
                effect.decided = matched if ended == "policy" else decided
            if ended == "policy":
                verdict = ACCEPT if self._table.policy(chain) == "ACCEPT" else REFUSE
                way = Way().through(self.condition(text))
                effect.decide(Decision(chain, text, verdict, False, matched, *way[1:]))
            effect.terminal = sure and matched == packets and ended in ("verdict", "policy")
        return effect

    def lists_fed_by(self, packets: Packets) -> FrozenSet[str]:
        """Return the names of those lists of xt_recent that some rule puts sources on for such packets."""
        found = set()
        for rule in (rule for rules in self._table.chains.values() for rule in rules if "--set" in rule.text):
            words = rule.text.split()
            if "recent" in words and self._matched(self.condition(rule.text), packets)[0] is not None:
                found.add(words[words.index("--name") + 1] if "--name" in words else "DEFAULT")
        return frozenset(found)

    def may_mark(self, chain: str, packets: Packets, seen: FrozenSet[str] = frozenset()) -> bool:
        """Return whether a chain, or one that it jumps to, may put a mark on such packets of everyone."""
        for rule in self._table.rules(chain) if chain not in seen else ():
            condition = self.condition(rule.text)
            matched = None if condition.particular else self._matched(condition, packets)[0]
            if matched is not None and (
                condition.target in MARKS or self.may_mark(condition.target, matched, seen | {chain})
            ):
                return True
        return False

    def chain_effect(self, chain: str, packets: Packets, way: Way = Way()) -> Effect:  # noqa: B008
        """Return the Effect of a whole chain, walked once per set of packets."""
        key = (chain, packets, way)
        if key not in self._effects:
            self._effects[key] = Effect()
            self._effects[key] = self._walk(chain, packets, way)
        return self._effects[key]

    def _walk(self, chain: str, packets: Packets, way: Way) -> Effect:
        effect, all_decided = Effect(), True
        for rule in self._table.rules(chain):
            condition = self.condition(rule.text)
            matched, sure = self._matched(condition, packets)
            if matched is None:
                continue
            ended, decided = self._apply(effect, chain, rule.text, matched, way)
            if sure:
                all_decided = all_decided and ended != "policy"
                effect.decided = _with(effect.decided, decided)
                packets = _without(packets, matched if ended else decided)
                if packets == NOTHING:
                    effect.terminal = all_decided
                    break
            elif ended and condition.doubtful and not condition.particular and _spares(condition):
                # Such as "-m limit -j RETURN": what stands behind it may meet none of them.
                way = way._replace(doubtful=True)
        return effect

    def _apply(self, effect: Effect, chain: str, text: str, packets: Packets, way: Way) -> Tuple[str, Packets]:
        """Add a matching rule's effect; return how it ends the chain, and the packets that end at a verdict.

        It ends the chain as 'verdict', 'policy' (return) or ''.
        """
        condition = self.condition(text)
        way = way.through(condition)
        target = condition.target
        if target in self._table.chains:
            inner = self.chain_effect(target, packets, way)
            effect.add(inner)
            return "verdict" if inner.terminal else "policy" if condition.goto else "", inner.decided
        if target == "RETURN":
            return "policy", NOTHING
        verdict = UNTRACK if _untracks(text, target) else VERDICTS.get(target, MAYBE)
        goes_on = not target or target in GOES_ON
        if verdict == UNTRACK or not goes_on:
            effect.decide(Decision(chain, text, verdict, way.particular, packets, *way[1:]))
        return ("", NOTHING) if goes_on else ("verdict", packets)

    def _matched(self, condition: Condition, packets: Packets) -> Tuple[Optional[Packets], bool]:
        """Return the packets that may match (None where none can) and whether they surely do."""
        if condition.never or (condition.states is not None and not condition.states & self._states):
            return None, False
        found = _select(condition, packets)
        sure = condition.sure and (condition.states is None or self._states <= condition.states)
        return (found, sure) if found != NOTHING else (None, False)


def _spares(condition: Condition) -> bool:
    """Return whether a rule lets packets by, so that what stands behind it does not refuse them."""
    return condition.target == "RETURN" or VERDICTS.get(condition.target) == ACCEPT


def _untracks(text: str, target: str) -> bool:
    return target == "NOTRACK" or (target == "CT" and "--notrack" in text)


def _select(condition: Condition, packets: Packets) -> Packets:
    takes = condition.protocols
    tcp = packets.tcp if takes is None or "tcp" in takes else ()
    udp = packets.udp if takes is None or "udp" in takes else ()
    if condition.ports is None:
        return Packets(tcp, udp, packets.other and (takes is None or "other" in takes))
    ranges, but = condition.ports, condition.but_ports
    return Packets(_within(tcp, ranges, but), _within(udp, ranges, but), False)


def _within(ports: Tuple[int, ...], ranges: Ranges, but: bool) -> Tuple[int, ...]:
    inside: Set[int] = set()
    for first, last in ranges:
        inside.update(ports[bisect_left(ports, first) : bisect_right(ports, last)])
    return tuple(sorted(set(ports) - inside if but else inside))


def _with(packets: Packets, more: Packets) -> Packets:
    if more == NOTHING:
        return packets
    return Packets(
        tuple(sorted(set(packets.tcp) | set(more.tcp))),
        tuple(sorted(set(packets.udp) | set(more.udp))),
        packets.other or more.other,
    )


def _without(packets: Packets, gone: Packets) -> Packets:
    if packets == gone:
        return NOTHING
    tcp, udp = set(gone.tcp), set(gone.udp)
    return Packets(
        tuple(port for port in packets.tcp if port not in tcp),
        tuple(port for port in packets.udp if port not in udp),
        packets.other and not gone.other,
    )


__all__ = (
    "ACCEPT", "ANY_STATE", "DIVERT", "EVERYTHING", "MAYBE", "NEW", "NOTHING", "REFUSE", "RELATED", "UNTRACK", "VERDICTS", "Decision",
    "Packets", "Port", "Walker", "packets_of", "ports_in",
)  # fmt: skip
