# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Comments of rules: written and read back here. Pure."""

import hashlib
import re

COMMENT = re.compile(r'-m comment --comment "portknock:([0-9a-f]{8}) ([^"]*)"')


def with_comment(family, chain, matches, comment, target):
    """Return the rule's text, its comment with an id that is a digest of all the rest."""
    digest = rule_id(family, chain, " ".join(part for part in (matches, target) if part))
    marked = '-m comment --comment "portknock:{0} {1}"'.format(digest, comment)
    return " ".join(part for part in (matches, marked, target) if part)


def rule_id(family, chain, text):
    """Return the id of a rule: eight hex digits over family, chain and the rule without its comment."""
    return hashlib.sha256(" ".join((family, chain, text)).encode("utf-8")).hexdigest()[:8]


STEP = re.compile(r"door (\w+): (closing )?step (\d+) of (\d+)$")

ENTRANCE = re.compile(r"door (\w+): let in who has knocked$")


__all__ = (
    "COMMENT",
    "ENTRANCE",
    "STEP",
    "rule_id",
    "with_comment",
)
