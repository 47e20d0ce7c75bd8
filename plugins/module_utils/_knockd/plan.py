# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What knockd should have on a host where it is the engine: its files, and whether it must be started anew. Reads only."""

from typing import Any, Dict, NamedTuple, Optional

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Files, PartPlan, Wanted, differing
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError, SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.access import may_knock
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.config import config_text, is_too_old
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.findings import findings
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.interface import (
    choose_interface,
    default_interfaces,
)
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.service import (
    ADDRESSES_UNIT,
    CONFIG,
    DROP_IN,
    KEEP,
    LEAVE,
    RUN_CONFIG,
    RUN_DROP_IN,
    UPGRADE_UNIT,
    is_listening,
)
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.units import (
    ADDRESSES_SCRIPT,
    PREFIX_SCRIPT,
    drop_in_text,
)
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.units import (
    ADDRESSES_UNIT as ADDRESSES_UNIT_TEXT,
)
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.units import UPGRADE_UNIT as UPGRADE_UNIT_TEXT
from ansible_collections.sesame.portknock.plugins.module_utils._names.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._paths import (
    DIRECTORY,
    KNOCKD_ADDRESSES_SCRIPT,
    KNOCKD_CONFIG,
    KNOCKD_PREFIX_HELPER,
    RUN,
)
from ansible_collections.sesame.portknock.plugins.module_utils._paths import KNOCKD_UNIT as SERVICE
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import family_of

PART = "knockd"


class Details(NamedTuple):
    """What a plan of knockd holds for itself."""

    interface: str
    """The interface that it listens on, '' where it is not wanted."""
    program: str
    """Its path, '' where it is not wanted."""


def plan_daemon(host: Any, wanted: Wanted, was: Dict[str, Any]) -> PartPlan:
    """Return what has to be done.

    :param host: a Host.
    :param was: what state_of() returns.
    :raises PortknockError: if knockd cannot run here, or not as it is wanted.
    """
    interface = _choose_interface(host, wanted)
    details = Details(interface, _find_program(host, was, wanted.may_lack))
    files = _kept_files(wanted, details) if wanted.persist else None
    loads = _must_start(host, wanted, details, files, was)
    _check_hears(host, wanted, details)
    kind = host.filesystem.read(f"/sys/class/net/{interface}/type")
    plan = PartPlan(
        part=PART,
        wanted=wanted,
        loads=loads,
        files=files or {},
        findings=tuple(findings(wanted.spec, wanted.families, interface, kind)),
        before={"verb": KEEP if wanted.persist else LEAVE, "was": was} if loads else {},
        details=details,
    )
    return plan._replace(proof=_proof(host, plan))


def _choose_interface(host: Any, wanted: Wanted) -> str:
    if not host.systemd.runs():
        raise HostError(
            "engine: knockd is run by systemd, which does not run on this host. Set engine to iptables. "
            "Nothing was changed."
        )
    read = host.filesystem.read
    return choose_interface(
        wanted.spec.knockd_interface,
        host.kernel.interfaces(),
        default_interfaces(read("/proc/net/route"), read("/proc/net/ipv6_route")),
        wanted.families,
    )


def _find_program(host: Any, was: Dict[str, Any], may_lack: bool) -> str:
    command = host.command
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


def _kept_files(wanted: Wanted, details: Details) -> Files:
    """Return what is kept over a reboot."""
    files = _files_in(DIRECTORY, DROP_IN, wanted, details, KNOCKD_ADDRESSES_SCRIPT)
    files[ADDRESSES_UNIT] = (ADDRESSES_UNIT_TEXT.format(KNOCKD_ADDRESSES_SCRIPT), 0o644)
    files[UPGRADE_UNIT] = (UPGRADE_UNIT_TEXT.format(details.program), 0o644)
    files[KNOCKD_ADDRESSES_SCRIPT] = (ADDRESSES_SCRIPT, 0o755)
    return files


def _must_start(host: Any, wanted: Wanted, details: Details, files: Optional[Files], was: Dict[str, Any]) -> bool:
    if files is None:
        return _differs(host.filesystem, unconfirmed_files(wanted, details)) or not is_listening(host, RUN_CONFIG)
    unconfirmed = was["run"][RUN_DROP_IN][0] is not None
    return unconfirmed or not was["enabled"] or _differs(host.filesystem, files) or not is_listening(host, CONFIG)


def _check_hears(host: Any, wanted: Wanted, details: Details) -> None:
    connection = wanted.connection
    if connection is not None and wanted.door and not _hears(host, details, connection.address):
        raise SpecError(
            "knockd_interface",
            f"this connection needs door {wanted.door} and comes to {connection.address}, which is no address of "
            f"{details.interface}; there knockd would not hear its knock. Name the interface that has the address. "
            "Nothing was changed.",
        )


def _hears(host: Any, details: Details, address: str) -> bool:
    """Return whether knockd hears knocks at an address of this host."""
    # Check mode may come before the packages.
    if not host.command.find("ip"):
        return True
    return address.split("%", 1)[0] in host.kernel.addresses(details.interface)


def _proof(host: Any, plan: PartPlan) -> Dict[str, Any]:
    """Return the knock that a controller which needs none is to send, so that knockd is proved all the same."""
    wanted, connection = plan.wanted, plan.wanted.connection
    if connection is None or wanted.door or not plan.loads:
        return {}
    source = connection.source
    if family_of(source) not in wanted.families or not _hears(host, plan.details, connection.address):
        return {}
    door = next((door for door in wanted.spec.doors if may_knock(door, source)), None)
    if door is None:
        return {}
    prefix = wanted.spec.ipv6_prefix
    lists = {family: Lists(family, prefix).door(door) for family in wanted.families}
    return dict(lists, part=PART, door=door.name, ipv6_prefix=prefix)


def _differs(filesystem: Any, files: Files) -> bool:
    return bool(differing(files, filesystem.read, filesystem.mode))


def unconfirmed_files(wanted: Wanted, details: Details) -> Files:
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


__all__ = ("Details", "plan_daemon", "unconfirmed_files")
