# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection's table in a file that others have saved the whole ruleset to (``nft list ruleset``). Pure."""

import re
from typing import List, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import TABLE

_BEGIN = re.compile(rf"^[ \t]*table[ \t]+{TABLE.replace(' ', '[ 	]+')}[ \t]*\{{", re.M)
_BRACES = re.compile(r'"[^"\n]*"|[{}]')


def own_blocks(text: str) -> Tuple[str, ...]:
    """Return the blocks of our table in a text, as they are written there."""
    return tuple(text[first:last] for first, last in _places(text))


def with_own_blocks(text: str, other: str) -> str:
    """Return a text with the blocks of our table that another one has, in the place of those that it has itself."""
    kept, end = "", 0
    blocks = "".join(own_blocks(other))
    for first, last in _places(text):
        kept, end, blocks = kept + text[end:first] + blocks, last, ""
    return kept + text[end:] + blocks


def _places(text: str) -> List[Tuple[int, int]]:
    """Return where blocks of our table begin and end, with the end of the line; one that is not closed ends with the text."""
    places: List[Tuple[int, int]] = []
    for found in _BEGIN.finditer(text):
        if not places or found.start() >= places[-1][1]:
            places.append((found.start(), _end_of(text, found.start())))
    return places


def _end_of(text: str, first: int) -> int:
    depth = 0
    for brace in _BRACES.finditer(text, first):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if brace.group() == "}" and depth == 0:
            end = brace.end()
            return end + (text[end : end + 1] == "\n")
    return len(text)


__all__ = ("own_blocks", "with_own_blocks")
