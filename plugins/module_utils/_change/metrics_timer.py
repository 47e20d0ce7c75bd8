# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The timer that writes the metrics of a host to a directory: its units, switched on and off with a change."""

from typing import Any, Dict

from ansible_collections.sesame.portknock.plugins.module_utils._engine import ABSENT_FILE, Files, Wanted
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import (
    COMMAND,
    METRICS_FILE,
    METRICS_SERVICE,
    METRICS_TIMER,
    UNITS,
)

_SERVICE, _TIMER = f"{UNITS}/{METRICS_SERVICE}", f"{UNITS}/{METRICS_TIMER}"
_SERVICE_TEXT = """# Written by sesame.portknock; changes to this file are lost.
[Unit]
Description=Port knocking: writes metrics for node_exporter

[Service]
Type=oneshot
ExecStart={command} metrics --write {directory}
"""
_TIMER_TEXT = f"""# Written by sesame.portknock; changes to this file are lost.
[Unit]
Description=Port knocking: writes metrics each minute

[Timer]
OnActiveSec=1s
OnUnitActiveSec=60s
AccuracySec=5s
Unit={METRICS_SERVICE}
"""


def timer_files(host: Any, wanted: Wanted) -> Files:
    """Return the files of the timer as they should be.

    :raises SpecError: if the directory is not there, or nothing runs a timer.
    """
    directory = wanted.spec.metrics_directory if wanted.spec is not None else ""
    if not directory:
        return {path: ABSENT_FILE for path in (_SERVICE, _TIMER) if host.filesystem.mode(path) is not None}
    if not host.systemd.runs():
        raise SpecError(
            "metrics_directory", "needs systemd, whose timer writes the file, and this host does not run it."
        )
    if not wanted.may_lack and host.filesystem.mode(directory) is None:
        raise SpecError(
            "metrics_directory", f"{directory} is not there. Install node_exporter first, or make the directory."
        )
    return {
        _SERVICE: (_SERVICE_TEXT.format(command=COMMAND, directory=directory), 0o644),
        _TIMER: (_TIMER_TEXT, 0o644),
    }


def timer_before(host: Any, wanted: Wanted, was: str) -> Dict[str, Any]:
    """Return what keeping and undoing need of the timer; JSON.

    :param was: the directory before the change, '' for none.
    """
    now = wanted.spec.metrics_directory if wanted.spec is not None else ""
    return {"was": was, "now": now, "ran": host.systemd.is_wanted(METRICS_TIMER)}


def is_off(host: Any, wanted: Wanted) -> bool:
    """Return whether a timer that is wanted is not started at boot."""
    return bool(wanted.spec.metrics_directory) and not host.systemd.is_wanted(METRICS_TIMER)


def switch(host: Any, before: Dict[str, Any], on: bool) -> None:
    """Switch the timer on or off, and remove the file that was written to another directory.

    :raises HostError: if it cannot be switched on.
    """
    if not (before["was"] or before["now"] or before["ran"]):
        return
    systemd = host.systemd
    systemd.reload()
    if on:
        systemd.add_wants(METRICS_TIMER)
        systemd.service("restart", METRICS_TIMER)
    else:
        systemd.remove_wants(METRICS_TIMER)
        systemd.service("stop", METRICS_TIMER, must=False)
    left = [f"{each}/{METRICS_FILE}" for each in {before["was"], before["now"]} - {"", before["now"] if on else ""}]
    host.filesystem.replace_files({path: ABSENT_FILE for path in left if host.filesystem.mode(path) is not None})


__all__ = ("is_off", "switch", "timer_before", "timer_files")
