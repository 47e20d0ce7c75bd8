# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tasks over real ssh: a task that changes nothing against a ping, a first apply against single tasks."""

import contextlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from bench_lan import BenchError, Lan, inside, run
from bench_ruleset import collections_path, remove_collections_path
from bench_series import Table, ratios, rounds

GOAL_NOOP, GOAL_FIRST = 1.2, 1 / 3
HERE = os.path.dirname(os.path.abspath(__file__))

CELL = """set -eu
work=$1
mount -t tmpfs -o mode=0755 tmpfs "$work/cell"
cp -a /etc "$work/cell/etc"
cp -a /usr/local/sbin "$work/cell/sbin"
mkdir "$work/cell/share"
sed -i 's/^root:[^:]*:/root:*:/' "$work/cell/etc/shadow"
mkdir -p -m 0700 "$work/cell/root/.ssh"
cp "$work/key.pub" "$work/cell/root/.ssh/authorized_keys"
mkdir -p "$work/cell/run/sshd"
cp "$work/host_key" "$work/sshd_config" "$work/cell/run/"
mount --bind "$work/cell/etc" /etc
mount --bind "$work/cell/sbin" /usr/local/sbin
mount --bind "$work/cell/share" /usr/local/share
mount --bind "$work/cell/root" /root
mount --bind "$work/cell/run" /run
exec "$(command -v sshd)" -D -e -f /run/sshd_config
"""
"""A host of its own for sshd: what is written to /etc and the like stays in its mount namespace."""

SSHD_CONFIG = """Port 22
Port 2222
ListenAddress {0}
HostKey /run/host_key
PidFile none
UsePAM no
UseDNS no
PermitRootLogin prohibit-password
PrintMotd no
SetEnv PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
Subsystem sftp internal-sftp
"""

RESET = """set -eu
for command in iptables ip6tables; do
    "$command" -F
    "$command" -X
done
rm -rf /etc/iptables /etc/sysconfig/iptables /etc/sysconfig/ip6tables /etc/portknock /usr/local/sbin/portknock* \\
    /usr/local/share/bash-completion/completions/portknock /usr/local/share/man/man8/portknock.8 \\
    /etc/systemd/system/portknock.service /etc/systemd/system/*/portknock.service /etc/modprobe.d/portknock.conf
mkdir -p /etc/iptables
"""

MODULE = "sesame.portknock.knock_ruleset"
Task = dict[str, Any]
Timed = tuple[str, float, bool]
"""A task on a host: its name, its seconds, whether it changed something."""
ARTICLE = {"doors": [{"name": "ssh", "knock": ["1000"], "opens": ["22"], "window": 15}]}


class Cell:
    """An sshd in a network namespace, with a part of the file system that is its own."""

    def __init__(self, work: str, namespace: str, address: str, key: str) -> None:
        """Take a directory for itself, and the public key that it lets in."""
        self._work, self.namespace, self.address, self._key = work, namespace, address, key
        self._sshd: subprocess.Popen[bytes] | None = None

    def _path(self, name: str) -> str:
        return os.path.join(self._work, name)

    def start(self) -> None:
        """Start sshd."""
        os.makedirs(self._path("cell"))
        shutil.copy(self._key, self._path("key.pub"))
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._path("host_key")])
        for name, text in (("sshd_config", SSHD_CONFIG.format(self.address)), ("start", CELL)):
            with open(self._path(name), "w") as handle:
                handle.write(text)
        with inside(self.namespace), open(self._path("sshd.log"), "w") as log:
            words = ["unshare", "--mount", "--propagation", "private", "sh", self._path("start"), self._work]
            self._sshd = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait(self, client: str) -> None:
        """Wait until sshd takes connections of a namespace."""
        for _attempt in range(100):
            if connects(client, self.address, 1):
                return
            if not self._sshd or self._sshd.poll() is not None:
                break
            time.sleep(0.1)
        raise BenchError("sshd did not start: {0}".format(self._log()[-1000:]))

    def end(self) -> None:
        """End sshd; the connections that live on go with their namespace."""
        if self._sshd:
            self._sshd.terminate()
            self._sshd.wait(10)

    def logins(self) -> int:
        """Return how many connections logged in so far."""
        return self._log().count("Accepted publickey")

    def read(self, path: str) -> str:
        """Return the text of a file as this host sees it, '' where there is none."""
        if not self._sshd:
            return ""
        with contextlib.suppress(FileNotFoundError), open("/proc/{0}/root{1}".format(self._sshd.pid, path)) as handle:
            return handle.read()
        return ""

    def _log(self) -> str:
        with open(self._path("sshd.log")) as log:
            return log.read()


