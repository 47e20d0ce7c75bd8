# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Has the prover judge what a change would have in the kernel, and what the next boot would load. Pure."""

import hashlib
import json
from typing import Any, Dict, Iterable, List, Mapping, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding, Wanted
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import State
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import Plan
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.prove_doors import prove_doors
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import FILTER, table_of
from ansible_collections.sesame.portknock.plugins.module_utils._names.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import (
    Document,
    Rule,
    Table,
    parse,
)
from ansible_collections.sesame.portknock.plugins.module_utils._proof.change import (
    BOOT,
    LIVE,
    REMEMBERED,
    Proven,
    canonical,
)
from ansible_collections.sesame.portknock.plugins.module_utils._proof.doors import Proof, refusal, void_findings
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import (
    HOOKED,
    INPUT,
    foreign_rules,
    is_own_chain,
)
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import TABLES as TABLES_OF_OURS


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
    proofs_of = _Proofs(wanted, local)
    for plan in plans:
        if wanted.spec is None or plan.family not in wanted.families:
            continue
        judged = [(LIVE, "", would_be(plan.document, plan.then))]
        judged += [(BOOT, path, parse(text, path)) for path, text in [boot[plan.family]]] if plan.family in boot else []
        for ruleset, path, document in judged:
            proofs = proofs_of.ruleset(plan.family, document)
            certain = next((proof for proof in proofs if proof.is_certain and wanted.prove), None)
            if certain is not None:
                raise refusal(certain.entry, path)
            words += [dict(proof.entry, ruleset=ruleset) for proof in proofs]
            findings += void_findings(proofs)
    remembered = {REMEMBERED: proofs_of.known} if proofs_of.known and wanted.code else {}
    return Proven(words, tuple(dict.fromkeys(findings)), remembered)


class _Proofs:
    """Proves each text once: a boot mostly loads what is live, and the next change mostly finds what the one before has left.

    What was proved is known again by a digest of all that the proof depends on: the whole text, what was asked, and this code.
    """

    def __init__(self, wanted: Wanted, local: LocalNetwork) -> None:
        self._wanted, self._local = wanted, local
        self._before = wanted.state.get(REMEMBERED, {}) if wanted.code else {}
        self.known: Dict[str, Any] = {}
        """Digest to the proofs of a ruleset, of this change alone; JSON."""

    def ruleset(self, family: str, document: Document) -> List[Proof]:
        asked = self._asked(family)
        digest = self._digest(asked, document)
        if digest not in self.known:
            self.known[digest] = self._before.get(digest) or [
                [proof.entry, proof.is_certain, proof.finding] for proof in prove_doors(document, *asked)
            ]
        return [
            Proof(entry, certain, Finding(*finding) if finding else None)
            for entry, certain, finding in self.known[digest]
        ]

    def _asked(self, family: str) -> Tuple[Any, ...]:
        spec, lists = self._wanted.spec, Lists(family, self._wanted.spec.ipv6_prefix)
        named = {door.name: lists.door(door) for door in spec.doors}
        connection = None if spec.panic else self._wanted.connection
        return (family, spec, named, self._local, spec.panic, spec.policy == "reject", connection)

    def _digest(self, asked: Tuple[Any, ...], document: Document) -> str:
        connection = self._wanted.connection
        # Of all routes that one matters by which this connection comes.
        known = (self._local.own, self._local.interface_to(connection.source) if connection else "")
        everything = [self._wanted.code, repr((*asked[:3], known, *asked[4:])), canonical(document)]
        return hashlib.sha256(json.dumps(everything).encode("utf-8", "surrogateescape")).hexdigest()


def would_be(document: Document, then: State) -> Document:
    """Return a ruleset as it would be with the given rules of ours in the place of those that it has."""
    others = [table for table in document.tables if table.name not in TABLES_OF_OURS]
    return Document([], others + [table for name in TABLES_OF_OURS for table in _table_would_be(document, name, then)])


def _table_would_be(document: Document, name: str, then: State) -> List[Table]:
    """Return a table as it would be, none where it is not there and holds nothing of ours."""
    state = then.of_table(name)
    if document.table(name) is None and name != FILTER and not (state.chains or state.hooks):
        return []
    before, table = document.table(name) or Table(name, 0), Table(name, 0)
    table.policies = before.policies
    table.chains = {chain: rules for chain, rules in before.chains.items() if not is_own_chain(name, chain)}
    table.chains.update({chain: _rules(texts) for chain, texts in state.chains.items()})
    for chain in (each for each in HOOKED if table_of(each) == name):
        hooks, foreign = then.hooks_of(chain), foreign_rules(before, chain)
        merged: List[Rule] = []
        for position in range(len(foreign) + 1):
            merged += _rules(hook.text for hook in hooks if min(hook.position, len(foreign)) == position)
            merged += foreign[position : position + 1]
        if merged or chain == INPUT:
            table.chains[chain] = merged
    return [table]


def _rules(texts: Iterable[str]) -> List[Rule]:
    return [Rule(text, 0, "") for text in texts]


__all__ = ("prove_change", "would_be")
