# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way back from a change, worked out from the ruleset as it is when it is needed. Pure.

Between a change and its undo others come and go: fail2ban inserts its jump, Docker adds chains. So the undo is no
text written beforehand, but the transition from the collection's rules now to those before, with its hooks between the
foreign rules that stand there now.
"""

import difflib
from typing import Dict, List, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.chains import DOCKER
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.forward_hooks import first_passing
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import (
    HOOKED,
    INPUT,
    Hook,
    State,
    around,
    foreign_rules,
    named_by_foreign,
    read_state,
    same_ids,
    transition,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Table, parse

_EMPTY = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"


def undo_text(before: str, live: str) -> str:
    """Return input for ``iptables-restore --noflush`` that takes the collection's rules back to what they were, '' for none.

    :param before: what iptables-save printed before the change.
    :param live: what it prints now.
    :raises HostError: if one of them cannot be followed.
    """
    table = parse(live, "the live ruleset").table("filter")
    return transition(read_state(table), state_before(before, table), around(table))


def is_undone(before: str, live: str) -> bool:
    """Return whether the collection's rules in a save are again what they were before the change."""
    table = parse(live, "the live ruleset").table("filter")
    return same_ids(read_state(table), state_before(before, table))


def state_before(before: str, table: Optional[Table]) -> State:
    """Return the State before a change, its hooks placed among the foreign rules of a table as it is now.

    :param before: the save before the change.
    :raises HostError: if it cannot be followed.
    """
    old_table = parse(before, "the ruleset before the change").table("filter")
    old = read_state(old_table)
    names = named_by_foreign(table) if table else ()
    chains: Dict[str, Tuple[str, ...]] = {name: () for name in names if name in read_state(table).chains}
    positions = {chain: _positions(_texts(old_table, chain), _texts(table, chain)) for chain in HOOKED}
    hooks = tuple(_placed(hook, positions[hook.chain][hook.position], table) for hook in old.hooks)
    chains.update(old.chains)
    return old._replace(chains=chains, hooks=hooks)


def _placed(hook: Hook, position: int, table: Optional[Table]) -> Hook:
    """Return a hook at a position; where rules that came in front of it would let packets past, at the head of its chain."""
    if hook.chain != INPUT and position > first_passing(table, hook.chain):
        return hook._replace(position=0)
    return hook._replace(position=position)


def _texts(table: Optional[Table], chain: str) -> List[str]:
    return [rule.text.rstrip() for rule in foreign_rules(table, chain)]


def _positions(before: List[str], live: List[str]) -> List[int]:
    """Return the position among live rules for each position among the rules before, the one behind the last included.

    A hook stays in front of the rule that it stood in front of; where that one went, of the next that is left.
    At the end it stays behind the last one that is left.
    """
    found: Dict[int, int] = {}
    matcher = difflib.SequenceMatcher(None, before, live, autojunk=False)
    for old, new, size in matcher.get_matching_blocks():
        found.update((old + step, new + step) for step in range(size))
    last = max([new + 1 for new in found.values()] or [len(live)])
    positions = [last]
    for index in reversed(range(len(before))):
        positions.append(found.get(index, positions[-1]))
    return positions[::-1]


def snapshot_text(before: str) -> str:
    """Return input for ``iptables-restore`` that puts the whole filter table back as a save has it.

    Only for when the exact undo cannot be loaded: what others changed in the table meanwhile is lost.
    """
    start = before.find("*filter\n")
    end = before.find("\nCOMMIT", start)
    return before[start:end] + "\nCOMMIT\n" if start >= 0 and end >= 0 else _EMPTY


def emptied_text(chains: Sequence[str]) -> str:
    """Return input for ``iptables-restore --noflush`` that leaves chains of the collection without a rule.

    It is taken whatever else the table holds, also what iptables cannot read.
    """
    return "\n".join(["*filter"] + [f":{name} - [0:0]" for name in chains] + ["COMMIT", ""])


def unhooked_text(chain: str, hook: str) -> str:
    """Return input for ``iptables-restore --noflush`` that takes one hook out of a chain; refused where it is not there."""
    return f"*filter\n-D {chain} {hook}\nCOMMIT\n"


def without_docker_text() -> str:
    """Return input for ``iptables-restore --noflush`` that removes chain DOCKER-USER; refused where anything uses it."""
    return f"*filter\n-X {DOCKER}\nCOMMIT\n"


def removed_text(chains: Sequence[str]) -> str:
    """Return input for ``iptables-restore --noflush`` that removes chains; refused while anything jumps to one of them."""
    return "\n".join(
        ["*filter"] + [f":{name} - [0:0]" for name in chains] + [f"-X {name}" for name in chains] + ["COMMIT", ""]
    )


__all__ = (
    "emptied_text", "is_undone", "removed_text", "snapshot_text", "state_before", "undo_text", "unhooked_text",
    "without_docker_text",
)  # fmt: skip
