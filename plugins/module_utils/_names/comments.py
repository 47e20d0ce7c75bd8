# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Comments of rules: the only file in which they are written and read back. Pure.

Every rule of the collection has one: ``portknock:ID WORDING``. The ID tells whether the rule was edited by hand; the wording is
for people who read ``iptables -L``, and is what doors are found by when a ruleset is read back.
"""

import hashlib
import re
from typing import Dict, NamedTuple, Optional, Tuple


class Meaning(NamedTuple):
    """What a rule is for."""

    kind: str
    """One of the kinds below."""
    door: str = ""
    """The door that it belongs to, '' for none."""
    number: int = 0
    """Of a step: which one, counted from 1."""
    total: int = 0
    """Of a step: how many there are."""
    note: str = ""
    """Of an allowed port: the administrator's comment, or the port."""
    panic: bool = False
    """Whether it refuses what it would accept, because the host is in panic."""


class Comment(NamedTuple):
    """A comment that was read back."""

    id: str
    """Eight hexadecimal digits, see rule_id()."""
    meaning: Meaning
    """What the rule is for; of kind UNKNOWN where the collection did not write the wording."""


ENTRANCE, FORWARDED, BY_NAT, USED, STEP, CLOSING_STEP, RESET, ALLOWED, UNKNOWN = (
    "entrance",
    "forwarded",
    "by_nat",
    "used",
    "step",
    "closing_step",
    "reset",
    "allowed",
    "unknown",
)

HOOK_HEAD, HOOK_DOORS, HOOK_TAIL = Meaning("hook_head"), Meaning("hook_doors"), Meaning("hook_tail")
ESTABLISHED, LOOPBACK, TRUSTED_INTERFACE = Meaning("established"), Meaning("loopback"), Meaning("trusted_interface")
TRUSTED_SOURCE, ICMP, ICMPV6 = Meaning("trusted_source"), Meaning("icmp"), Meaning("icmpv6")
NEEDED_ICMPV6, DHCPV6 = Meaning("needed_icmpv6"), Meaning("dhcpv6")
REFUSE, REFUSE_TCP, REFUSE_REST = Meaning("refuse"), Meaning("refuse_tcp"), Meaning("refuse_rest")
REFUSE_NOT_KNOCKED, LOG_OPENED, LOG_REFUSED = (
    Meaning("refuse_not_knocked"),
    Meaning("log_opened"),
    Meaning("log_refused"),
)
ACCEPT, DOOR_PORTS, KNOCK_PORTS = Meaning("accept"), Meaning("door_ports"), Meaning("knock_ports")
PORT_RANGE, WRONG_PORT, WRONG_PROTOCOL = Meaning("port_range"), Meaning("wrong_port"), Meaning("wrong_protocol")
IN_PROGRESS, UNUSED_LISTS = Meaning("in_progress"), Meaning("unused_lists")
RELATED, RELATED_TO_DOORS, ICMP_ERROR = Meaning("related"), Meaning("related_to_doors"), Meaning("icmp_error")
HOOK_FORWARD, FORWARD_KNOCKS = Meaning("hook_forward"), Meaning("forward_knocks")
PASSED, REFUSE_PUBLISHED = Meaning("passed"), Meaning("refuse_published")
HOOK_BY_NAT, HOOK_SENT = Meaning("hook_by_nat"), Meaning("hook_sent")
NOT_BY_NAT, REST_NOT_BY_NAT = Meaning("not_by_nat"), Meaning("rest_not_by_nat")

_FIXED: Dict[Meaning, str] = {
    HOOK_HEAD: "established connections, trusted sources, ICMP",
    HOOK_DOORS: "doors, knocks and allowed ports",
    HOOK_FORWARD: "doors of published ports and hosts behind",
    HOOK_BY_NAT: "doors of published ports",
    HOOK_SENT: "what nat has sent on",
    HOOK_TAIL: "refuse the rest, keep this rule last",
    ESTABLISHED: "established connections",
    LOOPBACK: "loopback",
    TRUSTED_INTERFACE: "trusted interface",
    TRUSTED_SOURCE: "trusted source",
    ICMP: "ping and other ICMP",
    ICMPV6: "ping and other ICMPv6",
    NEEDED_ICMPV6: "ICMPv6 that IPv6 needs to work",
    DHCPV6: "DHCPv6 replies",
    REFUSE: "refuse",
    REFUSE_TCP: "refuse with a TCP reset",
    REFUSE_REST: "refuse everything else",
    REFUSE_NOT_KNOCKED: "refuse sources that have not knocked",
    LOG_OPENED: "log the accepted connection",
    LOG_REFUSED: "log the refused connection",
    ACCEPT: "accept",
    DOOR_PORTS: "ports of doors",
    KNOCK_PORTS: "ports of knocks",
    PORT_RANGE: "ports in this range",
    WRONG_PORT: "wrong port: reset the knock",
    WRONG_PROTOCOL: "wrong protocol: reset the knock",
    IN_PROGRESS: "a knock in progress here: reset it",
    UNUSED_LISTS: "not used, hides how many steps there are",
    RELATED: "related connections",
    RELATED_TO_DOORS: "related connections need a knock, too",
    FORWARD_KNOCKS: "knocks at hosts behind",
    PASSED: "has passed the other hook",
    REFUSE_PUBLISHED: "refuse other published ports",
    NOT_BY_NAT: "no nat for sources that have not knocked",
    REST_NOT_BY_NAT: "no nat for other ports",
    ICMP_ERROR: "ICMP errors of established connections",
}

