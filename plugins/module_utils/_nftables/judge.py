# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What there is to say of a table beside all that others have on a host: as a change would have it, and as it is. Reads only."""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding, Wanted, connection_of
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import without_own
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import NOTHING_PROVEN
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.proof import void_findings
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document, parse
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.foreign import Foreign
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.others import look_at_others
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.proven import prove_installed, prove_table

_LIVE = "live"


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
    items, documents = _rules_of(others.foreign)
    # Without a door there is no question.
    proven = prove_table(wanted, text, items, host.kernel.local_network(), documents) if text else NOTHING_PROVEN
    return Judged(others.findings + proven.findings, others.closes, proven.words, proven.remembered)


def judge_live(host: Any, wanted: Wanted) -> Judged:
    """Judge the table as it is.

    :param host: a Host.
    :param wanted: what was asked for by the change in force; its Spec must not be None.
    """
    others, spec = look_at_others(host, wanted, changes=False), wanted.spec
    items, documents = _rules_of(others.foreign)
    found, words = list(others.findings), []
    for family in wanted.families if items is not None else ():
        proofs = prove_installed(
            family, spec, items or (), host.kernel.local_network(), spec.ipv6_prefix, spec.policy == "reject",
            connection_of(host.processes.ssh_connection()), documents.get(family),
        )  # fmt: skip
        words += [dict(proof.entry, ruleset=_LIVE) for proof in proofs]
        found += void_findings(proofs)
    return Judged(tuple(dict.fromkeys(found)), [], words, {})


def _rules_of(foreign: Foreign) -> Tuple[Optional[Sequence[Item]], Dict[str, Document]]:
    """Return what nft lists, and IP version to the rules of iptables, ours left out: they go where there is a table.

    :returns: None for the first where both backends of iptables have rules of one IP version: the prover follows one of them alone.
    """
    documents = {save.family: without_own(parse(save.text)) for save in foreign.saves}
    return (foreign.items if len(documents) == len(foreign.saves) else None), documents


__all__ = ("NOTHING", "Judged", "judge_change", "judge_live")
