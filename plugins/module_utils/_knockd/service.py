# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""knockd.service on a host: how it is, whether it listens, and its files in /run."""

from typing import Any, Dict

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Files
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import (
    DIRECTORY,
    KNOCKD_ADDRESSES_SCRIPT,
    KNOCKD_ADDRESSES_UNIT,
    KNOCKD_CONFIG,
    KNOCKD_PREFIX_HELPER,
    KNOCKD_UPGRADE_UNIT,
    RUN,
    RUN_UNITS,
    UNITS,
)
from ansible_collections.sesame.portknock.plugins.module_utils._paths import KNOCKD_UNIT as SERVICE

CONFIG = f"{DIRECTORY}/{KNOCKD_CONFIG}"
PREFIX = f"{DIRECTORY}/{KNOCKD_PREFIX_HELPER}"
DROP_IN_DIRECTORY = f"{UNITS}/{SERVICE}.d"
DROP_IN = f"{DROP_IN_DIRECTORY}/portknock.conf"

ADDRESSES_UNIT = f"{UNITS}/{KNOCKD_ADDRESSES_UNIT}"
UPGRADE_UNIT = f"{UNITS}/{KNOCKD_UPGRADE_UNIT}"
KEPT = (CONFIG, PREFIX, DROP_IN, ADDRESSES_UNIT, UPGRADE_UNIT, KNOCKD_ADDRESSES_SCRIPT)
"""Its files that outlive a boot."""

RUN_CONFIG = f"{RUN}/{KNOCKD_CONFIG}"
RUN_PREFIX = f"{RUN}/{KNOCKD_PREFIX_HELPER}"
RUN_DROP_IN_DIRECTORY = f"{RUN_UNITS}/{SERVICE}.d"
RUN_DROP_IN = f"{RUN_DROP_IN_DIRECTORY}/portknock.unconfirmed.conf"
"""By its name it comes after DROP_IN, and so does what it says."""
IN_RUN = (RUN_CONFIG, RUN_PREFIX, RUN_DROP_IN)
KEEP, LEAVE, REMOVE = "keep", "leave", "remove"
"""What is done with knockd once a change is to stay; LEAVE: it runs until the next boot."""
_LISTEN_SECONDS = 5


def is_needed(spec: Any) -> bool:
    """Return whether a Spec (None: none) needs knockd to run: without doors there is nothing to hear."""
    return spec is not None and bool(spec.doors)


def state_of(host: Any, matters: bool) -> Dict[str, Any]:
    """Return how knockd is, as JSON: ``ours``, whether its files are there; ``enabled``, ``runs``: the unit; ``run``: path
    to [text, mode] of its files in /run.

    :param matters: whether to ask systemd even where they are not.
    """
    filesystem = host.filesystem
    run = {path: [filesystem.read(path) or None, filesystem.mode(path)] for path in IN_RUN}
    ours = any(filesystem.mode(path) is not None for path in (DROP_IN, RUN_DROP_IN, CONFIG))
    runs = (ours or matters) and host.systemd.main_process(SERVICE) is not None
    return dict(enabled=host.systemd.is_wanted(SERVICE), runs=runs, ours=ours, run=run)


def is_listening(host: Any, config: str = "") -> bool:
    """Return whether knockd runs and captures packets.

    :param config: the configuration that it must run with, if it matters: there may be drop-ins that others wrote.
    """
    pid = host.systemd.main_process(SERVICE)
    return host.processes.captures_packets(pid) and (not config or config in host.processes.words_of(pid))


def restart(host: Any, config: str) -> None:
    """Start knockd anew with a configuration, and wait until it listens.

    :raises HostError: if it does not.
    """
    host.systemd.service("reset-failed", SERVICE, must=False)
    host.systemd.service("restart", SERVICE)
    end = host.clock.monotonic() + _LISTEN_SECONDS
    while not is_listening(host, config):
        if host.clock.monotonic() >= end:
            raise HostError(
                f"engine: {_LISTEN_SECONDS} s after its start knockd does not listen, with {config}. 'journalctl -u knockd' on "
                "the host tells why, or 'systemctl cat knockd', if something there overrides how it is started."
            )
        host.clock.sleep(0.02)


def replace_in_run(host: Any, files: Files) -> None:
    """Replace its files in /run, and have systemd read its units again."""
    host.filesystem.replace_files(files)
    host.filesystem.remove_if_empty(RUN_DROP_IN_DIRECTORY)
    host.systemd.reload()


__all__ = (
    "ADDRESSES_UNIT",
    "CONFIG",
    "DROP_IN",
    "DROP_IN_DIRECTORY",
    "IN_RUN",
    "KEEP",
    "KEPT",
    "LEAVE",
    "PREFIX",
    "REMOVE",
    "RUN_CONFIG",
    "RUN_DROP_IN",
    "RUN_PREFIX",
    "UPGRADE_UNIT",
    "is_listening",
    "is_needed",
    "replace_in_run",
    "restart",
    "state_of",
)
