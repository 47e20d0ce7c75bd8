# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""In which order packets to this host come to the chains of nftables and of iptables, and which of these see them before connection
tracking does. Pure.
"""

from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item, expressions
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_walk import (
    BaseChain,
    base_chains,
    families_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_nft_rules import CHAIN
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_ruleset import WAY, Hook
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import (
    BUILT_IN,
    TABLES,
    Document,
    Table,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4

_HOOKS = ("ingress", "prerouting", "input")
"""The hooks that a packet to this host passes, in order."""
LAST = len(_HOOKS)
"""Stands for what is behind all of them."""
_PRIORITIES = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0}
_NAT = {"prerouting": -100, "input": 100}
"""Where the kernel does all nat of a hook; what priorities its chains have says in which order it asks these."""
_TRACKING = -200
"""The priority at which connection tracking sees a packet, of hook prerouting."""


class Entry(NamedTuple):
    """A chain that packets come to, and where it stands."""

    order: Tuple[int, int, int, int]
    """The number of its hook, the priority, that within nat, and a number of its own."""
    hook: Hook

    @property
    def place(self) -> Tuple[int, int]:
        """Return its hook and priority, which tell who comes first."""
        return self.order[:2]

    @property
    def is_before_input(self) -> bool:
        """Return whether packets may still be sent elsewhere there, or hidden from connection tracking."""
        return self.order[0] < _HOOKS.index("input")


def saved_entries(documents: Mapping[str, Document]) -> Tuple[Dict[str, Optional[Table]], List[Entry]]:
    """Return the tables of iptables, by names that tell backends apart, and their chains."""
    tables: Dict[str, Optional[Table]] = {}
    entries: List[Entry] = []
    for backend, document in documents.items():
        for hook in WAY:
            table = document.table(hook.table)
            if table is not None:
                name = f"{hook.table} (iptables, {backend})"
                tables[name] = _renamed(table, name)
                priority = _PRIORITIES[hook.table]
                order = (_HOOKS.index(_hook_of(hook.chain)), priority, priority, len(entries))
                entries.append(Entry(order, hook._replace(table=name)))
    return tables, entries


def _renamed(table: Table, name: str) -> Table:
    renamed = Table(name, table.header)
    renamed.chains, renamed.policies = table.chains, table.policies
    return renamed


def _hook_of(chain: str) -> str:
    return {"PREROUTING": "prerouting", "INPUT": "input"}[chain]


def native_entries(family: str, items: Sequence[Item], saved: bool) -> List[Entry]:
    """Return the chains that packets of a family come to, of tables that are in force.

    :param saved: whether those of iptables-nft are known by what that has saved.
    """
    kind = "ip" if family == IPV4 else "ip6"
    return [
        Entry(
            (_HOOKS.index(chain.hook), _acts_at(chain), chain.priority, number),
            Hook(f"{chain.family} {chain.table}", CHAIN + chain.name, chain.kind == "nat"),
        )
        for number, chain in enumerate(base_chains(items))
        if kind in families_of(chain)
        and not (saved and chain.family == kind and chain.table in TABLES and chain.name in BUILT_IN)
    ]


def _acts_at(chain: BaseChain) -> int:
    return _NAT.get(chain.hook, chain.priority) if chain.kind == "nat" else chain.priority


def is_ingress(chain: BaseChain) -> bool:
    """Return whether a chain sees the packets of some interfaces alone; not all releases of nft list which."""
    return chain.hook == "ingress"


def tracked_in(
    items: Sequence[Item], rules: Sequence[Item], maps: Mapping[str, List[Any]], family: str, table: str
) -> Dict[str, Optional[bool]]:
    """Return for the chains of a table whether connection tracking has seen the packets there, None where it may have or not; it has in
    those that are not named.

    :param rules: the fields of the table's rules.
    :param maps: the elements of its maps.
    """
    bases = [chain for chain in base_chains(items) if (chain.family, chain.table) == (family, table)]
    if all(_sees_tracked(chain) == {True} for chain in bases):
        # As in the collection's own, which may have thousands of rules.
        return {}
    jumps: Dict[str, Set[str]] = {}
    for rule in rules:
        jumps.setdefault(str(rule.get("chain")), set()).update(_targets([expressions(rule), _named(rule, maps)]))
    found: Dict[str, Set[bool]] = {}
    for chain in bases:
        for name in _reached(chain.name, jumps):
            found.setdefault(name, set()).update(_sees_tracked(chain))
    return {name: None if len(some) > 1 else True in some for name, some in found.items()}


def _sees_tracked(chain: BaseChain) -> Set[bool]:
    if chain.hook == "input" or (chain.hook == "prerouting" and _acts_at(chain) > _TRACKING):
        return {True}
    return {True, False} if chain.hook == "prerouting" and _acts_at(chain) == _TRACKING else {False}


def _named(rule: Item, maps: Mapping[str, List[Any]]) -> List[Any]:
    return list(maps.values()) if any("vmap" in part for part in expressions(rule)) else []


def _reached(first: str, jumps: Mapping[str, Set[str]]) -> Set[str]:
    found, waiting = {first}, [first]
    while waiting:
        more = jumps.get(waiting.pop(), set()) - found
        found |= more
        waiting += more
    return found


def _targets(what: Any) -> Iterator[str]:
    """Return the names of chains that something jumps or goes to."""
    if isinstance(what, list):
        for each in what:
            yield from _targets(each)
    elif isinstance(what, dict):
        for kind, each in what.items():
            if kind in ("jump", "goto") and isinstance(each, dict):
                yield str(each.get("target"))
            yield from _targets(each)


__all__ = ("LAST", "Entry", "is_ingress", "native_entries", "saved_entries", "tracked_in")