_RELEASE_1_0_0: Dict[str, Meaning] = {
    "sessions that run, trusted sources, ICMP": HOOK_HEAD,
    "refuse the rest, keep this last": HOOK_TAIL,
    "sessions that run live on": ESTABLISHED,
    "the host itself": LOOPBACK,
    "ICMPv6 that IPv6 needs to live": NEEDED_ICMPV6,
    "DHCPv6, answers come from another address": DHCPV6,
    "refuse with a reset": REFUSE_TCP,
    "everything else is refused": REFUSE_REST,
    "who has not knocked is refused": REFUSE_NOT_KNOCKED,
    "log who comes in": LOG_OPENED,
    "log who is refused": LOG_REFUSED,
    "let in": ACCEPT,
    "knocks": KNOCK_PORTS,
    "ports of this range": PORT_RANGE,
    "wrong port: start again": WRONG_PORT,
    "wrong protocol: start again": WRONG_PROTOCOL,
    "no longer on its way": IN_PROGRESS,
}
"""Wordings of release 1.0.0 that have changed since. Hosts that it closed are read back, too."""

_MEANINGS = dict(_RELEASE_1_0_0, **{wording: meaning for meaning, wording in _FIXED.items()})
_ALLOWED_PREFIX, _PANIC_PREFIX = "allowed: ", "closed by panic: "
_OF_DOOR = re.compile(
    r"door (?P<door>\w+): (?:"
    r"(?P<forwarded>forward for sources that have knocked|(?P<no_forward>not forwarded, closed by panic))"
    r"|(?P<by_nat>nat for sources that have knocked)"
    r"|(?P<used>the knock is used)"
    r"|(?P<entrance>accept sources that have knocked|let in who has knocked|(?P<panic>closed by panic))"
    r"|(?P<reset>reset the knock|forget a step)"
    r"|(?P<closing>closing )?step (?P<number>\d+) of (?P<total>\d+)"
    r")\Z"
)


_PLAIN = {RESET: "reset the knock", BY_NAT: "nat for sources that have knocked", USED: "the knock is used"}


def entrance(door: str, panic: bool = False) -> Meaning:
    """Return the Meaning of the rule that accepts sources that have knocked at a door, or refuses them in panic."""
    return Meaning(ENTRANCE, door, panic=panic)


def forwarded(door: str, panic: bool = False) -> Meaning:
    """Return the Meaning of the rule that sends on sources that have knocked at a door, or refuses them in panic."""
    return Meaning(FORWARDED, door, panic=panic)


def by_nat(door: str) -> Meaning:
    """Return the Meaning of the rule that leaves sources that have knocked at a door to the rules of nat."""
    return Meaning(BY_NAT, door)


def used(door: str) -> Meaning:
    """Return the Meaning of the rule that forgets a knock that is good for one connection."""
    return Meaning(USED, door)


def step(door: str, number: int, total: int, closing: bool = False) -> Meaning:
    """Return the Meaning of the rule for one step of a knock, or of the knock that closes the door."""
    return Meaning(CLOSING_STEP if closing else STEP, door, number, total)


def reset(door: str) -> Meaning:
    """Return the Meaning of a rule that forgets a step that a source has done."""
    return Meaning(RESET, door)


def allowed(note: str, panic: bool = False) -> Meaning:
    """Return the Meaning of the rule for an allowed port.

    :param note: the administrator's comment, or the port.
    :param panic: whether it is closed all the same.
    """
    return Meaning(ALLOWED, note=note, panic=panic)


