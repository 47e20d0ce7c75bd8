# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the hooks for packets that are sent on belong: in front of the first rule that could let them past. Pure."""

import re
from typing import FrozenSet, List, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.chains import (
    CHAIN,
    DOCKER,
    FILTER,
    NAT,
    PREROUTING,
    table_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import (
    Hook,
    State,
    foreign_rules,
    read_state,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.rule_text import options
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document, Table

FORWARD = "FORWARD"
_HARMLESS = frozenset(
    ("DROP", "REJECT", "LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "TCPMSS", "SET", "TRACE", "AUDIT", "ECN", "DSCP")
)
"""Targets that let no packet past what stands below."""
_BRIDGE = re.compile(r"(docker[0-9]+|br-[0-9a-f]{12})\Z")
"""The names that Docker gives its bridges."""


def forward_hooks(wanted: Sequence[Tuple[str, str]], document: Document, now: State) -> Tuple[Hook, ...]:
    """Return the hooks of chains that packets pass which are sent on, or may be.

    One stays where it is as long as nothing in front of it lets packets past: whoever starts later puts jumps of his own in front. That of
    FORWARD stays behind what Docker puts in front whenever it starts, where the hook in table nat guards as well: else every start would
    be drift.

    :param wanted: each chain with the rule that hooks ours into it.
    :param document: the ruleset.
    """
    found: List[Hook] = []
    # Without hosts behind, which are reached without nat: for these DOCKER-USER has a hook.
    spare = PREROUTING in dict(wanted) and DOCKER not in dict(wanted) and _guards_nat(document, now)
    for chain, text in wanted:
        here = [hook.position for hook in now.hooks_of(chain)]
        known = [hook.text for hook in now.hooks_of(chain)] == [text]
        table = document.table(table_of(chain))
        stays = known and here[0] <= first_passing(table, chain)
        if known and spare and chain == FORWARD:
            above = [rule.text for rule in foreign_rules(table, chain)[: here[0]]]
            stays = all(_is_of_docker(text) or not lets_past(table, text) for text in above)
        found.append(Hook(here[0] if stays else 0, text, chain))
    return tuple(found)


def _guards_nat(document: Document, now: State) -> bool:
    positions = [hook.position for hook in now.hooks_of(PREROUTING)]
    return len(positions) == 1 and positions[0] <= first_passing(document.table(NAT), PREROUTING)


def _is_of_docker(text: str) -> bool:
    """Return whether a rule is about a bridge of Docker's alone, or jumps to one of its chains."""
    given = {option: values[0] for option, values, negated in options(text) if values and not negated}
    bridges = [given.get(option, "") for option in ("-i", "-o")]
    return any(map(_BRIDGE.match, bridges)) or given.get("-j", "").startswith("DOCKER")


def first_passing(table: Optional[Table], chain: str) -> int:
    """Return the position of the first foreign rule of a chain that may let packets past the rules below it."""
    rules = foreign_rules(table, chain)
    return next((index for index, rule in enumerate(rules) if lets_past(table, rule.text)), len(rules))


def is_guarded(document: Document) -> bool:
    """Return whether every packet that rules of iptables send on passes a hook of ours before anything lets it past."""
    hooks = {hook.chain: hook.position for hook in read_state(document).hooks}
    if hooks.get(PREROUTING, -1) in range(first_passing(document.table(NAT), PREROUTING) + 1):
        return True
    table = document.table(FILTER)
    first = first_passing(table, FORWARD)
    if hooks.get(FORWARD, first + 1) <= first:
        return True
    jumps = [rule.text.strip() for rule in foreign_rules(table, FORWARD)[: first + 1]]
    return f"-j {DOCKER}" in jumps and DOCKER in hooks and hooks[DOCKER] <= first_passing(table, DOCKER)


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


__all__ = ("first_passing", "forward_hooks", "is_guarded", "lets_past")