def connects(namespace: str, address: str, seconds: float, port: int = 22) -> bool:
    """Return whether a new TCP connection from a namespace to sshd comes about within some seconds."""
    with inside(namespace), contextlib.suppress(OSError):
        socket.create_connection((address, port), seconds).close()
        return True
    return False


class Target:
    """Hosts in network namespaces that ansible-playbook reaches over ssh, and the controller beside them."""

    def __init__(self, count: int = 1, forks: int = 5) -> None:
        """Make the namespaces of so many hosts."""
        self._forks = forks
        self._stack = contextlib.ExitStack()
        self._work = tempfile.mkdtemp(prefix="portknock-bench-")
        self._stack.callback(shutil.rmtree, self._work, ignore_errors=True)
        self._collections = collections_path()
        self._stack.callback(remove_collections_path, self._collections)
        self.names = ["host{0}".format(number) for number in range(count)]
        self._lan = self._stack.enter_context(Lan(*self.names))
        self.client = self._lan.client
        self.cells = [self._cell(name) for name in self.names]

    def _cell(self, name: str) -> Cell:
        namespace, address = self._lan.namespace(name), self._lan.addresses(name)[1]
        return Cell(self._path(name), namespace, address, self._path("key.pub"))

    def __enter__(self) -> "Target":
        """Start every sshd and wait for them."""
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        """End everything; the control connections of ssh live in the client's namespace and go with it."""
        self._stack.close()

    def _path(self, name: str) -> str:
        return os.path.join(self._work, name)

    def _start(self) -> None:
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._path("key")])
        with open(self._path("ansible.cfg"), "w"):
            pass
        for cell in self.cells:
            self._stack.callback(cell.end)
            cell.start()
        for cell in self.cells:
            cell.wait(self.client)

    def _environment(self) -> dict[str, str]:
        left_out = ("ANSIBLE_", "PYTHONDONTWRITEBYTECODE")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        return dict(
            kept,
            ANSIBLE_CONFIG=self._path("ansible.cfg"),
            ANSIBLE_HOME=self._path("home"),
            ANSIBLE_COLLECTIONS_PATH=self._collections,
            ANSIBLE_CALLBACK_PLUGINS=os.path.join(HERE, "callback"),
            ANSIBLE_CALLBACKS_ENABLED="task_times",
            ANSIBLE_FORKS=str(self._forks),
            ANSIBLE_HOST_KEY_CHECKING="false",
            # Sockets are named after host, port and user: another bench's master must not be taken for this one's.
            ANSIBLE_SSH_CONTROL_PATH_DIR=self._path("cp"),
            ANSIBLE_SSH_ARGS="-F none -o ControlMaster=auto -o ControlPersist=60s -o UserKnownHostsFile=/dev/null",
            BENCH_TASK_TIMES=self._path("times"),
            # As for a user, whose controller compiles the plugins once, and not for each task.
            PYTHONPYCACHEPREFIX=self._path("compiled"),
        )

    def _write(self, name: str, value: object) -> None:
        with open(self._path(name), "w") as handle:
            json.dump(value, handle)

    def _inventory(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
        common = {
            **variables,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": self._path("key"),
            "ansible_python_interpreter": python,
        }
        addresses = {name: cell.address for name, cell in zip(self.names, self.cells, strict=True)}
        hosts = {name: dict(common, ansible_host=address) for name, address in addresses.items()}
        return {"all": {"hosts": hosts}}

    def links(self) -> Iterator[tuple[str, str]]:
        """Return (namespace, device) of both ends of the wires."""
        for number, name in enumerate(self.names):
            yield self.client, "veth{0}".format(number)
            yield self._lan.namespace(name), "eth0"

    def set_links(self, names: Collection[str], state: str) -> None:
        """Put the wires to some hosts ``up`` or ``down``."""
        for number, name in enumerate(self.names):
            if name in names:
                run(["ip", "-n", self.client, "link", "set", "veth{0}".format(number), state])

    def end_masters(self) -> None:
        """End the connections that ssh keeps for later."""
        for name in os.listdir(self._path("cp")):
            path = os.path.join(self._path("cp"), name)
            if stat.S_ISSOCK(os.stat(path).st_mode):
                words = ["ssh", "-F", "none", "-O", "exit", "-o", "ControlPath=" + path, "x"]
                subprocess.run(words, capture_output=True, check=False)

    def play(self, tasks: Sequence[Task]) -> list[Timed]:
        """Run tasks in one play; return a list of (task name, seconds, changed), one for every host.

        :raises BenchError: if a task fails.
        """
        return self.finish(self.start(tasks))

    def start(self, tasks: Sequence[Task]) -> subprocess.Popen[bytes]:
        """Start a play; finish() ends it."""
        self._write("play.json", [{"name": "Bench", "hosts": "all", "gather_facts": False, "tasks": tasks}])
        return self.start_playbook(self._path("play.json"), {})

    def start_playbook(self, playbook: str, variables: Mapping[str, Any], *words: str) -> subprocess.Popen[bytes]:
        """Start a playbook, by its path or name, with more variables of all hosts, and more words; finish() ends it."""
        self._write("inventory.json", self._inventory(variables))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path("times"))
        command = [ansible_playbook(), "-i", self._path("inventory.json"), playbook, *words]
        with inside(self.client), open(self._path("output"), "w") as output:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self._environment()
            )

    def finish(self, process: subprocess.Popen[bytes], code: int = 0) -> list[Timed]:
        """Wait for a play and return what play() does.

        :param code: the exit code that is wanted.
        """
        try:
            process.wait(1500)
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.returncode != code:
            raise BenchError("ansible-playbook failed: {0}".format(self.output()[-3000:]))
        with open(self._path("times")) as handle:
            return list(map(tuple, map(json.loads, handle)))

    def output(self) -> str:
        """Return what the play printed so far."""
        with open(self._path("output")) as handle:
            return handle.read()


