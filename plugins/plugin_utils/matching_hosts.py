# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which hosts of an inventory a pattern names, and what is wrong where it names none.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager

_FEW = 10


def no_hosts_problem(groups: Mapping[str, Iterable[str]], pattern: Any, limit: str) -> str:
    """Return why a play would have no host, and what to do now; '' where it has some.

    :param groups: name of a group to its hosts, ``all`` among them.
    :param pattern: of hosts, as ``hosts`` of a play takes it: a text or a list.
    :param limit: what ``--limit`` says, '' for nothing.
    """
    if not pattern:
        # A shell's variable that is not set, for instance. Who wants all hosts leaves it out.
        return "portknock_hosts is empty, so nothing was done. Name the hosts, or all."
    inventory = _inventory(groups)
    if _matches(inventory, pattern, limit):
        return ""
    if not groups.get("all"):
        return "The inventory has no hosts, so nothing was done. Name one that has some with -i."
    if pattern == "all":
        return f"No host of the inventory matches --limit {limit}, so nothing was done."
    shown = pattern if isinstance(pattern, str) else ",".join(map(str, pattern))
    if limit and _matches(inventory, pattern, ""):
        return (
            f"portknock_hosts: none of {shown} matches --limit {limit}, so nothing was done. Leave one of the two out."
        )
    return f"portknock_hosts: {shown} matches no host of the inventory, so nothing was done. {_advice(groups, shown)}"


def _inventory(groups: Mapping[str, Iterable[str]]) -> Any:
    inventory = InventoryManager(None, parse=False)
    for group, hosts in groups.items():
        inventory.add_group(group)
        for host in hosts:
            inventory.add_host(host, group=group)
    return inventory


def _matches(inventory: Any, pattern: Any, limit: str) -> bool:
    try:
        inventory.subset(limit or None)
        return bool(inventory.get_hosts(pattern))
    except AnsibleError:
        # What core cannot read, it refuses by itself.
        return True


def _advice(groups: Mapping[str, Iterable[str]], pattern: str) -> str:
    names = sorted({*groups, *(host for hosts in groups.values() for host in hosts)} - {"ungrouped"})
    near = get_close_matches(pattern, names, 1)
    if near:
        return f"Did you mean {near[0]}?"
    own = sorted(name for name in groups if name not in ("all", "ungrouped"))
    return f"Its groups are {', '.join(own)}." if 0 < len(own) <= _FEW else "ansible-inventory --graph shows them."
