# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How some version of iptables-save spells our rules, remembered so that it is no change at every run. Pure."""

import hashlib
from typing import Any, Dict

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import same_ids
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import Plan

SPELLING = "spelling"
"""Under which key it is remembered."""


def known_spelling(plan: Plan, state: Dict[str, Dict[str, Any]]) -> Plan:
    """Leave out a change that is only in how this version of iptables-save spells our rules."""
    if plan.change and same_ids(plan.now, plan.then) and state.get(SPELLING, {}).get(plan.family) == _digest(plan):
        return plan._replace(change="", undo="")
    return plan


def spelling_of(state: Dict[str, Dict[str, Any]], loaded: Dict[str, Any]) -> Dict[str, str]:
    """Return what is to be remembered of spellings that are not ours."""
    spelling = dict(state.get(SPELLING, {}))
    for family, one in loaded.items():
        spelling.pop(family, None)
        if one.plan.change:
            spelling[family] = _digest(one.plan)
    return spelling


def _digest(plan: Plan) -> str:
    texts = [text for name in sorted(plan.now.chains) for text in plan.now.chains[name]]
    texts += [hook.text for hook in plan.now.hooks]
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogateescape")).hexdigest()


__all__ = ("SPELLING", "known_spelling", "spelling_of")
