# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services of a host in memory: what systemctl does to them, and what knockd does."""

from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.systemd import UnitState
from fake_iptables import FakeIptables
from fake_systemd import KNOCKD


class FakeServices:
    """The part of a FakeHost that is about services."""

    files: Dict[str, Tuple[Any, int]]
    rules: Dict[str, FakeIptables]
    units: Dict[str, UnitState]
    services_rules: Dict[str, str]
    recent: Dict[str, str]
    wants: Set[str]
    drop_ins: Dict[str, str]
    daemon: Optional[Dict[str, Any]]
    service_refuses: Optional[str]
    runs_systemd: bool
    slow_start: float
    now: float

    def _alive(self) -> None:
        raise NotImplementedError

    def _change(self, *what: Any) -> None:
        raise NotImplementedError

    def read(self, path: str) -> str:
        raise NotImplementedError

    # knockd and its unit. The drop-ins that systemd has read count, not what lies in the directories since.

    def knockd(self) -> Tuple[bool, Optional[str]]:
        """How knockd is: whether it is enabled, and the configuration that it was started with, None where it does not run."""
        return KNOCKD in self.wants, self.daemon["config"] if self.daemon else None

    def hear(self, name: str, source: str) -> None:
        """Do what knockd or a rule does with a source that has knocked."""
        self.recent[name] = "src={0} ttl: 64 last_seen: 4294967296 oldest_pkt: 1 4294967296\n".format(source)

    def service(self, verb: str, *units: str, must: bool = True) -> None:
        if not self.runs_systemd:
            return
        self._change("service", verb, *units)
        if self.service_refuses == verb:
            if must:
                raise HostError("systemctl {0} {1} failed: no".format(verb, " ".join(units)))
            return
        name = units[0].replace(".service", "") if units else ""
        if name.endswith(".path"):
            return
        if verb in ("enable", "disable") or (verb in ("start", "stop") and name in self.units):
            self._switch_service(verb, name)
            return
        verbs: Dict[str, Callable[[], Any]] = {
            "daemon-reload": self._reload,
            "restart": self._start,
            "stop": self._stop,
            "reset-failed": int,
        }
        verbs[verb]()

    def _switch_service(self, verb: str, name: str) -> None:
        """Do what systemctl does to a service, and what the service does with its rules."""
        state = self.units[name]
        if verb in ("enable", "disable"):
            self.units[name] = state._replace(enabled=verb == "enable")
            return
        self.units[name] = state._replace(active=verb == "start")
        if name in self.services_rules:
            text = self.services_rules[name] if verb == "start" else ""
            self.rules["iptables"].without("other-firewall")
            if text:
                self.rules["iptables"].restore(text, noflush=True)

    def _reload(self) -> None:
        self.drop_ins = {
            path.rpartition("/")[2]: text
            for path, (text, _mode) in self.files.items()
            if path.rpartition("/")[0]
            in ("/etc/systemd/system/knockd.service.d", "/run/systemd/system/knockd.service.d")
        }

    def _start(self) -> None:
        starts = [line for _name, text in sorted(self.drop_ins.items()) for line in text.splitlines()]
        command = [line for line in starts if line.startswith("ExecStart=/")][-1:] or ["-c /etc/knockd.conf"]
        path = command[0].partition("-c ")[2].split(" ", 1)[0]
        self.daemon = dict(config=self.read(path), path=path, since=self.now)

    def _stop(self) -> None:
        self.daemon = None

    def words_of(self, pid: Optional[int]) -> List[str]:
        return ["/usr/sbin/knockd", "-c", self.daemon["path"], ""] if pid and self.daemon else [""]

    def captures_packets(self, pid: Optional[int]) -> bool:
        self._alive()
        return bool(pid) and self.daemon is not None and self.now >= self.daemon["since"] + self.slow_start
