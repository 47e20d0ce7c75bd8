# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One rule as the prover reads it: every match as a set of packets, or as a doubt that may be met or not. Pure.

The planner reads rules with code of its own (``match``), so that a mistake in one of the two is seen by the other. Packets in
question are unicast, of TCP or UDP, to this host, and the first of their connection.
"""

import functools
import ipaddress
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.rule_text import options
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV6

PROTOCOL, DPORT, SPORT, SOURCE, DESTINATION = "protocol", "dport", "sport", "source", "destination"
INTERFACE, STATE, FLAGS, MARK = "interface", "state", "flags", "mark"
FIRST_DPORT = "first dport"
"""The port that a packet went to before nat has changed that: known of a single packet, not of a set of them."""

NEW, RELATED, UNTRACKED, DNAT = "NEW", "RELATED", "UNTRACKED", "DNAT"
STATES = (
    frozenset((NEW,)),
    frozenset((RELATED,)),
    frozenset((UNTRACKED,)),
    frozenset((NEW, DNAT)),
    frozenset((RELATED, DNAT)),
)
"""What conntrack may say of the first packet of a connection. One that is well-formed is never INVALID."""

ARRIVING, PLAIN, BY_HOST, BY_FIRST_HOST = "arriving", "plain", "by host", "by first host"
"""How packets are seen: those that come to this host; those that are sent on as they came; those that nat has changed, told apart by
the port that they were sent to, and by the host that they go to or by that which they were for."""

SERVICES = {
    "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "domain": 53, "http": 80, "pop3": 110, "ntp": 123, "imap2": 143, "snmp": 161,
    "https": 443, "imaps": 993, "pop3s": 995, "mysql": 3306, "postgresql": 5432,
}  # fmt: skip
FLAG_BITS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ALL": 63, "NONE": 0}
_PROTOCOLS = {"tcp": "tcp", "6": "tcp", "udp": "udp", "17": "udp"}
_ANY_PROTOCOL = ("all", "0")


class Term(NamedTuple):
    """What a rule asks of one thing about a packet."""

    kind: str
    """DPORT, SOURCE, …"""
    data: Any
    """What is asked for: ranges of numbers, ends included, for ports and addresses; names or bits for the rest."""
    negated: bool
    """Whether all but that is meant."""


FORGET = "--forget"
"""The verb that takes a source off a list, whether it is there or not."""
ALWAYS = frozenset(("--set", FORGET))
"""The verbs that every packet meets."""


class ListMatch(NamedTuple):
    """What a rule asks of a list of sources, or does to it: a match of xt_recent, or what is like it."""

    verb: str
    """``--set``, ``--rcheck``, ``--update``, ``--remove`` or FORGET."""
    negated: bool
    """Whether its answer is turned round."""
    name: str
    """The name of the list."""
    seconds: int
    """How long ago the source may have been seen, 0 for any time; of what nftables puts there, how long it stays."""
    plain: bool
    """Whether it asks nothing further, as for a number of packets."""
    least: int = 0
    """Of what nftables puts there, how long it stays at least; 0 where that is the same."""


class ReadRule(NamedTuple):
    """One rule."""

    terms: Tuple[Term, ...]
    """What it asks and the prover understands."""
    doubts: Tuple[str, ...]
    """The matches of which nothing is known, in the words of the rule."""
    lists: Tuple[ListMatch, ...]
    """What it asks of lists and does to them, in its order."""
    never: bool
    """Whether no packet in question meets it."""
    target: str
    """What it jumps or goes to, '' for nothing."""
    goto: bool
    """Whether it does not come back from there."""
    values: Dict[str, str]
    """The options of its target, each with its first value."""


class _Rule:
    """What has been read of a rule so far."""

    def __init__(self, family: str) -> None:
        self.family = family
        self.terms: List[Term] = []
        self.doubts: List[str] = []
        self.lists: List[ListMatch] = []
        self.never = self.goto = False
        self.target = ""
        self.values: Dict[str, str] = {}

    def ask(self, kind: str, data: Any, negated: bool) -> None:
        self.terms.append(Term(kind, data, negated))

    def fits(self, fits: bool) -> None:
        self.never = self.never or not fits

    def doubt(self, match: str, asked: List["_Option"]) -> None:
        words = " ".join(" ".join(["!"] * negated + [option] + values) for option, values, negated in asked)
        self.doubts.append((f"-m {match} " if match else "") + words)


_OF_ONE_INTERFACE = frozenset(("--limit-iface-in", "--limit-iface-out"))

_Option = Tuple[str, List[str], bool]
_Handler = Callable[[_Rule, List[str], bool], bool]
"""Reads one option; whether it was understood."""
_Known = Dict[str, Dict[str, _Handler]]


@functools.lru_cache(maxsize=1 << 14)
def read_rule(text: str, family: str, view: str = ARRIVING) -> ReadRule:
    """Return the ReadRule of a rule's text; what the kernel has and what a boot loads are mostly the same rules.

    :param family: ``ipv4`` or ``ipv6``.
    :param view: how packets are seen, ARRIVING or what stands beside it.
    """
    known = _VIEWS[view]
    rule = _Rule(family)
    for match, asked in _groups(rule, text):
        if match == "recent":
            _recent(rule, asked)
        elif match in known and not (match == "addrtype" and {option for option, *_rest in asked} & _OF_ONE_INTERFACE):
            for option, values, negated in asked:
                handler = known[match].get(option)
                if match == "comment" and (option == "--comment" or " " in option):
                    # Its words may begin as an option does.
                    continue
                if handler is None or not values or not handler(rule, values, negated):
                    rule.doubt(match, [(option, values, negated)])
        else:
            rule.doubt(match, asked)
    return ReadRule(
        tuple(rule.terms), tuple(rule.doubts), tuple(rule.lists), rule.never, rule.target, rule.goto, rule.values
    )


def _groups(rule: _Rule, text: str) -> List[Tuple[str, List[_Option]]]:
    """Return (match, its options); reads the target, and what needs no match under the name ''."""
    plain: List[_Option] = []
    groups: List[Tuple[str, List[_Option]]] = [("", plain)]
    of_target = False
    for option, values, negated in options(text):
        option, values = _SPELLED_OUT.get(option, (option, values))
        if option == "-m":
            groups.append((values[0] if values else "", []))
            of_target = False
        elif option in ("-j", "-g"):
            rule.target, rule.goto, of_target = values[0] if values else "?", option == "-g", True
        elif option in _KNOWN[""]:
            plain.append((option, values, negated))
        elif of_target:
            rule.values[option] = values[0] if values else ""
        else:
            groups[-1][1].append((option, values, negated))
    return [group for group in groups if group[1] or group[0] not in _KNOWN]


_SPELLED_OUT = {"--syn": ("--tcp-flags", ["FIN,SYN,RST,ACK", "SYN"]), "-f": ("-f", ["all"])}


def _protocol(rule: _Rule, values: List[str], negated: bool) -> bool:
    name = values[0].lower()
    if name in _ANY_PROTOCOL:
        rule.fits(not negated)
    elif name in _PROTOCOLS:
        rule.ask(PROTOCOL, _PROTOCOLS[name], negated)
    else:
        # Another one: no packet in question is of it.
        rule.fits(negated)
    return True


def network_range(text: str) -> Optional[Tuple[int, int]]:
    """Return the first and last address of a network, as numbers, or None where its mask has holes or it is a name."""
    address, _slash, mask = text.partition("/")
    try:
        if "." in mask or ":" in mask:
            bits = bin(int(ipaddress.ip_address(mask)))[2:].zfill(32 if "." in mask else 128)
            if "01" in bits:
                return None
            text = f"{address}/{bits.count('1')}"
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    return int(network.network_address), int(network.broadcast_address)


def _address(kind: str) -> _Handler:
    def handler(rule: _Rule, values: List[str], negated: bool) -> bool:
        ranges = [network_range(item) for item in values[0].split(",")]
        if None in ranges:
            return False
        rule.ask(kind, tuple(ranges), negated)
        return True

    return handler


def _span(kind: str) -> _Handler:
    def handler(rule: _Rule, values: List[str], negated: bool) -> bool:
        first, _dash, last = values[0].partition("-")
        try:
            rule.ask(kind, ((int(ipaddress.ip_address(first)), int(ipaddress.ip_address(last or first))),), negated)
        except ValueError:
            return False
        return True

    return handler


def _ports(kind: str) -> _Handler:
    def handler(rule: _Rule, values: List[str], negated: bool) -> bool:
        ranges = []
        for item in values[0].split(","):
            first, colon, last = item.partition(":")
            low, high = _port(first or "0"), _port((last or "65535") if colon else first)
            if low is None or high is None:
                return False
            ranges.append((low, high))
        rule.ask(kind, tuple(ranges), negated)
        return True

    return handler


def _port(text: str) -> Optional[int]:
    return int(text) if text.isdigit() else SERVICES.get(text)


def _interface(rule: _Rule, values: List[str], negated: bool) -> bool:
    rule.ask(INTERFACE, values[0], negated)
    return True


def _out_interface(rule: _Rule, values: List[str], negated: bool) -> bool:
    # A packet that comes in has none yet.
    rule.fits((values[0] == "+") != negated)
    return True


def _fragment(rule: _Rule, _values: List[str], negated: bool) -> bool:
    # Connection tracking puts fragments together before any table sees them.
    rule.fits(negated)
    return True


def _states(rule: _Rule, values: List[str], negated: bool) -> bool:
    rule.ask(STATE, frozenset(values[0].upper().split(",")), negated)
    return True


def _status(rule: _Rule, values: List[str], negated: bool) -> bool:
    """What has seen no reply is neither SEEN_REPLY nor ASSURED, and its first packet is not CONFIRMED."""
    names = values[0].upper().split(",")
    if "NONE" in names:
        return False
    rule.ask(STATE, frozenset((RELATED,) if "EXPECTED" in names else ()), negated)
    return True


def _tcp_flags(rule: _Rule, values: List[str], negated: bool) -> bool:
    if len(values) != 2:
        return False
    try:
        mask, wanted = (sum({FLAG_BITS[flag] for flag in item.split(",")}) for item in values)
    except KeyError:
        return False
    rule.ask(PROTOCOL, "tcp", False)
    rule.ask(FLAGS, (mask, wanted), negated)
    return True


def _mark(rule: _Rule, values: List[str], negated: bool) -> bool:
    found = mark_and_mask(values[0])
    if found is None:
        return False
    rule.ask(MARK, found, negated)
    return True


def mark_and_mask(text: str) -> Optional[Tuple[int, int]]:
    """Return the two numbers of a mark, or None where they are none."""
    value, _slash, mask = text.partition("/")
    try:
        return int(value, 0), int(mask or "0xffffffff", 0)
    except ValueError:
        return None


def _destination_type(rule: _Rule, values: List[str], negated: bool) -> bool:
    kinds = values[0].split(",")
    # For ip6tables an own address is unicast as well.
    rule.fits(("LOCAL" in kinds or (rule.family == IPV6 and kinds == ["UNICAST"])) != negated)
    return True


def _source_type(rule: _Rule, values: List[str], negated: bool) -> bool:
    kinds = frozenset(values[0].split(","))
    if kinds & {"BLACKHOLE", "UNREACHABLE", "PROHIBIT", "THROW", "NAT", "XRESOLVE"}:
        return False
    rule.fits(("UNICAST" in kinds) != negated)
    return True


def _packet_type(rule: _Rule, values: List[str], negated: bool) -> bool:
    rule.fits((values[0] in ("unicast", "host")) != negated)
    return True


def _recent(rule: _Rule, asked: List[_Option]) -> None:
    given = {option: (values or [""])[0] for option, values, _negated in asked}
    verbs = [(option, negated) for option, _values, negated in asked if option in _VERBS]
    if len(verbs) != 1 or not given.get("--seconds", "0").isdigit():
        rule.doubt("recent", asked)
        return
    plain = not {"--hitcount", "--rttl", "--rdest"} & set(given)
    verb, negated = verbs[0]
    name, seconds = given.get("--name", "DEFAULT"), int(given.get("--seconds", "0"))
    rule.lists.append(ListMatch(verb, negated, name, seconds, plain))


_VERBS = ("--set", "--rcheck", "--update", "--remove")

_TRANSPORT: Dict[str, _Handler] = {"--dport": _ports(DPORT), "--sport": _ports(SPORT)}

_TCP: Dict[str, _Handler] = {**_TRANSPORT, "--tcp-flags": _tcp_flags}

_KNOWN: _Known = {
    "": {
        "-p": _protocol, "-s": _address(SOURCE), "-d": _address(DESTINATION), "-i": _interface, "-o": _out_interface,
        "-f": _fragment, **_TCP,
    },
    "tcp": _TCP,
    "udp": _TRANSPORT,
    "multiport": {"--dports": _ports(DPORT), "--sports": _ports(SPORT)},
    "conntrack": {"--ctstate": _states, "--ctstatus": _status},
    "state": {"--state": _states},
    "comment": {},
    "addrtype": {"--dst-type": _destination_type, "--src-type": _source_type},
    "pkttype": {"--pkt-type": _packet_type},
    "iprange": {"--src-range": _span(SOURCE), "--dst-range": _span(DESTINATION)},
    "mark": {"--mark": _mark},
    "recent": {},
}  # fmt: skip
"""Match to its options that are understood."""


def _doubted(_rule: _Rule, _values: List[str], _negated: bool) -> bool:
    """Leave open whether packets meet it that are sent on: what they were for, and where they go, may be two things."""
    return False


_SENT_ON: _Known = {
    **_KNOWN,
    "": {**_KNOWN[""], "-o": _doubted},
    "addrtype": {"--src-type": _source_type},
    "conntrack": {**_KNOWN["conntrack"], "--ctorigdstport": _ports(DPORT), "--ctorigdst": _address(DESTINATION)},
}
_BY_HOST: _Known = {
    **_SENT_ON,
    **{match: {**_SENT_ON[match], "--dport": _doubted} for match in ("", "tcp", "udp")},
    "multiport": {"--sports": _ports(SPORT)},
    "conntrack": {**_KNOWN["conntrack"], "--ctorigdstport": _ports(DPORT)},
}
_BY_FIRST_HOST: _Known = {
    **_BY_HOST,
    "": {**_BY_HOST[""], "-d": _doubted},
    "iprange": {"--src-range": _span(SOURCE)},
    "conntrack": _SENT_ON["conntrack"],
}
_VIEWS = {ARRIVING: _KNOWN, PLAIN: _SENT_ON, BY_HOST: _BY_HOST, BY_FIRST_HOST: _BY_FIRST_HOST}

__all__ = (
    "ALWAYS", "ARRIVING", "BY_FIRST_HOST", "BY_HOST", "DESTINATION", "DNAT", "DPORT", "FLAGS", "FLAG_BITS", "FORGET", "INTERFACE",
    "MARK", "NEW", "PLAIN", "PROTOCOL", "RELATED", "SERVICES", "SOURCE", "SPORT", "STATE", "STATES", "UNTRACKED", "ListMatch",
    "ReadRule", "Term", "mark_and_mask", "network_range", "read_rule",
)  # fmt: skip
