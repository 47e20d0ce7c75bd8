# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan for one family: from the ruleset as it is and the Spec to the text that changes it. Pure.

Reading downwards is reading the data's way: text of iptables-save, Table, State now, State wanted, and the
texts for iptables-restore that lead there and back.
"""

from typing import NamedTuple

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import own_rules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.chains import DOORS
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.display import (
    readable,
    readable_file,
    readable_rule,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.findings import ruleset_findings
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.hooks import Ground, wanted_state
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import (
    foreign_rules,
    named_by_foreign,
    place_of,
    read_state,
    transition,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._redact import is_secret


class Plan(
    NamedTuple(
        "Plan",
        [
            ("family", str),
            ("now", object),
            ("then", object),
            ("change", str),
            ("undo", str),
            ("foreign", tuple),
            ("findings", list),
            ("document", object),
        ],
    )
):
    """now, then: States; change, undo: input for ``iptables-restore --noflush``, '' where nothing is to do;
    foreign: the texts of the foreign rules of INPUT."""

    __slots__ = ()

    def before(self):
        """Return what a person reads of the ruleset as it is, with no knock port in it."""
        return readable(self.now, self.foreign)

    def after(self):
        """Return what a person reads of the ruleset as it will be, with no knock port in it."""
        return readable(self.then, self.foreign)


def plan_family(save, spec, family, own=None):
    """Plan one family.

    :param save: what iptables-save (or ip6tables-save) printed.
    :param spec: a Spec, or None to take all of ours out.
    :param family: ``ipv4`` or ``ipv6``.
    :param own: the Own of the Spec, where it has been made already.
    :raises HostError: if the ruleset cannot be followed or uses our names.
    """
    document = parse(save, "the live {0} ruleset".format(family))
    table = document.table("filter")
    now = read_state(table)
    foreign = foreign_rules(table)
    # A chain that a foreign rule names cannot go. It stays, and where it is not ours any more it is empty.
    kept = {name: () for name in (named_by_foreign(table) if table else ()) if name in now.chains}
    findings = []
    if spec is None:
        then = wanted_state(None, None, now)
    else:
        ground = Ground(document, spec)
        then = wanted_state(own or own_rules(spec, family), ground, now)
        place = place_of(then, DOORS)
        findings = ruleset_findings(document, spec, family, ground, place)
    then = then._replace(chains=dict(kept, **then.chains))
    return Plan(
        family=family,
        now=now,
        then=then,
        change=transition(now, then, len(foreign)),
        undo=transition(then, now, len(foreign)),
        foreign=tuple(rule.text.rstrip() for rule in foreign),
        findings=findings,
        document=document,
    )


__all__ = (
    "Plan",
    "is_secret",
    "plan_family",
    "readable",
    "readable_file",
    "readable_rule",
)
