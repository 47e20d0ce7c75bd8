# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fault matrix with the engine nftables: the cells of the other engine that are about no command of iptables, and its own."""

from typing import NamedTuple

import pytest
from rig import guard_nft
from rig.cells import CELLS, Cell, check_cell, in_the_way, in_turn, once
from rig.guard import NEW, OLD, TIMEOUT
from rig.guard_nft import NftCase, another_table, lost, wrapped


class Prior(NamedTuple):
    """A cell, and whether the engine is there before the change."""

    cell: Cell
    there: bool


OWN = {
    "the ruleset is flushed": Prior(Cell(OLD, window=once(guard_nft.flush), waits=True), False),
    "the ruleset is flushed, with a table before": Prior(Cell(OLD, window=once(guard_nft.flush), waits=True), True),
    "nftables.service is restarted": Prior(Cell(OLD, window=once(guard_nft.restart), waits=True), False),
    "nftables.service is restarted, and nothing confirms": Prior(
        Cell(OLD, in_the_way(7000), window=once(guard_nft.restart)), True
    ),
    "the table is deleted": Prior(Cell(OLD, window=once(guard_nft.delete), waits=True), False),
    "the table is deleted, with one before": Prior(Cell(OLD, window=once(guard_nft.delete), waits=True), True),
    "firewalld loads its table anew, confirmed": Prior(Cell(NEW, window=once(guard_nft.firewalld), waits=True), False),
    "firewalld loads its table anew, rolled back": Prior(
        Cell(OLD, in_the_way(7000), window=once(guard_nft.firewalld)), True
    ),
    "another table drops a step": Prior(Cell(OLD, window=another_table("udp dport 9100 drop"), waits=True), True),
    "another table drops ssh for a while": Prior(
        Cell(OLD, window=another_table("tcp dport 22 drop", seconds=2 * TIMEOUT), waits=True), False
    ),
    "nft is lost": Prior(Cell(OLD, in_the_way(7000), window=lost), False),
    "nft is lost, with a table before": Prior(Cell(OLD, in_the_way(7000), window=lost, undo="emptied"), True),
    "nft loads nothing": Prior(Cell(OLD, wrapped(guard_nft.FAILS)), True),
    "nft is slow": Prior(Cell(NEW, wrapped("sleep 4"), patient=True), True),
    "nft is slower than the deadline": Prior(Cell(OLD, wrapped(f"sleep {TIMEOUT + 2}")), False),
    "nft does not load the way back": Prior(
        Cell(
            OLD,
            in_turn(
                in_the_way(7000),
                wrapped(
                    f"[ $(wc -l </run/own/loads) -eq 1 ] || [ $(wc -l <$input) -eq 1 ] || {{ {guard_nft.FAILS}; }}"
                ),
            ),
            undo="emptied",
        ),
        True,
    ),
}
ABOUT_IPTABLES = {
    "loading fails", "the second family fails", "the first family fails", "loading is slow", "loading is slower than the deadline",
    "loading is slow, and cuts off", "the lock is held while it is applied", "the lock is held at the deadline",
    "the exact undo cannot be loaded", "a chain of the collection is held on to", "no room to stage",
    "no room for the rules files when it is confirmed",
}  # fmt: skip
"""Cells of the engine iptables about its commands, its lock, and the files that only it has."""
ALWAYS = {
    "the ruleset is flushed, with a table before",
    "another table drops a step",
    "sshd is stopped",
    "no room for the collection's files when it is confirmed",
}
"""What is run every time; the whole matrix is in the soak."""


def cells():
    """Yield the cells as parameters."""
    shared = {name: Prior(cell, False) for name, cell in CELLS.items() if name not in ABOUT_IPTABLES}
    for name, prior in {**shared, **OWN}.items():
        yield pytest.param(prior, id=name, marks=() if name in ALWAYS else (pytest.mark.soak,))


@pytest.mark.parametrize("prior", list(cells()))
def test_cell(rig, controller, table, prior):
    assert table.installed() is None
    check_cell(NftCase(rig, controller, prior.there), prior.cell)
