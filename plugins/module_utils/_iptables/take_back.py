# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way back from a change of a ruleset, on the host: the exact one first, and one that needs no reading last."""

import contextlib
from typing import Any, Dict, List

from ansible_collections.sesame.portknock.plugins.module_utils._engine import EMPTIED, EXACT, SNAPSHOT, worst
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.chains import DOCKER
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.commands import Iptables, UnreadableError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.native import Native
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.undo import (
    emptied_text,
    is_undone,
    removed_text,
    snapshot_text,
    undo_text,
    unhooked_text,
    without_docker_text,
)


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
        text = undo_text(back["save"], iptables.save(family))
        if text:
            iptables.restore(family, text)
        if is_undone(back["save"], iptables.save(family)):
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
    return SNAPSHOT


def _empty(iptables: Iptables, native: Native, family: str, back: Dict[str, Any]) -> str:
    """Empty our chains, so that nothing is refused by us; then take out, as far as it can be, what jumps to them.

    :raises HostError: if not even that works.
    """
    try:
        iptables.restore(family, emptied_text(back["chains"]))
    except HostError:
        if not iptables.is_nft or iptables.works(family):
            raise
        native.empty(family, back["chains"])
    texts: List[str] = [unhooked_text(*hook) for hook in back["hooks"]]
    if iptables.is_nft:
        native.delete_jumps(family)
    made_here = [without_docker_text()] if _docker_was_ours(back["save"]) else []
    for text in texts + [removed_text(back["chains"])] + made_here:
        with contextlib.suppress(HostError):
            iptables.restore(family, text)
    return EMPTIED


def _docker_was_ours(save: str) -> bool:
    """Return whether chain DOCKER-USER was not there before, or for our hook alone; of a save that may not be readable."""
    lines = [line for line in save.splitlines() if DOCKER in line]
    others = [line for line in lines if "PORTKNOCK" not in line]
    return not others or (len(lines) > 1 and [line[:1] for line in others] == [":"])


__all__ = ("take_back",)
