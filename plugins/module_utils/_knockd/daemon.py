# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of an engine that is knockd: which files it should have, whether it listens, how it is started, kept and taken back.

A change begins with files in /run: a daemon that was not confirmed must not come back with the next boot. What is
kept lies in /etc, and the same daemon is started from there once it has been confirmed.
"""

from typing import Any, Dict, List

from ansible_collections.sesame.portknock.plugins.module_utils._engine import (
    ABSENT_FILE,
    EXACT,
    Finding,
    Loaded,
    Part,
    PartPlan,
    Report,
    Wanted,
    address_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.service import (
    CONFIG,
    DROP_IN_DIRECTORY,
    IN_RUN,
    KEEP,
    KEPT,
    LEAVE,
    REMOVE,
    RUN_CONFIG,
    RUN_DROP_IN,
    is_listening,
    is_needed,
    replace_in_run,
    restart,
    state_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.recent_lists import network_of, read_list
from ansible_collections.sesame.portknock.plugins.module_utils._paths import KNOCKD_UNIT as SERVICE
from ansible_collections.sesame.portknock.plugins.module_utils._paths import KNOCKD_UPGRADE_UNIT
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import family_of

_MISSING_KNOCK = (
    "knockd has not heard a knock of {0} at door {1}: look whether a firewall between passes the knock's ports, whether knock and "
    "connection leave from the same address, and whether knockd_interface is the one that they come in by"
)


class Daemon(Part):
    """knockd on this host."""

    name = "knockd"

    def import_late(self) -> None:
        from ansible_collections.sesame.portknock.plugins.module_utils._knockd import config, plan  # noqa: F401

    # Planning

    def plan(self, wanted: Wanted) -> PartPlan:
        is_wanted = is_needed(wanted.spec)
        was = state_of(self._host, is_wanted)
        if is_wanted:
            # Imported as late as this, and so are others below: most hosts have no use for it.
            from ansible_collections.sesame.portknock.plugins.module_utils._knockd.plan import plan_daemon

            plan = plan_daemon(self._host, wanted, was)
            return plan._replace(files=plan.files or dict.fromkeys(KEPT, ABSENT_FILE))
        before = {"verb": REMOVE, "was": was} if was["ours"] else {}
        return PartPlan(self.name, wanted, was["ours"], files=dict.fromkeys(KEPT, ABSENT_FILE), before=before)

    def diff(self, plan: PartPlan) -> List[Dict[str, str]]:  # noqa: ARG002
        return []

    def readable(self, path: str, text: str) -> str:
        from ansible_collections.sesame.portknock.plugins.module_utils._redact import readable_config
        from ansible_collections.sesame.portknock.plugins.module_utils._tables.readable import readable_file

        return readable_config(text) if path == CONFIG else readable_file(text)

    # Changing

    def load(self, plan: PartPlan) -> Loaded:
        if plan.loads and is_needed(plan.wanted.spec):
            from ansible_collections.sesame.portknock.plugins.module_utils._knockd.plan import unconfirmed_files

            self._host.filesystem.replace_files(unconfirmed_files(plan.wanted, plan.details))
            self._host.systemd.reload()
            restart(self._host, RUN_CONFIG)
        elif plan.loads:
            self._host.systemd.service("stop", SERVICE)
        return Loaded({}, {})

    def problem(self, before: Dict[str, Any], expected: Dict[str, Any]) -> str:  # noqa: ARG002
        if before.get("verb") in (KEEP, LEAVE) and not is_listening(self._host):
            return "knockd does not run, 'journalctl -u knockd' on the host tells why"
        return ""

    def missing_knock(self, proof: Dict[str, Any], source: Any) -> str:
        name = proof.get(family_of(source))
        if name is None:
            return ""
        entries = read_list(self._host.recent_lists.read().get(name, ""))
        if network_of(source, proof["ipv6_prefix"]) in {address_of(each.source) for each in entries}:
            return ""
        return _MISSING_KNOCK.format(source, proof["door"])

    def keep(self, before: Dict[str, Any]) -> None:
        verb = before.get("verb", "")
        if verb == KEEP:
            replace_in_run(self._host, dict.fromkeys(IN_RUN, ABSENT_FILE))
            self._host.systemd.add_wants(SERVICE)
            restart(self._host, CONFIG)
        elif verb:
            if verb == REMOVE:
                replace_in_run(self._host, dict.fromkeys(IN_RUN, ABSENT_FILE))
            self._host.systemd.remove_wants(SERVICE)
            self._host.systemd.service("stop", KNOCKD_UPGRADE_UNIT, must=False)
            self._host.filesystem.remove_if_empty(DROP_IN_DIRECTORY)
            self._host.systemd.reload()
            self._host.systemd.service("reset-failed", SERVICE, must=False)

    def undo(self, before: Dict[str, Any]) -> str:  # noqa: ARG002
        # Its files in /etc come first.
        return EXACT

    def undo_with_files(self, before: Dict[str, Any]) -> None:
        """Have knockd as it was.

        A knockd that does not listen is no error here: it was started, systemd goes on trying, and a rollback that never ends
        would be of no use.
        """
        was = before.get("was")
        if not was:
            return
        systemd = self._host.systemd
        self._host.filesystem.remove_if_empty(DROP_IN_DIRECTORY)
        replace_in_run(self._host, was["run"])
        if was["enabled"]:
            systemd.add_wants(SERVICE)
        else:
            systemd.remove_wants(SERVICE)
            systemd.service("stop", KNOCKD_UPGRADE_UNIT, must=False)
        if was["runs"]:
            systemd.service("reset-failed", SERVICE, must=False)
            systemd.service("restart", SERVICE)
        elif systemd.main_process(SERVICE) is not None:
            systemd.service("stop", SERVICE)

    def is_loaded_in(self, before: str, now: str) -> bool:  # noqa: ARG002
        return False

    # Looking

    def inspect(self, report: Report) -> Report:
        from ansible_collections.sesame.portknock.plugins.module_utils._knockd.config import (
            interface_of,
            is_edited,
            steps_of,
        )

        filesystem = self._host.filesystem
        # Without a file in /etc it is the one that it runs with until the next boot.
        config = filesystem.read(RUN_CONFIG if filesystem.mode(RUN_DROP_IN) is not None else CONFIG)
        report = report._replace(facts=dict(report.facts, daemon={}))
        if not config:
            return report
        interface, running = interface_of(config), is_listening(self._host)
        steps = steps_of(config)
        doors = [dict(door, steps=door["steps"] or steps.get(door["name"], 0)) for door in report.doors]
        drift = ["edited by hand: the configuration of knockd"] if is_edited(config) else []
        return report._replace(
            installed=dict(report.installed, **{self.name: True}),
            doors=doors,
            steps=dict(steps, **report.steps),
            drift=report.drift + drift,
            findings=report.findings
            + self._findings(report, interface)
            + ([] if running else [_not_listening(interface)]),
            facts=dict(report.facts, daemon=dict(running=running, interface=interface)),
        )

    def _findings(self, report: Report, interface: str) -> List[Finding]:
        from ansible_collections.sesame.portknock.plugins.module_utils._knockd.findings import findings

        wanted, kind = report.wanted, self._host.filesystem.read(f"/sys/class/net/{interface}/type")
        return findings(wanted.spec, wanted.families, interface, kind) if wanted else []


def _not_listening(interface: str) -> Finding:
    message = (
        f"knockd does not listen on {interface}, so knocks open nothing; trusted sources and sessions that run are let in as "
        "ever. 'systemctl status knockd' on the host tells why; write the ruleset again to mend it."
    )
    return Finding("knockd", "", "", message)


__all__ = ("Daemon",)
