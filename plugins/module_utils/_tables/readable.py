# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules and rules files of iptables as a person reads them, with no step of a knock in them. Pure."""

import re

from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import CHAIN
from ansible_collections.sesame.portknock.plugins.module_utils._names.comments import without_id
from ansible_collections.sesame.portknock.plugins.module_utils._redact import is_secret, masked
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import is_own_rule

_DETAILS = re.compile(r" --mask (?:255\.){3}255| --mask (?:ffff:){7}ffff| --rsource")


def readable_rule(chain: str, text: str) -> str:
    """Return one line for a person: without ids of comments, and without ports of knocks."""
    if is_secret(chain, text):
        text = masked(text)
    shown = _DETAILS.sub("", without_id(text))
    return f"-A {chain} {shown}\n"


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


__all__ = ("readable_file", "readable_rule")
