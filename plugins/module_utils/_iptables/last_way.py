# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands for sh that empty the collection's chains and look at them, for when no program can do it. Pure."""

from typing import Iterable, List, Mapping, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import Plan
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.undo import emptied_text
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import table_of
from ansible_collections.sesame.portknock.plugins.module_utils._paths import IPTABLES
from ansible_collections.sesame.portknock.plugins.module_utils._tables.commands import LOCK_SECONDS


def last_way(plans: Iterable[Plan], paths: Mapping[str, str]) -> Tuple[str, ...]:
    """Return commands that leave the collection's chains empty, so that they refuse nothing, whatever else is in the tables.

    :param plans: of each IP version; those that change nothing need none.
    :param paths: plain names of commands to their paths.
    """
    return tuple(_emptying(plan, paths[IPTABLES[plan.family] + "-restore"]) for plan in plans if plan.change)


def last_look(plans: Iterable[Plan], paths: Mapping[str, str]) -> Tuple[str, ...]:
    """Return commands that succeed only if the tables are printed with the collection's chains, and these have no rule."""
    return tuple(
        words for plan in plans if plan.change for words in _looking(plan, paths[IPTABLES[plan.family] + "-save"])
    )


def _emptying(plan: Plan, restore: str) -> str:
    texts = emptied_text(plan.own_chains()).splitlines()
    echoes = "\n".join(f"echo '{text}'" for text in texts)
    return f"{{\n{echoes}\n}} | {restore} -w {LOCK_SECONDS} --noflush"


def _looking(plan: Plan, save: str) -> List[str]:
    # A table that cannot be read is left out of the save, with exit code 0: then one of its chains is not there either.
    chains = {table_of(name): name for name in plan.own_chains()}
    printed = [f"{save} -t {table} | grep -qF ':{name} '" for table, name in sorted(chains.items())]
    return [*printed, *(f"! {save} -t {table} | grep -q '^-A PORTKNOCK'" for table in sorted(chains))]


__all__ = ("last_look", "last_way")
