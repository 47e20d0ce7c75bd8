# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host: its parts together, each of which does one kind of small thing and can be replaced by a test."""

from typing import TYPE_CHECKING, Any, Callable, Dict, NamedTuple

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.clock import Clock
from ansible_collections.sesame.portknock.plugins.module_utils._host.command import Command
from ansible_collections.sesame.portknock.plugins.module_utils._host.files import Filesystem
from ansible_collections.sesame.portknock.plugins.module_utils._host.kernel import Kernel
from ansible_collections.sesame.portknock.plugins.module_utils._host.lock import Lock
from ansible_collections.sesame.portknock.plugins.module_utils._host.marks import Marks
from ansible_collections.sesame.portknock.plugins.module_utils._host.nftables import Nftables
from ansible_collections.sesame.portknock.plugins.module_utils._host.processes import Processes

if TYPE_CHECKING:
    from ansible_collections.sesame.portknock.plugins.module_utils._host.conntrack import Conntrack
    from ansible_collections.sesame.portknock.plugins.module_utils._host.protocols import Protocols
    from ansible_collections.sesame.portknock.plugins.module_utils._host.recent_lists import RecentLists
    from ansible_collections.sesame.portknock.plugins.module_utils._host.sockets import Sockets
    from ansible_collections.sesame.portknock.plugins.module_utils._host.systemd import Systemd

SELDOM = ("conntrack", "protocols", "recent_lists", "sockets", "systemd")
"""Parts that a run which changes nothing does not ask: seldom_parts() has them."""


class Host(NamedTuple):
    """The parts of a host; whoever is given a Host uses those that it names."""

    command: Command
    """Commands."""
    filesystem: Filesystem
    """Files."""
    lock: Lock
    """The lock that keeps runs apart."""
    processes: Processes
    """Processes, and the ssh session."""
    clock: Clock
    """Time."""
    systemd: "Systemd"
    """Units."""
    kernel: Kernel
    """The running kernel and its interfaces."""
    recent_lists: "RecentLists"
    """Who has knocked, as xt_recent remembers it."""
    conntrack: "Conntrack"
    """The connections that the kernel tracks."""
    sockets: "Sockets"
    """Who listens."""
    nftables: Nftables
    """What the kernel holds in nftables."""
    protocols: "Protocols"
    """IP protocols without ports that are in use."""
    marks: Marks
    """What tells at little cost that all of that is as it was."""


class _Later:
    """A part that is imported when something is asked of it: most runs change nothing, and ask few parts."""

    def __init__(self, name: str, parts: Callable[[], Dict[str, Any]]) -> None:
        self._name, self._parts = name, parts

    def __getattr__(self, method: str) -> Any:
        return getattr(self._parts()[self._name], method)


def this_host(module: Any) -> Host:
    """Return the Host that this process runs on.

    :param module: an AnsibleModule, or a PlainRunner where Ansible does not run.
    """
    command, filesystem = Command(module), Filesystem(module)
    kernel = Kernel(command, filesystem)
    made: Dict[str, Any] = {}

    def seldom() -> Dict[str, Any]:
        if not made:
            from ansible_collections.sesame.portknock.plugins.module_utils._host.seldom import seldom_parts

            made.update(seldom_parts(command, filesystem, kernel))
        return made

    later: Dict[str, Any] = {name: _Later(name, seldom) for name in SELDOM}
    return Host(
        command=command,
        filesystem=filesystem,
        lock=Lock(),
        processes=Processes(filesystem),
        clock=Clock(),
        kernel=kernel,
        nftables=Nftables(),
        marks=Marks(filesystem),
        **later,
    )


def require_root(host: Any, unchanged: str = "") -> None:
    """Refuse to go on as another user than root, before anything is looked at.

    :param unchanged: a sentence for the end of the message.
    :raises HostError: if this is another user.
    """
    if not host.processes.is_root():
        raise HostError(f"this needs root. Set become: true for the play or the task, or log in as root.{unchanged}")


__all__ = ("Host", "require_root", "this_host")
