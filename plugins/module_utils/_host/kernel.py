# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel of a host has, and its network interfaces."""

import os
from typing import TYPE_CHECKING, List, Optional, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._host.command import Command
from ansible_collections.sesame.portknock.plugins.module_utils._host.files import Filesystem
from ansible_collections.sesame.portknock.plugins.module_utils._spec.choices import IPV4, IPV6

if TYPE_CHECKING:
    from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork


class Kernel:
    """The running kernel."""

    def __init__(self, command: Command, filesystem: Filesystem) -> None:
        """Take the host's commands and files."""
        self._command, self._filesystem = command, filesystem

    def families(self) -> Tuple[str, ...]:
        """Return the IP versions that the kernel speaks."""
        return (IPV4, IPV6) if os.path.exists("/proc/net/if_inet6") else (IPV4,)

    def is_module(self, name: str) -> bool:
        """Return whether this kernel has something as a module that modprobe.d can set up."""
        modules = f"/lib/modules/{os.uname().release}"
        built_in = self._filesystem.read(f"{modules}/modules.builtin")
        return os.path.isdir(f"{modules}/kernel") and f"/{name}.ko" not in built_in

    def parameter(self, module: str, name: str) -> Optional[int]:
        """Return the value of a module's parameter, or None where the kernel does not say."""
        text = self._filesystem.read(f"/sys/module/{module}/parameters/{name}").strip()
        return int(text) if text.isdigit() else None

    def local_network(self) -> "LocalNetwork":
        """Return the addresses and routes of this host; counters of the kernel's that change all the time are not in there."""
        from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import (
            read_local_network,
        )

        return read_local_network(self._filesystem.read)

    def interfaces(self) -> List[str]:
        """Return the names of the network interfaces."""
        return sorted(os.listdir("/sys/class/net"))

    def addresses(self, interface: str) -> Set[str]:
        """Return the IP addresses of an interface, as texts."""
        text = self._command.run([self._command.find("ip") or "ip", "-o", "address", "show", "dev", interface])[1]
        return {words[3].split("/", 1)[0] for words in map(str.split, text.splitlines()) if len(words) > 3}


__all__ = ("Kernel",)
