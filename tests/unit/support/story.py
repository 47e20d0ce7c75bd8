# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guarded change on a host in memory: the host before it, the change, and what the host is like after it."""

import json
import re
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._change.guard import Guard
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import plan_change
from ansible_collections.sesame.portknock.plugins.module_utils._change.record import Record
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import LAST, PENDING, PREVIOUS, SPARE
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import DEFAULTS
from fake_host import FakeHost, is_of_a_change, knockd_host

DOOR = {"name": "ssh", "knock": ["17005", "19100/udp", "18300"], "opens": ["22"]}
WEB = {"name": "web", "knock": ["20001", "20500"], "opens": ["443"]}
OLD_SSH, NEW_SSH = "192.0.2.7 50000 192.0.2.1 22", "192.0.2.7 50001 192.0.2.1 22"
TIMEOUT = 30
IDENT = "0123456789abcdef"
MINE = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT\nCOMMIT\n"

CHANGES: Dict[str, Tuple[Optional[Dict[str, Any]], Dict[str, Any]]] = {
    "a bare host gets doors": (None, dict(doors=[DOOR])),
    "another door": (dict(doors=[DOOR]), dict(doors=[DOOR, WEB], log=True)),
    "all goes": (dict(doors=[DOOR]), dict(doors=[DOOR], state="absent")),
    "one family goes": (dict(doors=[DOOR]), dict(doors=[DOOR], ip_versions=["ipv4"])),
    "only in the kernel": (None, dict(doors=[DOOR], persist=False)),
    "no longer kept": (dict(doors=[DOOR]), dict(doors=[DOOR, WEB], persist=False)),
    "a bare host gets knockd": (None, dict(doors=[DOOR], engine="knockd")),
    "knockd takes over": (dict(doors=[DOOR]), dict(doors=[DOOR], engine="knockd")),
    "another door for knockd": (dict(doors=[DOOR], engine="knockd"), dict(doors=[DOOR, WEB], engine="knockd")),
    "the kernel takes over": (dict(doors=[DOOR], engine="knockd"), dict(doors=[DOOR])),
    "knockd goes": (dict(doors=[DOOR], engine="knockd"), dict(doors=[DOOR], engine="knockd", state="absent")),
    "knockd until the next boot": (None, dict(doors=[DOOR], engine="knockd", persist=False)),
    "knockd no longer kept": (
        dict(doors=[DOOR], engine="knockd"),
        dict(doors=[DOOR, WEB], engine="knockd", persist=False),
    ),
    "knockd kept at last": (
        dict(doors=[DOOR], engine="knockd", persist=False),
        dict(doors=[DOOR], engine="knockd", ipv6_prefix=64),
    ),
}
NAMES = sorted(CHANGES)
Seen = Tuple[List[List[str]], Dict[str, Tuple[Any, int]], bool, Tuple[bool, Optional[str]]]
"""Rules, files, the unit, knockd."""


class FakeAgent:
    """Remembers what it is armed for."""

    def __init__(self) -> None:
        self.armed: List[Tuple[str, int]] = []
        self.disarmed: List[str] = []
        self.error: Optional[Exception] = None
        self.last_way: List[str] = []
        self.last_look: List[str] = []
        self.put_backs = 0
        self.looks: List[str] = []
        self.lost = False

    def arm(self, record: Record, timeout: int, last_way: Sequence[str] = (), last_look: Sequence[str] = ()) -> str:
        if self.error is not None:
            raise HostError(str(self.error))
        self.armed.append((record.id, timeout))
        self.last_way, self.last_look = list(last_way), list(last_look)
        return "systemd"

    def put_back(self) -> None:
        self.put_backs += 1

    def look_again(self, record: Record) -> None:
        self.looks.append(record.id)

    def is_lost(self, _record: Record) -> bool:
        return self.lost

    def disarm(self, record: Record) -> None:
        self.disarmed.append(record.id)


def options(**more: Any) -> Dict[str, Any]:
    wanted = dict(DEFAULTS, guard=True, guard_timeout=TIMEOUT, guard_id=IDENT, guard_owner="me@here")
    return dict(wanted, **more)


