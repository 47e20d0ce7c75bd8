# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of a host: whether it is there and in force, and the text that it was loaded from. Reads only."""

from typing import Any, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_kernel import (
    is_dormant,
    is_owned,
    table_name,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.installed import Installed
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import TABLE
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.nft import Nft
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.text import is_whole
from ansible_collections.sesame.portknock.plugins.module_utils._paths import RUN_TABLE, TABLE_FILE

_FAMILY, _NAME = TABLE.split()


def installed_on(host: Any, nft: Nft) -> Optional[Installed]:
    """Return the table as it is, None where there is none.

    The kernel is asked first: most hosts have another engine, and need not have the command nft.

    :param host: a Host.
    :raises HostError: if there is one that cannot be read.
    """
    try:
        is_there = any(table_name(body) == _NAME for body in host.nftables.tables(_FAMILY))
    except HostError:
        # A kernel that does not say, perhaps without nftables; where the command is there, that says more.
        is_there = nft.is_there
    return nft.installed() if is_there else None


def check_writable(host: Any) -> None:
    """Check that the table, if there is one, can be changed.

    :param host: a Host.
    :raises HostError: if it cannot.
    """
    try:
        bodies = host.nftables.tables(_FAMILY)
    except HostError:
        return
    if any(is_owned(body, _NAME) for body in bodies):
        raise HostError(
            f"the table {TABLE} belongs to a running program (nft's flag owner), and the kernel lets nothing else change it. Find that "
            f"program with 'nft list table {TABLE}', which names it, and have it use a table of its own, then run this again. "
            "Nothing was changed."
        )


def why_not_in_force(host: Any) -> str:
    """Return why no packet meets the rules of the table, or ''.

    :param host: a Host.
    """
    if not any(is_dormant(body, _NAME) for body in host.nftables.tables(_FAMILY)):
        return ""
    return (
        f"the table {TABLE} is dormant (a flag that nft sets), so none of its rules is in force, and no door is closed. Put it in force "
        f"with 'nft add table {TABLE}', which leaves its rules as they are, then run this again"
    )


def text_in_force(host: Any, installed: Optional[Installed]) -> str:
    """Return the text that the table was loaded from, '' where that is not known. Steps are in there.

    :param host: a Host.
    """
    for path in (TABLE_FILE, RUN_TABLE) if installed is not None else ():
        text: str = host.filesystem.read(path)
        if installed is not None and is_whole(text, installed.digest):
            return text
    return ""


__all__ = ("check_writable", "installed_on", "text_in_force", "why_not_in_force")
