# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Has the prover judge the table: as a change would have it in the kernel, and as it is there. Pure.

Before a change there is no listing of it, so the text is read; it is ours, and has few spellings. What is in the kernel is believed
from what nft lists of it alone.
"""

import hashlib
import ipaddress
import json
import re
from typing import Any, Dict, List, Optional, Sequence

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Connection, Finding, Wanted
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_nft import NftRuleset, Own, SentOn
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_nft_asking import (
    BY_FIRST_HOST,
    BY_HOST,
    PLAIN,
    View,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_sent_on import Sent
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document, parse
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.foreign import Foreign, Save
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.installed import VOLATILE, is_ours, uncounted
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import FORWARD, TABLE, open_set, set_for
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.prove_text import read_items
from ansible_collections.sesame.portknock.plugins.module_utils._proof.change import (
    LIVE,
    REMEMBERED,
    Proven,
    canonical,
)
from ansible_collections.sesame.portknock.plugins.module_utils._proof.doors import (
    Proof,
    prove_ruleset,
    refusal,
    void_findings,
)
from ansible_collections.sesame.portknock.plugins.module_utils._redact import readable_rule
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import PUBLISHED_NONE, Spec
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import without_own

_OWN_COMMENT = re.compile(r"portknock:[0-9a-f]{8} ")
_UNREAD_TEXT = "the text of the table is not as it was written"
_UNREAD = "nft could not list what else is in the kernel"
_JUDGED = ("table", "chain", "map", "rule")
"""What of a listing a proof depends on: who is in which set is no part of it."""


def prove_table(
    wanted: Wanted,
    text: str,
    others: Foreign,
    local: LocalNetwork,
) -> Proven:
    """Judge a change before anything is touched.

    :param wanted: what is wanted; its Spec must not be None.
    :param text: what load_text() gave, which a boot loads as well.
    :param others: what there is in the packet filter; of the table itself the text counts.
    :param local: what is known of the host's network.
    :raises SpecError: if a packet would get to a door without the knock, or a new connection like this one would not get in, as far
        as option ``prove`` does not say otherwise.
    """
    judge = _Judge(wanted, text, others, local)
    words: List[Dict[str, Any]] = []
    findings: List[Finding] = []
    for family in wanted.families:
        proofs = judge.proofs(family)
        certain = next((proof for proof in proofs if proof.is_certain and wanted.prove), None)
        if certain is not None:
            raise refusal(certain.entry)
        words += [dict(proof.entry, ruleset=LIVE) for proof in proofs]
        findings += void_findings(proofs)
    return Proven(words, tuple(dict.fromkeys(findings)), judge.remembered())


class _Judge:
    """Proves what was not proved before: known again by a digest of all that a proof depends on."""

    def __init__(self, wanted: Wanted, text: str, others: Foreign, local: LocalNetwork) -> None:
        self._wanted, self._text, self._local = wanted, text, local
        self._connection = None if wanted.spec.panic else wanted.connection
        self._saves, self._others = others.saves, None  # type: Sequence[Save], Optional[List[Item]]
        if others.items is not None:
            self._others = [item for item in others.items if not any(is_ours(*each) for each in item.items())]
        self._before = wanted.state.get(REMEMBERED, {}) if wanted.code else {}
        self._known: Dict[str, Any] = {}
        self._unread, self._ours = True, None  # type: bool, Optional[List[Item]]

    def remembered(self) -> Dict[str, Dict[str, Any]]:
        """Return what is to be remembered for later changes."""
        return {REMEMBERED: self._known} if self._known and self._wanted.code else {}

    def proofs(self, family: str) -> List[Proof]:
        """Return what the prover says of one IP version."""
        digest = self._digest(family)
        self._known[digest] = self._before.get(digest) or [
            [proof.entry, proof.is_certain, proof.finding] for proof in self._proved(family)
        ]
        return [
            Proof(entry, certain, Finding(*finding) if finding else None)
            for entry, certain, finding in self._known[digest]
        ]

    def _proved(self, family: str) -> List[Proof]:
        if self._unread:
            self._ours, self._unread = read_items(self._text), False
        spec, ours = self._wanted.spec, self._ours
        items = [*(ours or ()), *(self._others or ())]
        ruleset = _ruleset(family, spec.ipv6_prefix, items, self._saves)
        if ours is None or self._others is None:
            ruleset.unfollowed = _UNREAD_TEXT if ours is None else _UNREAD
        return _proofs(ruleset, spec, items, self._local, self._connection)

    def _digest(self, family: str) -> str:
        connection = self._wanted.connection
        # Of all routes that one matters by which this connection comes.
        network = (self._local.own, self._local.interface_to(connection.source) if connection else "")
        listed = [
            [kind, {key: value for key, value in fields.items() if key not in VOLATILE}]
            for item in self._others or ()
            for kind, fields in item.items()
            if kind in _JUDGED
        ]
        known = repr((family, self._wanted.spec, network, self._connection, self._others is None))
        rules = [[backend, canonical(document)] for backend, document in _documents(family, self._saves).items()]
        everything = [self._wanted.code, known, self._text, listed, rules]
        return hashlib.sha256(uncounted(json.dumps(everything)).encode("utf-8", "surrogateescape")).hexdigest()


def prove_installed(
    spec: Spec, family: str, others: Foreign, local: LocalNetwork, connection: Optional[Connection] = None
) -> List[Proof]:
    """Judge what is in the kernel.

    :param spec: what was asked for.
    :param family: ``ipv4`` or ``ipv6``.
    :param others: what there is in the packet filter, with the table itself.
    :param local: what is known of the host's network.
    :param connection: the connection that this is asked through, None where it is not known.
    """
    ruleset = _ruleset(family, spec.ipv6_prefix, others.items or (), others.saves)
    ruleset.unfollowed = ruleset.unfollowed if others.items is not None else _UNREAD
    return _proofs(ruleset, spec, others.items or (), local, None if spec.panic else connection)


def _ruleset(family: str, ipv6_prefix: int, items: Sequence[Item], saves: Sequence[Save]) -> NftRuleset:
    mask = "" if ipv6_prefix == 128 else str(ipaddress.IPv6Network(f"::/{ipv6_prefix}").netmask)
    own = Own(TABLE, mask, lambda comment: bool(_OWN_COMMENT.match(comment)))
    return NftRuleset(family, own, items, _documents(family, saves))


def _sent_on(ruleset: NftRuleset, spec: Spec, items: Sequence[Item]) -> List[Sent]:
    """Return the packets that the host sends on, as the table meets them; none where it looks at none."""
    behind = any(door.to for door in spec.doors)
    published = spec.published != PUBLISHED_NONE

    def rules(view: View) -> SentOn:
        return SentOn(ruleset.family, ruleset.own, items, FORWARD, view)

    found = [Sent(rules(BY_HOST), True, published, not behind)] if spec.doors and (published or behind) else []
    if behind:
        found += [Sent(rules(PLAIN), False, False, True), Sent(rules(BY_FIRST_HOST), True, False, False)]
    return found


def _documents(family: str, saves: Sequence[Save]) -> Dict[str, Document]:
    # The collection's own rules of iptables go where there is a table.
    return {save.backend: without_own(parse(save.text)) for save in saves if save.family == family}


def _proofs(
    ruleset: NftRuleset,
    spec: Spec,
    items: Sequence[Item],
    local: LocalNetwork,
    connection: Optional[Connection],
) -> List[Proof]:
    steps = {step.port for door in spec.doors for step in door.knock + door.close}
    return prove_ruleset(
        ruleset,
        spec,
        {door.name: set_for(open_set(door), ruleset.family) for door in spec.doors},
        local,
        spec.panic,
        spec.policy == "reject",
        connection,
        shown=lambda text: readable_rule(text, steps),
        sent=_sent_on(ruleset, spec, items),
    )


__all__ = ("prove_installed", "prove_table")
