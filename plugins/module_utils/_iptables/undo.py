# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way back from a change, worked out from the ruleset as it is when it is needed. Pure.

Between a change and its undo others come and go: fail2ban inserts its jump, Docker adds chains. So the undo is no
text written beforehand, but the transition from the collection's rules now to those before, with its hooks between the
foreign rules that stand there now.
"""

import difflib
from typing import Dict, List, Sequence, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.forward_hooks import stands_in_front
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import (
    Hook,
    State,
    around,
    named_by_foreign,
    read_state,
    same_ids,
    table_transition,
    transition,
)
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import DOCKER, FILTER, NAT, table_of
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document, parse
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import (
    HOOKED,
    INPUT,
    TABLES,
    foreign_in,
)

_EMPTY = {
    FILTER: "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n",
    NAT: "*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n",
}


def undo_text(before: str, live: str) -> str:
    """Return input for ``iptables-restore --noflush`` that takes the collection's rules back to what they were, '' for none.

    :param before: what iptables-save printed before the change.
    :param live: what it prints now.
    :raises HostError: if one of them cannot be followed.
    """
    document = parse(live, "the live ruleset")
    return transition(read_state(document), state_before(before, document), around(document))


def nat_undo_text(before: str, live: str) -> str:
    """Return the part of undo_text() that is for table nat."""
    document = parse(_only(NAT, live), "the live ruleset")
    then = state_before(_only(NAT, before), document)
    return table_transition(NAT, read_state(document), then, around(document))


def _only(table: str, save: str) -> str:
    """Return what a save has of one table, '' where it is not in it; the others may hold what cannot be followed."""
    start = save.find(f"*{table}\n")
    end = save.find("\nCOMMIT", start)
    return save[start:end] + "\nCOMMIT\n" if start >= 0 and end >= 0 else ""


def is_undone(before: str, live: str) -> bool:
    """Return whether the collection's rules in a save are again what they were before the change."""
    document = parse(live, "the live ruleset")
    return same_ids(read_state(document), state_before(before, document))


def state_before(before: str, document: Document) -> State:
    """Return the State before a change, its hooks placed among the foreign rules of a ruleset as it is now.

    :param before: the save before the change.
    :raises HostError: if it cannot be followed.
    """
    old_document = parse(before, "the ruleset before the change")
    old, there = read_state(old_document), read_state(document).chains
    chains: Dict[str, Tuple[str, ...]] = {name: () for name in named_by_foreign(document) if name in there}
    positions = {chain: _positions(_texts(old_document, chain), _texts(document, chain)) for chain in HOOKED}
    hooked = {hook.chain for hook in old.hooks}
    hooks = tuple(_placed(hook, positions[hook.chain][hook.position], document, hooked) for hook in old.hooks)
    chains.update(old.chains)
    return old._replace(chains=chains, hooks=hooks)


def _placed(hook: Hook, position: int, document: Document, hooked: Set[str]) -> Hook:
    """Return a hook at a position; where rules that came in front of it would let packets past, at the head of its chain."""
    if hook.chain != INPUT and not stands_in_front(document, hook.chain, position, hooked):
        return hook._replace(position=0)
    return hook._replace(position=position)


def _texts(document: Document, chain: str) -> List[str]:
    return [rule.text.rstrip() for rule in foreign_in(document, chain)]


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


def snapshot_text(before: str, table: str = FILTER) -> str:
    """Return input for ``iptables-restore`` that puts a whole table back as a save has it.

    Only for when the exact undo cannot be loaded: what others changed in the table meanwhile is lost.
    """
    return _only(table, before) or _EMPTY[table]


def emptied_text(chains: Sequence[str]) -> str:
    """Return input for ``iptables-restore --noflush`` that leaves chains of the collection without a rule.

    It is taken whatever else the tables hold, also what iptables cannot read.
    """
    named = [(table, [name for name in chains if table_of(name) == table]) for table in TABLES]
    return "".join(_table_text(table, [f":{name} - [0:0]" for name in names]) for table, names in named if names)


def _table_text(table: str, lines: Sequence[str]) -> str:
    return "\n".join(["*" + table, *lines, "COMMIT", ""])


def unhooked_text(chain: str, hook: str) -> str:
    """Return input for ``iptables-restore --noflush`` that takes one hook out of a chain; refused where it is not there."""
    return _table_text(table_of(chain), [f"-D {chain} {hook}"])


def without_docker_text() -> str:
    """Return input for ``iptables-restore --noflush`` that removes chain DOCKER-USER; refused where anything uses it."""
    return _table_text(FILTER, ["-X " + DOCKER])


def removed_texts(chains: Sequence[str]) -> List[str]:
    """Return inputs for ``iptables-restore --noflush`` that remove the chains of each table; refused while anything jumps to one."""
    named = [(table, [name for name in chains if table_of(name) == table]) for table in TABLES]
    return [
        _table_text(table, [f":{name} - [0:0]" for name in names] + [f"-X {name}" for name in names])
        for table, names in named
        if names
    ]


__all__ = (
    "emptied_text", "is_undone", "nat_undo_text", "removed_texts", "snapshot_text", "state_before", "undo_text", "unhooked_text",
    "without_docker_text",
)  # fmt: skip
