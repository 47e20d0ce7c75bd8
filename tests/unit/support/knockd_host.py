# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host in memory on which knockd runs."""

from typing import Any, Dict, Optional, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._change.guard import Guard
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import plan_change
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.service import (
    KEPT,
    RUN_CONFIG,
    RUN_DROP_IN,
    RUN_PREFIX,
)
from fake_host import FakeHost
from module_run import DOOR
from story import IDENT, FakeAgent, without_empty_table
from story import options as guarded

NEW = dict(DOOR, knock=["23111", "24500", "23777"])
SSH4, SSH6 = "192.0.2.7 50000 192.0.2.1 22", "2001:db8:5:6:7::7 50000 2001:db8::1 22"
FRIENDS = {"trusted_sources": ["192.0.2.7", "2001:db8:5::/48"]}


def by_knockd(**more: Any) -> Dict[str, Any]:
    return dict({"engine": "knockd"}, **more)


class Change:
    """A change of a host under guard, from an ssh session."""

    def __init__(self, host: FakeHost, ssh: str = SSH4, **more: Any) -> None:
        self.host, self.agent = host, FakeAgent()
        self.host.ssh = ssh
        self.guard = Guard(host, self.agent)
        self.options = guarded(**dict({"doors": [DOOR]}, **more))

    def apply(self) -> Dict[str, Any]:
        change = plan_change(self.options, self.host)
        record = self.guard.apply(change, self.options)
        self.host.now += 1
        return self.guard.answer(record, change.door)

    def confirm(self, ssh: Optional[str] = None) -> Dict[str, Any]:
        words = (ssh or self.host.ssh or "").split()
        return self.guard.confirm(IDENT, ([words[0], "50001"] + words[2:], self.host.now))


def everything(host: FakeHost) -> Tuple[Any, ...]:
    """What a rollback has to put back: the rules, knockd, and its files in /etc as well as in /run."""
    files = {path: value for path, value in host.files.items() if path in KEPT + (RUN_CONFIG, RUN_PREFIX, RUN_DROP_IN)}
    rules = [without_empty_table(host.rules[family].save()) for family in ("iptables", "ip6tables")]
    return host.knockd(), host.daemon and host.daemon["path"], files, host.unit, rules
