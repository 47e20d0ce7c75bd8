# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Debian packages that the checks need on the machine."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from . import pythons

ROOT = Path(__file__).resolve().parents[2]
# Real servers and real knockers for the network namespaces.
WIRE = (
    "csh", "curl", "faketime", "fish", "git", "hping3", "iproute2", "ipset", "iptables", "iputils-ping", "knockd",
    "netcat-openbsd", "nftables", "nmap", "openssh-client", "openssh-server", "procps", "putty-tools", "rsync", "sshpass", "sudo",
    "tcsh", "telnet",
)  # fmt: skip
# These would start on this machine, now and at every boot. The tests start their own, so none of them may.
SERVICES = {"openssh-server": ("ssh.service", "ssh.socket"), "knockd": ("knockd.service",)}
POLICY = Path("/usr/sbin/policy-rc.d")


def hosts_sh(function: str, *words: str, check: bool = True) -> str:
    """Call a function of bin/lib/hosts.sh; return what it printed."""
    words = ("bash", str(ROOT / "bin" / "lib" / "hosts.sh"), function, *words)
    return subprocess.run(words, check=check, stdout=subprocess.PIPE, text=True).stdout.strip()


def need_commands(**commands: str) -> None:
    """Install the packages of commands that are missing."""
    hosts_sh("apt_ensure", *(f"{command}:{package}" for command, package in commands.items()))


def need_venv_of(python: str) -> None:
    """Debian splits venv off python3; without it `-m venv` fails half way."""
    if subprocess.run([python, "-c", "import ensurepip, venv"], check=False, stderr=subprocess.DEVNULL).returncode:
        _install(f"python{pythons.version_of(python)}-venv")


def need_wire() -> None:
    """Install what the tests in network namespaces use, and start none of it."""
    missing = [name for name in WIRE if not _is_installed(name)]
    if not missing:
        return
    with _no_service_starts():
        _install(*missing)
    if Path("/run/systemd/system").is_dir():
        for service in (name for package in missing for name in SERVICES.get(package, ())):
            subprocess.run(["systemctl", "-q", "disable", "--now", service], check=False)


def _install(*names: str) -> None:
    hosts_sh("apt_install", *names)


def _is_installed(name: str) -> bool:
    words = ["dpkg-query", "-W", "-f", "${Status}", name]
    done = subprocess.run(words, check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout == "install ok installed"


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    """Have Debian's packages start no service; an administrator's own policy stays."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def remove_hosts(prefix: str) -> None:
    """Remove the throwaway hosts that an ended test has left: those named PREFIX…-PID of processes that are gone."""
    if not shutil.which("docker"):
        return
    words = ["docker", "ps", "--all", "--format", "{{.Names}}", "--filter", f"name=^/?{prefix}"]
    done = subprocess.run(words, check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for name in done.stdout.split():
        if not Path("/proc", name.rpartition("-")[2]).exists():
            hosts_sh("host_remove", name, check=False)
