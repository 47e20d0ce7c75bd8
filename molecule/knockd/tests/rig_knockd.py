# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host whose knocks knockd recognises, the machine beside it that knocks, and the controller with the role."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from harness import CHECKOUT, EPHEMERAL, SHARED, hosts_sh
from rig_console import Target, soon
from rig_play import Controller, Event

KNOCK = (58391, "61427/udp", 53819)
CLOSE = [57283]
WINDOW = 3
ROLE = {
    "portknock_engine": "knockd",
    "portknock_doors": [
        {"name": "shell", "knock": list(KNOCK), "opens": ["22", "7007"], "window": WINDOW, "close": CLOSE},
    ],
    "portknock_allow": [{"port": 7008, "comment": "open to everyone"}],
    # So long that no machine, however busy, gets there before the change is confirmed.
    "portknock_guard_timeout": 300,
    "portknock_verify_wait": 5,
}
"""The role's variables, with ports that cannot be mistaken for another number in a log."""

OTHER_KNOCK = [59743, 53819, "61427/udp"]
CONFIG = "/etc/portknock/knockd.conf"
OURS = (
    CONFIG,
    "/etc/systemd/system/knockd.service.d/portknock.conf",
    "/etc/systemd/system/portknock-addresses.service",
    "/etc/systemd/system/portknock-knockd.path",
    "/usr/local/sbin/portknock-addresses",
)
IN_RUN = "/run/portknock/knockd.conf /run/systemd/system/knockd.service.d"
PATIENCE = 40
"""Seconds in which a daemon that is restarted listens again, on a machine that has other work."""

ENDS = ("ok", "failed", "unreachable")
PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
_LOOK = Path(__file__).with_name("look.yml")
_VISIT = Path(__file__).with_name("visit.py").read_text()
_LISTENS = """
    sockets=$(readlink /proc/$(systemctl show -P MainPID knockd.service)/fd/*)
    for inode in $(awk 'NR > 1 {print $9}' /proc/net/packet); do
        case $sockets in *"socket:[$inode]"*) exit 0 ;; esac
    done
    exit 1
"""
_PASSING = {"ps", "sh", "python3", "sshd-session", "sftp-server"}
_RECAP = re.compile(r"^target +: ok=\d+ +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", re.M)


def options(**changes: Any) -> dict[str, Any]:
    """Return the role's variables as the module's options, changed."""
    return {name.replace("portknock_", "", 1): value for name, value in ROLE.items() if "verify" not in name} | changes


class Machine(Target):
    """A throwaway host, and the machine beside it."""

    def __init__(self, name: str) -> None:
        """Take its name."""
        super().__init__(name, hosts_sh("host_address", name))
        # What all runs of the role against it printed.
        self.said = EPHEMERAL / f"said.{name}"

    def addresses(self) -> list[str]:
        """Return its addresses, one a family."""
        found = [hosts_sh("host_address", self.name), hosts_sh("host_address", self.name, "ipv6")]
        assert all(found), "this machine gives its containers no address of one family"
        return found

    def client_address(self) -> str:
        """Return the address of the machine beside it."""
        return hosts_sh("host_address", f"{self.name}-client")

    def reboot(self) -> None:
        """Restart it; its address may be another one then."""
        hosts_sh("host_reboot", self.name)
        self.address = hosts_sh("host_address", self.name)

    def snapshot(self) -> dict[str, Any]:
        """Return what a run may have changed: files, rules, units and programs."""
        done = subprocess.run(
            ["docker", "exec", "-i", self.name, "python3", "-"],
            input=(SHARED / "snapshot.py").read_text(), check=True, capture_output=True, text=True,
        )  # fmt: skip
        units = self.out("systemctl list-units --all --plain --no-legend --type=service,timer,path,socket")
        known = self.out("systemctl list-unit-files --no-legend --type=service,timer,path,socket").splitlines()
        return {
            **json.loads(done.stdout),
            "running": sorted(line.split()[0] for line in units.splitlines() if line.split()[3] == "running"),
            "enabled": {words[0]: words[1] for words in map(str.split, known)},
            "programs": sorted(set(self.out("ps -eo comm=").split()) - _PASSING),
        }

    def leftovers(self) -> str:
        """Return what is left of a change that ended; after a boot and after the removal there is no directory of it."""
        return self.guards() + self.out(
            "find /etc /run -xdev -name '.portknock-*' -o -name pending.json -o -path '*/portknock/pending*'"
        )

    # Knocks

    def client_finds(self, port: int, steps: Iterable[int | str] = (), address: str = "") -> str:
        """Return whether a port is ``open`` or ``shut`` to the machine beside it, and to a knock from there."""
        words = ["docker", "exec", "-i", f"{self.name}-client", "python3", "-", address or self.address, str(port)]
        done = subprocess.run(
            [*words, *map(str, steps)], input=_VISIT, check=True, capture_output=True, text=True, timeout=300
        )
        return " ".join(done.stdout.split())

    def opens_to(self, steps: Iterable[int | str] = KNOCK, port: int = 7007, address: str = "") -> bool:
        """Return whether a knock opens a port, which must be shut before."""
        found = self.client_finds(port, steps, address)
        assert found.startswith("shut "), found
        return found == "shut open"

    def shut(self, address: str = "") -> None:
        """Have the door shut to the machine beside it, and no knock begun."""
        assert soon(lambda: self.client_finds(7007, CLOSE, address) == "shut shut", 20 * WINDOW)

    # The daemon

    def shown(self, *names: str, unit: str = "knockd.service") -> dict[str, str]:
        """Return properties of a unit."""
        words = " ".join(f"--property={name}" for name in names)
        return dict(line.split("=", 1) for line in self.out(f"systemctl show {unit} {words}").splitlines())

    def main_pid(self) -> int:
        """Return the process id of knockd, 0 where it does not run."""
        return int(self.shown("MainPID")["MainPID"])

    def listens(self) -> bool:
        """Return whether knockd has the socket that it captures packets with."""
        return self.run(_LISTENS, check=False).returncode == 0

    def argv(self) -> list[str]:
        """Return the words that knockd was started with."""
        return self.out(f"tr '\\0' '\\n' </proc/{self.main_pid()}/cmdline").splitlines()

    def daemon(self) -> tuple[Any, ...]:
        """Return all that is to be the same when a change of it was undone."""
        unit = self.shown("UnitFileState", "ActiveState", "ExecStart", "DropInPaths")
        started = re.search(r"argv\[\]=(.*?) ;", unit["ExecStart"])
        assert started, unit
        unit["ExecStart"] = started[1]
        files = self.out(
            f"stat -c '%a %U %n' {' '.join(OURS)}; sha256sum {' '.join(OURS)}; find {IN_RUN} 2>/dev/null || true"
        )
        return unit, files, self.rules(), self.files()


