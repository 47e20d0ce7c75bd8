# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Units and scripts that knockd runs with. Pure.

knockd listens only to the addresses that its interface had when it began; ADDRESSES_SCRIPT watches them.
"""

from ansible_collections.sesame.portknock.plugins.module_utils._paths import KNOCKD_ADDRESSES_UNIT, KNOCKD_UPGRADE_UNIT

_WRITTEN = "# Written by sesame.portknock; changes to this file are lost.\n"


def drop_in_text(program: str, config: str, noted: str) -> str:
    """Return the collection's drop-in for knockd.service.

    The package's own configuration, which on Debian has live doors with well-known steps, and its file of options never
    count, whatever a distribution calls them. knockd needs no capability but to capture packets: it writes to the kernel's
    lists as their owner.

    :param program: the path of knockd.
    :param config: the path of the configuration.
    :param noted: the path of ADDRESSES_SCRIPT, or '' where addresses are not watched.
    """
    lines = ["[Unit]", "StartLimitIntervalSec=0"]
    lines += [f"Wants={KNOCKD_ADDRESSES_UNIT} {KNOCKD_UPGRADE_UNIT}"] if noted else []
    lines += ["", "[Service]", "Type=simple", "PIDFile=", "RuntimeDirectory=portknock-knockd", "ExecStartPre="]
    if noted:
        lines += [f"ExecStartPre=/bin/sh {noted} note", "EnvironmentFile=-/run/portknock-knockd/interface"]
    lines += [
        "ExecStart=",
        "ExecStart={0} -c {1}{2}".format(program, config, " $PORTKNOCK_INTERFACE" if noted else ""),
        "Restart=always",
        "RestartSec=1",
        "TimeoutStopSec=3",
        # What it exits with when it is stopped.
        "SuccessExitStatus=0 2 15",
        "CapabilityBoundingSet=",
        "CapabilityBoundingSet=CAP_NET_RAW",
        "NoNewPrivileges=yes",
        "LogRateLimitIntervalSec=60",
        "LogRateLimitBurst=60",
    ]
    return _WRITTEN + "\n".join(lines) + "\n"


ADDRESSES_UNIT = (
    _WRITTEN
    + """[Unit]
Description=Port knocking: restarts knockd when the addresses of its interface change
PartOf=knockd.service
After=knockd.service
StartLimitIntervalSec=0

[Service]
ExecStart=/bin/sh {0} watch
Restart=always
RestartSec=2
NoNewPrivileges=yes
"""
)

UPGRADE_UNIT = (
    _WRITTEN
    + """[Unit]
Description=Port knocking: starts knockd again when its package was upgraded, which stops it

[Path]
PathChanged={0}
Unit=knockd.service
"""
)
"""Debian's package stops the daemon before an upgrade, and starts it only where it was enabled in its own way."""

ADDRESSES_SCRIPT = """#!/bin/sh
# Written by sesame.portknock; changes to this file are lost.
# knockd hears knocks at the addresses that its interface had when it began, and at none that came later: from DHCP,
# from IPv6's autoconfiguration, a floating one. So they are noted before it begins, and it is restarted when they differ.
# Where its interface is gone (a new kernel may name it anew), it gets that of the default route: better than to be deaf.
set -u
PATH=/usr/sbin:/sbin:/usr/bin:/bin
NOTED=/run/portknock-knockd/addresses
OPTION=/run/portknock-knockd/interface
configured=$(sed -n 's/^interface = //p' /etc/portknock/knockd.conf)

find_interface() {
    [ ! -e "/sys/class/net/$configured" ] || { echo "$configured" && return; }
    { ip -4 -o route show default && ip -6 -o route show default; } 2>/dev/null | sed -n 's/.* dev \\([^ ]*\\).*/\\1/p' | head -n 1
}

addresses() {
    echo "$interface"
    ip -o address show dev "$interface" 2>/dev/null | while read -r _number _name family address _rest; do
        echo "$family $address"
    done | sort
}

note() {
    addresses > "$NOTED"
    if [ "$interface" = "$configured" ] || [ -z "$interface" ]; then
        : > "$OPTION"
    else
        echo "there is no interface $configured: knockd listens on $interface, that of the default route" >&2
        echo "PORTKNOCK_INTERFACE=-i $interface" > "$OPTION"
    fi
}

# Nothing is noted for a knockd that a change still to be confirmed has started.
check() {
    noted=$(cat "$NOTED" 2>/dev/null) || return 0
    [ "$(addresses)" = "$noted" ] || systemctl --no-block try-restart knockd.service
}

interface=$(find_interface)
case ${1:-} in
note)
    note
    ;;
watch)
    # One look a second after the watch began, for what came in between; then one for each change.
    { (sleep 1 && echo) & exec ip -o monitor address; } | while read -r _line; do
        interface=$(find_interface)
        check
    done
    ;;
esac
"""

PREFIX_SCRIPT = """#!/bin/sh
# Written by sesame.portknock; changes to this file are lost.
# Prints the network that an IPv6 address belongs to: ipv6-prefix LENGTH ADDRESS, as knockd's commands need it.
set -u
left=$1 head=${2%%::*} tail='' groups='' colon=''
case $2 in *::*) tail=${2#*::} ;; esac
IFS=:
# shellcheck disable=SC2086  # split at the colons
set -- $head && before=$#
# shellcheck disable=SC2086
set -- $tail && missing=$((8 - before - $#))
while [ "$missing" -gt 0 ]; do
    tail=0:$tail missing=$((missing - 1))
done
# shellcheck disable=SC2086
set -- $head $tail
for group; do
    [ "$left" -gt 0 ] || group=0
    [ "$left" -ge 16 ] || group=$(printf '%x' $((0x$group & (0xffff << (16 - (left > 0 ? left : 0))) & 0xffff)))
    groups=$groups$colon$group colon=: left=$((left - 16))
done
printf '%s\\n' "$groups"
"""

__all__ = ("ADDRESSES_SCRIPT", "ADDRESSES_UNIT", "PREFIX_SCRIPT", "UPGRADE_UNIT", "drop_in_text")
