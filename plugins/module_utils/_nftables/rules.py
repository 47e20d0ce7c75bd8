# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules, chains and sets of the collection's table. Pure."""

from typing import Dict, List, NamedTuple, Tuple, Union

from ansible_collections.sesame.portknock.plugins.module_utils._names.comments import Meaning, rule_id, wording_of

_COMMENT_BYTES = 127
"""What nft takes for a comment."""

SYN = "tcp flags & (fin | syn | rst | ack) == syn"
NOT_SYN = "tcp flags & (fin | syn | rst | ack) != syn"
LOG_LIMIT = "limit rate 10/minute"

SENT_ON = "ct status dnat"
"""Matches the packets of a connection that nat sends to another destination."""

NOT_NEW, UNMANAGED = "packets that begin no connection", "this IP version is not managed"
PUBLISHED_PORTS, BEHIND = "ports of doors that nat sends on", "hosts behind this one"
BEHIND_KNOCKS = "knocks to hosts behind this one"
IN_FORCE = "are these rules in force, or replaced this very moment?"
REPLACED = "they are replaced: who sent this sends it again"
TOO_OFTEN = "so many knocks are broken that this source begins none for a second"


class Rule(NamedTuple):
    """A rule before its comment is written."""

    text: str
    """What it matches and does."""
    meaning: Union[Meaning, str]
    """What its comment is to say; words where only this engine says it."""


class Set(NamedTuple):
    """A set that packets put sources into."""

    kind: str
    """The type of its elements."""
    size: int
    """How many there can be."""


Chains = Dict[str, List[Rule]]
"""Name of a chain to its rules."""

CURRENT = "current"
"""The chain that packets come to which no verdict map has sent elsewhere."""
TO_CURRENT = Rule(f"jump {CURRENT}", IN_FORCE)


def current_rules() -> List[Rule]:
    """Return the rules of that chain: it drops a packet of which no verdict map can tell where it goes.

    From the moment on in which new rules count, the kernel (seen with 6.18) finds nothing in the verdict maps of the old ones. A packet
    that had come to these by then is found in none, not in one that has all: it would get past the doors, or be refused for no reason.
    """
    return [Rule("meta nfproto vmap { ipv4 : return, ipv6 : return }", IN_FORCE), Rule("drop", REPLACED)]


class Table(NamedTuple):
    """All of the table."""

    sets: Dict[str, Set]
    """Name to Set."""
    chains: Dict[str, Tuple[str, ...]]
    """Name of a chain to its rules, each with its comment."""
    layout: str
    """A digest of how knocks in progress are grouped: with another one, those that are must be forgotten."""


def joined(*parts: str) -> str:
    """Return parts of a rule as one text, empty ones left out."""
    return " ".join(part for part in parts if part)


def with_comment(chain: str, rule: Rule) -> str:
    """Return the text of a rule with its comment, as people and programs read it: ``portknock:ID WORDING``."""
    wording = rule.meaning if isinstance(rule.meaning, str) else wording_of(rule.meaning)
    comment = f"portknock:{rule_id('inet', chain, rule.text)} {wording}"
    short = comment.encode("utf-8")[:_COMMENT_BYTES].decode("utf-8", "ignore")
    return f'{rule.text} comment "{short}"'


__all__ = (
    "BEHIND",
    "BEHIND_KNOCKS",
    "CURRENT",
    "LOG_LIMIT",
    "NOT_NEW",
    "NOT_SYN",
    "PUBLISHED_PORTS",
    "SENT_ON",
    "SYN",
    "TO_CURRENT",
    "UNMANAGED",
    "Chains",
    "Rule",
    "Set",
    "Table",
    "current_rules",
    "joined",
    "with_comment",
)
