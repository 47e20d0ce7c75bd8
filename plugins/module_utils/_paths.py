# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every path, unit, table and command name that this collection uses on a host."""

RUN = "/run/portknock"
"""What lies here is of this boot alone: a change that waits to be confirmed, and the program that undoes it."""
PENDING = f"{RUN}/pending.json"
PROGRAM = f"{RUN}/guard.zip"
UNCHANGED = f"{RUN}/unchanged.json"
OPENED = f"{RUN}/opened"
"""What lies here says until when a door was opened to a source by hand."""

LOCK_DIRECTORY = "/run/portknock.d"
"""Root's alone from its birth, and never removed: no other user can hold what lies in it."""
LOCK = f"{LOCK_DIRECTORY}/lock"
LAST = f"{LOCK_DIRECTORY}/last.json"

DIRECTORY = "/etc/portknock"
STATE_FILE = f"{DIRECTORY}/state.json"
OPTIONS = f"{DIRECTORY}/options.json"
"""What was asked for, for what the command changes by itself."""
PREVIOUS = f"{DIRECTORY}/previous"
"""Where the version before is kept of the rules files that a change has replaced."""
SPARE = f"{DIRECTORY}/pending"
"""What lies here is a second copy of what undoes a pending change: /run may be emptied, and a reboot empties it."""
SPARE_RECORD = f"{SPARE}/record.json"
SPARE_PROGRAM = f"{SPARE}/guard.zip"
SPARE_UNDO = f"{SPARE}/undo"

GUARD_UNIT = "portknock-guard"
UNIT_NAME = "portknock.service"
UNITS = "/etc/systemd/system"
RUN_UNITS = "/run/systemd/system"
UNDO_UNIT_NAME = "portknock-undo.service"
UNDO_UNIT = f"{UNITS}/{UNDO_UNIT_NAME}"
"""What undoes an unconfirmed change at the next boot; it is there only while a change is pending."""
LATE_UNDO_UNIT = "portknock-undo-late"
"""Looks again when that boot is done: a script of the administrator's may have loaded what it saved of that change."""
UNDONE_RECORD = f"{RUN}/undone.json"
UNDO_WANTS = f"{UNITS}/multi-user.target.d/{UNDO_UNIT_NAME}.conf"
UNIT = f"{UNITS}/{UNIT_NAME}"
WANTED_UNITS = f"{UNITS}/multi-user.target.wants"
BOOT_SCRIPT = "/usr/local/sbin/portknock-boot"

COMMAND = "/usr/local/sbin/portknock"
"""The command for the administrator of the host."""
COMPLETION = "/usr/local/share/bash-completion/completions/portknock"
MANUAL = "/usr/local/share/man/man8/portknock.8"
PYTHONS = ("/usr/bin/python3", "/usr/libexec/platform-python")
"""Where a distribution has the Python that its own programs run with."""

METRICS_SERVICE, METRICS_TIMER = "portknock-metrics.service", "portknock-metrics.timer"
METRICS_FILE = "portknock.prom"

NFT_TABLE = "inet portknock"
"""Family and name of the collection's table of nftables."""
TABLE_FILE = f"{DIRECTORY}/table.nft"
"""The table of nftables, as it is loaded now and at boot."""
CLOSED_TABLE = f"{DIRECTORY}/table.closed"
"""A plainer one that keeps the doors shut, for a boot that cannot load the other."""
RUN_TABLE = f"{RUN}/table.nft"
"""The one of a change that is pending."""
NFTABLES_CONFIGS = ("/etc/nftables.conf", "/etc/sysconfig/nftables.conf")
"""Where administrators save what nftables.service loads at boot."""

MODPROBE = "/etc/modprobe.d/portknock.conf"
RECENT_LISTS = "/proc/net/xt_recent"
IPTABLES_SERVICE_CONFIGS = ("/etc/sysconfig/iptables-config", "/etc/sysconfig/ip6tables-config")
"""Settings of the package iptables-services (EL)."""
LOADERS = {
    "arno-iptables-firewall": "/etc/arno-iptables-firewall/firewall.conf",
    "awall": "/etc/awall",
    "csf": "/etc/csf/csf.conf",
    "ferm": "/etc/ferm/ferm.conf",
    "firehol": "/etc/firehol/firehol.conf",
    "shorewall": "/etc/shorewall/shorewall.conf",
    "shorewall6": "/etc/shorewall6/shorewall6.conf",
    "shorewall-lite": "/etc/shorewall-lite/shorewall-lite.conf",
    "shorewall6-lite": "/etc/shorewall6-lite/shorewall6-lite.conf",
}
"""Services that load a whole ruleset of their own, and what tells that one is set up."""
OS_RELEASE = "/etc/os-release"
UFW_CONFIG = "/etc/ufw/ufw.conf"
RULES_FILES = {
    "debian": {"ipv4": "/etc/iptables/rules.v4", "ipv6": "/etc/iptables/rules.v6"},
    "el": {"ipv4": "/etc/sysconfig/iptables", "ipv6": "/etc/sysconfig/ip6tables"},
}
"""For each family of distributions, IP version to the rules file that a service of it loads at boot."""

IPTABLES = {"ipv4": "iptables", "ipv6": "ip6tables"}
"""The command of each IP version; its relatives have ``-save`` and ``-restore`` behind it."""

KNOCKD_UNIT = "knockd.service"
KNOCKD_CONFIG = "knockd.conf"
KNOCKD_PREFIX_HELPER = "ipv6-prefix"
KNOCKD_ADDRESSES_UNIT = "portknock-addresses.service"
KNOCKD_UPGRADE_UNIT = "portknock-knockd.path"
KNOCKD_ADDRESSES_SCRIPT = "/usr/local/sbin/portknock-addresses"

STAGED_PREFIX = ".portknock-"
"""How the names of staged files begin."""
