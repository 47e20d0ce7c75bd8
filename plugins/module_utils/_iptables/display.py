# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rulesets as a person reads them, with no step of a knock in them. Pure."""

from typing import Dict, List, Mapping, Optional, Sequence

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import State
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import HOOKED, INPUT
from ansible_collections.sesame.portknock.plugins.module_utils._tables.readable import readable_rule


def readable(state: State, foreign: Mapping[str, Sequence[str]]) -> str:
    """Return chains with hooks and the collection's chains as a person reads them, in order, with no knock port.

    :param foreign: each chain that is shown to the texts of the foreign rules in it.
    """
    lines: List[str] = []
    for chain in HOOKED:
        lines += _chain_with_hooks(chain, state, foreign.get(chain, ()))
    for name in sorted(state.chains):
        lines += [] if state.chains[name] else [f"-N {name}\n"]
        lines += [readable_rule(name, text) for text in state.chains[name]]
    return "".join(lines)


def beside_hooks(foreign: Mapping[str, Sequence[str]], *states: State) -> Dict[str, Sequence[str]]:
    """Return of all foreign rules those of INPUT, and of the other chains that have a hook in one of the states."""
    hooked = {INPUT} | {hook.chain for state in states for hook in state.hooks}
    return {chain: texts for chain, texts in foreign.items() if chain in hooked}


def _chain_with_hooks(chain: str, state: State, foreign: Sequence[str]) -> List[str]:
    lines: List[str] = []
    hooks = list(state.hooks_of(chain))
    texts: List[Optional[str]] = [*foreign, None]
    for position, text in enumerate(texts):
        while hooks and hooks[0].position == position:
            lines.append(readable_rule(chain, hooks.pop(0).text))
        if text is not None:
            lines.append(f"-A {chain} {text}\n")
    return lines


__all__ = ("beside_hooks", "readable")
