# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looks at what others have in the packet filter of a host beside the collection's table. I/O goes through what it is given."""

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Connection, Finding, Wanted
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.access import check_tracked, door_for
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.listeners import look_at_reach
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.protocols import protocol_findings
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item, read_listing
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.foreign import (
    Foreign,
    Save,
    findings_of_others,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.foreign_reach import reach_of, what_cuts
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import TABLE
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Spec, family_of
from ansible_collections.sesame.portknock.plugins.module_utils._tables.commands import Iptables, UnreadableError
from ansible_collections.sesame.portknock.plugins.module_utils._tables.reading import read_save, why_not_in_force


class Others(NamedTuple):
    """What there is to say of what others have in the packet filter, and of programs that listen."""

    findings: Tuple[Finding, ...]
    """What an operator should know."""
    closes: List[Dict[str, Any]]
    """Programs that nobody from outside reaches any more, as the module returns them."""
    foreign: Foreign
    """All that was looked at."""
    cuts: str
    """What of others refuses new connections like this one, whatever the doors say; '' where nothing does."""


def read_foreign(host: Any) -> Foreign:
    """Return what there is in the packet filter of a host.

    :param host: a Host.
    :raises HostError: if an iptables-save fails.
    """
    return Foreign(_read_items(host), tuple(_read_saves(host)))


def _read_items(host: Any) -> Optional[List[Item]]:
    """Return what nft lists, table by table; of ours without those who are in its sets: they may be a million."""
    nft = host.command.find("nft")
    tables = _listed(host, [nft, "-j", "list", "tables"]) if nft else None
    found = list(tables or ())
    for table in (item["table"] for item in tables or () if "table" in item):
        name = f"{table['family']} {table['name']}"
        # Without counters, which a run would take for a change of the host.
        items = _listed(host, [nft, "-s", "-j", *(["-t"] if name == TABLE else []), "list", "table", *name.split()])
        if items is None:
            return None
        found += items
    return None if tables is None else found


def _listed(host: Any, words: List[str]) -> Optional[List[Item]]:
    code, out, _err = host.command.run(words, "")
    return read_listing(out) if code == 0 else None


def _read_saves(host: Any) -> List[Save]:
    """Return what each backend of iptables has, as far as it has commands; what those cannot print as it is, nft lists."""
    iptables = Iptables(host.command.run, host.command.find, host.filesystem.read)
    families = [family for family in host.kernel.families() if iptables.installed(family)]
    found = []
    for each in (iptables, iptables.other()) if families else ():
        for family in families:
            text = _read_save(host, each, family) if each.may_hold(family) else ""
            if text:
                found.append(Save(family, each.backend, text))
    return found


def _read_save(host: Any, iptables: Iptables, family: str) -> str:
    """Return what a backend prints, '' where it cannot print it as it is, or where that is not in force."""
    if iptables.is_nft and why_not_in_force(host.nftables, family):
        return ""
    try:
        return read_save(iptables, family, host.nftables)
    except UnreadableError:
        return ""


def look_at_others(host: Any, wanted: Wanted, changes: bool) -> Others:
    """Return what there is to say of what others have in the packet filter, and of programs that listen.

    :param host: a Host.
    :param wanted: with a Spec; with a connection where one must not be cut off.
    :param changes: whether the table is changed: what that closes is looked at then alone.
    :raises HostError: if an iptables-save fails.
    :raises SpecError: if a rule keeps this connection, which comes through a door, out of connection tracking.
    """
    spec, foreign, local = wanted.spec, read_foreign(host), host.kernel.local_network()
    reach = [reach_of(foreign, family, spec, local, changes) for family in wanted.families]
    listeners = look_at_reach(host.sockets, wanted, reach, local)
    found = findings_of_others(foreign, spec, wanted.families, local)
    if wanted.may_lack and not host.command.find("nft"):
        # It is going to be installed.
        found = [each for each in found if each.kind != "native_unknown"]
    found += protocol_findings(host.protocols.in_use(), spec, {}, local, without=wanted.families)
    cuts = _cuts(foreign, spec, wanted.connection, local) if wanted.connection is not None else ""
    return Others(tuple(found) + listeners.findings, listeners.closes, foreign, cuts)


def _cuts(foreign: Foreign, spec: Spec, connection: Connection, local: LocalNetwork) -> str:
    if door_for(spec, connection.port, connection.source):
        for save in foreign.saves:
            if save.family == family_of(connection.source):
                check_tracked(parse(save.text), spec, connection, local)
    return what_cuts(foreign, connection, local)


__all__ = ("Others", "look_at_others", "read_foreign")
