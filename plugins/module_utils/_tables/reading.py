# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a plan of the ruleset reads: all of it, or an error that says what to do. Nothing in here writes."""

from typing import Any, Dict, Iterable, Optional, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Wanted
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError, SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import NAT
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_kernel import (
    KernelRule,
    first_misprinted,
    first_unknown,
    is_dormant,
    is_owned,
    read_rule,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import TABLES
from ansible_collections.sesame.portknock.plugins.module_utils._paths import IPTABLES
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4
from ansible_collections.sesame.portknock.plugins.module_utils._tables.commands import (
    NFT_FAMILIES,
    Iptables,
    UnreadableError,
    own_lines,
    unreadable_tables,
)
from ansible_collections.sesame.portknock.plugins.module_utils._tables.native import NOTHING, Listing, Native
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import TABLES as TABLES_OF_OURS
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import is_own_chain


def check_commands(iptables: Iptables, wanted: Wanted, installed: bool) -> None:
    """Check that the commands are there for what is wanted.

    :param installed: whether those of IPv4 are.
    :raises PortknockError: if some are not.
    """
    if wanted.spec is None or (wanted.may_lack and not installed):
        return
    if not installed:
        raise HostError(
            "iptables is not installed on this host. Install it first, the role does that: tag portknock_install."
        )
    for family in wanted.families:
        if not iptables.has_plain(family):
            raise SpecError("ip_versions", _missing_commands(family))


def _missing_commands(family: str) -> str:
    command, rest = IPTABLES[family], [each for each in IPTABLES if each != family]
    return (
        f"this host speaks {family}, and {command}, {command}-save or {command}-restore is missing, so the doors' ports would stay "
        f"open there. Install them (the package that has {IPTABLES[IPV4]} has them too; look at 'update-alternatives --display "
        f"{command}'), or name only the IP versions that are to be closed: ip_versions: [{', '.join(rest)}]. Nothing was changed."
    )


def read_native(iptables: Iptables, native: Native) -> Listing:
    """Return what is in nftables; nothing where the kernel has none."""
    return native.listing() if iptables.is_nft or iptables.kernel_has_nft() else NOTHING


def read_saves(
    iptables: Iptables, nftables: Any, present: Tuple[str, ...], absent: bool = False, counters: bool = False
) -> Dict[str, str]:
    """Return what iptables-save prints of each IP version.

    :param nftables: the Nftables of a Host, with whose rules they are compared.
    :param present: the IP versions that the host speaks.
    :param absent: whether all of ours is to go; then only the tables must be readable that hold some of it.
    :param counters: whether it prints packet counters.
    :raises UnreadableError: if a table cannot be read, or holds rules that iptables does not print as they are.
    :raises HostError: if a command fails, or none of the rules would be in force.
    """
    tables = ("filter",) if absent else TABLES
    found = [family for family in present if iptables.installed(family)]
    for family in () if absent else found:
        dormant = why_not_in_force(nftables, family) if iptables.is_nft else ""
        if dormant:
            raise HostError(f"{dormant}. Nothing was changed.")
    return {family: read_save(iptables, family, nftables, tables, counters) for family in found}


def read_save(
    iptables: Iptables, family: str, nftables: Any, tables: Tuple[str, ...] = TABLES, counters: bool = False
) -> str:
    """Return what iptables-save prints of one IP version.

    :param nftables: the Nftables of a Host, with whose rules it is compared.
    :param tables: those that must be in it as they are.
    :raises UnreadableError: if one is not.
    :raises HostError: if a command fails.
    """
    held = [read_rule(body) for body in nftables.rules(NFT_FAMILIES[family])] if iptables.is_nft else []
    if any(is_own_chain(rule.table, rule.chain) for rule in held if rule.table == NAT):
        tables = (*tables, NAT)
    try:
        save = iptables.save(family, counters)
        for table in unreadable_tables(save):
            if table in tables:
                raise UnreadableError(family, table)
    except UnreadableError as error:
        raise UnreadableError(family, error.table, _where(first_unknown(held, error.table))) from error
    for table in tables:
        # A container engine outside of this host writes into its nat with an iptables of its own; an older one here prints that
        # without the port. None of these rules is written anew, and what is sent elsewhere is a finding, never a way in.
        found = first_misprinted(held, table, save, but_newer=table == NAT)
        if found:
            raise UnreadableError(family, table, _where(found))
    return save


def why_not_in_force(nftables: Any, family: str) -> str:
    """Return why no packet meets the rules of iptables' backend nft, or ''.

    :param nftables: the Nftables of a Host.
    """
    nft = NFT_FAMILIES[family]
    if not any(is_dormant(body, "filter") for body in nftables.tables(nft)):
        return ""
    return (
        f"the {family} table filter is dormant (a flag that nft sets), so none of the rules in it is in force, and no door would be "
        f"closed. Look at it with 'nft list table {nft} filter' (package nftables), put it in force with 'nft add table {nft} filter', "
        "which leaves its rules as they are, then run this again"
    )


def check_writable(iptables: Iptables, nftables: Any, families: Iterable[str]) -> None:
    """Check that the tables of some IP versions can be changed: iptables-restore --test does not see what loading would meet.

    :param nftables: the Nftables of a Host.
    :raises HostError: if one cannot.
    """
    for family in families:
        nft = NFT_FAMILIES[family]
        bodies = nftables.tables(nft) if iptables.is_nft else []
        for table in (each for each in TABLES_OF_OURS if any(is_owned(body, each) for body in bodies)):
            raise HostError(
                f"the {family} table {table} belongs to a running program (nft's flag owner), and the kernel lets nothing else change it. "
                f"Find that program with 'nft list table {nft} {table}' (package nftables), which names it, and have it use a table of its "
                "own, then run this again. Nothing was changed."
            )


def _where(found: Optional[KernelRule]) -> str:
    return f"chain {found.chain}, handle {found.handle}" if found else ""


def read_other_backend(iptables: Iptables, native: Native, wanted: Wanted, families: Tuple[str, ...]) -> Dict[str, str]:
    """Return what the other backend prints of those IP versions of which it holds rules of ours that are to go.

    :raises HostError: if it holds rules, and ours are to stay: a packet must pass both.
    """
    other = iptables.other()
    saves = {family: other_save(other, native, family) for family in families}
    for family, save in saves.items() if wanted.spec is not None else ():
        found = other.first_rule(family, save)
        if found:
            raise HostError(_both_backends(iptables.backend, found))
    return {family: save for family, save in saves.items() if own_lines(save)}


def other_save(other: Iptables, native: Native, family: str, counters: bool = False) -> str:
    """Return what the other backend prints; '' where it holds nothing, or cannot be read and nft shows that nothing of ours is in it.

    :raises UnreadableError: if it cannot be read, and the kernel does not show that.
    """
    try:
        return other.save(family, counters) if other.may_hold(family) else ""
    except UnreadableError:
        if native.holds_ours(family) is not False:
            raise
    return ""


def _both_backends(backend: str, found: str) -> str:
    command = found.split(" ", 1)[0].replace("-save", "")
    advice = f"Remove those rules ({command} -F after a look at them) or switch the alternative, then run this again."
    if "PORTKNOCK" in found:
        advice = (
            "Those are the collection's own, from before the alternative was switched: switch it back, or take them out with "
            "'state: absent', which looks at both, then run this again."
        )
    return (
        f"both backends of iptables hold rules, and a packet must pass both: the commands here use {backend}, but {found}. {advice} "
        "Nothing was changed."
    )


__all__ = (
    "check_commands",
    "check_writable",
    "other_save",
    "read_native",
    "read_other_backend",
    "read_save",
    "read_saves",
    "why_not_in_force",
)
