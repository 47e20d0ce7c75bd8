# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print, as JSON, what a run may have changed on a host: its rules and its configuration.

Runs on the host, as root, on the host's own Python.
"""

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess

TREES = ("/etc", "/usr/local", "/root", "/var/lib/misc")
# Ansible's own traces, and what systemd and apt rewrite by themselves.
PASSING = re.compile(r"/root/\.ansible|/etc/(mtab|resolv\.conf|hostname|hosts|machine-id|\.updated|\.pwd\.lock)$")
# The name service that the container engine puts into its containers' nat table.
ENGINE = re.compile(r"DOCKER_(OUTPUT|POSTROUTING)|127\.0\.0\.11")


def describe(path: str) -> list[str]:
    info = os.lstat(path)
    mode = oct(stat.S_IMODE(info.st_mode))
    if stat.S_ISLNK(info.st_mode):
        return ["link", os.readlink(path)]
    if stat.S_ISDIR(info.st_mode):
        return ["directory", mode]
    with open(path, "rb") as handle:
        return ["file", mode, hashlib.sha256(handle.read()).hexdigest()]


def files() -> dict[str, list[str]]:
    found = {}
    for tree in TREES:
        for parent, directories, names in os.walk(tree):
            for name in directories + names:
                path = os.path.join(parent, name)
                if not PASSING.match(path):
                    found[path] = describe(path)
    return found


def tables(text: str) -> dict[str, list[str]]:
    """Map each table with anything in it to its lines, without comments and counters."""
    found: dict[str, list[str]] = {}
    table = ""
    for line in text.splitlines():
        line = re.sub(r" \[\d+:\d+\]$", "", line.strip())
        if line.startswith("*"):
            table = line[1:]
        elif line and line != "COMMIT" and not line.startswith("#") and not ENGINE.search(line):
            found.setdefault(table, []).append(line)
    return {
        name: lines for name, lines in found.items() if not all(re.match(r":[A-Z]+ ACCEPT$", line) for line in lines)
    }


def live(command: str) -> dict[str, list[str]]:
    if not shutil.which(command + "-save"):
        return {}
    return tables(subprocess.run([command + "-save"], check=True, stdout=subprocess.PIPE, text=True).stdout)


def stored(path: str) -> dict[str, list[str]]:
    if not os.path.exists(path):
        return {}
    with open(path) as handle:
        return tables(handle.read())


RULES_FILES = {
    "iptables": ("/etc/iptables/rules.v4", "/etc/sysconfig/iptables"),
    "ip6tables": ("/etc/iptables/rules.v6", "/etc/sysconfig/ip6tables"),
}

print(
    json.dumps(
        {
            "live": {command: live(command) for command in RULES_FILES},
            "stored": {command: {path: stored(path) for path in paths} for command, paths in RULES_FILES.items()},
            "files": files(),
        }
    )
)
