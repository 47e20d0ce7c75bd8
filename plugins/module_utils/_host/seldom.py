# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parts of a host that a run which changes nothing does not ask. They are imported together, when the first one is asked."""

from typing import Any, Dict

from ansible_collections.sesame.portknock.plugins.module_utils._host.command import Command
from ansible_collections.sesame.portknock.plugins.module_utils._host.conntrack import Conntrack
from ansible_collections.sesame.portknock.plugins.module_utils._host.files import Filesystem
from ansible_collections.sesame.portknock.plugins.module_utils._host.kernel import Kernel
from ansible_collections.sesame.portknock.plugins.module_utils._host.protocols import Protocols
from ansible_collections.sesame.portknock.plugins.module_utils._host.recent_lists import RecentLists
from ansible_collections.sesame.portknock.plugins.module_utils._host.sockets import Sockets
from ansible_collections.sesame.portknock.plugins.module_utils._host.systemd import Systemd


def seldom_parts(command: Command, filesystem: Filesystem, kernel: Kernel) -> Dict[str, Any]:
    """Return these parts by their names in Host, made of those that every run has."""
    sockets = Sockets(command, filesystem)
    return dict(
        conntrack=Conntrack(filesystem),
        protocols=Protocols(command, filesystem, kernel, sockets),
        recent_lists=RecentLists(filesystem),
        sockets=sockets,
        systemd=Systemd(command, filesystem),
    )


__all__ = ("seldom_parts",)
