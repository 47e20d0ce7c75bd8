# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rulesets and rules files as a person reads them, with no step of a knock in them. Pure."""

import difflib
import re

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.chains import CHAIN
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import is_ours
from ansible_collections.sesame.portknock.plugins.module_utils._redact import is_secret, masked

_DETAILS = re.compile(r" --mask (?:255\.){3}255| --mask (?:ffff:){7}ffff| --rsource")

_ID = re.compile(r'"portknock:[0-9a-f]{8} ')


def readable_rule(chain, text):
    """Return one line for a person: our ids are left out, and ports of knocks."""
    if is_secret(chain, text):
        text = masked(text)
    return "-A {0} {1}\n".format(chain, _DETAILS.sub("", _ID.sub('"', text)))


def readable(state, foreign):
    """Return INPUT and our chains as a person reads them, in order, with no knock port."""
    lines, hooks = [], list(state.hooks)
    for place, text in enumerate(list(foreign) + [None]):
        while hooks and hooks[0].place == place:
            lines.append(readable_rule("INPUT", hooks.pop(0).text))
        if text is not None:
            lines.append("-A INPUT {0}\n".format(text))
    for name in sorted(state.chains):
        lines += [] if state.chains[name] else ["-N {0}\n".format(name)]
        lines += [readable_rule(name, text) for text in state.chains[name]]
    return "".join(lines)


def readable_file(text):
    """Return a rules file as a person reads it, with no knock port of ours."""
    shown = []
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        found = re.match(r"^(?:-A|-I) (\S+) (.*)\n?$", line, re.S)
        if found and CHAIN.match(found.group(1)):
            line = readable_rule(found.group(1), found.group(2).rstrip("\n"))
        elif found and is_ours(found.group(1), found.group(2)):
            line = _ID.sub('"', line)
        shown.append(line)
    return "".join(shown)


def shortened(before, after, context=3):
    """Return both texts with the stretches that do not change, but for some context, replaced by a line.

    A diff of a ruleset with thousands of foreign rules then stays readable.
    """
    one, other = before.splitlines(True), after.splitlines(True)
    short_one, short_other = [], []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if tag == "equal" and i2 - i1 > 2 * context + 1:
            gap = ["# ... {0} lines that stay\n".format(i2 - i1 - 2 * context)]
            same = one[i1 : i1 + context] + gap + one[i2 - context : i2]
            short_one += same
            short_other += same
        else:
            short_one += one[i1:i2]
            short_other += other[j1:j2]
    return "".join(short_one), "".join(short_other)


__all__ = (
    "readable",
    "readable_file",
    "readable_rule",
    "shortened",
)
