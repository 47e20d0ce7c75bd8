# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a change of the table does on a host, and what brings the one before it back. I/O goes through what it is given.

Who has knocked stays known: at doors that both tables have, the kernel keeps them; at others, and where the engine changes, they
are taken along for the time that they have left.
"""

from typing import Any, Dict, List, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._engine import (
    EMPTIED,
    EXACT,
    PartPlan,
    address_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.carried import known_of_lists, lists_for
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.elements import Element
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.here import text_in_force
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.installed import Installed, drift
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import INPUT, OPEN_SETS, TABLE
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.nft import Nft
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.plan import undo_text, with_known
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.text import absent_text, read_text

Known = Dict[str, List[Element]]
"""Name of a set, with the family's digit, to those who are in it."""


def table_before(host: Any, nft: Nft, installed: Optional[Installed], after: str) -> Dict[str, Any]:
    """Return all that is needed to have a table back; JSON, with steps in it.

    :param host: a Host.
    :param installed: the table as it is, None where there is none.
    :param after: what is to be in force.
    :raises HostError: if it cannot be read.
    """
    text = text_in_force(host, installed)
    kept = read_text(after).sets if after else {}
    gone = [name for name in (installed.sets if installed else ()) if name not in kept]
    return dict(
        text=text,
        listing=nft.listing() if installed is not None and not text else "",
        known={
            name: [[str(each.source), each.seconds] for each in elements]
            for name, elements in _known(nft, gone).items()
        },
        at=host.clock.monotonic(),
    )


def _known(nft: Nft, names: List[str]) -> Known:
    found = {name: nft.elements(name) for name in names if OPEN_SETS.match(name)}
    return {name: elements for name, elements in found.items() if elements}


def load_table(host: Any, nft: Nft, plan: PartPlan) -> Installed:
    """Load the table of a plan, and return it as it is then.

    :param host: a Host.
    :raises HostError: if it was not taken, or is not there as it was written.
    """
    known: Known = {}
    if plan.details.installed is None:
        spec = plan.wanted.spec._replace(ip_versions=plan.wanted.families)
        known = known_of_lists(spec, host.recent_lists.read(), host.clock.monotonic())
    nft.load(with_known(plan.details.change, known))
    return _read_back(nft, plan.details.text)


def _read_back(nft: Nft, text: str) -> Installed:
    """Return the table as it is.

    :raises HostError: if it is not as a text says.
    """
    installed = nft.installed()
    found = ["the table is not there"] if installed is None else drift(read_text(text), installed)
    if found or installed is None:
        raise HostError(f"nft loaded the table, and it is not as it was written: {'; '.join(found)}.")
    return installed


def remove_table(host: Any, nft: Nft, before: Dict[str, Any]) -> None:
    """Remove the table; who has knocked stays known where an engine with lists is there by now.

    :param host: a Host.
    :param before: what table_before() returned.
    """
    nft.load(absent_text(nft.installed()))
    _put_on_lists(host, _left(host, before))


def put_back(host: Any, nft: Nft, before: Dict[str, Any], installed: Optional[Installed]) -> None:
    """Have the table as it was before a change.

    :param host: a Host.
    :param before: what table_before() returned.
    :param installed: the table as it is by now, None where there is none.
    :raises HostError: if that cannot be done.
    """
    if not before["text"]:
        known = _known(nft, list(installed.sets) if installed else [])
        change = absent_text(installed) + before["listing"]
        if change:
            nft.load(change)
        _put_on_lists(host, {} if before["listing"] else known)
        return
    there = installed.sets if installed else {}
    left = {name: elements for name, elements in _left(host, before).items() if name not in there}
    try:
        nft.load(with_known(undo_text(before["text"], installed), left))
    except HostError:
        # What refuses that may have refused the change as well, and then there is nothing to put back.
        if left or installed is None or drift(read_text(before["text"]), installed):
            raise
    _read_back(nft, before["text"])


def take_out(host: Any, nft: Nft, before: Dict[str, Any]) -> str:
    """Refuse nothing any more where put_back() does not work, also where the command nft is lost; return EXACT or EMPTIED.

    :param host: a Host.
    :param before: what table_before() returned.
    :raises HostError: if not even that can be done.
    """
    if not before["text"] and not before["listing"]:
        host.nftables.delete_table(*TABLE.split())
        return EXACT
    try:
        nft.let_in()
    except HostError:
        if nft.works():
            raise
        host.nftables.empty_chain(*TABLE.split(), INPUT)
    return EMPTIED


def _left(host: Any, before: Dict[str, Any]) -> Known:
    """Return who was known before, for the seconds that are left of their time."""
    passed = int(host.clock.monotonic() - before["at"])
    known = {
        name: [Element(address_of(source), seconds - passed) for source, seconds in elements if seconds > passed]
        for name, elements in before["known"].items()
    }
    return {name: elements for name, elements in known.items() if elements}


def _put_on_lists(host: Any, known: Known) -> None:
    lists = host.recent_lists
    for name, address in lists_for(known, list(lists.read()) if known else []):
        lists.put(name, address)


__all__ = ("load_table", "put_back", "remove_table", "table_before", "take_out")
