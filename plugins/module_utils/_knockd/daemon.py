# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of an engine that is knockd: which files it should have, whether it listens, how it is started, kept and taken back.

A change begins with files in /run: a daemon that nobody has confirmed must not come back with the next boot. What is
kept lies in /etc, and the same daemon is started from there once it has been confirmed.
"""

from typing import Any, Dict, List, NamedTuple, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._engine import (
    ABSENT_FILE,
    EXACT,
    Files,
    Finding,
    Loaded,
    Part,
    PartPlan,
    Report,
    Wanted,
    address_of,
    differing,
)
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError, SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.access import may_knock
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.display import readable_file
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.recent_lists import network_of, read_list
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.config import (
    config_text,
    interface_of,
    is_edited,
    is_needed,
    is_too_old,
    steps_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.findings import findings as daemon_findings
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.interface import (
    choose_interface,
    default_interfaces,
)
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.service import (
    CONFIG,
    DROP_IN,
    DROP_IN_DIRECTORY,
    IN_RUN,
    PREFIX,
    RUN_CONFIG,
    RUN_DROP_IN,
    RUN_PREFIX,
    is_listening,
    replace_in_run,
    restart,
    state_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.units import (
    ADDRESSES_SCRIPT,
    PREFIX_SCRIPT,
    drop_in_text,
)
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.units import (
    ADDRESSES_UNIT as ADDRESSES_UNIT_TEXT,
)
from ansible_collections.sesame.portknock.plugins.module_utils._paths import (
    DIRECTORY,
    KNOCKD_ADDRESSES_SCRIPT,
    KNOCKD_ADDRESSES_UNIT,
    KNOCKD_CONFIG,
    KNOCKD_PREFIX_HELPER,
    RUN,
    UNITS,
)
from ansible_collections.sesame.portknock.plugins.module_utils._paths import KNOCKD_UNIT as SERVICE
from ansible_collections.sesame.portknock.plugins.module_utils._redact import readable_config
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import family_of

ADDRESSES_UNIT = f"{UNITS}/{KNOCKD_ADDRESSES_UNIT}"
KEPT = (CONFIG, PREFIX, DROP_IN, ADDRESSES_UNIT, KNOCKD_ADDRESSES_SCRIPT)

KEEP, LEAVE, REMOVE = "keep", "leave", "remove"
"""What is done with knockd once a change is to stay; LEAVE: it runs until the next boot."""
_MISSING_KNOCK = (
    "knockd has not heard a knock of {0} at door {1}: look whether a firewall between passes the knock's ports, whether knock and "
    "connection leave from the same address, and whether knockd_interface is the one that they come in by"
)


class Details(NamedTuple):
    """What a plan of knockd holds for itself."""

    interface: str
    """The interface that it listens on, '' where it is not wanted."""
    program: str
    """Its path, '' where it is not wanted."""


class Daemon(Part):
    """knockd on this host."""

    name = "knockd"

    # Planning

    def plan(self, wanted: Wanted) -> PartPlan:
        is_wanted = is_needed(wanted.spec)
        was = state_of(self._host, is_wanted)
        details = Details("", "")
        if is_wanted:
            interface = self._choose_interface(wanted)
            details = Details(interface, self._find_program(was, wanted.may_lack))
        files = self._kept_files(wanted, details) if is_wanted and wanted.persist else dict.fromkeys(KEPT, ABSENT_FILE)
        loads = self._must_start(wanted, details, files, was) if is_wanted else was["ours"]
        plan = PartPlan(self.name, wanted, loads, files=files, details=details)
        if loads:
            plan = plan._replace(before={"verb": _verb(wanted, is_wanted), "was": was})
        if not is_wanted:
            return plan
        self._check_hears(wanted, details)
        findings = tuple(
            daemon_findings(
                wanted.spec,
                wanted.families,
                details.interface,
                self._host.filesystem.read(f"/sys/class/net/{details.interface}/type"),
            )
        )
        return plan._replace(findings=findings, proof=self._proof(plan))

    def _choose_interface(self, wanted: Wanted) -> str:
        if not self._host.systemd.runs():
            raise HostError(
                "engine: knockd is run by systemd, which does not run on this host. Set engine to iptables. "
                "Nothing was changed."
            )
        read = self._host.filesystem.read
        return choose_interface(
            wanted.spec.knockd_interface,
            self._host.kernel.interfaces(),
            default_interfaces(read("/proc/net/route"), read("/proc/net/ipv6_route")),
            wanted.families,
        )

    def _find_program(self, was: Dict[str, Any], may_lack: bool) -> str:
        command = self._host.command
        missing = [name for name in ("knockd", "ip") if not command.find(name)]
        if missing and not may_lack:
            raise HostError(
                "engine: {} is not installed on this host. Install it first, the role does that: tag portknock_install. "
                "Nothing was changed.".format(" and ".join(missing))
            )
        if not was["ours"] and (was["runs"] or was["enabled"]):
            raise HostError(
                f"engine: {SERVICE} already runs on this host, or is enabled, with doors of its own in /etc/knockd.conf, "
                f"and it can run once only. Carry its doors over to doors, then: systemctl disable --now {SERVICE}. "
                "Nothing was changed."
            )
        program = command.find("knockd")
        if program and is_too_old(command.run([program, "-V"], "")[1]):
            raise HostError(
                "engine: knockd on this host is older than 0.8: it knows no IPv6 and does not start with a configuration "
                "for both. Set engine to iptables, or install a newer one. Nothing was changed."
            )
        return program or "/usr/sbin/knockd"

    def _kept_files(self, wanted: Wanted, details: Details) -> Files:
        """Return what is kept over a reboot."""
        files = _files_in(DIRECTORY, DROP_IN, wanted, details, KNOCKD_ADDRESSES_SCRIPT)
        files[ADDRESSES_UNIT] = (ADDRESSES_UNIT_TEXT.format(KNOCKD_ADDRESSES_SCRIPT), 0o644)
        files[KNOCKD_ADDRESSES_SCRIPT] = (ADDRESSES_SCRIPT, 0o755)
        return files

    def _must_start(self, wanted: Wanted, details: Details, files: Files, was: Dict[str, Any]) -> bool:
        if not wanted.persist:
            return _differs(self._host.filesystem, _unconfirmed_files(wanted, details)) or not is_listening(
                self._host, RUN_CONFIG
            )
        unconfirmed = was["run"][RUN_DROP_IN][0] is not None
        return (
            unconfirmed
            or not was["enabled"]
            or _differs(self._host.filesystem, files)
            or not is_listening(self._host, CONFIG)
        )

    def _check_hears(self, wanted: Wanted, details: Details) -> None:
        connection = wanted.connection
        if connection is not None and wanted.door and not self._hears(details, connection.address):
            raise SpecError(
                "knockd_interface",
                f"this connection needs door {wanted.door} and comes to {connection.address}, which is no address of "
                f"{details.interface}; there knockd would not hear its knock. Name the interface that has the address. "
                "Nothing was changed.",
            )

    def _hears(self, details: Details, address: str) -> bool:
        """Return whether knockd hears knocks at an address of this host."""
        # Check mode may come before the packages.
        if not self._host.command.find("ip"):
            return True
        return address.split("%", 1)[0] in self._host.kernel.addresses(details.interface)

    def _proof(self, plan: PartPlan) -> Dict[str, Any]:
        """Return the knock that a controller which needs none is to send, so that knockd is proved all the same."""
        wanted, connection = plan.wanted, plan.wanted.connection
        if connection is None or wanted.door or not plan.loads:
            return {}
        source = connection.source
        if family_of(source) not in wanted.families or not self._hears(plan.details, connection.address):
            return {}
        door = next((door for door in wanted.spec.doors if may_knock(door, source)), None)
        if door is None:
            return {}
        prefix = wanted.spec.ipv6_prefix
        lists = {family: Lists(family, prefix).door(door) for family in wanted.families}
        return dict(lists, part=self.name, door=door.name, ipv6_prefix=prefix)

    def diff(self, plan: PartPlan) -> List[Dict[str, str]]:  # noqa: ARG002
        return []

    def readable(self, path: str, text: str) -> str:
        return readable_config(text) if path == CONFIG else readable_file(text)

    # Changing

    def load(self, plan: PartPlan) -> Loaded:
        if plan.loads and is_needed(plan.wanted.spec):
            self._host.filesystem.replace_files(_unconfirmed_files(plan.wanted, plan.details))
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
            self._host.filesystem.remove_if_empty(DROP_IN_DIRECTORY)
            self._host.systemd.reload()
            self._host.systemd.service("reset-failed", SERVICE, must=False)

    def undo(self, before: Dict[str, Any]) -> str:  # noqa: ARG002
        # Its files in /etc come first.
        return EXACT

    def undo_with_files(self, before: Dict[str, Any]) -> None:
        """Have knockd as it was.

        A knockd that does not listen is no error here: it was started, systemd goes on trying, and a rollback that never ends
        would help nobody.
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
        if was["runs"]:
            systemd.service("reset-failed", SERVICE, must=False)
            systemd.service("restart", SERVICE)
        elif systemd.main_process(SERVICE) is not None:
            systemd.service("stop", SERVICE)

    def is_loaded_in(self, before: str, now: str) -> bool:  # noqa: ARG002
        return False

    # Looking

    def inspect(self, report: Report) -> Report:
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
            findings=report.findings + ([] if running else [_not_listening(interface)]),
            facts=dict(report.facts, daemon=dict(running=running, interface=interface)),
        )


