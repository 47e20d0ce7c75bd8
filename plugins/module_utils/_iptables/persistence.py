# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module util is PRIVATE to the collection: it may change at any time. Do not import it from elsewhere.

"""What is kept over a reboot: which files a distribution reads, and what they should hold. Pure.

Debian's netfilter-persistent prints an error and exits 0 for a file that does not load: a green unit and
an open host. So a unit of our own looks after boot whether the doors are there, closes them if not, and
fails, so that it is seen.
"""

import re
from typing import NamedTuple

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.rules_file import merged_file
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4, IPV6, family_of
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import port_text

Layout = NamedTuple("Layout", [("name", str), ("rules", dict)])

LAYOUTS = {
    "debian": Layout("debian", {IPV4: "/etc/iptables/rules.v4", IPV6: "/etc/iptables/rules.v6"}),
    "el": Layout("el", {IPV4: "/etc/sysconfig/iptables", IPV6: "/etc/sysconfig/ip6tables"}),
}
_LIKE = {
    "debian": "debian", "ubuntu": "debian", "raspbian": "debian", "linuxmint": "debian",
    "rhel": "el", "fedora": "el", "centos": "el", "rocky": "el", "almalinux": "el", "ol": "el", "amzn": "el",
}  # fmt: skip

SERVICE_CONFIGS = ("/etc/sysconfig/iptables-config", "/etc/sysconfig/ip6tables-config")
"""Settings of iptables-services."""

COMMANDS = {IPV4: "iptables", IPV6: "ip6tables"}
DIRECTORY = "/etc/portknock"
STATE_FILE = DIRECTORY + "/state.json"
SCRIPT = "/usr/local/sbin/portknock-boot"
UNIT_NAME = "portknock.service"
UNIT = "/etc/systemd/system/" + UNIT_NAME
MODPROBE = "/etc/modprobe.d/portknock.conf"