def wording_of(meaning: Meaning) -> str:
    """Return how a Meaning is written."""
    if meaning.kind == ENTRANCE:
        return f"door {meaning.door}: {'closed by panic' if meaning.panic else 'accept sources that have knocked'}"
    if meaning.kind == FORWARDED:
        what = "not forwarded, closed by panic" if meaning.panic else "forward for sources that have knocked"
        return f"door {meaning.door}: {what}"
    if meaning.kind in _PLAIN:
        return f"door {meaning.door}: {_PLAIN[meaning.kind]}"
    if meaning.kind == ALLOWED:
        return (_PANIC_PREFIX if meaning.panic else _ALLOWED_PREFIX) + meaning.note
    if meaning.kind in (STEP, CLOSING_STEP):
        word = "step" if meaning.kind == STEP else "closing step"
        return f"door {meaning.door}: {word} {meaning.number} of {meaning.total}"
    return _FIXED[meaning]


def meaning_of(wording: str) -> Meaning:
    """Return the Meaning of a wording, of kind UNKNOWN where it is none of this release or of 1.0.0."""
    if wording in _MEANINGS:
        return _MEANINGS[wording]
    for prefix in (_ALLOWED_PREFIX, _PANIC_PREFIX):
        if wording.startswith(prefix):
            return allowed(wording[len(prefix) :], panic=prefix == _PANIC_PREFIX)
    found = _OF_DOOR.match(wording)
    if not found:
        return Meaning(UNKNOWN)
    if found.group("entrance"):
        return entrance(found.group("door"), panic=bool(found.group("panic")))
    if found.group("forwarded"):
        return forwarded(found.group("door"), panic=bool(found.group("no_forward")))
    for kind in _PLAIN:
        if found.group(kind):
            return Meaning(kind, found.group("door"))
    return step(
        found.group("door"), int(found.group("number")), int(found.group("total")), bool(found.group("closing"))
    )


_MATCH = re.compile(r'-m comment --comment "portknock:([0-9a-f]{8}) ([^"]*)"')
_ID = re.compile(r'"portknock:[0-9a-f]{8} ')


def with_comment(family: str, chain: str, matches: str, meaning: Meaning, target: str) -> str:
    """Return the text of a rule, its comment between its matches and its target."""
    digest = rule_id(family, chain, " ".join(part for part in (matches, target) if part))
    comment = f'-m comment --comment "portknock:{digest} {wording_of(meaning)}"'
    return " ".join(part for part in (matches, comment, target) if part)


def rule_id(family: str, chain: str, text: str) -> str:
    """Return the id of a rule: eight hexadecimal digits of a digest over family, chain and the rule without its comment."""
    return hashlib.sha256(" ".join((family, chain, text)).encode("utf-8")).hexdigest()[:8]


def read_comment(text: str) -> Optional[Comment]:
    """Return the Comment in a rule's text, or None where it has none of the collection's."""
    found = _MATCH.search(text)
    return Comment(found.group(1), meaning_of(found.group(2))) if found else None


def has_comment(text: str) -> bool:
    """Return whether a rule has a comment of the collection."""
    return bool(_MATCH.search(text))


def comment_texts(text: str) -> Tuple[Tuple[str, str], ...]:
    """Return (id, wording) of the collection's comment in a rule's text, as it is written there; empty for none."""
    return tuple((found.group(1), found.group(2)) for found in _MATCH.finditer(text))


def without_comment(text: str) -> str:
    """Return a rule's text without the collection's comment."""
    return " ".join(_MATCH.sub(" ", text, count=1).split())


def without_id(text: str) -> str:
    """Return a rule's text, its comment without the id, for people."""
    return _ID.sub('"', text)


__all__ = (
    "ACCEPT", "ALLOWED", "BY_NAT", "CLOSING_STEP", "DHCPV6", "DOOR_PORTS", "ENTRANCE", "ESTABLISHED", "FORWARDED",
    "FORWARD_KNOCKS", "HOOK_BY_NAT", "HOOK_DOORS", "HOOK_FORWARD", "HOOK_HEAD", "HOOK_SENT", "HOOK_TAIL", "ICMP", "ICMPV6",
    "ICMP_ERROR", "IN_PROGRESS", "KNOCK_PORTS", "LOG_OPENED", "LOG_REFUSED", "LOOPBACK", "NEEDED_ICMPV6", "NOT_BY_NAT",
    "PASSED", "PORT_RANGE", "REFUSE", "REFUSE_NOT_KNOCKED", "REFUSE_PUBLISHED", "REFUSE_REST", "REFUSE_TCP", "RELATED",
    "RELATED_TO_DOORS", "RESET", "REST_NOT_BY_NAT", "STEP", "TRUSTED_INTERFACE", "TRUSTED_SOURCE", "UNKNOWN", "UNUSED_LISTS",
    "USED", "WRONG_PORT", "WRONG_PROTOCOL", "Comment", "Meaning", "allowed", "by_nat", "comment_texts", "entrance", "forwarded",
    "has_comment", "meaning_of", "read_comment", "reset", "rule_id", "step", "used", "with_comment", "without_comment",
    "without_id", "wording_of",
)  # fmt: skip