def secrets() -> re.Pattern[str]:
    """Return what finds a step as a number of its own."""
    ports = {str(step).split("/", 1)[0] for step in [*KNOCK, *OTHER_KNOCK, *CLOSE]}
    return re.compile(r"(?<![\w.-])(?:{})(?!\w|\]:)".format("|".join(sorted(ports))))


class Played(NamedTuple):
    """A playbook that ended."""

    output: str
    events: list
    changed: int
    failed: int

    def of(self, task: str) -> dict[str, Any]:
        """Return the result of the one task of a name, or of that of a module."""
        found = [event for event in self.events if event.task.endswith(task) and event.kind != "skipped"]
        assert len(found) == 1, f"{task}: {found}\n{self.output[-9000:]}"
        return found[0].result


class Operator(Controller):
    """Who runs the role against a host, through its door; everything is printed that -vvv shows, and kept."""

    def __init__(self, machine: Machine, **variables: Any) -> None:
        """Come to a machine by knocking, with more variables, which win."""
        self._said = machine.said
        super().__init__(machine.address, ansible_connection="sesame.portknock.knock_ssh", **{**ROLE, **variables})

    def play(self, playbook: str | Path, *words: str) -> Played:
        """Run a playbook to its end, well or not."""
        folder = self._folder / f"{Path(playbook).stem}.{time.monotonic_ns()}"
        folder.mkdir()
        (folder / "inventory.json").write_text(json.dumps({"all": {"hosts": {"target": self.variables}}}))
        done = subprocess.run(
            [PLAYBOOK, "-i", folder / "inventory.json", CHECKOUT / "playbooks" / playbook, *words],
            cwd=folder, env=self._environment(folder), check=False, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1200,
        )  # fmt: skip
        self._keep(done.stdout)
        recap = _RECAP.search(done.stdout)
        assert recap, done.stdout[-9000:]
        events = [Event(**json.loads(line)) for line in (folder / "events").read_text().splitlines()]
        return Played(
            done.stdout, [each for each in events if each.kind in ENDS], int(recap[1]), int(recap[2]) + int(recap[3])
        )

    def doors(self) -> dict[str, Any]:
        """Return what knock_ruleset_info tells."""
        return self.play(_LOOK).of("Ask the host")

    def come_in(self) -> None:
        """Make a master of ssh, so that the next run gets in whatever becomes of its knocks."""
        self.play(_LOOK)

    def knock_elsewhere(self, address: str) -> None:
        """Have all knocks from now on go to another machine, as if none came through."""
        self.variables["ansible_knock_host"] = address

    def close(self) -> None:
        """Keep what the runs printed, and end what is left of them."""
        for run in self._runs:
            self._keep(run.output)
        super().close()

    def _keep(self, text: str) -> None:
        with open(self._said, "a", encoding="utf-8") as handle:
            handle.write(text)

    def _environment(self, folder: Path) -> dict[str, str]:
        return {**super()._environment(folder), "ANSIBLE_VERBOSITY": "3", "ANSIBLE_DIFF_ALWAYS": "1"}