def ansible_playbook() -> str:
    """Return the path of ansible-playbook."""
    beside = [os.path.join(os.environ.get("PORTKNOCK_VENV", ""), "bin"), os.path.dirname(sys.executable)]
    found = shutil.which("ansible-playbook", path=os.pathsep.join([*beside, os.environ["PATH"]]))
    if not found:
        raise BenchError("ansible-playbook is not there. Set PORTKNOCK_VENV to a virtual environment that has it.")
    return found


def task(label: str, module: str, options: dict[str, Any] | str, **keywords: Any) -> Task:
    """Return one task."""
    return dict({"name": label, module: options}, **keywords)


def knock_task(label: str, **options: Any) -> Task:
    """Return a task of our module with the article's settings; without the guard, which has a group of its own."""
    return task(label, MODULE, dict(ARTICLE, guard=False, **options))


def guarded_task(label: str, **options: Any) -> Task:
    """Return a task of our module under guard, which fails if its change was not confirmed by a new connection."""
    unconfirmed = "guarded.guard.state != 'confirmed'"
    return task(label, MODULE, dict(ARTICLE, **options), register="guarded", failed_when=unconfirmed)


def reset_task() -> Task:
    """Return a task that brings the target back to how it was."""
    return task("reset", "ansible.builtin.command", {"argv": ["sh", "-c", RESET]})


