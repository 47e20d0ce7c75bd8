# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's program in a directory of its own."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Optional, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._change import agent_program as _agent_program
from ansible_collections.sesame.portknock.plugins.module_utils._change.agent import Agent
from ansible_collections.sesame.portknock.plugins.module_utils._change.record import VERSION, Record
from ansible_collections.sesame.portknock.plugins.module_utils._host.command import PlainRunner
from ansible_collections.sesame.portknock.plugins.module_utils._host.host import Host, this_host
from ansible_collections.sesame.portknock.plugins.module_utils._paths import LAST

FLAGS = ["-I", "-S", "-B"]
IDENT = "0123456789abcdef"
NO_PARTS = {
    "services": {"before": {}, "expected": {}},
    "command": {"before": {}, "expected": {}},
    "table": {"before": {}, "expected": {}},
    "ruleset": {"before": {"backends": []}, "expected": {}},
    "knockd": {"before": {}, "expected": {}},
}


def record(host: Optional[Host] = None, timeout: float = 30.0, **more: Any) -> Record:
    """A change of no rules at all: only files are kept or put back."""
    values = dict(
        version=VERSION, id=IDENT, owner="me@here", begun=time.time(), boot=host.processes.boot() if host else "",
        state="applied", agent="process", deadline=(host.clock.monotonic() if host else 0.0) + timeout, module=[1, None],
        session=[], applied=0.0, parts=NO_PARTS, before={}, early=[], staged=[], gone=[], unit="", unit_was=False,
        directory_goes=False, proof={}, door="",
    )  # fmt: skip
    return Record(**dict(values, **more))


class Place:
    """A directory in the place of /run/portknock, for the program and for us."""

    def __init__(self, directory: Path) -> None:
        self.run, self.etc = str(directory), str(directory.parent / "etc")
        self.program = self.run + "/guard.zip"
        self.host = this_host(PlainRunner())
        setattr(self.host.systemd, "runs", lambda: False)  # noqa: B010
        self.agent = Agent(self.host, _agent_program.__name__)

    def own(self, text: str) -> str:
        """Return a text with the paths of a host turned to those of this place."""
        return (
            text.replace("/run/portknock", self.run)
            .replace("/etc/portknock", self.etc + "/portknock")
            .replace("/etc/systemd", self.etc + "/systemd")
        )

    def write(self, name: str, value: Any) -> None:
        self.host.filesystem.replace_files({self.path(name): (json.dumps(value), 0o600)})

    def path(self, name: str) -> str:
        """Return where a file of the program is."""
        return self.own(LAST) if name == "last.json" else "{0}/{1}".format(self.run, name)

    def read(self, name: str) -> Any:
        text = self.host.filesystem.read(self.path(name))
        return json.loads(text) if text else None

    def call(self, *words: str) -> Tuple[int, str]:
        """Run the program; return exit code and output."""
        # Python 3.6 has no capture_output.
        done = subprocess.run(  # noqa: UP022
            [sys.executable] + FLAGS + [self.program] + list(words), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL, cwd="/", env={"PATH": "/nonexistent", "PYTHONPATH": "/nonexistent"}, check=False,
        )  # fmt: skip
        assert done.stderr == b""
        return done.returncode, done.stdout.decode("utf-8")
