# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The masters of the connections to a host behind a door."""

from pathlib import Path

from rig.controller import Controller


def sockets(controller: Controller) -> list[Path]:
    """Return the control sockets."""
    return [path for path in (controller.folder / "cp").iterdir() if path.is_socket()]


def master_pids(controller: Controller) -> list[int]:
    """Return the processes of its control masters, and of no other controller that this machine runs beside it."""
    found = controller.namespace.run("pgrep", "-f", f"^ssh: {controller.folder}/cp/.*mux").stdout.split()
    return [int(pid) for pid in found]


def end_masters(controller: Controller) -> None:
    """End them."""
    for path in sockets(controller):
        controller.namespace.run("ssh", "-F", "/dev/null", "-O", "exit", "-o", f"ControlPath={path}", "x", check=False)
