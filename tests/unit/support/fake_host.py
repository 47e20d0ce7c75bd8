# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host in memory, with the parts of _host.host.Host in one: two rulesets, some files, systemd that remembers."""

import contextlib
import copy
import re
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple, Type

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.conntrack import Flow
from ansible_collections.sesame.portknock.plugins.module_utils._host.protocols import InUse
from ansible_collections.sesame.portknock.plugins.module_utils._host.sockets import Carrier
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter import local_network
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_kernel import KernelRule
from ansible_collections.sesame.portknock.plugins.module_utils._paths import SPARE
from fake_iptables import FakeIptables, Refused, without_empty_nat
from fake_kernel import (
    ROUTE,
    ROUTE6,
    FakeConntrack,
    FakeFolders,
    FakeLists,
    FakeMarks,
    FakeNftables,
    FakeProtocols,
    FakeSockets,
)
from fake_nft import FakeNft
from fake_services import FakeServices
from fake_systemd import ENABLED, KNOCKD, LOADERS, FakeLock, FakeSystemd

DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n'
EL = 'NAME="Rocky Linux"\nVERSION="9.4 (Blue Onyx)"\nID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n'
TOOLS = tuple(family + tail for family in ("iptables", "ip6tables") for tail in ("", "-save", "-restore"))


Output = Tuple[int, str, str]
"""What became of a command: exit code, output, errors."""


def counted(save: str) -> str:
    """Return a save as ``iptables-save -c`` prints it."""
    return re.sub("^-A", "[0:0] -A", save, flags=re.M)


class Killed(BaseException):
    """The process that used the host is no more: nothing it would still do has any effect."""


def is_of_a_change(path: str) -> bool:
    """Return whether a file is of a pending change alone, and no part of what the change is about."""
    return path.startswith(("/run/", SPARE + "/"))


def knockd_host(kind: Optional[Type["FakeHost"]] = None, **more: Any) -> "FakeHost":
    """Return a FakeHost, or a kind of it, with systemd, knockd installed, and its package's unit at rest."""
    host = (kind or FakeHost)(**more)
    host.runs_systemd = True
    host.tools |= {"knockd", "ip"}
    return host


