# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Takes the steps of knocks out of any text that may leave the host: the only file that does. Pure.

It knows the form of each text that can hold a step: options, rules, what iptables-restore says, rules files,
the table of nftables and what nft says of it, knockd's configuration.
"""

import re
from typing import Any, Collection, Dict, Mapping, Optional, Set

HIDDEN = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"


def without_steps(options: Mapping[str, Any]) -> Dict[str, Any]:
    """Return a copy of the options in which every step is replaced, for the invocation in a result."""
    doors = options.get("doors") or []
    shown = [_without_steps(door) for door in doors] if isinstance(doors, list) else HIDDEN
    return dict(options, doors=shown)


def _without_steps(door: Any) -> Any:
    if not isinstance(door, dict):
        return HIDDEN
    return dict(door, **{key: HIDDEN for key in ("knock", "close") if door.get(key)})


def hidden_options(options: Mapping[str, Any], argument_spec: Mapping[str, Any]) -> Dict[str, Any]:
    """Return a copy of options that may be malformed, without the values that could hold a step.

    Kept are single values of options that the argument spec has and does not say to be no_log.
    """
    return {name: value if _is_plain(argument_spec.get(name), value) else HIDDEN for name, value in options.items()}


def without_numbers(message: str, argument_spec: Mapping[str, Any]) -> str:
    """Return ansible-core's message about an option, or where it holds a number the names of the options it is about."""
    if not re.search("[0-9]", message):
        return message
    names = [name for name in sorted(argument_spec) if re.search(rf"['\" :]{name}\b", " " + message)]
    return f"{' or '.join(names) or 'an option'}: is not valid; see ansible-doc. (The value is not shown, it may be a step.)"


def _is_plain(option: Optional[Mapping[str, Any]], value: Any) -> bool:
    if option is None:
        return False
    single = option.get("type", "str") not in ("dict", "list", "raw") and not isinstance(value, (dict, list))
    return not value or (single and not option.get("no_log"))


# Patterns are compiled when they are used: every run imports this file, and few of them use one.

_SECRET_CHAIN = r"^PORTKNOCK_K[1-9][0-9]*$"
_SECRET_TARGET = r" -g PORTKNOCK_(?:[KR][1-9]|CATALOG|FORGET)"


def is_secret(chain: str, text: str) -> bool:
    """Return whether a rule of the collection names ports of knocks."""
    return bool(re.match(_SECRET_CHAIN, chain) or re.search(_SECRET_TARGET, text))


_NUMBERS = r"(--(?:dports?|sports?|ports|to-ports?|to-destination)|--destination-ports?|--source-ports?)(\s+)(\S+)"


def masked(text: str) -> str:
    """Return a rule's text with the ports taken out: it has to do with a knock."""
    return re.sub(_NUMBERS, r"\1\2****", text)


def ports_named(text: str) -> Set[str]:
    """Return the numbers of the ports that a rule's text names, as texts."""
    return {number for found in re.finditer(_NUMBERS, text) for number in re.findall(r"\d+", found.group(3))}


def without_steps_of(err: str, text: str) -> str:
    """Return an error of iptables-restore with the ports of knocks in it left out.

    :param err: what it said.
    :param text: what it was to load.
    """
    steps: Set[str] = set()
    for line in text.splitlines():
        words = line.split(" ", 2)
        if line.startswith("-") and len(words) == 3 and is_secret(words[1], words[2]):
            steps |= ports_named(words[2])
    if not steps:
        return err
    number = re.compile(r"(line:? )?\b(" + "|".join(sorted(steps)) + r")\b")
    return number.sub(lambda found: found.group(0) if found.group(1) else "****", err)


_SEQUENCE = r"(?mi)^([ \t]*sequence[ \t]*=[ \t]*).*$"
"""However an administrator who edited the file spells it."""
_CONFIG_ID = r"\A(# Written by sesame\.portknock), id [0-9a-f]{16};"


def readable_config(text: str) -> str:
    """Return knockd's configuration with no step, and without its id: a guess at the steps could be checked against that."""
    return re.sub(_SEQUENCE, r"\1****", re.sub(_CONFIG_ID, r"\1;", text))


_SECRET_CHAIN_OF_TABLE = r"(?:knock|forget)\w+\Z|wrong\Z"
_RULE_OF_TABLE = r'add rule inet portknock (\w+) (.*) comment "portknock:(\w+) ([^"]*)"\Z'


def readable_table(text: str) -> str:
    """Return a text for ``nft -f`` of the collection for people, with no step.

    Of what recognises and forgets knocks there is what each rule is for and nothing else, without order: their chains are
    numbered as their ports are, and names of sets and ids are digests, which a guess at the steps could be checked against.
    """
    plain, secret = [], set()
    for line in text.splitlines():
        found = re.match(_RULE_OF_TABLE, line)
        if found and re.match(_SECRET_CHAIN_OF_TABLE, found.group(1)):
            secret.add(f"knocks: {found.group(4)}")
        elif found and found.group(3) != "about":
            plain.append(f"{found.group(1)}: {found.group(2)} # {found.group(4)}")
    return "".join(f"{line}\n" for line in [*plain, *sorted(secret)])


_OWN_COMMENT = r'comment "portknock:\w+ ([^"]*)"'
_SET_OF_KNOCKS = r"@(?:k[0-9a-z]{6}[1-7][46]\b|(?:stage|group)\w+)"
_BESIDE_SOURCE = r"\. meta mark & (\w+) \| \1"
"""The number that stands for a stage of a knock: a digest as well."""


def readable_rule(text: str, steps: Collection[int]) -> str:
    """Return a rule of nftables for people, with no step; a rule of the collection that recognises knocks as what it is for.

    :param text: ``CHAIN: RULE``, the rule as nft writes it.
    :param steps: the ports of steps.
    """
    chain, _colon, rule = text.partition(": ")
    rule = re.sub(_BESIDE_SOURCE, ". ****", re.sub(_SET_OF_KNOCKS, "@****", rule))
    comment = re.search(_OWN_COMMENT, rule)
    if re.match(_SECRET_CHAIN_OF_TABLE, chain):
        return f"knocks: {comment.group(1) if comment else re.sub('[0-9]+', '****', rule)}"
    rule = re.sub(_OWN_COMMENT, r'comment "\1"', rule)
    return f"{chain}: " + re.sub(
        r"\b[0-9]+\b", lambda found: "****" if int(found.group()) in steps else found.group(), rule
    )


def without_lines(err: str) -> str:
    """Return an error of nft without the lines that it quotes: knocks are in them."""
    found = re.findall(r"^(?:\S+?:)?([0-9]+):[0-9-]+: (Error: .*)$|^(Error: .*)$", err, re.M)
    said = [f"line {line}: {error}" if line else alone for line, error, alone in found]
    return "; ".join(dict.fromkeys(said)) or "it did not say why"


__all__ = (
    "HIDDEN",
    "hidden_options",
    "is_secret",
    "masked",
    "ports_named",
    "readable_config",
    "readable_rule",
    "readable_table",
    "without_lines",
    "without_numbers",
    "without_steps",
    "without_steps_of",
)
