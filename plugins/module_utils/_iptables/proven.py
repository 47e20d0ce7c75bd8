# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Has the prover judge what a change would have in the kernel, and what the next boot would load. Pure."""

from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding, Wanted
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.chains import CHAIN
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import State, is_own_rule
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import Plan
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.proof import Proof, prove_doors, void_findings
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_question import CONNECTION
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import (
    Document,
    Rule,
    Table,
    parse,
)

LIVE, BOOT = "live", "boot"


class Proven(NamedTuple):
    """What the prover says of a change."""

    words: List[Dict[str, Any]]
    """An entry for each door, IP version and ruleset, as modules return them."""
    findings: Tuple[Finding, ...]
    """What an operator should know of it."""


def prove_change(
    wanted: Wanted, plans: Sequence[Plan], boot: Mapping[str, Tuple[str, str]], local: LocalNetwork
) -> Proven:
    """Judge a change before anything is touched.

    :param plans: the plan of each IP version.
    :param boot: IP version to the path and text of the file that a boot will load.
    :param local: what is known of the host's network.
    :raises SpecError: if a packet would get to a door without the knock, or a new connection like this one would not get in, as far
        as option ``prove`` does not say otherwise.
    """
    words: List[Dict[str, Any]] = []
    findings: List[Finding] = []
    for plan in plans if wanted.spec is not None else ():
        if plan.family not in wanted.families:
            continue
        judged = [(LIVE, "", would_be(plan.document, plan.then))]
        judged += [(BOOT, path, parse(text, path)) for path, text in [boot[plan.family]]] if plan.family in boot else []
        for ruleset, path, document in judged:
            proofs = _proofs(wanted, plan.family, document, local, path)
            words += [dict(proof.entry, ruleset=ruleset) for proof in proofs]
            findings += void_findings(proofs)
    return Proven(words, tuple(dict.fromkeys(findings)))


def _proofs(wanted: Wanted, family: str, document: Document, local: LocalNetwork, path: str) -> List[Proof]:
    lists = Lists(family, wanted.spec.ipv6_prefix)
    named = {door.name: lists.door(door) for door in wanted.spec.doors}
    spec, connection = wanted.spec, None if wanted.spec.panic else wanted.connection
    proofs = prove_doors(document, family, spec, named, local, spec.panic, spec.policy == "reject", connection)
    for proof in proofs:
        if proof.is_certain and wanted.prove:
            raise _refusal(proof.entry, path)
    return proofs


def _refusal(entry: Dict[str, Any], path: str) -> SpecError:
    where = f"{path}, which a boot loads," if path else "the ruleset"
    if entry["what"] == CONNECTION:
        return SpecError(
            "prove",
            f"a new connection like this one would not get in over {entry['ip_version']} under {where} as it would be. "
            f"{entry['message']} Nothing was changed. Remove that rule, or have it let this address in; with prove set to false this "
            "is a finding.",
        )
    return SpecError(
        "prove",
        f"door {entry['door']} would be void over {entry['ip_version']} under {where} as it would be. {entry['message']} Nothing was "
        "changed. Remove that rule, or trust the sources that it is for (trusted_sources, trusted_interfaces); with prove set to "
        "false this is a finding.",
    )


def would_be(document: Document, then: State) -> Document:
    """Return a ruleset as it would be with the given rules of ours in the place of those that it has."""
    before = document.table("filter") or Table("filter", 0)
    table = Table("filter", 0)
    table.policies = before.policies
    table.chains = {name: rules for name, rules in before.chains.items() if not CHAIN.match(name)}
    table.chains.update({name: _rules(texts) for name, texts in then.chains.items()})
    merged: List[Rule] = []
    foreign = [rule for rule in before.rules("INPUT") if not is_own_rule("INPUT", rule.text)]
    for position in range(len(foreign) + 1):
        merged += _rules(hook.text for hook in then.hooks if min(hook.position, len(foreign)) == position)
        merged += foreign[position : position + 1]
    table.chains["INPUT"] = merged
    return Document([], [each for each in document.tables if each.name != "filter"] + [table])


def _rules(texts: Iterable[str]) -> List[Rule]:
    return [Rule(text, 0, "") for text in texts]


__all__ = ("Proven", "prove_change", "would_be")
