# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the hooks for packets that are sent on belong: in front of the first rule that could let them past. Pure."""

from typing import Container, FrozenSet, List, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import Hook, State, read_state
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import (
    CHAIN,
    DOCKER,
    FILTER,
    table_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.rule_text import options
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document, Table
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import foreign_rules

FORWARD = "FORWARD"
_HARMLESS = frozenset(
    ("DROP", "REJECT", "LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "TCPMSS", "SET", "TRACE", "AUDIT", "ECN", "DSCP")
)
"""Targets that let no packet past what stands below."""


def forward_hooks(wanted: Sequence[Tuple[str, str]], document: Document, now: State) -> Tuple[Hook, ...]:
    """Return the hooks of chains that packets pass which are sent on, or may be.

    One stays where it is as long as nothing in front of it lets packets past: whoever starts later puts jumps of his own in front. That of
    FORWARD also stays behind the jump to DOCKER-USER, where the other one is: else every start of Docker would be drift.

    :param wanted: each chain with the rule that hooks ours into it.
    :param document: the ruleset.
    """
    found: List[Hook] = []
    for chain, text in wanted:
        here = [hook.position for hook in now.hooks_of(chain)]
        known = [hook.text for hook in now.hooks_of(chain)] == [text]
        stays = known and stands_in_front(document, chain, here[0], dict(wanted))
        found.append(Hook(here[0] if stays else 0, text, chain))
    return tuple(found)


def stands_in_front(document: Document, chain: str, position: int, hooked: Container[str]) -> bool:
    """Return whether nothing lets packets past a hook at a position of a chain, or past the one in DOCKER-USER in its place.

    :param hooked: the chains that have hooks.
    """
    table = document.table(table_of(chain))
    if position <= first_passing(table, chain):
        return True
    return chain == FORWARD and DOCKER in hooked and _jumps_to_docker_user(table)


def _jumps_to_docker_user(table: Optional[Table]) -> bool:
    """Return whether every packet in FORWARD passes DOCKER-USER before a rule of others lets it past."""
    first = first_passing(table, FORWARD)
    return f"-j {DOCKER}" in [rule.text.strip() for rule in foreign_rules(table, FORWARD)[: first + 1]]


def first_passing(table: Optional[Table], chain: str) -> int:
    """Return the position of the first foreign rule of a chain that may let packets past the rules below it."""
    rules = foreign_rules(table, chain)
    return next((index for index, rule in enumerate(rules) if lets_past(table, rule.text)), len(rules))


def is_guarded(document: Document) -> bool:
    """Return whether every packet that rules of iptables send on passes a hook of ours before anything lets it past."""
    hooks = {hook.chain: hook.position for hook in read_state(document).hooks}
    table = document.table(FILTER)
    first = first_passing(table, FORWARD)
    if hooks.get(FORWARD, first + 1) <= first:
        return True
    return _jumps_to_docker_user(table) and DOCKER in hooks and hooks[DOCKER] <= first_passing(table, DOCKER)


def lets_past(table: Optional[Table], text: str) -> bool:
    """Return whether a rule may let a packet past the rules below it, whatever else it asks of the packet."""
    target = _target(text)
    if target is None:
        return False
    option, name = target
    return option == "-g" or name == "RETURN" or _accepts(table, name, frozenset())


def _accepts(table: Optional[Table], name: str, seen: FrozenSet[str]) -> bool:
    """Return whether a target may end a packet's way through the table with anything but a refusal."""
    if name in _HARMLESS or name == "RETURN" or name in seen or CHAIN.match(name):
        return False
    if table is None or name not in table.chains:
        return True
    targets = [_target(rule.text) for rule in table.rules(name)]
    return any(_accepts(table, target[1], seen | {name}) for target in targets if target is not None)


def _target(text: str) -> Optional[Tuple[str, str]]:
    """Return ``-j`` or ``-g`` and what follows it, None for a rule that only counts."""
    found = [(option, values[0]) for option, values, _negated in options(text) if option in ("-j", "-g") and values]
    return found[0] if found else None


__all__ = ("forward_hooks", "is_guarded", "lets_past", "stands_in_front")
