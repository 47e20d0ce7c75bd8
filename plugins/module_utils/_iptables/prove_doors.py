# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asks the prover about the doors of a ruleset in iptables. Pure."""

import re
from typing import Dict, Iterable, List, Mapping, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Connection
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.input_rules import Protected
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.published import sends_on
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.forward_hooks import is_guarded
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.forwarded import forwarded
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_question import NOT_PROVED, VOID
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_ruleset import ruleset_of
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document
from ansible_collections.sesame.portknock.plugins.module_utils._proof.doors import Proof, prove_ruleset


def lists_in(chains: Mapping[str, Iterable[str]]) -> Dict[str, str]:
    """Return the name of each door to that of its list, as the rules of one family have it.

    :param chains: name of a chain of the collection to its rules.
    """
    named = (name for rules in chains.values() for text in rules for name in _LIST.findall(text))
    return {door: listed for listed, door in named}


_LIST = re.compile(r"--name (pk[46](?:\.[0-9]+)?_([A-Za-z]\w*))(?=\s|$)")


def prove_doors(
    document: Document,
    family: str,
    protected: Protected,
    lists: Mapping[str, str],
    local: LocalNetwork,
    panic: bool = False,
    refuses_rest: bool = False,
    connection: Optional[Connection] = None,
) -> List[Proof]:
    """Return what the prover says of each door in one family, as prove_ruleset(), for rules of iptables.

    :param document: the Document of the ruleset that is to be judged.
    """
    # Where this host's addresses are not known, neither is what nat sends on and what it sends to another port here.
    sent = forwarded(document, family, protected) if local.own else ()
    ruleset = ruleset_of(document, family)
    proofs = prove_ruleset(ruleset, protected, lists, local, panic, refuses_rest, connection, sent=sent)
    guarded = not sent and protected.guards_published and is_guarded(document)
    return [_without_published(proof, local) for proof in proofs] if guarded else proofs


def _without_published(proof: Proof, local: LocalNetwork) -> Proof:
    """Return a Proof without what nat sends on, which our chain for that decides: it is not walked, so nothing is proved of it."""
    entry = proof.entry
    if not entry["door"] or entry["result"] != VOID or not sends_on(entry["rule"], local.own):
        return proof
    message = (
        f"Not proved: nat sends packets to it on, by {entry['rule']}. They pass FORWARD, whose rules are not followed; nothing that "
        "could let them past stands in front of the door's own rules there."
    )
    return proof._replace(entry=dict(entry, result=NOT_PROVED, packet={}, message=message))


__all__ = ("lists_in", "prove_doors")