def layout_of(os_release):
    """Return the Layout for the text of /etc/os-release.

    :raises HostError: for a distribution whose rules files are not known.
    """
    fields = dict(re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', os_release, re.M))
    for name in [fields.get("ID", "")] + fields.get("ID_LIKE", "").split():
        if name in _LIKE:
            return LAYOUTS[_LIKE[name]]
    raise HostError(
        "persist: it is not known where {0} keeps its iptables rules. Set persist to false and keep them "
        "yourself, or use one of the supported distributions.".format(fields.get("PRETTY_NAME", "this distribution"))
    )


def wanted_files(spec, owns, layout, read):
    """Return path to (text, mode) of every file that is to be kept; text None where it is to go.

    :param spec: a Spec, or None where all of ours is to go.
    :param owns: family to Own for those that are managed; in the files of the others nothing of ours stays.
    :param read: function from a path to the file's text, '' where there is none.
    """
    files = {}
    for family, path in sorted(layout.rules.items()):
        own = owns.get(family)
        before = read(path)
        after = merged_file(before, own, spec, path)
        if after != before or own:
            files[path] = (after if after.strip() else None, 0o600)
        command = COMMANDS[family]
        files["{0}/{1}.rules".format(DIRECTORY, command)] = (fallback_text(own) if own else None, 0o600)
        files["{0}/{1}.closed".format(DIRECTORY, command)] = (closed_text(spec, family) if own else None, 0o600)
    files[SCRIPT] = (BOOT_SCRIPT if spec else None, 0o755)
    files[UNIT] = (BOOT_UNIT if spec else None, 0o644)
    return files


def differing(files, read, mode):
    """Return the paths of those files that are not as they should be.

    :param files: path to (text, mode); text None where there should be none.
    :param read: function from a path to the file's text, '' where there is none.
    :param mode: function from a path to the file's permission bits, None where there is none.
    """
    return [
        path
        for path, (text, bits) in files.items()
        if (read(path) or None) != text or (text is not None and mode(path) != bits)
    ]


def modprobe_text(spec):
    """Return the options that xt_recent is to be loaded with (modprobe.d(5))."""
    return (
        "# Written by sesame.portknock: sources remembered per door and stage, lists for root alone.\n"
        "options xt_recent ip_list_tot={0} ip_list_perms=0600\n".format(spec.list_size)
    )


def fallback_text(own):
    """Return input for ``iptables-restore --noflush`` that puts the rules of an Own into any ruleset, doors first."""
    lines = ["*filter"] + [":{0} - [0:0]".format(name) for name in own.chains]
    lines += ["-A {0} {1}".format(name, text) for name, rules in own.chains.items() for text in rules]
    lines += ["-I INPUT 1 " + own.doors, "-I INPUT 1 " + own.head]
    lines += ["-A INPUT " + own.tail] if own.tail else []
    return "\n".join(lines + ["COMMIT", ""])


def closed_text(spec, family):
    """Return the plainest rules that keep the doors' ports shut, for a kernel that lacks matches we need."""
    lines = ["*filter", ":PORTKNOCK - [0:0]", "-A PORTKNOCK -i lo -j ACCEPT"]
    for network in spec.trusted_sources:
        if family_of(network) == family:
            lines.append("-A PORTKNOCK -s {0} -j ACCEPT".format(network))
    for ports in sorted({ports for door in spec.doors for ports in door.opens}):
        syn = " --syn" if ports.protocol == "tcp" else ""
        lines.append("-A PORTKNOCK -p {0} -m {0} --dport {1}{2} -j DROP".format(ports.protocol, port_text(ports), syn))
    return "\n".join(lines + ["-I INPUT 1 -j PORTKNOCK", "COMMIT", ""])


BOOT_SCRIPT = """#!/bin/sh
# Written by sesame.portknock; changes to this file are lost.
# Are the doors in the ruleset after boot? If a rules file did not load: close them here, then fail, so
# that "systemctl status portknock" shows it.
set -u
PATH=/usr/sbin:/sbin:/usr/bin:/bin
failed=0

hooked() {
    rules=$("$1" -w 30 -S 2>/dev/null) || return 1
    for hook in '-A INPUT .*-j PORTKNOCK_HEAD$' '-A INPUT .*-j PORTKNOCK$' '-A PORTKNOCK_HEAD '; do
        printf '%s\\n' "$rules" | grep -q -e "^$hook" || return 1
    done
}

load() {
    "$1-restore" -w 30 --noflush < "/etc/portknock/$1.$2" 2>&1
}

close_doors() {
    failed=1
    echo "portknock: the knock rules of $1 were not loaded with the rest. Look for errors in the rules file" \\
        "(try: $1-restore --test < FILE), mend it, restart the service that loads it, then: systemctl restart portknock" >&2
    if load "$1" rules; then
        echo "portknock: loaded the doors alone from /etc/portknock/$1.rules; they open to their knocks" >&2
    elif load "$1" closed; then
        echo "portknock: the kernel lacks what the knocks need; the doors are shut but for trusted sources" >&2
    else
        echo "portknock: $1-restore does not work at all: NOTHING is closed" >&2
    fi
}

for file in /etc/portknock/*.rules; do
    [ -e "$file" ] || continue
    command=${file##*/}
    command=${command%.rules}
    hooked "$command" || close_doors "$command"
done
for list in /proc/net/xt_recent/pk[46][_.]*; do
    [ ! -e "$list" ] || chmod 0600 "$list"
done
exit "$failed"
"""

BOOT_UNIT = """# Written by sesame.portknock; changes to this file are lost.
[Unit]
Description=Port knocking: are the doors in the ruleset?
DefaultDependencies=no
After=local-fs.target systemd-modules-load.service netfilter-persistent.service iptables.service ip6tables.service
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/portknock-boot

[Install]
WantedBy=multi-user.target
"""

__all__ = (
    "COMMANDS",
    "DIRECTORY",
    "MODPROBE",
    "SCRIPT",
    "SERVICE_CONFIGS",
    "STATE_FILE",
    "UNIT",
    "UNIT_NAME",
    "Layout",
    "closed_text",
    "differing",
    "fallback_text",
    "layout_of",
    "modprobe_text",
    "wanted_files",
)
