# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rulesets that others might have made, for Hypothesis, and what their rules do to particular sources."""

import ipaddress
import random
import re
from typing import Any, Callable, Dict, List, Sequence, Tuple

from fake_iptables import without_empty_nat
from hypothesis import strategies as st
from random_rules import CHAINS, make_rule
from walker import Verdict

Draw = Callable[[Any], Any]
"""From a strategy to one of its values."""


def rule(family: str, later: Sequence[str] = CHAINS) -> st.SearchStrategy[str]:
    """Return a strategy for a rule. One number makes one rule: quick to draw, and rules that do not matter fall away."""
    return st.integers(0, 2**40).map(lambda seed: make_rule(random.Random(seed), family, later))


@st.composite
def rulesets(draw: Draw, family: str, most: int = 6) -> Tuple[str, List[str], Dict[str, List[str]]]:
    """Return (policy, INPUT's rules, chain to rules)."""
    policy = draw(st.sampled_from(["ACCEPT", "ACCEPT", "DROP"]))
    chains = {
        name: draw(st.lists(rule(family, CHAINS[number + 1 :]), max_size=3)) for number, name in enumerate(CHAINS)
    }
    return policy, draw(st.lists(rule(family), max_size=most)), chains


_QUOTED = re.compile(r'"[^"]*"')
_PARTICULAR = re.compile(
    r"(?<!! )(-m recent --(rcheck|update|remove)|--match-set bad src|--mac-source|--src-cc|--connlimit-above|--hashlimit-above)"
)


def is_particular(text: str) -> bool:
    """Return whether a rule is for particular sources only: a positive match on a few of them."""
    text = _QUOTED.sub('""', text)
    found = re.search(r"(?<!! )-s (\S+)", text)
    if found:
        network = ipaddress.ip_network(found.group(1), strict=False)
        if network.prefixlen >= (8 if network.version == 4 else 16):
            return True
    span = re.search(r"(?<!! )--src-range (\S+)-(\S+)", text)
    if span:
        low, high = (ipaddress.ip_address(item) for item in span.groups())
        return int(high) - int(low) < 2 ** (low.max_prefixlen - (8 if low.version == 4 else 16))
    return bool(_PARTICULAR.search(text)) and "dstport" not in text and "connlimit-mask 0" not in text


def path(trail: Sequence[Tuple[str, str]]) -> List[Tuple[str, str]]:
    """Return the rules that led to the last rule of a trail, it included: the calls that are still open."""
    wanted, steps = None, []
    for chain, text in reversed(trail):
        if wanted is None or re.search(r"-[jg] {0}$".format(wanted), text):
            steps.append((chain, text))
            wanted = chain
            if chain == "INPUT":
                break
    return steps


def refused_as_particular(verdict: Verdict) -> bool:
    """Return whether a rule for particular sources refused the packet, before our doors saw it."""
    steps = path(verdict.trail)
    return verdict.action != "ACCEPT" and any(is_particular(text) for _chain, text in steps)


def lines_of_others(save: str) -> List[str]:
    """Return the lines of a save that are not ours, in their order; chain DOCKER-USER and table nat are where nobody else uses them."""
    rest = "\n".join(line for line in save.split("\n") if "PORTKNOCK" not in line)
    found = without_empty_nat(rest).split("\n")
    used = any("DOCKER-USER" in line and not line.startswith(":") for line in found)
    return [line for line in found if used or not line.startswith(":DOCKER-USER ")]
