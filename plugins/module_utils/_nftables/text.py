# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table as text for ``nft -f``, and the one transaction that puts it in place of what is there. Pure.

``flush table`` empties chains and leaves the sets alone, so who has knocked, and who is in the middle of a knock, stays. All of a
file is one transaction: no packet meets a half of it. The text is made to be kept and loaded at boot as well; what ``nft list``
prints is not, for older releases do not read it again.
"""

import hashlib
from typing import Dict, List, NamedTuple, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._nftables.installed import Installed, installed_of
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import (
    ABOUT,
    FORWARD,
    INPUT,
    PRIORITY,
    STAGE_SETS,
    TABLE,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.rules import Set, Table


class Loadable(NamedTuple):
    """A table as text."""

    text: str
    """What loads it, also where it is there already; who has knocked stays. It takes out nothing. Steps are in there."""
    digest: str
    """32 hexadecimal digits that tell it from any other."""


def load_text(table: Table) -> Loadable:
    """Return a Table as text that can be loaded, kept and loaded at boot.

    One command a line, and no block of a table: nft 0.9.8 loads that and then crashes if the table is named before.
    """
    body = _body(table)
    digest = _digest(body)
    about = [f"add chain {TABLE} {ABOUT}", f'add rule {TABLE} {ABOUT} counter comment "{_about(digest, table.layout)}"']
    lines = [f"add table {TABLE}", f"flush table {TABLE}", *body, *about]
    return Loadable("".join(f"{line}\n" for line in lines), digest)


def is_whole(text: str, digest: str) -> bool:
    """Return whether a text is the one of load_text() that has a digest."""
    lines = text.splitlines()
    return bool(digest) and _digest(lines[2:-2]) == digest == read_text(text).digest


def change_text(text: str, installed: Optional[Installed]) -> str:
    """Return the transaction that has a table in place of what is installed; also what is not ours in there goes.

    :param text: what load_text() made, now or in an earlier run.
    :param installed: None where there is no table.
    """
    add, flush, rest = text.split("\n", 2)
    removals = _removals(read_text(text), installed) if installed is not None else []
    return "\n".join([add, flush, *removals, rest])


def read_text(text: str) -> Installed:
    """Return what is installed once a text of load_text() is loaded where there was no table; its shape is not known."""
    chains: Dict[str, List[str]] = {}
    sets: Dict[str, str] = {}
    for line in text.splitlines():
        words = line.split(" ", 5)
        if words[:2] == ["add", "chain"]:
            chains[words[4]] = []
        elif words[:2] == ["add", "rule"]:
            chains[words[4]].append(line.rsplit(' comment "', 1)[1][:-1])
        elif words[:2] == ["add", "set"]:
            sets[words[4]] = words[5].split(";")[0].replace("{ type ", "")
    return installed_of(chains, sets)


def absent_text(installed: Optional[Installed]) -> str:
    """Return the transaction that takes the table out, '' where there is none."""
    return f"delete table {TABLE}\n" if installed is not None else ""


def _digest(body: List[str]) -> str:
    return hashlib.sha256("\n".join(body).encode("utf-8")).hexdigest()[:32]


def _about(digest: str, layout: str) -> str:
    return f"portknock:about {digest} {layout}"


def _removals(wanted: Installed, installed: Installed) -> List[str]:
    lines = [f"delete map {TABLE} {name}" for name in installed.maps]
    lines += [f"delete chain {TABLE} {name}" for name in installed.chains if name not in wanted.chains]
    for name, kind in installed.sets.items():
        if wanted.sets.get(name) != kind:
            lines.append(f"delete set {TABLE} {name}")
        elif installed.layout != wanted.layout and (STAGE_SETS.match(name) or name.startswith(("progress", "group"))):
            # A wrong port would not forget all of it.
            lines.append(f"flush set {TABLE} {name}")
    return lines


def _body(table: Table) -> List[str]:
    hooks = {name: f" {{ type filter hook {name} priority {PRIORITY}; policy accept; }}" for name in (INPUT, FORWARD)}
    return [
        *(f"add set {TABLE} {name} {_set(each)}" for name, each in table.sets.items()),
        *(f"add chain {TABLE} {name}{hooks.get(name, '')}" for name in table.chains),
        *(f"add rule {TABLE} {name} {rule}" for name, rules in table.chains.items() for rule in rules),
    ]


def _set(each: Set) -> str:
    return f"{{ type {each.kind}; size {each.size}; flags dynamic,timeout; }}"


__all__ = ("Loadable", "absent_text", "change_text", "is_whole", "load_text", "read_text")
