# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can go wrong while a change waits for its confirmation, each as a block that ends it again."""

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rig.network import Rig
from rig.packets import IPV4
from rig.target import COMMANDS, FAMILIES, without_empty_nat

RUN = "/run/portknock"
LOCK = "/run/portknock.d/lock"
AGENT = RUN + "/guard.zip"
OPTIONAL_FILES = ("/etc/iptables", "/etc/portknock", "/etc/systemd/system/portknock.service", "/etc/modprobe.d")
CLEAN = """
systemd=/etc/systemd/system
rm -rf /run/portknock /run/portknock.d /etc/iptables /etc/portknock /usr/local/sbin/portknock* \\
    /usr/local/share/bash-completion/completions/portknock /usr/local/share/man/man8/portknock.8 \\
    $systemd/portknock*.service $systemd/*/portknock* /etc/modprobe.d/portknock.conf /run/own/ansible
mkdir /etc/iptables
"""
# What a wrapper around iptables-restore does when the ruleset is really loaded: not for --test, not for a probe.
WRAPPER = """#!/bin/sh
input=$(mktemp)
cat >"$input"
case " $* " in *" --test "*) real=yes ;; *) real="" ;; esac
grep -q ' PORTKNOCK_PROBE \\|:PORTKNOCK_PROBE ' "$input" && real=yes
if [ -z "$real" ]; then
    echo "$$" >>/run/own/restores
    {what}
fi
{real} "$@" <"$input"
code=$?
rm -f "$input"
exit $code
"""
FAILS = "rm -f $input; echo the wrapper says no >&2; exit 4"
UNTRACKED = """table {family} untracked {{
    chain in {{ type filter hook prerouting priority -300; tcp dport {port} notrack; }}
    chain out {{ type filter hook output priority -300; tcp sport {port} notrack; }}
}}
"""
"""In nftables: such a rule in iptables' own table raw is seen, and the change refused."""

FORGET = """
import socket, struct, sys, time
# As conntrack -F: IPCTNL_MSG_CT_DELETE of all there is, and the kernel is to answer.
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as kernel:
    for _turn in range(int(sys.argv[1])):
        kernel.send(struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 5, 0, 0, 0, 0, 0))
        assert struct.unpack_from("=i", kernel.recv(4096), 16) == (0,)
        time.sleep(0.01)
"""


def inside(rig: Rig, path: str) -> Path:
    """Return where a path of the target is seen from here."""
    return Path(f"/proc/{rig.target.namespace.pid}/root{path}")


