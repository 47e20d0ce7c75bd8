# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The target: its services, its sshd, and rulesets made by the collection's own core."""

import json
import os
import re
import selectors
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rig.lan import Namespace
from rig.packets import IPV4, IPV6

if TYPE_CHECKING:
    from rig.knockd import Knockd
    from rig.nftables import Table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
FAMILIES = (IPV4, IPV6)
COMMANDS = {IPV4: "iptables", IPV6: "ip6tables"}
TCP_SERVICES = (25, 80, 443, 2222, 2223, 3333, 8000, 8443)
UDP_SERVICES = (514, 5353)
EMPTY = "*{0}\n{1}COMMIT\n"
BUILT_IN = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "raw": ("PREROUTING", "OUTPUT"),
}
# Else every run of the module here would compile the whole collection, which takes longer than the run.
COMPILED_ONCE = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(ROOT / ".cache" / "pycache")}
# The same for the modules that Ansible sends over ssh: tests/wire/compiled.
SENT_COMPILED_ONCE = {"PYTHONPATH": str(HERE.parent / "compiled"), "WIRE_COMPILED": str(ROOT / ".cache" / "compiled")}

END_SSHD = "until [ -s $0 ]; do sleep 0.05; done; kill $(cat $0); while [ -e $0 ]; do sleep 0.05; done"


def use_collection() -> None:
    """Make ansible_collections.sesame.portknock importable from this tree, whatever else is installed."""
    for name, path in (("ansible_collections", []), (".sesame", []), (".portknock", [str(ROOT)])):
        full = "ansible_collections" + {"ansible_collections": "", ".sesame": ".sesame"}.get(name, ".sesame.portknock")
        module = types.ModuleType(full)
        module.__path__ = path
        sys.modules[full] = module


use_collection()
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import Plan, plan_family  # noqa: E402
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options  # noqa: E402


def door(
    *knock: int | str, name: str = "ssh", opens: Iterable[int | str] = ("22",), window: int = 30, **more: Any
) -> dict[str, Any]:
    """Return a door's options; the window is long unless a test is about it."""
    return dict(
        name=name, knock=[str(step) for step in knock], opens=[str(port) for port in opens], window=window, **more
    )


_EMPTY_NAT = re.compile(r"^\*nat\n(?::[A-Z]+ ACCEPT.*\n)*COMMIT\n", re.M)


def without_empty_nat(save: str) -> str:
    """Return a save without table nat, if nothing is in it: loading rules of ours makes the table, which cannot be removed."""
    return _EMPTY_NAT.sub("", save)


