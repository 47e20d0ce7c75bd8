# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The real knockd on the target, with the configuration that the collection writes; there is no systemd here."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rig.lan import Namespace
from rig.peer import Peer
from rig.target import FAMILIES, use_collection

use_collection()
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.config import config_text  # noqa: E402
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.service import is_needed  # noqa: E402
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.units import PREFIX_SCRIPT  # noqa: E402
from ansible_collections.sesame.portknock.plugins.module_utils._paths import KNOCKD_PREFIX_HELPER  # noqa: E402
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import ENGINES, KERNEL, KNOCKD, Spec  # noqa: E402

INTERFACE = "eth0"
PATIENCE = 200
STRANGER = "192.0.2.1"
"""The source of the packets that tell how far knockd is: no test knocks from there, and no refusal goes there. Refusals to an
address that is on the wire and never answers wait in the kernel, until it sends none to anyone."""
_TRAP = re.compile(r"^\[decoy 1\]\nsequence = [^,]+,(\d+):(\w+)", re.M)
WRONG = 6543
"""A port that nothing uses and that is no trap."""


class Knockd:
    """The daemon in a namespace: started, ended, and asked whether it has done all that was sent to it."""

    def __init__(self, namespace: Namespace, folder: Path, program: str = "/usr/sbin/knockd") -> None:
        """Take the namespace and a folder for its files."""
        self._namespace, self._folder, self._program = namespace, folder, program
        self._text, self._log = "", folder / "knockd.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.pid = 0
        self.talks = True
        """Whether it says each packet that it sees, which settle() needs and a measurement does not want."""

    @property
    def running(self) -> bool:
        """Whether there is a daemon."""
        return self._process is not None

    def follow(self, spec: Spec | None) -> None:
        """Run with what a Spec says, or not at all."""
        if spec is None or spec.engine != KNOCKD or not is_needed(spec):
            self.stop()
            return
        text = config_text(spec, FAMILIES, INTERFACE, str(self._folder))
        if text != self._text or not self.running:
            self.stop()
            self._text = text
            self.start()

    def start(self) -> None:
        """Start it, and wait until it captures packets."""
        self._write()
        words = [self._program, "-v", *(["-D"] if self.talks else []), "-c", self._folder / "knockd.conf"]
        with open(self._log, "wb") as log:
            self._process = self._namespace.start(*words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._wait("does not listen", lambda: "listening on" in self._said())
        # It is the child of nsenter where that entered a namespace of processes.
        self.pid = (children(self._process.pid) or [self._process.pid])[0]

    def _write(self) -> None:
        config = self._folder / "knockd.conf"
        config.touch(mode=0o600)
        config.write_text(self._text)
        (self._folder / KNOCKD_PREFIX_HELPER).write_text(PREFIX_SCRIPT)

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> None:
        """End it."""
        if self._process:
            os.kill(self.pid, sign)
            self._process.wait(PATIENCE)
            self._process, self.pid = None, 0

    @property
    def breaker(self) -> int | str:
        """A port whose packet breaks an attempt and never begins one."""
        found = _TRAP.search(self._text)
        assert found, "this configuration has no trap"
        port, protocol = found.groups()
        return int(port) if protocol == "tcp" else f"{port}/{protocol}"

    @property
    def ports(self) -> list[tuple[str, ...]]:
        """All (port, protocol) that it looks at."""
        sequences = re.findall(r"^sequence = (\S+)$", self._text, re.M)
        return sorted({tuple(step.split(":")) for each in sequences for step in each.split(",")})

    def settle(self, peer: Peer) -> None:
        """Wait until it has seen what was sent before, and its commands have ended.

        A packet of a stranger to a port that begins nothing is behind all the others.
        """
        if not self.running or not self.talks:
            return
        sport = peer.fresh_port()
        mark = f": {STRANGER}:{sport} -> "
        peer.send_step(self.breaker, source=STRANGER, sport=sport)
        self._wait("does not get so far", lambda: mark in self._said())
        self._wait("has commands that do not end", lambda: not children(self.pid))

    def _said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _wait(self, problem: str, done: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not done():
            if not self._process or self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"knockd {problem}: {self._said()[-2000:]}")
            threading.Event().wait(0.005)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as stream:
        return [int(word) for word in stream.read().split()]


__all__ = ("ENGINES", "KERNEL", "KNOCKD", "WRONG", "Knockd")
