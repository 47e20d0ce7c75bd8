# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way back from a change of a ruleset, on the host: the exact one first, and one that needs no reading last."""

import contextlib
from typing import Any, Dict, List

from ansible_collections.sesame.portknock.plugins.module_utils._engine import EMPTIED, EXACT, SNAPSHOT, worst
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.undo import (
    emptied_text,
    is_undone,
    nat_undo_text,
    removed_texts,
    snapshot_text,
    undo_text,
    unhooked_text,
    without_docker_text,
)
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import DOCKER, FILTER, NAT, table_of
from ansible_collections.sesame.portknock.plugins.module_utils._tables.commands import (
    Iptables,
    UnreadableError,
    unreadable_tables,
)
from ansible_collections.sesame.portknock.plugins.module_utils._tables.native import Native


def take_back(iptables: Iptables, native: Native, families: Dict[str, Dict[str, Any]]) -> str:
    """Undo the change of every IP version that can be, and return EXACT, SNAPSHOT or EMPTIED: the controller may come over just one.

    :param iptables: uses the commands that the change was loaded with.
    :param families: IP version to what Plan.way_back() returned.
    :raises HostError: if one could not be undone.
    """
    undone, failed = [], []
    for family in reversed(list(families)):
        try:
            undone.append(_take_back_family(iptables, native, family, families[family]))
        except HostError as error:
            failed.append(f"{family}: {error}")
    if failed:
        raise HostError(" ".join(failed))
    return worst(undone)


def _take_back_family(iptables: Iptables, native: Native, family: str, back: Dict[str, Any]) -> str:
    try:
        text = undo_text(back["save"], _whole_save(iptables, family, back))
        if text:
            iptables.restore(family, text)
        if is_undone(back["save"], _whole_save(iptables, family, back)):
            return EXACT
    except UnreadableError:
        # The snapshot would take with it what could not be read.
        return _empty(iptables, native, family, back)
    except Exception:
        # Whatever it was: access comes first, and the snapshot needs no understanding of the rules.
        pass
    try:
        iptables.restore(family, snapshot_text(back["save"]), flush=True)
    except HostError:
        return _empty(iptables, native, family, back)
    if not _chains_in(back, NAT):
        return SNAPSHOT
    return _take_back_nat(iptables, native, family, back)


def _take_back_nat(iptables: Iptables, native: Native, family: str, back: Dict[str, Any]) -> str:
    """Undo a change of table nat alone: others change it all the time, as Docker does with each container, so exactly if it can be."""
    try:
        text = nat_undo_text(back["save"], _whole_save(iptables, family, back))
        if text:
            iptables.restore(family, text)
        return SNAPSHOT
    except Exception:
        pass
    try:
        iptables.restore(family, snapshot_text(back["save"], NAT), flush=True)
        return SNAPSHOT
    except HostError:
        _empty_chains(iptables, native, family, _chains_in(back, NAT))
        return EMPTIED


def _chains_in(back: Dict[str, Any], table: str) -> List[str]:
    return [name for name in back["chains"] if table_of(name) == table]


def _whole_save(iptables: Iptables, family: str, back: Dict[str, Any]) -> str:
    """Return what iptables-save prints.

    :raises UnreadableError: if a table that holds rules of ours, or did, is not in it.
    """
    save = iptables.save(family)
    for table in unreadable_tables(save):
        if _chains_in(back, table):
            raise UnreadableError(family, table)
    return save


def _empty(iptables: Iptables, native: Native, family: str, back: Dict[str, Any]) -> str:
    """Empty our chains, so that nothing is refused by us; then take out, as far as it can be, what jumps to them.

    :raises HostError: if not even that works.
    """
    failed: List[HostError] = []
    for chains in filter(None, (_chains_in(back, FILTER), _chains_in(back, NAT))):
        try:
            _empty_chains(iptables, native, family, chains)
        except HostError as error:
            # What is left of the other table must not stay for that.
            failed.append(error)
    if failed:
        raise failed[0]
    texts: List[str] = [unhooked_text(*hook) for hook in back["hooks"]]
    if iptables.is_nft:
        native.delete_jumps(family)
    made_here = [without_docker_text()] if _docker_was_ours(back["save"]) else []
    for text in texts + removed_texts(back["chains"]) + made_here:
        with contextlib.suppress(HostError):
            iptables.restore(family, text)
    return EMPTIED


def _empty_chains(iptables: Iptables, native: Native, family: str, chains: List[str]) -> None:
    """Empty chains of one table.

    :raises HostError: if that does not work.
    """
    try:
        iptables.restore(family, emptied_text(chains))
    except HostError:
        if not iptables.is_nft or iptables.works(family):
            raise
        native.empty(family, chains)


def _docker_was_ours(save: str) -> bool:
    """Return whether chain DOCKER-USER was not there before, or for our hook alone; of a save that may not be readable."""
    lines = [line for line in save.splitlines() if DOCKER in line]
    others = [line for line in lines if "PORTKNOCK" not in line]
    return not others or (len(lines) > 1 and [line[:1] for line in others] == [":"])


__all__ = ("take_back",)
