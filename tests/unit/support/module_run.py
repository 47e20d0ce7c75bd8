# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole run of knock_ruleset, without a guard, on a host in memory."""

from typing import Any, Dict, List, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._change.guard import Guard
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import plan_change, result_of
from ansible_collections.sesame.portknock.plugins.module_utils._change.record import Record
from ansible_collections.sesame.portknock.plugins.module_utils._paths import BOOT_SCRIPT as SCRIPT
from ansible_collections.sesame.portknock.plugins.module_utils._paths import LAST, PENDING, UNIT
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import DEFAULTS
from fake_host import FakeHost

DOOR = {"name": "ssh", "knock": ["17005", "19100/udp", "18300"], "opens": ["22"]}
KEPT = {
    "/etc/iptables/rules.v4": 0o600,
    "/etc/iptables/rules.v6": 0o600,
    "/etc/portknock/iptables.rules": 0o600,
    "/etc/portknock/iptables.closed": 0o600,
    "/etc/portknock/ip6tables.rules": 0o600,
    "/etc/portknock/ip6tables.closed": 0o600,
    SCRIPT: 0o755,
    UNIT: 0o644,
}


def options(**more: Any) -> Dict[str, Any]:
    return dict(DEFAULTS, **dict({"doors": [DOOR]}, **more))


class NoAgent:
    """What is not guarded arms nothing."""

    def disarm(self, record: Record) -> None:
        assert record.agent == ""


def run(host: FakeHost, check: bool = False, **more: Any) -> Dict[str, Any]:
    """Do what the module's main() does; return the result."""
    change = plan_change(options(**more), host, may_lack=check)
    if change.changed and not check:
        guard = Guard(host, agent=NoAgent())
        guard.keep(guard.apply(change, options(**dict(more, guard=False))))
        for path in (PENDING, LAST):
            host.files.pop(path, None)
    return result_of(change)


def settled(host: FakeHost, **more: Any) -> Dict[str, Any]:
    """Run until done, then assert that nothing would be written any more."""
    result = run(host, **more)
    host.frozen = True
    again = run(host, **more)
    assert (again["changed"], again["diff"]) == (False, [])
    host.frozen = False
    return result


ACCEPT_22 = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n"


def foreign_part(state: Tuple[Any, ...]) -> Tuple[List[str], Any, Any]:
    """A save without the table that iptables-restore makes and that cannot be removed."""
    return [text for text in state[:2] if "-A " in text], state[2], state[3]
