# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tasks over real ssh: a task that changes nothing against a ping, a first apply against single tasks."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from bench_lan import BenchError, Lan, inside, run
from bench_ruleset import collections_path, remove_collections_path
from bench_series import ratios, rounds

GOAL_NOOP, GOAL_FIRST = 1.3, 1 / 3
HERE = os.path.dirname(os.path.abspath(__file__))

CELL = """set -eu
work=$1
mount -t tmpfs -o mode=0755 tmpfs "$work/cell"
cp -a /etc "$work/cell/etc"
cp -a /usr/local/sbin "$work/cell/sbin"
sed -i 's/^root:[^:]*:/root:*:/' "$work/cell/etc/shadow"
mkdir -p -m 0700 "$work/cell/root/.ssh"
cp "$work/key.pub" "$work/cell/root/.ssh/authorized_keys"
mkdir -p "$work/cell/run/sshd"
cp "$work/host_key" "$work/sshd_config" "$work/cell/run/"
mount --bind "$work/cell/etc" /etc
mount --bind "$work/cell/sbin" /usr/local/sbin
mount --bind "$work/cell/root" /root
mount --bind "$work/cell/run" /run
exec "$(command -v sshd)" -D -e -f /run/sshd_config
"""
"""A host of its own for sshd: what is written to /etc and the like stays in its mount namespace."""

SSHD_CONFIG = """ListenAddress {0}
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
rm -rf /etc/iptables /etc/sysconfig/iptables /etc/sysconfig/ip6tables /etc/portknock /usr/local/sbin/portknock-boot \\
    /etc/systemd/system/portknock.service /etc/systemd/system/*/portknock.service /etc/modprobe.d/portknock.conf
mkdir -p /etc/iptables
"""

ARTICLE = {"doors": [{"name": "ssh", "knock": ["1000"], "opens": ["22"], "window": 15}]}


class Target:
    """A host in a network namespace that ansible-playbook reaches over ssh, and the controller beside it."""

    def __init__(self):
        """Start sshd."""
        self._stack = contextlib.ExitStack()
        self._work = tempfile.mkdtemp(prefix="portknock-bench-")
        self._stack.callback(shutil.rmtree, self._work, ignore_errors=True)
        self._collections = collections_path()
        self._stack.callback(remove_collections_path, self._collections)
        self._lan = self._stack.enter_context(Lan("host"))
        self._address = self._lan.addresses("host")[1]

    def __enter__(self):
        """Start sshd and wait for it."""
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_error):
        """End everything; the control connections of ssh live in the client's namespace and go with it."""
        self._stack.close()

    def _path(self, name):
        return os.path.join(self._work, name)

    def _start(self):
        for name in ("key", "host_key"):
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._path(name)])
        for name, text in (
            ("sshd_config", SSHD_CONFIG.format(self._address)), ("start", CELL), ("ansible.cfg", ""),
        ):  # fmt: skip
            with open(self._path(name), "w") as handle:
                handle.write(text)
        os.mkdir(self._path("cell"))
        with inside(self._lan.namespace("host")), open(self._path("sshd.log"), "w") as log:
            words = ["unshare", "--mount", "--propagation", "private", "sh", self._path("start"), self._work]
            self._sshd = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._stack.callback(self._end)
        self._wait()

    def _end(self):
        self._sshd.terminate()
        self._sshd.wait(10)

    def _wait(self):
        for _attempt in range(100):
            with inside(self._lan.client), contextlib.suppress(OSError):
                socket.create_connection((self._address, 22), 1).close()
                return
            if self._sshd.poll() is not None:
                break
            time.sleep(0.1)
        with open(self._path("sshd.log")) as log:
            raise BenchError("sshd did not start: {0}".format(log.read()[-1000:]))

    def _environment(self):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        return dict(
            kept,
            ANSIBLE_CONFIG=self._path("ansible.cfg"),
            ANSIBLE_HOME=self._path("home"),
            ANSIBLE_COLLECTIONS_PATH=self._collections,
            ANSIBLE_CALLBACK_PLUGINS=os.path.join(HERE, "callback"),
            ANSIBLE_CALLBACKS_ENABLED="task_times",
            ANSIBLE_HOST_KEY_CHECKING="false",
            ANSIBLE_SSH_ARGS="-F none -o ControlMaster=auto -o ControlPersist=60s -o UserKnownHostsFile=/dev/null",
            BENCH_TASK_TIMES=self._path("times"),
            PYTHONDONTWRITEBYTECODE="1",
        )

    def _inventory(self):
        python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
        host = {
            "ansible_host": self._address,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": self._path("key"),
            "ansible_python_interpreter": python,
        }
        return {"all": {"hosts": {"target": host}}}

    def play(self, tasks):
        """Run tasks in one play; return a list of (task name, seconds, changed).

        :raises BenchError: if a task fails.
        """
        play = [{"name": "Bench", "hosts": "all", "gather_facts": False, "tasks": tasks}]
        for name, value in (("inventory.json", self._inventory()), ("play.json", play)):
            with open(self._path(name), "w") as handle:
                json.dump(value, handle)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path("times"))
        words = [ansible_playbook(), "-i", self._path("inventory.json"), self._path("play.json")]
        with inside(self._lan.client):
            done = subprocess.run(
                words, capture_output=True, text=True, env=self._environment(), timeout=1500, check=False
            )
        if done.returncode:
            raise BenchError("ansible-playbook failed: {0}".format((done.stdout + done.stderr)[-3000:]))
        with open(self._path("times")) as handle:
            return [tuple(json.loads(line)) for line in handle]


