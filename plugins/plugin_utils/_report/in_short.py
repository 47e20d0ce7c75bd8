# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The diff of a change as a person can read it: first a summary, then each ruleset once; files that say nothing new by name. Pure.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

Part = Mapping[str, Any]
"""One text of a diff, as Ansible's callbacks take it."""
Changed = tuple[str, str]
"""``-`` or ``+``, and a line."""

_RULESET, _SERVICES, _TABLE = "ruleset in the kernel", "services", "table "
_SAME_IN_IPV4 = (
    ("pk6_", "pk4_"), ("icmp6-adm-", "icmp-admin-"), ("icmp6-", "icmp-"), ("-p ipv6-icmp", "-p icmp"), ("ICMPv6", "ICMP"),
)  # fmt: skip
"""How a rule of IPv6 says what one of IPv4 says."""
_OF_KNOCKS = re.compile(
    r"-A (PORTKNOCK_(?:[KR][0-9]+|CATALOG\w*|FORGET\w*)|PORTKNOCK\w*(?=.* -g PORTKNOCK_(?:[KR][0-9]|CATALOG|FORGET))) "
)
"""A rule that recognises a step or forgets one, or leads to such rules; its ports are left out everywhere."""
_OF_DOORS = re.compile(r"-A (PORTKNOCK_D[0-9]+) ")
"""A rule that lets in at a door's ports who has knocked, or refuses the rest; the summary names each door."""
_OF_FORWARD = re.compile(
    r"-A (PORTKNOCK_(?:FWD|NAT)\w*|(?:FORWARD|DOCKER-USER|PREROUTING|POSTROUTING)(?=.* -j PORTKNOCK)) "
)
"""A rule for packets that are sent on, or that nat may send on, or that leads to such rules."""
_FOLDS = (
    (_OF_KNOCKS, 3, "that recognise knocks and forget them"),
    (_OF_DOORS, 7, "that let in at doors' ports who has knocked, and refuse all others"),
    (_OF_FORWARD, 9, "that do the same for what nat publishes and for hosts behind"),
)
"""Which rules are left out, from how many on, and what is said in their place."""
# What every rules file has around its rules, whatever they are.
_FRAME = re.compile(r"\*|:|#|COMMIT|-N |\s*$")
_AT_THE_HEAD = re.compile(r"^-I INPUT 1 ")


def in_short(diff: Sequence[Part], summary: Iterable[str]) -> list[Part]:
    """Return a diff that says everything once.

    :param diff: the module's own, where each text stands in full.
    :param summary: what the ruleset does, in words.
    """
    if not diff:
        return []
    rulesets = [part for part in diff if part["before_header"].endswith(_RULESET)]
    services = [part for part in diff if part["before_header"] == _SERVICES]
    files = [part for part in diff if part not in rulesets and part not in services]
    known = {change for part in rulesets for change in map(_in_ipv4, _changes(part))}
    named = [part for part in files if _is_new_or_gone(part) or _says_no_more(part, known)]
    tables = [part for part in files if part["before_header"].startswith(_TABLE)]
    words = [*(summary if rulesets or tables else ()), *_counted(rulesets)]
    words += [line for part in services for line in part["after"].splitlines()] + _names(named)
    shown = [*map(_folded, _once(rulesets)), *(part for part in files if part not in named)]
    return [_head(words), *shown] if words else shown


def _head(words: Iterable[str]) -> Part:
    """Return words as a text of a diff that is printed as it is."""
    text = "".join(line + "\n" for line in words) + "\n"
    return {"before_header": "summary", "after_header": "summary", "before": "", "after": "", "prepared": text}


def _changes(part: Part) -> list[Changed]:
    """Return the lines that go and those that come."""
    before, after = part["before"].splitlines(), part["after"].splitlines()
    gone, come = _changed_places(before, after)
    return [("-", before[place]) for place in gone] + [("+", after[place]) for place in come]


