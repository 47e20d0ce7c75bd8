# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What there is to say of a table beside all that others have on a host: as a change would have it, and as it is. Reads only."""

from typing import Any, Dict, List, NamedTuple, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding, Wanted, connection_of
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.others import look_at_others
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.proven import prove_installed, prove_table
from ansible_collections.sesame.portknock.plugins.module_utils._proof.change import LIVE
from ansible_collections.sesame.portknock.plugins.module_utils._proof.doors import void_findings


class Judged(NamedTuple):
    """What there is to say of a table."""

    findings: Tuple[Finding, ...]
    """What an operator should know."""
    closes: List[Dict[str, Any]]
    """Programs that nobody from outside reaches any more, as the module returns them."""
    proof: List[Dict[str, Any]]
    """The prover's words, as modules return them."""
    remembered: Dict[str, Dict[str, Any]]
    """What was proved, for later changes; JSON."""


NOTHING = Judged((), [], [], {})
"""Where there is to be no table."""


def judge_change(host: Any, wanted: Wanted, text: str, changes: bool) -> Judged:
    """Judge a change before anything is touched.

    :param host: a Host.
    :param wanted: what is wanted; its Spec must not be None.
    :param text: what is to be in force.
    :param changes: whether the table is changed.
    :raises SpecError: if others would refuse a new connection like this one, or a packet would get to a door without the knock.
    """
    others = look_at_others(host, wanted, changes)
    if others.cuts:
        raise SpecError("doors", others.cuts)
    proven = prove_table(wanted, text, others.foreign, host.kernel.local_network())
    return Judged(others.findings + proven.findings, others.closes, proven.words, proven.remembered)


def judge_live(host: Any, wanted: Wanted) -> Judged:
    """Judge the table as it is.

    :param host: a Host.
    :param wanted: what was asked for by the change in force; its Spec must not be None.
    """
    others, spec = look_at_others(host, wanted, changes=False), wanted.spec
    connection, local = connection_of(host.processes.ssh_connection()), host.kernel.local_network()
    found, words = list(others.findings), []
    for family in wanted.families:
        proofs = prove_installed(spec, family, others.foreign, local, connection)
        words += [dict(proof.entry, ruleset=LIVE) for proof in proofs]
        found += void_findings(proofs)
    return Judged(tuple(dict.fromkeys(found)), [], words, {})


__all__ = ("NOTHING", "Judged", "judge_change", "judge_live")