def _differs(filesystem: Any, files: Files) -> bool:
    return bool(differing(files, filesystem.read, filesystem.mode))


def _not_listening(interface: str) -> Finding:
    message = (
        f"knockd does not listen on {interface}, so knocks open nothing; trusted sources and sessions that run are let in as "
        "ever. 'systemctl status knockd' on the host tells why; write the ruleset again to mend it."
    )
    return Finding("knockd", "", "", message)


def _verb(wanted: Wanted, is_wanted: bool) -> str:
    if not is_wanted:
        return REMOVE
    return KEEP if wanted.persist else LEAVE


def _unconfirmed_files(wanted: Wanted, details: Details) -> Files:
    """Return what knockd runs with until the change is confirmed."""
    return _files_in(RUN, RUN_DROP_IN, wanted, details, "")


def _files_in(directory: str, drop_in: str, wanted: Wanted, details: Details, noted: str) -> Files:
    """Return the configuration, what its commands call, and what starts knockd with it.

    :param noted: see drop_in_text().
    """
    spec, config = wanted.spec, f"{directory}/{KNOCKD_CONFIG}"
    helper: Optional[str] = PREFIX_SCRIPT if spec.ipv6_prefix != 128 else None
    return {
        config: (config_text(spec, wanted.families, details.interface, directory), 0o600),
        f"{directory}/{KNOCKD_PREFIX_HELPER}": (helper, 0o600),
        drop_in: (drop_in_text(details.program, config, noted), 0o644),
    }


__all__ = ("CONFIG", "DROP_IN", "KEPT", "PREFIX", "RUN_CONFIG", "RUN_DROP_IN", "RUN_PREFIX", "Daemon")