def _changed_places(before: Sequence[str], after: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the places of the lines that go, and of those that come."""
    gone: list[int] = []
    come: list[int] = []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag != "equal":
            gone += range(i1, i2)
            come += range(j1, j2)
    return gone, come


def _in_ipv4(change: Changed) -> Changed:
    """Return a changed line of either family as one of IPv4 would be."""
    sign, line = change
    for there, here in _SAME_IN_IPV4:
        line = line.replace(there, here)
    return sign, line


def _is_new_or_gone(part: Part) -> bool:
    return not part["before"] or not part["after"]


def _says_no_more(part: Part, known: set[Changed]) -> bool:
    """Return whether what changes in a rules file changes in the kernel as well."""
    rules = [(sign, _AT_THE_HEAD.sub("-A INPUT ", line)) for sign, line in _changes(part) if not _FRAME.match(line)]
    return all(_in_ipv4(rule) in known for rule in rules)


def _counted(rulesets: Iterable[Part]) -> list[str]:
    """Return a line that says how many rules come and go, or none."""
    words = []
    for part in rulesets:
        family = part["before_header"].split()[0].replace("ipv", "IPv")
        signs = Counter(sign for sign, _line in _changes(part))
        counts = [f"{signs[sign]} {verb}" for sign, verb in (("+", "added"), ("-", "removed")) if signs[sign]]
        words.append(f"{family} {', '.join(counts)}")
    return [f"rules: {'; '.join(words)}. Those of others stay."] if words else []


def _names(parts: Iterable[Part]) -> list[str]:
    """Return a line with the names of the files that are written, and one with those that are removed, where there are any.

    A table of nftables has a line of its own.
    """
    words = []
    found: dict[str, list[str]] = {"files written": [], "files removed": []}
    for part in parts:
        if part["before_header"].startswith(_TABLE):
            words.append(f"{part['before_header']}: {_of_table(part)}")
            continue
        # A file that is to be there has a mode.
        what = "files written" if "(mode" in part["after_header"] else "files removed"
        found[what].append(part["before_header"])
    return words + [f"{what}: {_grouped(paths)} (-v shows them)" for what, paths in found.items() if paths]


def _of_table(part: Part) -> str:
    if not _is_new_or_gone(part):
        return "rules that recognise knocks are written anew (steps are never shown)"
    return f"{'new' if part['after'] else 'removed'} (-v shows it)"


def _grouped(paths: Iterable[str]) -> str:
    """Return paths with those of one directory together, as a shell takes them."""
    words = []
    for directory, group in groupby(sorted(paths), key=lambda path: path.rpartition("/")[0]):
        names = [path.rpartition("/")[2] for path in group]
        words.append(f"{directory}/{names[0] if len(names) == 1 else '{' + ','.join(names) + '}'}")
    return ", ".join(words)


def _once(rulesets: Sequence[Part]) -> list[Part]:
    """Return the rulesets of both families as one, where that of IPv6 says little else than that of IPv4."""
    if len(rulesets) != 2:
        return list(rulesets)
    one, other = rulesets
    here = Counter(_changes(one))
    there = Counter(_changes(other))
    left = here - Counter(_in_ipv4(change) for change in there.elements())
    more = Counter(change for change in there.elements() if _in_ipv4(change) not in here)
    if 2 * (more.total() + left.total()) > there.total():
        return list(rulesets)
    hidden = [
        rules for rules, few, _words in _FOLDS if sum(bool(rules.match(line)) for _sign, line in here.elements()) >= few
    ]
    marked = [
        (sign, f"# {words}: {line}")
        for words, changes in (("IPv6 also", more), ("not IPv6", left))
        for sign, line in changes.elements()
        # A rule of one family alone is not shown where those beside it are not.
        if not any(rules.match(line) for rules in hidden)
    ]
    sides = {
        side: one[side] + "".join(line + "\n" for sign, line in marked if sign == wanted)
        for side, wanted in (("before", "-"), ("after", "+"))
    }
    header = f"{_RULESET} (IPv4; IPv6 says the same{' but for the lines marked' if marked else ''})"
    return [{"before_header": header, "after_header": header, **sides}]


def _folded(part: Part) -> Part:
    """Return a ruleset with one line for all the rules of knocks that come, and one for those that go; so for those of many doors."""
    for fold in _FOLDS:
        before, after = part["before"].splitlines(), part["after"].splitlines()
        gone, come = _changed_places(before, after)
        part = {**part, "before": _fold(before, gone, "removed", *fold), "after": _fold(after, come, "added", *fold)}
    return part


def _fold(lines: Sequence[str], changed: Iterable[int], verb: str, rules: re.Pattern[str], few: int, words: str) -> str:
    matches = ((place, rules.match(lines[place])) for place in changed)
    found = {place: match[1] for place, match in matches if match}
    if len(found) < few:
        return "".join(line + "\n" for line in lines)
    first = min(found)
    chains = ", ".join(dict.fromkeys(found.values()))
    instead = f"# {len(found)} rules {verb} {words}, in {chains} (-v shows them)"
    kept = [
        instead if place == first else line for place, line in enumerate(lines) if place == first or place not in found
    ]
    return "".join(line + "\n" for line in kept)
