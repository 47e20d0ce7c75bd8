# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""The plan for one family: from the ruleset as it is and the Spec to the text that changes it. Pure.

Reading downwards is reading the data's way: text of iptables-save, Table, State now, State wanted, and the
texts for iptables-restore that lead there and back.
"""

import difflib
import re
from typing import NamedTuple

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import (
    CHAIN,
    DOORS,
    SECRET_CHAIN,
    own_rules,
)
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.findings import masked, ruleset_findings
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.hooks import Ground, wanted_state
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import (
    foreign_rules,
    is_ours,
    named_by_foreign,
    place_of,
    read_state,
    transition,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse


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


_SECRET_TARGET = re.compile(r" -g PORTKNOCK_(?:[KR][1-9]|FORGET)")
_DETAILS = re.compile(r" --mask (?:255\.){3}255| --mask (?:ffff:){7}ffff| --rsource")
_ID = re.compile(r'"portknock:[0-9a-f]{8} ')


def is_secret(chain, text):
    """Tell whether a rule of ours names ports of knocks."""
    return bool(SECRET_CHAIN.match(chain) or _SECRET_TARGET.search(text))


def readable_rule(chain, text):
    """Return one line for a person: our ids are left out, and ports of knocks."""
    if is_secret(chain, text):
        text = masked(text)
    return "-A {0} {1}\n".format(chain, _DETAILS.sub("", _ID.sub('"', text)))


def readable(state, foreign):
    """Return INPUT and our chains as a person reads them, in order, with no knock port."""
    lines, hooks = [], list(state.hooks)
    for place, text in enumerate(list(foreign) + [None]):
        while hooks and hooks[0].place == place:
            lines.append(readable_rule("INPUT", hooks.pop(0).text))
        if text is not None:
            lines.append("-A INPUT {0}\n".format(text))
    for name in sorted(state.chains):
        lines += [] if state.chains[name] else ["-N {0}\n".format(name)]
        lines += [readable_rule(name, text) for text in state.chains[name]]
    return "".join(lines)


def readable_file(text):
    """Return a rules file as a person reads it, with no knock port of ours."""
    shown = []
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        found = re.match(r"^(?:-A|-I) (\S+) (.*)\n?$", line, re.S)
        if found and CHAIN.match(found.group(1)):
            line = readable_rule(found.group(1), found.group(2).rstrip("\n"))
        elif found and is_ours(found.group(1), found.group(2)):
            line = _ID.sub('"', line)
        shown.append(line)
    return "".join(shown)


def shortened(before, after, context=3):
    """Return both texts with the stretches that do not change, but for some context, replaced by a line.

    A diff of a ruleset with thousands of foreign rules then stays readable.
    """
    one, other = before.splitlines(True), after.splitlines(True)
    short_one, short_other = [], []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if tag == "equal" and i2 - i1 > 2 * context + 1:
            gap = ["# ... {0} lines that stay\n".format(i2 - i1 - 2 * context)]
            same = one[i1 : i1 + context] + gap + one[i2 - context : i2]
            short_one += same
            short_other += same
        else:
            short_one += one[i1:i2]
            short_other += other[j1:j2]
    return "".join(short_one), "".join(short_other)


__all__ = ("Plan", "is_secret", "plan_family", "readable", "readable_file", "readable_rule", "shortened")
