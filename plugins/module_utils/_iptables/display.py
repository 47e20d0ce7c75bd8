# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rulesets and rules files as a person reads them, with no step of a knock in them. Pure."""

import re
from typing import Dict, List, Mapping, Optional, Sequence

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.chains import CHAIN
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.comments import without_id
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import (
    HOOKED,
    INPUT,
    State,
    is_own_rule,
)
from ansible_collections.sesame.portknock.plugins.module_utils._redact import is_secret, masked

_DETAILS = re.compile(r" --mask (?:255\.){3}255| --mask (?:ffff:){7}ffff| --rsource")


def readable_rule(chain: str, text: str) -> str:
    """Return one line for a person: without ids of comments, and without ports of knocks."""
    if is_secret(chain, text):
        text = masked(text)
    shown = _DETAILS.sub("", without_id(text))
    return f"-A {chain} {shown}\n"


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


def readable_file(text: str) -> str:
    """Return a rules file as a person reads it, with no knock port of the collection's rules."""
    shown = []
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        found = re.match(r"^(?:-A|-I) (\S+) (.*)\n?$", line, re.S)
        if found and CHAIN.match(found.group(1)):
            line = readable_rule(found.group(1), found.group(2).rstrip("\n"))
        elif found and is_own_rule(found.group(1), found.group(2)):
            line = without_id(line)
        shown.append(line)
    return "".join(shown)


__all__ = ("beside_hooks", "readable", "readable_file", "readable_rule")