def program(rig: Rig, verb: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the program of the guard, as the controller does."""
    script = 'read -r python <$0; exec ${python#??} $0 "$@"'
    return rig.target.namespace.run("sh", "-c", script, AGENT, verb, *words, check=check)


def text_of(rig: Rig, path: str) -> str:
    """Return a file of the target, '' where there is none."""
    try:
        return inside(rig, path).read_text(errors="surrogateescape")
    except OSError:
        return ""


def processes(rig: Rig, words: str) -> list[int]:
    """Return the ids, as the target counts them, of its processes with these words in their command line."""
    found = []
    for folder in inside(rig, "/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            if words in line:
                found.append(int(folder.name))
    return found


def send(rig: Rig, signal_name: str, pids: Sequence[int]) -> None:
    """Send a signal to processes of the target."""
    if pids:
        rig.target.namespace.run("kill", "-" + signal_name, *pids, check=False)


def clean_up(rig: Rig) -> None:
    """Take away what the collection left on the target: processes, files, rules."""
    send(rig, "KILL", processes(rig, AGENT) + sessions(rig))
    rig.target.namespace.run("sh", "-c", CLEAN)
    rig.target.reset()


def pending(rig: Rig) -> dict[str, Any]:
    """Return the record of the change that is pending, or an empty dictionary."""
    return json.loads(text_of(rig, RUN + "/pending.json") or "{}")


def last(rig: Rig) -> dict[str, Any]:
    """Return how the last change ended."""
    return json.loads(text_of(rig, RUN + ".d/last.json") or "{}")


def is_applied(rig: Rig) -> bool:
    """Return whether a change is in force and waits to be confirmed."""
    return pending(rig).get("state") == "applied"


def ruleset(rig: Rig) -> dict[str, list[str]]:
    """Return both rulesets without what changes by itself: counters and the lines that carry the time."""
    return {
        family: [line.split(" [")[0].rstrip() for line in without_empty_nat(save).splitlines() if line[0] != "#"]
        for family, save in ((family, rig.target.save(family)) for family in FAMILIES)
    }


def ours(lines: Iterable[str]) -> list[str]:
    """Return the lines of a ruleset that the collection wrote."""
    return [line for line in lines if "PORTKNOCK" in line or "portknock:" in line]


def without_ours(lines: Iterable[str], but: tuple[str, ...] = ()) -> list[str]:
    """Return a ruleset without our lines but for some that begin so, and without what was made for them and holds nothing else."""
    text = "".join(line + "\n" for line in lines if line.startswith(but) or not ours([line]))
    left = without_empty_nat(text).splitlines()
    docker = [line for line in left if "DOCKER-USER" in line]
    return [line for line in left if len(docker) > 1 or line not in docker]


def foreign(rules: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Return the foreign lines of both rulesets."""
    return {family: without_ours(lines) for family, lines in rules.items()}


def files(rig: Rig) -> dict[str, bytes]:
    """Return path to content of all files that the collection may leave on the target."""
    found = {}
    for top in OPTIONAL_FILES:
        path = inside(rig, top)
        for one in [path] if path.is_file() else sorted(path.rglob("*")):
            if one.is_file():
                found[top + str(one)[len(str(path)) :]] = one.read_bytes()
    return found


# Faults of the target


def wrap_restore(rig: Rig, family: str, text: str) -> None:
    """Put a script in the place of the backend's own restore command, by which the collection calls it.

    :param text: the script, with ``{real}`` for the real command.
    """
    name, path = f"{COMMANDS[family]}-{rig.backend}-restore", f"/usr/local/sbin/wrapped-{COMMANDS[family]}-restore"
    line = f"cat >{path}; chmod +x {path}; ln -sfn {path} /usr/sbin/{name}"
    real = f"/usr/sbin/xtables-{rig.backend}-multi {name}"
    rig.target.namespace.run("sh", "-c", line, stdin=text.replace("{real}", real))


def unwrap_restore(rig: Rig, family: str) -> None:
    """Have the real restore command again."""
    path = f"/usr/sbin/{COMMANDS[family]}-{rig.backend}-restore"
    rig.target.namespace.run("ln", "-sfn", f"xtables-{rig.backend}-multi", path)


@contextlib.contextmanager
def restore_that(rig: Rig, what: str, families: Sequence[str] = FAMILIES) -> Iterator[None]:
    """Within the block the families' restore command does something else first, or instead."""
    run = rig.target.namespace.run
    try:
        for family in families:
            wrap_restore(rig, family, WRAPPER.replace("{what}", what))
        yield
    finally:
        for family in families:
            unwrap_restore(rig, family)
        run("rm", "-f", "/run/own/restores")


def is_loading(rig: Rig) -> bool:
    """Return whether a wrapped restore command has begun to load something."""
    return bool(text_of(rig, "/run/own/restores"))


@contextlib.contextmanager
def cut_off(rig: Rig, families: Sequence[str] = FAMILIES) -> Iterator[None]:
    """Within the block the new rules cut everything, running sessions too, and no knock arrives.

    The target tracks no connection to port 22, so a packet of a running session looks like a stranger's.
    """
    with untracked(rig, families=families), way_blocked(rig, 7000, families=families):
        yield


@contextlib.contextmanager
def untracked(rig: Rig, port: int = 22, families: Sequence[str] = FAMILIES) -> Iterator[None]:
    """Within the block the target tracks no connection to the port."""
    names = ["ip" if family == IPV4 else "ip6" for family in families]
    for name in names:
        rig.target.namespace.run("nft", "-f", "-", stdin=UNTRACKED.format(family=name, port=port))
    try:
        yield
    finally:
        for name in names:
            rig.target.namespace.run("nft", "delete", "table", name, "untracked")


def forget_connections(rig: Rig) -> None:
    """Connection tracking forgets what it knows, once."""
    rig.target.namespace.run("python3", "-c", FORGET, "1")


@contextlib.contextmanager
def connections_forgotten(rig: Rig) -> Iterator[None]:
    """Within the block connection tracking forgets what it knows, a hundred times a second."""
    forgetful = rig.target.namespace.start("python3", "-c", FORGET, "60000", stdin=subprocess.DEVNULL)
    try:
        yield
        assert forgetful.poll() is None, "it had ended before"
    finally:
        send(rig, "KILL", processes(rig, "IPCTNL_MSG_CT_DELETE"))
        forgetful.wait()


@contextlib.contextmanager
def small_disk(rig: Rig, folder: str, kilobytes: int = 256) -> Iterator[None]:
    """Within the block a folder of the target is on a small disk of its own."""
    run = rig.target.namespace.run
    run("mkdir", "-p", folder)
    run("mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder)
    try:
        yield
    finally:
        run("umount", "-l", folder)


@contextlib.contextmanager
def full(rig: Rig, folder: str) -> Iterator[None]:
    """Within the block there is no room on the disk of a folder of the target; it must be a small one."""
    path = folder + "/full"
    rig.target.namespace.run("sh", "-c", f"head -c 64M /dev/zero >{path}", check=False)
    assert rig.target.namespace.run("sh", "-c", f"echo more >>{path}", check=False).returncode, "there is room left"
    try:
        yield
    finally:
        rig.target.namespace.run("rm", "-f", path)


@contextlib.contextmanager
def full_run(rig: Rig) -> Iterator[None]:
    """Within the block /run is full."""
    rig.target.namespace.run("mount", "-o", "remount,size=16M", "/run")
    try:
        with full(rig, "/run"):
            yield
    finally:
        rig.target.namespace.run("mount", "-o", "remount,size=50%", "/run")


@contextlib.contextmanager
def read_only(rig: Rig, folder: str) -> Iterator[None]:
    """Within the block a folder of the target cannot be written to."""
    run = rig.target.namespace.run
    run("mount", "--bind", folder, folder)
    run("mount", "-o", "remount,bind,ro", folder)
    try:
        yield
    finally:
        run("umount", "-l", folder)


@contextlib.contextmanager
def held(rig: Rig, path: str, seconds: float | None = None) -> Iterator[None]:
    """Hold a lock file of the target within the block, and at most for some seconds."""
    process = rig.target.namespace.start(
        "flock", path, "sh", "-c", f"echo held; exec sleep {seconds or 600}", stdout=subprocess.PIPE
    )
    assert process.stdout
    try:
        assert process.stdout.readline() == b"held\n"
        yield
    finally:
        if seconds:
            process.wait()
        else:
            send(rig, "KILL", processes(rig, "sleep 600") + processes(rig, f"flock {path}"))
            process.wait()
        process.stdout.close()


@contextlib.contextmanager
def grabbed(rig: Rig, path: str) -> Iterator[None]:
    """Within the block another user of the target takes a lock file whenever he can."""
    line = f"while :; do flock --nonblock {path} sleep 600; sleep 0.02; done"
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    process = rig.target.namespace.start(*user, "sh", "-c", line, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        send(rig, "KILL", processes(rig, line) + processes(rig, "sleep 600"))
        process.wait()


@contextlib.contextmanager
def without_ipv4(rig: Rig) -> Iterator[None]:
    """Within the block the target has no IPv4 address but those of its loopback."""
    run = rig.target.namespace.run
    addresses = re.findall(r" inet (\S+)", run("ip", "-4", "-oneline", "address", "show", "dev", "eth0").stdout)
    routes = [
        line for line in run("ip", "-4", "route", "show", "dev", "eth0").stdout.splitlines() if "kernel" not in line
    ]
    run("ip", "-4", "address", "flush", "dev", "eth0")
    try:
        yield
    finally:
        for address in addresses:
            run("ip", "address", "add", address, "dev", "eth0")
        for route in routes:
            run("ip", "route", "add", *route.split(), "dev", "eth0")


@contextlib.contextmanager
def sshd_stopped(rig: Rig, port: int = 22) -> Iterator[None]:
    """Within the block nothing listens for ssh; sessions live on."""
    rig.target.stop_sshd(port)
    try:
        yield
    finally:
        rig.target.start_sshd(port)


@contextlib.contextmanager
def sshd_with(rig: Rig, *lines: str, port: int = 22) -> Iterator[None]:
    """Within the block sshd has more lines of configuration."""
    rig.target.start_sshd(port, *lines)
    try:
        yield
    finally:
        rig.target.start_sshd(port) if port == 22 else rig.target.stop_sshd(port)


@contextlib.contextmanager
def silent_name_servers(rig: Rig, seconds: int) -> Iterator[None]:
    """Within the block the target's name server does not answer: so long takes each look-up of a name."""
    run, text = rig.target.namespace.run, f"nameserver 10.77.0.3\noptions attempts:2 timeout:{seconds // 2}\n"
    run("sh", "-c", "mkdir -p /run/own; cat >/run/own/silent.conf", stdin=text)
    run("mount", "--bind", "/run/own/silent.conf", "/etc/resolv.conf")
    silent = ("INPUT", "-p", "udp", "--dport", "53", "-j", "DROP")
    rig.other.namespace.run("iptables-nft", "-A", *silent)
    try:
        yield
    finally:
        rig.other.namespace.run("iptables-nft", "-D", *silent)
        run("umount", "/etc/resolv.conf")


def sessions(rig: Rig) -> list[int]:
    """Return the processes of the target that serve an ssh connection."""
    return sorted(set(processes(rig, "sshd: ")) - set(processes(rig, "[listener]")))


# Faults of the way there


@contextlib.contextmanager
def way_blocked(
    rig: Rig, port: int, protocol: str = "tcp", only_new: bool = True, families: Sequence[str] = FAMILIES
) -> Iterator[None]:
    """Within the block a firewall between drops what the client sends to a port of the target."""
    words = ["OUTPUT", "-p", protocol, "--dport", str(port)] + (["--syn"] if only_new and protocol == "tcp" else [])
    commands = [f"/usr/sbin/{COMMANDS[family]}-nft" for family in families]
    for command in commands:
        rig.client.namespace.run(command, "-A", *words, "-j", "DROP")
    try:
        yield
    finally:
        for command in commands:
            rig.client.namespace.run(command, "-D", *words, "-j", "DROP")


def settled(rig: Rig, seconds: int = 300) -> None:
    """Wait until no change is pending."""
    end = time.monotonic() + seconds
    while pending(rig):
        assert time.monotonic() < end, f"still pending after {seconds} s: {pending(rig)['state']}"
        time.sleep(0.05)
