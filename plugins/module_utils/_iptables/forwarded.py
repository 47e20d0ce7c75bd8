# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What packets that the host sends on meet in FORWARD of iptables, for the prover. Pure.

Every packet that nat may have sent on is walked, whatever its rules are, through all rules of FORWARD in the order in which they
stand, with DOCKER-USER where they jump to it.
"""

import re
from typing import Callable, FrozenSet, List, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._foreign.input_rules import Protected
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import FILTER, NAT, PREROUTING
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_rules import (
    BY_FIRST_HOST,
    BY_HOST,
    PLAIN,
    read_rule,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_ruleset import (
    DIVERT,
    Hook,
    Place,
    Ruleset,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_sent_on import Sent
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.rule_text import options
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document, Table
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import is_own_rule

_NOTE = re.compile(r"pk[46]\S*_\w+\.[fu]$")
"""Lists.notes(): no door is named with a dot."""


class Forwarded(Ruleset):
    """The rules of one family that packets meet which the host sends on."""

    def __init__(self, document: Document, family: str, view: str) -> None:
        """Take the rules.

        :param view: which of two ports and destinations packets are told apart by, see read_rule().
        """
        table = document.table(FILTER)
        texts = [rule.text for rules in table.chains.values() for rule in rules] if table is not None else []
        known = {text: read_rule(text, family, view) for text in texts}
        super().__init__(family, {FILTER: table}, (Hook(FILTER, "FORWARD"),), known)
        # Other tables may have put any on packets.
        self.mark_changes = None

    def is_ours(self, place: Place, is_own_rule: Callable[[str, str], bool]) -> bool:
        """Return whether what decides at a place is ours; who has knocked may be refused by others, and by the policy."""
        return not self.text(place).startswith("-P ") and super().is_ours(place, is_own_rule)


def forwarded(document: Document, family: str, protected: Protected) -> List[Sent]:
    """Return the packets that the host sends on, as the rules of iptables meet them; none where nothing of them is guarded.

    :param document: the Document of the ruleset that is to be judged.
    """
    behind, published = any(door.to for door in protected.doors), bool(protected.guards_published)
    if not protected.doors or not (behind or published):
        return []
    never, reached = _notes(document, family), _nat_reaches(document)

    def sent(view: str, *, guards: bool, certain: bool) -> Sent:
        by_nat = view != PLAIN
        return Sent(Forwarded(document, family, view), by_nat, guards, certain, never, not by_nat or reached)

    found = [sent(BY_HOST, guards=published, certain=not behind)]
    if behind:
        found += [sent(PLAIN, guards=False, certain=True), sent(BY_FIRST_HOST, guards=False, certain=False)]
    return found


def _notes(document: Document, family: str) -> FrozenSet[str]:
    """Return the lists that one of the two hooks leaves to the other; none that a rule of others puts sources on."""
    setters = [
        (asked.name, is_own_rule(chain, rule.text))
        for table in document.tables
        for chain, rules in table.chains.items()
        for rule in rules
        if "--set" in rule.text
        for asked in read_rule(rule.text, family).lists
        if asked.verb == "--set"
    ]
    foreign = {name for name, ours in setters if not ours}
    return frozenset(name for name, _ours in setters if _NOTE.match(name) and name not in foreign)


def _nat_reaches(document: Document) -> bool:
    """Return whether rules of others send packets on that ours in nat have not seen: in front of them, or for other hosts' addresses."""
    table, seen = document.table(NAT), False
    if table is None:
        return False
    for rule in table.rules(PREROUTING):
        if is_own_rule(PREROUTING, rule.text):
            seen = True
        elif not (seen and "--dst-type LOCAL" in rule.text) and _diverts(table, rule.text, ()):
            return True
    return False


def _diverts(table: Table, text: str, calls: Tuple[str, ...]) -> bool:
    targets = [values[0] for option, values, _negated in options(text) if option in ("-j", "-g") and values]
    return any(target in DIVERT or _chain_diverts(table, target, calls) for target in targets)


def _chain_diverts(table: Table, chain: str, calls: Tuple[str, ...]) -> bool:
    rules = table.chains.get(chain, ()) if chain not in calls else ()
    return any(_diverts(table, rule.text, (*calls, chain)) for rule in rules)


__all__ = ("Forwarded", "forwarded")