class FakeHost(FakeFolders, FakeServices):
    """Set the attributes to what the host is like; what was done to it is in ``done``."""

    def __init__(
        self, os_release: str = DEBIAN, files: Optional[Dict[str, Tuple[Any, int]]] = None, v4: str = "", v6: str = ""
    ) -> None:
        self.rules = {"iptables": FakeIptables(v4), "ip6tables": FakeIptables(v6)}
        self.tools = set(TOOLS) | {"systemctl"}
        self.files = {"/etc/os-release": (os_release, 0o644)}
        self.files.update(files or {})
        self.version = "iptables v1.8.9 (nf_tables)\n"
        self.other_backend: Dict[str, str] = {}
        self.refuse: Optional[Callable[[str, Sequence[str], str], Optional[Output]]] = None
        self.spell: Optional[Callable[[str], str]] = None
        self.speaks = ("ipv4", "ipv6")
        self.ssh: Optional[str] = None
        self.size, self.module = 4096, False
        self.units = dict.fromkeys(LOADERS, ENABLED)
        self.services_rules: Dict[str, str] = {}
        self.unit, self.unit_refuses, self.frozen = False, False, False
        self.disk_full: Optional[str] = None
        self.settle_refuses: Optional[str] = None
        self.done: List[Tuple[Any, ...]] = []
        self.commands: List[Tuple[str, ...]] = []
        self.staged: Dict[str, Tuple[Any, int]] = {}
        self.now, self.booted = 1000.0, "one"
        self.started: Dict[Optional[int], float] = {}
        self.tracking, self.root = "tracked", True
        self.untracked: Set[str] = set()
        self.connected: List[Flow] = []
        self.adopted: List[Flow] = []
        self.forgotten: List[Tuple[str, str]] = []
        self.runs_systemd, self.dead, self.steps = False, False, 0
        self.failing_commands: Dict[str, int] = {}
        # Commands that were there and are not any more, as where their package was removed.
        self.lost: Set[str] = set()
        self.dies_at: Optional[int] = None
        self.recent: Dict[str, str] = {}
        self.knockd_version = "knockd 0.8\nCopyright (C) 2004-2012 Judd Vinet <jvinet@zeroflux.org>\n"
        self.wants: Set[str] = set()
        self.drop_ins: Dict[str, str] = {}
        self.daemon: Optional[Dict[str, Any]] = None
        self.service_refuses: Optional[str] = None
        self.daemon_dies, self.slow_start = False, 0.0
        self.addresses_of = {"lo": {"127.0.0.1", "::1"}, "eth0": {"192.0.2.1", "2001:db8::1"}}
        # [protocol, address, port, inode] to the process that has it, and interface to the sockets of a tunnel
        self.listens: Dict[Tuple[str, str, int, int], str] = {}
        self.services: Set[str] = set()
        self.tunnels: Dict[str, List[int]] = {}
        self.carriers: Dict[str, Carrier] = {}
        self.protocols_in_use: List[InUse] = []
        # Family, as nft names it, to the rules that the kernel holds, and all chains as nft lists them
        self.held: Dict[str, List[KernelRule]] = {}
        self.dormant: Set[str] = set()
        self.owned: Set[str] = set()
        self.chains: Optional[List[Dict[str, Any]]] = []
        self.nft = FakeNft()
        self.nft.now = lambda: self.now
        self.kernel_files = {
            "/proc/net/route": ROUTE,
            "/proc/net/ipv6_route": ROUTE6,
            "/sys/class/net/eth0/type": "1\n",
            "/sys/class/net/lo/type": "772\n",
        }

    command = property(lambda self: self)
    filesystem = property(lambda self: self)
    processes = property(lambda self: self)
    clock = property(lambda self: self)
    kernel = property(lambda self: self)
    sockets = property(FakeSockets)
    nftables = property(FakeNftables)
    marks = property(FakeMarks)
    conntrack = property(FakeConntrack)
    protocols = property(FakeProtocols)

    @property
    def lock(self) -> FakeLock:
        return FakeLock(self)

    @property
    def systemd(self) -> FakeSystemd:
        return FakeSystemd(self)

    @property
    def recent_lists(self) -> FakeLists:
        return FakeLists(self)

    def _step(self) -> None:
        """Count what leaves a trace on the host; the process dies in front of the step ``dies_at``."""
        self._alive()
        if self.dies_at is not None and self.steps >= self.dies_at:
            self.dead = True
            raise Killed
        self.steps += 1

    def _alive(self) -> None:
        if self.dead:
            raise Killed

    def next_process(self, dies_at: Optional[int] = None) -> None:
        """Go on as another process, which may die as well."""
        self.dead, self.steps, self.dies_at = False, 0, dies_at

    def reboot(self) -> None:
        """Start anew: /run is empty, and the rules are those of the files, as their service loads them."""
        self.next_process()
        self.booted, self.now = self.booted + "+", self.now + 60
        self.files = {path: value for path, value in self.files.items() if not path.startswith("/run/")}
        self.staged = {path: value for path, value in self.staged.items() if not path.startswith("/run/")}
        for family, path in (("iptables", "/etc/iptables/rules.v4"), ("ip6tables", "/etc/iptables/rules.v6")):
            self.rules[family] = FakeIptables(self.read(path))
        self.recent, self.drop_ins, self.daemon = {}, {}, None
        self.nft.forget_all()
        if self.unit and "/etc/portknock/table.nft" in self.files:
            self.nft.run(["nft", "-f", "-"], self.files["/etc/portknock/table.nft"][0])
        if self.runs_systemd:
            self._reload()
            if KNOCKD in self.wants:
                self._start()

    def _change(self, *what: Any) -> None:
        self._step()
        assert not self.frozen, "changed what was not to be changed: {0}".format(what)
        self.done.append(what)

    def state(self) -> Tuple[Any, ...]:
        """What must be as before after a failure; what is in /run is of no account."""
        files = {path: value for path, value in self.files.items() if not is_of_a_change(path)}
        return copy.deepcopy(
            (
                *(without_empty_nat(self.rules[name].save()) for name in ("iptables", "ip6tables")),
                files,
                self.unit,
                self.knockd(),
                self.nft.state(),
            )
        )

    def writes(self) -> List[Tuple[Any, ...]]:
        """What was written to where it lasts, or loaded."""
        return [
            what
            for what in self.done
            if what[0] in ("restore", "load") or (what[0] == "write" and not is_of_a_change(what[1]))
        ]

    # What Iptables asks for

    def find(self, name: str) -> Optional[str]:
        return "/usr/sbin/" + name if name in self.tools else None

    def run(self, words: Sequence[str], data: str = "") -> Output:
        self._alive()
        self.commands.append(tuple(words))
        command = words[0].rsplit("/", 1)[1]
        if command in self.lost:
            return 127, "", f"{command}: not found\n"
        assert command in self.tools, command
        if command in ("systemctl", "systemd-run"):
            return self._systemd(command)
        if command == "nft":
            return self._nft_command(words, data)
        if words[1:] == ["-V"] and command == "knockd":
            return 0, self.knockd_version, ""
        if words[1:] == ["-V"]:
            return 0, self.version, ""
        if command in self.other_backend:
            return 0, counted(self.other_backend[command]) if "-c" in words else self.other_backend[command], ""
        if command.endswith("-save"):
            text = self.rules[command[:-5]].save()
            text = self.spell(text) if self.spell else text
            return 0, counted(text) if "-c" in words else text, ""
        return self._restore(command, words[1:], data)

    def _nft_command(self, words: Sequence[str], data: str) -> Output:
        answer = self.refuse("nft", words, data) if self.refuse else None
        if not answer and "-f" in words and "-c" not in words:
            self._change("load", "nft")
        return answer or self.nft.run(words, data)

    def _restore(self, command: str, words: Sequence[str], data: str) -> Output:
        assert words[:2] == ["-w", "30"], words
        noflush = "--noflush" in words
        if self.refuse:
            answer = self.refuse(command, words, data)
            if answer:
                return answer
        test = "--test" in words
        if not test and "PORTKNOCK_PROBE" not in data:
            self._change("restore", command)
        try:
            self.rules[command[:-8]].restore(data, noflush=noflush, test=test)
        except Refused as error:
            return 2, "", str(error) + "\n"
        return 0, "", ""

    def _systemd(self, command: str) -> Output:
        """Fail as often as ``failing_commands`` says, then work."""
        self._step()
        left = self.failing_commands.get(command, 0)
        self.failing_commands[command] = max(0, left - 1)
        return (1, "", command + " failed") if left else (0, "", "")

    def read(self, path: str) -> str:
        self._alive()
        text = self.files.get(path, (self.kernel_files.get(path, ""), None))[0]
        if isinstance(text, Exception):
            raise text
        return text

    # The rest of Host

    def mode(self, path: str) -> Optional[int]:
        found = self.files.get(path) or self.staged.get(path)
        return found[1] if found else None

    def families(self) -> Tuple[str, ...]:
        return self.speaks

    def ssh_connection(self) -> Optional[List[str]]:
        return self.ssh.split() if self.ssh else None

    def session(self) -> Tuple[Optional[List[str]], Optional[float]]:
        return (self.ssh_connection(), self.now) if self.ssh else (None, None)

    def start_of(self, pid: Optional[int]) -> Optional[float]:
        return self.started.get(pid)

    def is_root(self) -> bool:
        return self.root

    def monotonic(self) -> float:
        return self.now

    def since_boot(self) -> float:
        return self.now

    def boot(self) -> str:
        return self.booted

    def replace_files(self, files: Dict[str, Tuple[Optional[str], int]]) -> None:
        self.settle(self.stage(files), [path for path, (text, _mode) in files.items() if text is None])

    def replace_bytes(self, path: str, data: bytes) -> None:
        self.replace_files({path: (repr(data), 0o600)})

    def stage(self, files: Dict[str, Tuple[Optional[str], int]]) -> List[List[str]]:
        if self.disk_full and files.get(self.disk_full, (None, 0))[0] is not None:
            raise HostError("{0} cannot be written: No space left on device. Nothing was kept.".format(self.disk_full))
        staged = []
        for path, (text, mode) in sorted(files.items()):
            if text is not None:
                self._step()
                temporary = "{0}/.portknock-{1}".format(path.rpartition("/")[0], path.rpartition("/")[2])
                self.staged[temporary] = (text, mode)
                staged.append([temporary, path])
        return staged

    def settle(self, staged: List[List[str]], gone: Sequence[str] = ()) -> None:
        for temporary, path in staged:
            if temporary in self.staged:
                if self.settle_refuses == path:
                    raise HostError("{0} cannot be replaced: No space left on device.".format(path))
                self._change("write", path)
                self.files[path] = self.staged.pop(temporary)
        for path in gone:
            self._change("remove", path)
            self.files.pop(path, None)

    def discard(self, staged: List[List[str]]) -> None:
        self._alive()
        for temporary, _path in staged:
            self.staged.pop(temporary, None)

    def discard_leftovers(self, directories: Iterable[str]) -> None:
        for temporary in list(self.staged):
            if temporary.rpartition("/")[0] in directories:
                del self.staged[temporary]

    def remove_directory(self, path: str) -> None:
        self._change("rmdir", path)
        self.files = {name: value for name, value in self.files.items() if not name.startswith(path + "/")}

    def parameter(self, module: str, name: str) -> int:
        assert (module, name) == ("xt_recent", "ip_list_tot")
        return self.size

    def local_network(self) -> local_network.LocalNetwork:
        return local_network.read_local_network(self.read)

    def is_module(self, name: str) -> bool:
        assert name == "xt_recent"
        return self.module

    def hide_lists(self) -> None:
        self._change("hide_lists")

    def interfaces(self) -> List[str]:
        return sorted(self.addresses_of)

    def addresses(self, interface: str) -> Set[str]:
        return self.addresses_of[interface]

    def remove_if_empty(self, directory: str) -> None:  # noqa: ARG002
        self._step()

    @contextlib.contextmanager
    def hold_lock(self, seconds: float) -> Iterator[None]:  # noqa: ARG002
        yield

    def lock_holder(self) -> Optional[int]:
        return None

    def sleep(self, seconds: float) -> None:
        self._alive()
        self.now += seconds
