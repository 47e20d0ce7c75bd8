# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Both families' rulesets changed as one: a transaction of plans, each loaded in one step."""

from typing import Callable, Dict, List, NamedTuple, Sequence

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import ABSENT, Hook, State, same_ids
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import Plan
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import NAT, table_of
from ansible_collections.sesame.portknock.plugins.module_utils._tables.commands import Iptables, table_text
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import HOOKED, TABLES


class Loaded(NamedTuple):
    """What is there after a change."""

    plan: Plan
    """The Plan for the ruleset as it is now."""
    save: str
    """What iptables-save prints now."""


Replan = Callable[[str, str], Plan]
"""From a family and what iptables-save prints to the Plan for it."""


def apply_plans(iptables: Iptables, plans: Sequence[Plan], replan: Replan) -> Dict[str, Loaded]:
    """Load the change of every Plan that has one, and read back that it is there.

    Each load of a table is one step that is taken whole or not at all. Before the first one all matches are probed, and
    where there is more than one all texts are tested. If a later one fails all the same, the first stays: the guard undoes them.

    :param iptables: an Iptables.
    :param replan: function (family, text of iptables-save) to the Plan for that ruleset.
    :returns: family to Loaded, for the families that were changed.
    :raises HostError: with what failed.
    """
    changing = [plan for plan in plans if plan.change]
    for plan in changing:
        if plan.now == ABSENT or (_uses_nat(plan.then) and not _uses_nat(plan.now)):
            iptables.probe(plan.family, plan.then.chains)
        if len(changing) > 1 or _uses_nat(plan.now) or _uses_nat(plan.then):
            iptables.restore(plan.family, plan.change, test=True)
    after: Dict[str, Loaded] = {}
    for plan in changing:
        iptables.restore(plan.family, plan.change)
        after[plan.family] = _read_back(iptables, plan, replan)
    return after


def _uses_nat(state: State) -> bool:
    """Return whether rules of ours are in two tables, which are loaded one after the other."""
    return state.of_table(NAT) != ABSENT


def _read_back(iptables: Iptables, plan: Plan, replan: Replan) -> Loaded:
    """Return Loaded for the ruleset as it is now.

    Where our rules read back as they were written, that is the Plan itself with nothing left to do. Others may
    have changed the ruleset meanwhile, or this iptables spells differently, so else it is planned anew.
    """
    text = iptables.save(plan.family)
    if _reads_as(text, plan.then):
        return Loaded(plan._replace(now=plan.then, change="", undo=""), text)
    again = replan(plan.family, text)
    if not same_ids(again.now, again.then):
        raise HostError(
            f"the {plan.family} ruleset does not read back as it was loaded: something else changed it at the same time. "
            "Run this again."
        )
    return Loaded(again, text)


def _reads_as(text: str, state: State) -> bool:
    """Return whether a save holds just the rules of a State, spelled alike, with its hooks in their places."""
    found: Dict[str, List[str]] = {}
    for table in TABLES:
        for line in table_text(text, table).split("\n"):
            chain, _blank, rule = line[3:].partition(" ")
            if line.startswith(_LOOKED_AT) and table_of(chain) == table:
                found.setdefault(chain, []).append(rule.rstrip())
    in_place = all(_in_place(found.pop(chain, []), state.hooks_of(chain)) for chain in HOOKED)
    return in_place and found == {name: list(chain) for name, chain in state.chains.items() if chain}


_LOOKED_AT = tuple(f"-A {chain} " for chain in HOOKED) + ("-A PORTKNOCK",)


def _in_place(rules: Sequence[str], hooks: Sequence[Hook]) -> bool:
    indexes = [hook.position + before for before, hook in enumerate(hooks)]
    return sum("PORTKNOCK" in rule for rule in rules) == len(indexes) and all(
        index < len(rules) and rules[index] == hook.text for index, hook in zip(indexes, hooks)
    )


__all__ = ("Loaded", "apply_plans")
