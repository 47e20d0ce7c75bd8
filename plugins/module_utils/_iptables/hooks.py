# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the three hooks belong among the foreign rules of INPUT; those of other chains, forward_hooks.py says. Pure.

The doors' hook stands in front of the first foreign rule that could decide the packets of a door or a
knock for everyone, and behind those that only refuse particular sources. The tail stands behind every
foreign exception, in front of a foreign catch-all. A hook that already stands right is left where it is.
"""

from typing import Optional, Sequence

from ansible_collections.sesame.portknock.plugins.module_utils._foreign.input_rules import ForeignRules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import BuiltRules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.forward_hooks import forward_hooks
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import Hook, State


def wanted_state(built: BuiltRules, foreign: ForeignRules, now: State) -> State:
    """Return the State that a table should have.

    :param built: the rules that are wanted.
    :param foreign: the foreign rules of the table.
    :param now: its State.
    """
    strict = _placed(built, foreign, now)
    if now.hooks and strict.hooks != now.hooks:
        arriving = foreign.as_arriving()
        placed = _placed(built, arriving, now) if arriving else strict
        if placed.hooks == now.hooks:
            return placed
    return strict


def _placed(built: BuiltRules, foreign: ForeignRules, now: State) -> State:
    here = {
        text: [hook.position for hook in now.hooks_of() if hook.text == text]
        for text in (built.head, built.doors, built.tail)
    }
    end = foreign.catch_all()
    decisive = min(foreign.first_decisive(), end)
    doors = _position(here[built.doors], foreign.behind_blocks(decisive), decisive)
    head = _position(here[built.head], 0, min(foreign.head_before(), doors), otherwise=0)
    hooks = [Hook(head, built.head), Hook(doors, built.doors)]
    if built.tail:
        hooks.append(Hook(_position(here[built.tail], max(foreign.behind_exceptions(end), doors), end), built.tail))
    return State(built.chains, (*hooks, *forward_hooks(built.forward, foreign.document, now)))


def _position(positions: Sequence[int], least: int, most: int, otherwise: Optional[int] = None) -> int:
    """Return the position that a hook has if it has just one and that is right, else the last that is right."""
    if len(positions) == 1 and least <= positions[0] <= most:
        return positions[0]
    return most if otherwise is None else otherwise


__all__ = ("wanted_state",)
