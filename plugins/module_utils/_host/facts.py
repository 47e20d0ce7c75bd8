# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What must be known of a host before anything is installed on it.

It only reads. It must not load a kernel module either: ``--check`` runs it too.
"""

import os
import re
from typing import Any, FrozenSet, NamedTuple

from ansible_collections.sesame.portknock.plugins.module_utils._host.command import Command
from ansible_collections.sesame.portknock.plugins.module_utils._host.distributions import OsRelease, parse_os_release
from ansible_collections.sesame.portknock.plugins.module_utils._host.other_firewalls import is_ufw_on
from ansible_collections.sesame.portknock.plugins.module_utils._host.systemd import STATE_PROPERTIES, parse_states
from ansible_collections.sesame.portknock.plugins.module_utils._paths import UFW_CONFIG

UNITS = ("netfilter-persistent", "iptables", "ip6tables", "firewalld", "nftables", "ufw", "knockd")
COMMANDS = ("iptables", "iptables-restore", "ip6tables-restore", "ufw", "apt-get", "dnf", "knockd", "ip", "nft")
PRESENT, MISSING, UNKNOWN = "present", "missing", "unknown"

# netfilter-persistent alone saves and loads nothing: the plugins do.
_PERSISTENT_PLUGIN = "/usr/share/netfilter-persistent/plugins.d/15-ip4tables"
_MODULES = ("xt_recent", "xt_conntrack", "nft_compat")
_UNIT_FOLDERS = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")


class Units(NamedTuple):
    """Services, by their names without the suffix."""

    present: FrozenSet[str]
    """Those that are installed."""
    active: FrozenSet[str]
    """Those that run, or are just starting."""
    enabled: FrozenSet[str]
    """Those that a boot starts."""


class HostFacts(NamedTuple):
    """What the decision about a host depends on."""

    root: bool
    """Whether these tasks run as root."""
    release: OsRelease
    """The distribution."""
    kernel: str
    """The running kernel, as ``uname -r`` prints it."""
    kernel_modules: str
    """PRESENT, MISSING, or UNKNOWN in a container, whose kernel is not its own."""
    systemd: bool
    """Whether systemd runs the services."""
    ipv6: bool
    """Whether the kernel speaks IPv6."""
    units: Units
    """Services that matter here."""
    commands: FrozenSet[str]
    """Those of COMMANDS that there are, and ``iptables-persistent`` where its plugins are installed."""
    ufw_on: bool
    """Whether ufw was switched on. Its unit is active also where it never was."""
    ufw_excludes_persistent: bool
    """Whether ufw is installed, and its package cannot be beside iptables-persistent."""

    @property
    def provided(self) -> FrozenSet[str]:
        """Whatever a package can provide: the commands, and the units with their suffix."""
        return self.commands | {f"{name}.service" for name in self.units.present}


class Machine:
    """The host's commands and files, as far as they are only read; tests put another one in its place."""

    def __init__(self, module: Any) -> None:
        """Take the AnsibleModule."""
        self._command = Command(module)

    def has_command(self, name: str) -> bool:
        """Return whether there is a command."""
        return bool(self._command.find(name))

    def output(self, name: str, *words: str) -> str:
        """Return what a command prints, '' where it fails or is not there."""
        path = self._command.find(name)
        if not path:
            return ""
        code, out, _err = self._command.run([path, *words])
        return out if code == 0 else ""

    def read(self, path: str) -> str:
        """Return the text of a file, '' where it cannot be read."""
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as stream:
                return stream.read()
        except OSError:
            return ""

    def exists(self, path: str) -> bool:
        """Return whether there is a file or directory."""
        return os.path.exists(path)

    def kernel(self) -> str:
        """Return the release of the running kernel."""
        return os.uname().release

    def is_root(self) -> bool:
        """Return whether this runs as root."""
        return os.geteuid() == 0


def read_facts(machine: Any) -> HostFacts:
    """Return the facts of a host.

    :param machine: a Machine.
    """
    systemd = machine.exists("/run/systemd/system")
    commands = {name for name in COMMANDS if machine.has_command(name)}
    if machine.exists(_PERSISTENT_PLUGIN):
        commands.add("iptables-persistent")
    return HostFacts(
        root=machine.is_root(),
        release=parse_os_release(machine.read("/etc/os-release") or machine.read("/usr/lib/os-release")),
        kernel=machine.kernel(),
        kernel_modules=_kernel_modules(machine),
        systemd=systemd,
        ipv6=machine.exists("/proc/net/if_inet6"),
        units=_units(machine) if systemd else _unit_files(machine),
        commands=frozenset(commands),
        ufw_on="ufw" in commands and is_ufw_on(machine.read(UFW_CONFIG)),
        ufw_excludes_persistent=_ufw_excludes_persistent(machine),
    )


def _units(machine: Any) -> Units:
    """Ask systemd for all units at once."""
    names = [f"{name}.service" for name in UNITS]
    states = parse_states(machine.output("systemctl", "show", *STATE_PROPERTIES, *names), UNITS)
    return Units(
        frozenset(name for name, state in states.items() if state.present or state.masked),
        frozenset(name for name, state in states.items() if state.active),
        frozenset(name for name, state in states.items() if state.enabled),
    )


def _unit_files(machine: Any) -> Units:
    """Without a running systemd only the unit files can be looked at."""
    present = {
        name for name in UNITS for folder in _UNIT_FOLDERS if machine.exists(os.path.join(folder, name + ".service"))
    }
    return Units(frozenset(present), frozenset(), frozenset())


def _ufw_excludes_persistent(machine: Any) -> bool:
    text = machine.output("dpkg-query", "-W", "-f=${db:Status-Status} ${Breaks} ${Conflicts}\\n", "ufw")
    return any(re.match(r"installed .*iptables-persistent", line) for line in text.splitlines())


def _kernel_modules(machine: Any) -> str:
    folder = f"/lib/modules/{machine.kernel()}/"
    modules = machine.read(folder + "modules.dep")
    if not modules and not machine.exists(folder + "modules.dep"):
        return UNKNOWN
    modules += machine.read(folder + "modules.builtin")
    return PRESENT if all(f"/{name}.ko" in modules for name in _MODULES) else MISSING


__all__ = ("MISSING", "PRESENT", "UNKNOWN", "HostFacts", "Machine", "Units", "read_facts")