def apply_at_once(host: FakeHost, **more: Any) -> None:
    """Do what the module does without a guard."""
    wanted = options(**dict(more, guard=False, guard_id="before"))
    guard = Guard(host, FakeAgent())
    guard.keep(guard.apply(plan_change(wanted, host), wanted))
    # The boot that it was done in is over.
    del host.files[LAST]


class Story:
    """A host before a change, the change, and what the host is like before and after it."""

    def __init__(self, name: str = "another door", module: bool = False, v4: str = "") -> None:
        first, self.wanted = CHANGES[name]
        self.host, twin = knockd_host(v4=v4), knockd_host(v4=v4)
        for host in (self.host, twin):
            host.module = module
            if first is not None:
                apply_at_once(host, **first)
        self.old = seen(self.host)
        apply_at_once(twin, **self.wanted)
        self.new = seen(twin)
        assert self.old != self.new
        self.host.ssh = OLD_SSH
        self.agent = FakeAgent()
        self.guard = Guard(self.host, self.agent)

    def apply(self, **more: Any) -> Record:
        """Do what the module does: clear the way, plan, apply under guard."""
        wanted = options(**dict(self.wanted, **more))
        self.guard.finish_earlier()
        record = self.guard.apply(plan_change(wanted, self.host), wanted)
        self.host.now += 1
        return record

    def confirm(self, name: str = IDENT, ssh: str = NEW_SSH) -> Dict[str, Any]:
        self.host.ssh = ssh
        try:
            return self.guard.confirm(name, self.host.session())
        finally:
            self.host.ssh = OLD_SSH

    def seen(self) -> Seen:
        return seen(self.host)

    def state(self) -> Optional[str]:
        """What the record on the host says of where the change is."""
        return json.loads(self.host.files.get(PENDING, ("{}", 0))[0]).get("state")

    def pending_is(self, record: Record) -> bool:
        """Return whether a Record is the one on the host; JSON has no tuples."""
        return self.host.files.get(PENDING, ("", 0))[0] == json.dumps(record._asdict())

    def assert_old(self) -> None:
        assert self.seen() == self.old
        assert self.guard.pending() is None
        assert not [path for path in self.host.staged if path.startswith("/etc/")]
        assert not [path for path in self.host.files if path.startswith(SPARE)]

    def assert_old_after_boot(self) -> None:
        """Rules come with the boot from the files; knockd too, where it was kept, and as it was."""
        enabled, config = self.old[3]
        assert self.seen()[1:] == (*self.old[1:3], (enabled, config if enabled else None))

    def assert_new(self) -> None:
        assert self.seen() == self.new
        assert self.guard.pending() is None
        assert not self.host.staged
        assert not [path for path in self.host.files if path.startswith(SPARE)]


def seen(host: FakeHost) -> Seen:
    """What must be all old or all new: our rules and those of others, files, the unit, knockd. What is in /run is neither."""
    rules = [without_empty_table(host.rules[family].save()) for family in ("iptables", "ip6tables")]
    files = {path: value for path, value in host.files.items() if not is_of_a_change(path) and PREVIOUS not in path}
    return rules, files, host.unit, host.knockd()


def without_empty_table(text: str) -> List[str]:
    """A table that iptables-restore made cannot be taken away again, so an empty one is as good as none.

    Nor does the order of chains mean anything: one that went and came back is the last one.
    """
    lines = [line for line in text.splitlines() if not re.match(r":[A-Z]+ ACCEPT ", line)]
    chains, rules = ([line for line in lines if line[:1] == first] for first in ":-")
    return sorted(chains) + sorted(rules, key=lambda rule: rule.split()[1])


def nth_restore_fails(
    number: int, message: str = "no such luck"
) -> Callable[[str, Sequence[str], str], Optional[Tuple[int, str, str]]]:
    """Refuse the n-th load that is no test and no probe, and none after it."""
    count = [0]

    def refuse(_command: str, words: Sequence[str], data: str) -> Optional[Tuple[int, str, str]]:
        if "--test" in words or "PROBE" in data:
            return None
        count[0] += 1
        return (1, "", message) if count[0] == number else None

    return refuse
