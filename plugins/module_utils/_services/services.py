# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part that every engine has: the services that load the rules at boot, and other firewalls that must make way.

A change begins with other firewalls stopped; what a boot starts changes only once the change is confirmed.
"""

import re
from typing import Any, Dict, List, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import (
    Loaded,
    PartOutsideKernel,
    PartPlan,
    Report,
    Wanted,
)
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.distributions import (
    distribution_of,
    parse_os_release,
)
from ansible_collections.sesame.portknock.plugins.module_utils._host.other_firewalls import DISABLE, NFTABLES
from ansible_collections.sesame.portknock.plugins.module_utils._paths import IPTABLES, OS_RELEASE, UFW_CONFIG
from ansible_collections.sesame.portknock.plugins.module_utils._services.plan import (
    OTHERS,
    Facts,
    Todo,
    not_loaded,
    plan_services,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import ENGINES


class Services(PartOutsideKernel):
    """Services of this host."""

    name = "services"

    # Planning

    def plan(self, wanted: Wanted) -> PartPlan:
        if wanted.spec is None:
            return PartPlan(self.name, wanted, False)
        todo = plan_services(self._facts(wanted), wanted.conflicting_firewall, wanted.may_lack)
        systemctl = self._host.command.find("systemctl")
        mode = self._host.filesystem.mode(UFW_CONFIG)
        return PartPlan(
            part=self.name,
            wanted=wanted,
            loads=bool(todo.stop),
            keeps=bool(todo.disable or todo.enable),
            disturbs=bool(todo.stop),
            files={UFW_CONFIG: (todo.ufw_config, mode)} if todo.ufw_config else {},
            findings=tuple(todo.findings),
            facts={"services": {verb: list(getattr(todo, verb)) for verb in ("stop", "disable", "enable")}},
            before={"stopped": todo.stop, "disabled": todo.disable, "enabled": todo.enable},
            last_way=tuple(f"{systemctl} start {name}.service" for name in todo.stop),
            details=todo,
        )

    def _facts(self, wanted: Wanted) -> Facts:
        loaders: Tuple[str, ...] = ()
        uses_iptables = ENGINES[wanted.spec.engine].uses_iptables
        if wanted.persist and uses_iptables:
            services = distribution_of(parse_os_release(self._host.filesystem.read(OS_RELEASE))).services
            loaders = tuple(dict.fromkeys(services[family] for family in wanted.families if family in services))
        states = self._host.systemd.states(*OTHERS, *loaders)
        # The ruleset part reads the rules as well, and better; here they matter only where a service is to stop that would flush them.
        would_flush = uses_iptables and states[NFTABLES].active and wanted.conflicting_firewall == DISABLE
        live_rules = would_flush and self._has_live_rules()
        config = self._host.filesystem.read(UFW_CONFIG)
        return Facts(self._host.systemd.runs(), states, config, live_rules, loaders, uses_iptables)

    def _has_live_rules(self) -> bool:
        saves = [self._host.command.find(name + "-save") for name in IPTABLES.values()]
        return any(re.search("^-A", self._host.command.run([save])[1], re.M) for save in saves if save)

    def diff(self, plan: PartPlan) -> List[Dict[str, str]]:
        todo: Todo = plan.details
        if todo is None or not (plan.loads or plan.keeps):
            return []
        lines = [(f"{name}.service runs", f"{name}.service is stopped") for name in todo.stop]
        lines += [(f"{name}.service starts at boot", f"{name}.service does not start at boot") for name in todo.disable]
        lines += [(f"{name}.service does not start at boot", f"{name}.service starts at boot") for name in todo.enable]
        before, after = ("".join(pair[side] + "\n" for pair in lines) for side in (0, 1))
        return [dict(before_header="services", after_header="services", before=before, after=after)]

    def readable(self, path: str, text: str) -> str:  # noqa: ARG002
        return text

    # Changing

    def load(self, plan: PartPlan) -> Loaded:
        for name in plan.before["stopped"]:
            self._host.systemd.service("stop", f"{name}.service")
        return Loaded({}, {})

    def keep(self, before: Dict[str, Any]) -> None:
        self._switch("disable", before.get("disabled", []))
        self._switch("enable", before.get("enabled", []))

    def undo_with_files(self, before: Dict[str, Any]) -> None:
        """Have services as they were, each of them whatever becomes of the others: our rules go first, and files come before them."""
        names = [name for part in ("stopped", "disabled", "enabled") for name in before.get(part, [])]
        if not names:
            return
        states = self._host.systemd.states(*names)
        failed = []
        for verb, part, is_done in (
            ("disable", "enabled", lambda state: not state.enabled),
            ("enable", "disabled", lambda state: state.enabled),
            ("start", "stopped", lambda state: state.active),
        ):
            try:
                self._switch(verb, [name for name in before[part] if not is_done(states[name])])
            except HostError as error:
                failed.append(str(error))
        if failed:
            raise HostError(" ".join(failed))

    def _switch(self, verb: str, names: List[str]) -> None:
        for name in names:
            self._host.systemd.service(verb, f"{name}.service")

    # Looking

    def inspect(self, report: Report) -> Report:
        if report.wanted is None:
            return report
        return report._replace(findings=report.findings + not_loaded(self._facts(report.wanted)))


__all__ = ("Services",)