def ansible_playbook():
    """Return the path of ansible-playbook."""
    beside = [os.path.join(os.environ.get("PORTKNOCK_VENV", ""), "bin"), os.path.dirname(sys.executable)]
    found = shutil.which("ansible-playbook", path=os.pathsep.join([*beside, os.environ["PATH"]]))
    if not found:
        raise BenchError("ansible-playbook is not there. Set PORTKNOCK_VENV to a virtual environment that has it.")
    return found


def task(label, module, options):
    """Return one task."""
    return {"name": label, module: options}


def knock_task(label, **options):
    """Return a task of our module with the article's settings."""
    return task(label, "sesame.portknock.knock_ruleset", dict(ARTICLE, **options))


def reset_task():
    """Return a task that brings the target back to how it was."""
    return task("reset", "ansible.builtin.command", {"argv": ["sh", "-c", RESET]})


def article_tasks(label, family):
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


def sums(times, label, count):
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


def check_changed(times, label, wanted):
    """Make sure that every task of a label did, or did not, change something."""
    for name, _seconds, changed in times:
        if name.startswith(label + " ") and changed != wanted:
            raise BenchError("{0}: changed is {1}: this did not measure what it says.".format(name, changed))


def measure_noop(table, target, count):
    """Measure a task that changes nothing against a ping."""
    tasks = [reset_task(), knock_task("set up"), knock_task("warm up"), task("warm up", "ansible.builtin.ping", {})]
    for number in range(count):
        pair = [
            knock_task("module {0}".format(number)),
            task("ping {0}".format(number), "ansible.builtin.ping", {}),
        ]
        tasks += pair if number % 2 else pair[::-1]
    times = target.play(tasks)
    check_changed(times, "module", False)
    values = ratios(sums(times, "module", count), sums(times, "ping", count))
    table.add("task without a change / ping", values, GOAL_NOOP)


def measure_first(table, target, count, families):
    """Measure a first apply of the article against the same job in single tasks."""
    tasks = [task("warm up", "ansible.builtin.ping", {})]
    for number in range(count):
        ours = [reset_task(), knock_task("module {0}".format(number), ip_versions=list(families))]
        theirs = [reset_task()]
        for family in families:
            theirs += article_tasks("tasks {0}".format(number), family)
        tasks += ours + theirs if number % 2 else theirs + ours
    times = target.play(tasks)
    check_changed(times, "module", True)
    check_changed(times, "tasks", True)
    values = ratios(sums(times, "module", count), sums(times, "tasks", count))
    table.add("first apply / single tasks, {0}".format(" and ".join(families)), values, GOAL_FIRST)


def measure(table, full):
    """Add the rows."""
    with Target() as target:
        measure_noop(table, target, rounds(full, 21, 81))
        for families in (("ipv4",), ("ipv4", "ipv6")):
            measure_first(table, target, rounds(full, 7, 25), families)
