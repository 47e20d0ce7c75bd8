# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of every phase share: the scenario, its host, and knocking at it."""

import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

SHARED = pathlib.Path(__file__).resolve().parent.parent
CHECKOUT = SHARED.parent.parent
HOSTS_SH = CHECKOUT / "bin" / "lib" / "hosts.sh"
EPHEMERAL = pathlib.Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
SCENARIO = pathlib.Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
HOST = "portknock-" + os.environ["MOLECULE_SCENARIO_NAME"]
"""The host, as the inventory names it."""
CLONE = os.environ.get("PORTKNOCK_CLONE", "")
NAME = f"{HOST}-{CLONE}" if CLONE else HOST
"""Its container and network, which no other clone's run has."""

COMMON_VARS = yaml.safe_load((SHARED / "group_vars" / "all.yml").read_text())
HOST_VARS = yaml.safe_load((SCENARIO / "host_vars" / f"{HOST}.yml").read_text())
NFTABLES = HOST_VARS.get("portknock_engine") == "nftables"
"""Whether it is that engine; else it is iptables."""
DOORS = {door["name"]: door for door in COMMON_VARS["portknock_doors"]}
WINDOW = 5
# Much longer than an answer takes here, much shorter than the window.
PATIENCE = 0.6
OPEN_CHAIN = re.compile(r":[A-Z]+ ACCEPT$")


def hosts_sh(*words: str) -> str:
    done = subprocess.run([HOSTS_SH, *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def snapshot() -> dict[str, Any]:
    """What snapshot.py sees on the host now."""
    done = subprocess.run(
        ["docker", "exec", "-i", NAME, "python3", "-"],
        input=(SHARED / "snapshot.py").read_text(),
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


def before() -> dict[str, Any]:
    """What it saw before the role came."""
    return json.loads((EPHEMERAL / "before.json").read_text())


def foreign(tables: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The foreign lines of each table; a table with nothing but open built-in chains counts as none."""
    kept = {name: without_own([line for line in lines if "PORTKNOCK" not in line]) for name, lines in tables.items()}
    return {name: lines for name, lines in kept.items() if any(not OPEN_CHAIN.match(line) for line in lines)}


def without_own(lines: list[str]) -> list[str]:
    """The same lines without Docker's chain for the rules of others, where nothing else is said of it: then it was made here."""
    used = any("DOCKER-USER" in line for line in lines if not line.startswith(":"))
    return [line for line in lines if used or not line.startswith(":DOCKER-USER ")]


def knock_ports() -> list[str]:
    steps = [step for door in DOORS.values() for step in door["knock"] + door.get("close", [])]
    return sorted({str(step).split("/", 1)[0] for step in steps})


def secret_pattern() -> re.Pattern[str]:
    """A knock port as a number of its own, not as a part of a process id or a random name."""
    return re.compile(r"(?<![\w.-])(?:{})(?!\w|\]:)".format("|".join(knock_ports())))


class Visitor:
    """Another machine, with one address family: this one, which is beyond the host's network card."""

    def __init__(self, address: str) -> None:
        self.address = address

    def connect(self, port: int, timeout: float = PATIENCE) -> socket.socket:
        return socket.create_connection((self.address, port), timeout=timeout)

    def finds_open(self, port: int) -> bool:
        try:
            self.connect(port).close()
        except OSError:
            return False
        return True

    def knock(self, steps: Iterable[int | str]) -> None:
        for step in steps:
            port, _slash, protocol = str(step).partition("/")
            self.send(int(port), protocol or "tcp")

    def send(self, port: int, protocol: str) -> None:
        if protocol == "tcp":
            # The first packet is the knock, whatever the answer.
            with contextlib.suppress(OSError):
                self.connect(port, timeout=0.05).close()
            return
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"knock", (self.address, port))

    def wait_until_shut(self, port: int) -> None:
        deadline = time.monotonic() + 30 * WINDOW
        while self.finds_open(port):
            assert time.monotonic() < deadline, f"port {port} is still open"
            time.sleep(0.2)


class Neighbour:
    """One more source address: a second container on the same network."""

    def __init__(self, address: str) -> None:
        self.address = address

    def finds_open(self, port: int) -> bool:
        script = f"exec 3<>/dev/tcp/{self.address}/{port}"
        done = subprocess.run(
            ["docker", "exec", f"{NAME}-neighbour", "timeout", "1", "bash", "-c", script],
            check=False,
            capture_output=True,
        )
        return done.returncode == 0


@contextlib.contextmanager
def neighbour() -> Iterator[str]:
    image = subprocess.run(
        ["docker", "inspect", "--format", "{{.Config.Image}}", NAME],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    container = f"{NAME}-neighbour"
    subprocess.run(["docker", "rm", "--force", container], check=False, capture_output=True)
    subprocess.run(
        [
            "docker",
            "run",
            "--detach",
            "--rm",
            "--name",
            container,
            "--network",
            NAME,
            "--entrypoint",
            "sleep",
            image,
            "600",
        ],
        check=True,
        capture_output=True,
    )
    try:
        yield container
    finally:
        subprocess.run(["docker", "rm", "--force", container], check=True, capture_output=True)