class Target:
    """The host whose door it is."""

    def __init__(self, namespace: Namespace, backend: str, folder: Path) -> None:
        """Make the plain iptables commands be those of the backend, and start the services."""
        self.namespace, self.backend, self.folder = namespace, backend, folder
        for command in COMMANDS.values():
            for tail in ("", "-save", "-restore"):
                path = self._binary(command, tail)
                namespace.run("ln", "-sfn", path, f"/etc/alternatives/{command}{tail}")
        self._services = Services(namespace)
        self._sshd: dict[int, tuple[str, ...]] = {}
        self.engine = "iptables"
        self.daemon: Knockd | None = None
        self.table: Table | None = None
        self.reset()

    def close(self) -> None:
        """End the services; each sshd ends with the namespace, and so does knockd."""
        self._services.close()

    def _binary(self, command: str, tail: str) -> str:
        return f"/usr/sbin/{command}-{self.backend}{tail}"

    # Rulesets

    def save(self, family: str, counters: bool = False) -> str:
        """Return what iptables-save prints."""
        return self.namespace.run(COMMANDS[family] + "-save", *(["-c"] if counters else [])).stdout

    def restore(self, family: str, text: str, *words: str) -> None:
        """Load a text for iptables-restore, by default in place of the tables that it names."""
        self.namespace.run(COMMANDS[family] + "-restore", "-w", "30", *words, stdin=text)

    def load(self, rules: str, family: str | None = None) -> None:
        """Load foreign rules: lines as iptables-save writes them, without the table's frame."""
        lines = rules.strip().splitlines()
        chains = [line for line in lines if line.startswith(":")]
        names = [
            f":{name} ACCEPT [0:0]"
            for name in BUILT_IN["filter"]
            if not any(line.startswith(f":{name} ") for line in chains)
        ]
        text = "\n".join(
            ["*filter", *names, *chains, *[line for line in lines if not line.startswith(":")], "COMMIT", ""]
        )
        for each in [family] if family else FAMILIES:
            self.restore(each, text)

    def reset(self) -> None:
        """Empty all tables of both families; the lists of recent go with the rules that name them.

        Tables of nftables are there no more, ours or not: what a test of another engine left would refuse the next one.
        """
        if self.daemon:
            self.daemon.stop()
        self.namespace.run("nft", "flush", "ruleset")
        for family in FAMILIES:
            kept = re.findall(r"^\*(\S+)", self.save(family), re.M)
            text = "".join(
                EMPTY.format(table, "".join(f":{chain} ACCEPT [0:0]\n" for chain in BUILT_IN[table]))
                for table in BUILT_IN if table in kept or table == "filter"
            )  # fmt: skip
            self.restore(family, text)

    def plan(self, family: str, **options: Any) -> Plan:
        """Return the core's Plan for the live ruleset."""
        spec = None if options.get("state") == "absent" else spec_from_options(options)
        return plan_family(self.save(family), spec, family)

    def apply(self, *doors: dict[str, Any], **options: Any) -> dict[str, Plan]:
        """Load the core's ruleset for both families; return family to Plan, nothing where the ruleset is a table of nftables."""
        if doors:
            options["doors"] = list(doors)
        if self.table:
            self.table.apply(**options)
            return {}
        options.setdefault("engine", self.engine)
        plans = {family: self.plan(family, **options) for family in FAMILIES}
        for family, plan in plans.items():
            if plan.change:
                self.restore(family, plan.change, "--noflush")
        if self.daemon:
            self.daemon.follow(None if options.get("state") == "absent" else spec_from_options(options))
        return plans

    def module(
        self, check: bool = False, expect: int = 0, env: Mapping[str, str] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Run the module knock_ruleset on the target, as Ansible would, and return its result.

        There is no controller here that could confirm a change, so the guard is off unless it is asked for.
        """
        options.setdefault("guard", False)
        if self.table:
            options.setdefault("engine", self.engine)
        arguments = dict(options, _ansible_check_mode=check, _ansible_diff=True)
        path = self.folder / "arguments.json"
        path.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
        driver = [sys.executable, str(HERE / "module.py"), str(path)]
        done = self.namespace.run(*driver, check=False, env=clean_environment(**COMPILED_ONCE, **(env or {})))
        assert done.returncode == expect, done.stdout + done.stderr
        return json.loads(done.stdout)

    def listed(self, name: str) -> set[str]:
        """Return the sources on one of recent's lists, or what takes its place."""
        if self.table:
            return self.table.listed(name)
        return set(re.findall(r"^src=(\S+)", self.namespace.read_proc("xt_recent/" + name), re.M))

    # Services

    def start_sshd(self, port: int = 22, *lines: str) -> Path:
        """Start a real sshd that takes a key made for this run, with more lines of configuration; return the key's path."""
        if self._sshd.get(port) == lines:
            return self.folder / "id"
        self.stop_sshd(port)
        if not self._sshd:
            for name in ("host", "id"):
                path = self.folder / name
                path.unlink(missing_ok=True)
                subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
            # A locked account gets no login, with a key neither; the file is the target's own copy.
            self.namespace.run("sed", "-i", "s/^root:!*:/root:*:/; s/^root:![^:]*:/root:*:/", "/etc/shadow")
        config = self.folder / f"sshd_config.{port}"
        Path(SENT_COMPILED_ONCE["WIRE_COMPILED"]).mkdir(parents=True, exist_ok=True)
        environment = " ".join(f"{name}={value}" for name, value in SENT_COMPILED_ONCE.items())
        config.write_text(
            f"Port {port}\nListenAddress 0.0.0.0\nListenAddress ::\nHostKey {self.folder}/host\n"
            f"AuthorizedKeysFile {self.folder}/id.pub\nStrictModes no\nUsePAM no\nPidFile /run/sshd-{port}.pid\n"
            "PermitRootLogin prohibit-password\nMaxStartups 100:30:200\nLoginGraceTime 20\nSubsystem sftp internal-sftp\n"
            # Where a word is there twice the first line counts: a test's own. The keys are agreed on in the way that takes least.
            + "".join(line + "\n" for line in (*lines, f"SetEnv {environment}", "KexAlgorithms curve25519-sha256"))
        )
        self._listen(port)
        self._sshd[port] = lines
        return self.folder / "id"

    def _listen(self, port: int) -> None:
        # It puts itself into the background; it lives as long as the target does.
        self.namespace.run(
            "/usr/sbin/sshd", "-E", self.folder / "sshd.log", "-f", self.folder / f"sshd_config.{port}"
        )  # fmt: skip
        self._wait_for_port(port)

    def stop_sshd(self, port: int = 22) -> None:
        """Stop listening on a port; sessions live on."""
        if self._sshd.pop(port, None) is not None:
            # It writes its number when it listens already, and takes that away when it does not any more.
            self.namespace.run("timeout", 60, "sh", "-c", END_SSHD, f"/run/sshd-{port}.pid", check=False)
            self._wait_for_port(port, listening=False)

    def _wait_for_port(self, port: int, listening: bool = True) -> None:
        """Wait until both families are as asked: sshd opens and closes them one after the other.

        On a busy machine there is time between: the next sshd would find one of them in use, and listen on the other alone.
        """
        lines = {"tcp": f":{port:04X} 00000000:0000 0A", "tcp6": f":{port:04X} {'0' * 32}:0000 0A"}
        for _turn in range(1000):
            if all((line in self.namespace.read_proc(path)) == listening for path, line in lines.items()):
                return
            threading.Event().wait(0.05)
        raise RuntimeError(f"port {port} is not as it should be: {(self.folder / 'sshd.log').read_text()}")


def clean_environment(**more: str) -> dict[str, str]:
    """Return an environment in which no ssh session of whoever runs the tests shows."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SSH_", "ANSIBLE_"))}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **more}


class Services:
    """Plain servers on the target that send back what they get, in one thread."""

    def __init__(self, namespace: Namespace) -> None:
        """Listen."""
        self._selector = selectors.DefaultSelector()
        with namespace.entered():
            for port in TCP_SERVICES:
                self._listen(port, socket.SOCK_STREAM)
            for port in UDP_SERVICES:
                self._listen(port, socket.SOCK_DGRAM)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _listen(self, port: int, kind: int) -> None:
        handle = socket.socket(socket.AF_INET6, kind)
        handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        handle.bind(("::", port))
        if kind == socket.SOCK_STREAM:
            handle.listen(512)
        handle.setblocking(False)
        self._selector.register(handle, selectors.EVENT_READ, kind)

    def _serve(self) -> None:
        while not self._ends.is_set():
            for key, _events in self._selector.select(0.2):
                try:
                    self._answer(_socket_of(key), key.data)
                except OSError:
                    self._drop(key)

    def _answer(self, handle: socket.socket, kind: int | None) -> None:
        if kind == socket.SOCK_DGRAM:
            data, source = handle.recvfrom(65535)
            handle.sendto(data, source)
        elif kind == socket.SOCK_STREAM:
            accepted, _source = handle.accept()
            accepted.setblocking(False)
            self._selector.register(accepted, selectors.EVENT_READ, None)
        elif data := handle.recv(65535):
            handle.send(data)
        else:
            raise ConnectionResetError

    def _drop(self, key: selectors.SelectorKey) -> None:
        if key.data is None:
            self._selector.unregister(key.fileobj)
            _socket_of(key).close()

    def close(self) -> None:
        """Stop serving."""
        self._ends.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            _socket_of(key).close()
        self._selector.close()


def _socket_of(key: selectors.SelectorKey) -> socket.socket:
    assert isinstance(key.fileobj, socket.socket)
    return key.fileobj