def article_tasks(label: str, family: str) -> list[Task]:
    """Return the article's job for one family, in single tasks."""
    ipv4 = family == "ipv4"
    command = "iptables" if ipv4 else "ip6tables"
    common = {"chain": "INPUT", "ip_version": family}
    recent = "{0} -A INPUT -p tcp --dport {1} -m recent {2} --name KNOCKING --rsource"
    reject = "icmp-port-unreachable" if ipv4 else "icmp6-port-unreachable"
    accept = dict(common, action="insert", jump="ACCEPT")
    icmp = dict(accept, protocol="icmp" if ipv4 else "ipv6-icmp")
    running = dict(accept, protocol="tcp", ctstate=["RELATED", "ESTABLISHED"])
    path = "/etc/iptables/rules.v4" if ipv4 else "/etc/iptables/rules.v6"
    return [
        task(label, "ansible.builtin.iptables", icmp),
        task(label, "ansible.builtin.iptables", running),
        task(label, "ansible.builtin.command", recent.format(command, 1000, "--set")),
        task(label, "ansible.builtin.command", recent.format(command, 22, "--rcheck --seconds 15") + " -j ACCEPT"),
        task(label, "ansible.builtin.iptables", dict(common, reject_with=reject)),
        task(label, "ansible.builtin.command", "{0}-save -f {1}".format(command, path)),
    ]


def sums(times: Iterable[Timed], label: str, count: int) -> list[float]:
    """Return the seconds of all tasks of a label, summed by round."""
    found = [0.0] * count
    seen = 0
    for name, seconds, _changed in times:
        if name.startswith(label + " "):
            found[int(name.split()[-1])] += seconds
            seen += 1
    if not all(found):
        raise BenchError("{0}: only {1} tasks were timed.".format(label, seen))
    return found


def check_changed(times: Iterable[Timed], label: str, wanted: bool) -> None:
    """Make sure that every task of a label did, or did not, change something."""
    for name, _seconds, changed in times:
        if name.startswith(label + " ") and changed != wanted:
            raise BenchError("{0}: changed is {1}: this did not measure what it says.".format(name, changed))


def measure_noop(table: Table, target: Target, count: int) -> None:
    """Measure a task that changes nothing against a ping."""
    tasks = [reset_task(), knock_task("set up"), knock_task("warm up"), task("warm up", "ansible.builtin.ping", {})]
    for number in range(count):
        pair = [
            # The guard is on, as it is by default: it finds that there is nothing to confirm.
            task("module {0}".format(number), MODULE, ARTICLE),
            task("ping {0}".format(number), "ansible.builtin.ping", {}),
        ]
        tasks += pair if number % 2 else pair[::-1]
    times = target.play(tasks)
    check_changed(times, "module", False)
    values = ratios(sums(times, "module", count), sums(times, "ping", count))
    table.add("task without a change / ping", values, GOAL_NOOP)


def measure_first(table: Table, target: Target, count: int, families: Sequence[str], guard: bool = False) -> None:
    """Measure a first apply of the article against the same job in single tasks, which have no guard."""
    tasks = [task("warm up", "ansible.builtin.ping", {})]
    apply = guarded_task if guard else knock_task
    for number in range(count):
        ours = [reset_task(), apply("module {0}".format(number), ip_versions=list(families))]
        theirs = [reset_task()]
        for family in families:
            theirs += article_tasks("tasks {0}".format(number), family)
        tasks += ours + theirs if number % 2 else theirs + ours
    times = target.play(tasks)
    check_changed(times, "module", True)
    check_changed(times, "tasks", True)
    values = ratios(sums(times, "module", count), sums(times, "tasks", count))
    what = "first apply{0} / single tasks, {1}".format(" under guard" if guard else "", " and ".join(families))
    table.add(what, values, None if guard else GOAL_FIRST)


def measure(table: Table, full: bool) -> None:
    """Add the rows."""
    with Target() as target:
        measure_noop(table, target, rounds(full, 21, 81))
        for families in (("ipv4",), ("ipv4", "ipv6")):
            measure_first(table, target, rounds(full, 7, 25), families)
        measure_first(table, target, rounds(full, 7, 25), ("ipv4", "ipv6"), guard=True)
