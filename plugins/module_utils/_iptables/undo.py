# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""The way back from a change, worked out from the ruleset as it is when it is needed. Pure.

Between a change and its undo others come and go: fail2ban inserts its jump, Docker adds chains. So the undo is no
text written beforehand, but the transition from what is ours now to what was ours then, with our hooks between the
foreign rules that stand there now.
"""

import difflib

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import (
    foreign_rules,
    named_by_foreign,
    read_state,
    same_ids,
    transition,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse

_EMPTY = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"


def undo_text(before, live):
    """Return input for ``iptables-restore --noflush`` that takes our rules back to what they were, '' for none.

    :param before: what iptables-save printed before the change.
    :param live: what it prints now.
    :raises HostError: if one of them cannot be followed.
    """
    table = parse(live, "the live ruleset").table("filter")
    return transition(read_state(table), _wanted(before, table), len(foreign_rules(table)))


def is_undone(before, live):
    """Tell whether our rules in a save are again what they were before the change."""
    table = parse(live, "the live ruleset").table("filter")
    return same_ids(read_state(table), _wanted(before, table))


def _wanted(before, table):
    """Return the State before the change, its hooks placed among the foreign rules of a live table."""
    old_table = parse(before, "the ruleset before the change").table("filter")
    old = read_state(old_table)
    names = named_by_foreign(table) if table else ()
    kept = {name: () for name in names if name in read_state(table).chains}
    places = _places(_texts(old_table), _texts(table))
    hooks = tuple(hook._replace(place=places[hook.place]) for hook in old.hooks)
    return old._replace(chains=dict(kept, **old.chains), hooks=hooks)


def _texts(table):
    return [rule.text.rstrip() for rule in foreign_rules(table)]


def _places(before, live):
    """Return the place among live rules for each place among the rules before, the one behind the last included.

    A hook stays in front of the rule that it stood in front of; where that one went, of the next that is left.
    At the end it stays behind the last one that is left.
    """
    found = {}
    matcher = difflib.SequenceMatcher(None, before, live, autojunk=False)
    for old, new, size in matcher.get_matching_blocks():
        found.update((old + step, new + step) for step in range(size))
    last = max([new + 1 for new in found.values()] or [len(live)])
    places = [last]
    for index in reversed(range(len(before))):
        places.append(found.get(index, places[-1]))
    return places[::-1]


def snapshot_text(before):
    """Return input for ``iptables-restore`` that puts the whole filter table back as a save has it.

    Only for when the exact undo cannot be loaded: what others changed in the table meanwhile is lost.
    """
    start = before.find("*filter\n")
    end = before.find("\nCOMMIT", start)
    return before[start:end] + "\nCOMMIT\n" if start >= 0 and end >= 0 else _EMPTY


__all__ = ("is_undone", "snapshot_text", "undo_text")
