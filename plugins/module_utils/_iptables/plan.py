# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan for one family: from the ruleset as it is and the Spec to the text that changes it. Pure.

Reading downwards is reading the data's way: text of iptables-save, Table, State now, State wanted, and the
texts for iptables-restore that lead there and back.
"""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.findings import Hooked, ruleset_findings
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.input_rules import ForeignRules, arrival_of
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import BuiltRules, build_rules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.display import beside_hooks, readable
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.hooks import wanted_state
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import (
    ABSENT,
    State,
    around,
    around_after,
    named_by_foreign,
    position_of,
    read_state,
    transition,
)
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import DOORS, TAIL
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import UNKNOWN, LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document, parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Spec
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import foreign_texts


class Plan(NamedTuple):
    """What is to be done in one family."""

    family: str
    """``ipv4`` or ``ipv6``."""
    now: State
    """The collection's rules as they are."""
    then: State
    """The collection's rules as they should be."""
    change: str
    """Input for ``iptables-restore --noflush``, '' where nothing is to do."""
    undo: str
    """Input for ``iptables-restore --noflush`` that leads back, '' where nothing is to do."""
    foreign: Mapping[str, Tuple[str, ...]]
    """Each chain that may have hooks to the texts of the foreign rules in it."""
    findings: List[Finding]
    """What an operator should know."""
    document: Document
    """The ruleset as it is."""

    def before(self) -> str:
        """Return what a person reads of the ruleset as it is, with no knock port in it."""
        return readable(self.now, beside_hooks(self.foreign, self.now, self.then))

    def after(self) -> str:
        """Return what a person reads of the ruleset as it will be, with no knock port in it."""
        return readable(self.then, beside_hooks(self.foreign, self.now, self.then))

    def way_back(self, save: str) -> Dict[str, Any]:
        """Return what the way back from this change needs; JSON.

        :param save: what iptables-save printed before it.
        """
        hooks = dict.fromkeys((hook.chain, hook.text) for hook in self.now.hooks + self.then.hooks)
        return dict(save=save, chains=self.own_chains(), hooks=[list(hook) for hook in hooks])

    def own_chains(self) -> List[str]:
        """Return the names of the collection's chains that are there, or will be."""
        return sorted({*self.now.chains, *self.then.chains})


def plan_family(
    save: str,
    spec: Optional[Spec],
    family: str,
    built: Optional[BuiltRules] = None,
    local: LocalNetwork = UNKNOWN,
) -> Plan:
    """Plan one family.

    :param save: what iptables-save (or ip6tables-save) printed.
    :param spec: a Spec, or None to remove all rules of the collection.
    :param family: ``ipv4`` or ``ipv6``.
    :param built: the rules of the Spec, where they have been built already.
    :param local: what is known of the host's network.
    :raises HostError: if the ruleset cannot be followed or uses the collection's names.
    """
    document = parse(save, f"the live {family} ruleset")
    now, others = read_state(document), around(document)
    then, findings = ABSENT, []
    if spec is not None:
        rules = ForeignRules(document, spec, arrival_of(local, family))
        then = wanted_state(built or build_rules(spec, family), rules, now)
        hooked = Hooked(position_of(then, DOORS) or 0, position_of(then, TAIL))
        findings = ruleset_findings(document, spec, family, rules, hooked, local)
    # A chain that a foreign rule names cannot be removed. It stays, and is emptied where it has no use any more.
    emptied = [name for name in named_by_foreign(document) if name in now.chains]
    then = then._replace(chains={**dict.fromkeys(emptied, ()), **then.chains})
    return Plan(
        family=family,
        now=now,
        then=then,
        change=transition(now, then, others),
        undo=transition(then, now, around_after(now, then, others)),
        foreign=foreign_texts(document),
        findings=findings,
        document=document,
    )


__all__ = ("Plan", "plan_family")
