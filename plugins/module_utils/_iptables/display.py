# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rulesets and rules files as a person reads them, with no step of a knock in them. Pure."""

import re

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.chains import CHAIN
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.comments import without_id
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import is_ours
from ansible_collections.sesame.portknock.plugins.module_utils._redact import is_secret, masked

_DETAILS = re.compile(r" --mask (?:255\.){3}255| --mask (?:ffff:){7}ffff| --rsource")


def readable_rule(chain, text):
    """Return one line for a person: our ids are left out, and ports of knocks."""
    if is_secret(chain, text):
        text = masked(text)
    return "-A {0} {1}\n".format(chain, _DETAILS.sub("", without_id(text)))


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
            line = without_id(line)
        shown.append(line)
    return "".join(shown)


__all__ = (
    "readable",
    "readable_file",
    "readable_rule",
)
