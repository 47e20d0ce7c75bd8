# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to be done to have a host's table as it is wanted, and to have it back as it was. Pure."""

from typing import Any, List, Mapping, NamedTuple, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._nftables.build import build_table
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.elements import Element, add_text
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.installed import Installed, drift
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.text import (
    absent_text,
    change_text,
    load_text,
    read_text,
)


class TablePlan(NamedTuple):
    """What is going to be done."""

    text: str
    """The text that is to be in force, kept and loaded at boot; '' where there is to be no table. Steps are in there."""
    change: str
    """The transaction that does it, '' where nothing has to be done. Steps are in there."""
    drift: List[str]
    """What is not as the same options had written it, in words; no step in them."""


def plan_table(spec: Any, installed: Optional[Installed], shape: str = "") -> TablePlan:
    """Return the TablePlan for a Spec.

    :param spec: None where there is to be no table.
    :param installed: the table as it is, None where there is none.
    :param shape: that of the table as this nft listed it once it was loaded, '' where that is not known.
    """
    if spec is None:
        return TablePlan("", absent_text(installed), [])
    loadable = load_text(build_table(spec))
    found = ["the table was emptied"] if installed is not None and not installed.digest else []
    if installed is not None and installed.digest == loadable.digest:
        found = drift(read_text(loadable.text), installed)
        if not found and installed.is_edited(shape):
            found = ["a rule or a set was edited"]
        if not found:
            return TablePlan(loadable.text, "", [])
    return TablePlan(loadable.text, change_text(loadable.text, installed), found)


def undo_text(before: str, installed: Optional[Installed]) -> str:
    """Return the transaction that has a table back as a text of load_text() says, whatever is installed by now.

    Who has knocked meanwhile stays known at the doors that both have.

    :param before: '' where there was no table.
    """
    return change_text(before, installed) if before else absent_text(installed)


def with_known(change: str, known: Mapping[str, List[Element]]) -> str:
    """Return a transaction that also says who has knocked, so that nobody is shut out where another engine knew it.

    :param known: name of a set, with the family's digit, to those who are to be in it.
    """
    return change + "".join(add_text(name, elements) for name, elements in sorted(known.items()))


__all__ = ("TablePlan", "plan_table", "undo_text", "with_known")
