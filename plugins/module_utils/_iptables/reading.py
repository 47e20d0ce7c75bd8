# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a plan of the ruleset reads: all of it, or an error that says what to do. Nothing in here writes."""

from typing import Dict, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Wanted
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError, SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.commands import (
    Iptables,
    UnreadableError,
    own_lines,
    unreadable,
    unreadable_tables,
)
from ansible_collections.sesame.portknock.plugins.module_utils._paths import IPTABLES
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4


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


def read_saves(iptables: Iptables, wanted: Wanted, present: Tuple[str, ...]) -> Dict[str, str]:
    """Return what iptables-save prints of each IP version.

    :param present: the IP versions that the host speaks.
    :raises UnreadableError: if a table cannot be read; where all of ours is to go, only filter must be.
    :raises HostError: if a command fails.
    """
    saves = {family: iptables.save(family) for family in present if iptables.installed(family)}
    for family, save in saves.items() if wanted.spec is not None else ():
        for table in unreadable_tables(save):
            raise UnreadableError(unreadable(family, table))
    return saves


def read_other_backend(iptables: Iptables, wanted: Wanted, families: Tuple[str, ...]) -> Dict[str, str]:
    """Return what the other backend prints of those IP versions of which it holds rules of ours that are to go.

    :raises HostError: if it holds rules, and ours are to stay: a packet must pass both.
    """
    other = iptables.other()
    if wanted.spec is None:
        saves = {family: other.save(family) for family in families if other.may_hold(family)}
        return {family: save for family, save in saves.items() if own_lines(save)}
    for family in families:
        found = other.first_rule(family)
        if found:
            raise HostError(_both_backends(iptables.backend, found))
    return {}


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


__all__ = ("check_commands", "read_other_backend", "read_saves")
