# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A diff that stays readable where most of a text does not change. Pure."""

import difflib
from typing import List, Tuple


def shortened(before: str, after: str, context: int = 3) -> Tuple[str, str]:
    """Return both texts with the stretches that do not change, but for some context, replaced by a line.

    A diff of a ruleset with thousands of foreign rules then stays readable.
    """
    one, other = before.splitlines(True), after.splitlines(True)
    short_one: List[str] = []
    short_other: List[str] = []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if tag == "equal" and i2 - i1 > 2 * context + 1:
            gap = [f"# ... {i2 - i1 - 2 * context} lines that stay\n"]
            same = one[i1 : i1 + context] + gap + one[i2 - context : i2]
            short_one += same
            short_other += same
        else:
            short_one += one[i1:i2]
            short_other += other[j1:j2]
    return "".join(short_one), "".join(short_other)


__all__ = ("shortened",)
