#!/bin/sh
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Tells in one round trip what the role must know about a host, as key=value lines.
# It only reads. It must not load a kernel module either: --check runs it too.

PATH="/usr/sbin:/sbin:$PATH"
export LC_ALL=C

say() {
    printf '%s=%s\n' "$1" "$2"
}

has_command() {
    command -v "$1" >/dev/null 2>&1
}

operating_system() {
    ID='' VERSION_ID='' ID_LIKE='' PRETTY_NAME=''
    for release in /etc/os-release /usr/lib/os-release; do
        if [ -r "$release" ]; then
            # shellcheck source=/dev/null
            . "$release"
            break
        fi
    done
    say os_id "$ID"
    say os_version "$VERSION_ID"
    say os_like "$ID_LIKE"
    say os_name "${PRETTY_NAME:-$ID $VERSION_ID}"
}

# Without a running systemd only the unit files can be looked at.
unit_file() {
    for directory in /etc /usr/lib /lib; do
        if [ -e "$directory/systemd/system/$1.service" ]; then
            return 0
        fi
    done
    return 1
}

units() {
    present='' active='' enabled=''
    for unit in netfilter-persistent iptables ip6tables firewalld nftables ufw knockd; do
        if [ "$systemd" = no ]; then
            if unit_file "$unit"; then
                present="$present $unit"
            fi
            continue
        fi
        state=$(systemctl show -p LoadState -p ActiveState -p UnitFileState "$unit.service")
        case $state in
            *LoadState=not-found*) continue ;;
        esac
        present="$present $unit"
        case $state in
            *ActiveState=active* | *ActiveState=activating* | *ActiveState=reloading*)
                active="$active $unit" ;;
        esac
        case $state in
            *UnitFileState=enabled*) enabled="$enabled $unit" ;;
        esac
    done
    say units "$present"
    say active "$active"
    say enabled "$enabled"
}

commands() {
    found=''
    for name in iptables iptables-restore ip6tables-restore ufw apt-get dnf knockd ip; do
        if has_command "$name"; then
            found="$found $name"
        fi
    done
    # netfilter-persistent alone saves and loads nothing: the plugins do.
    if [ -e /usr/share/netfilter-persistent/plugins.d/15-ip4tables ]; then
        found="$found iptables-persistent"
    fi
    say have "$found"
}

# ufw's unit is active on a host where ufw itself was never switched on.
ufw_state() {
    if ! has_command ufw; then
        say ufw absent
    elif grep -qis '^ENABLED=yes' /etc/ufw/ufw.conf; then
        say ufw on
    else
        say ufw off
    fi
    # shellcheck disable=SC2016  # ${Breaks} is dpkg's variable, not the shell's
    if has_command dpkg-query &&
        dpkg-query -W -f='${db:Status-Status} ${Breaks} ${Conflicts}\n' ufw 2>/dev/null |
        grep -q '^installed .*iptables-persistent'; then
        say ufw_excludes_persistent yes
    else
        say ufw_excludes_persistent no
    fi
}

# Only where the kernel's own list of modules names it can it be known not to be loaded.
nf_tables_unloaded() {
    grep -qs '/nf_tables\.ko' "/lib/modules/$kernel/modules.dep" && [ ! -e /sys/module/nf_tables ]
}

# The save commands load what they ask for, so a backend that is not there is not asked.
live_rules() {
    save4='' save6=''
    if ! nf_tables_unloaded; then
        save4='iptables-nft-save iptables-save'
        save6='ip6tables-nft-save ip6tables-save'
    fi
    if [ -s /proc/net/ip_tables_names ]; then
        save4="$save4 iptables-legacy-save iptables-save"
    fi
    if [ -s /proc/net/ip6_tables_names ]; then
        save6="$save6 ip6tables-legacy-save ip6tables-save"
    fi
    for save in $save4 $save6; do
        if has_command "$save" && "$save" 2>/dev/null | grep -q '^-A'; then
            say live_rules yes
            return
        fi
    done
    say live_rules no
}

# Rules a service start would load, flushing the live ones first.
rules_file() {
    for file in /etc/iptables/rules.v4 /etc/iptables/rules.v6 \
        /etc/sysconfig/iptables /etc/sysconfig/ip6tables; do
        if [ -s "$file" ]; then
            say rules_file yes
            return
        fi
    done
    say rules_file no
}

# "unknown" is a container: its kernel is not its own.
kernel_modules() {
    modules="/lib/modules/$kernel"
    if [ ! -e "$modules/modules.dep" ]; then
        say kernel_modules unknown
        return
    fi
    for module in xt_recent xt_conntrack nft_compat; do
        if ! grep -qs "/$module\.ko" "$modules/modules.dep" "$modules/modules.builtin"; then
            say kernel_modules missing
            return
        fi
    done
    say kernel_modules present
}

main() {
    kernel=$(uname -r)
    systemd=no
    if [ -d /run/systemd/system ]; then
        systemd=yes
    fi
    say uid "$(id -u)"
    say kernel "$kernel"
    say systemd "$systemd"
    if [ -e /proc/net/if_inet6 ]; then
        say ipv6 yes
    else
        say ipv6 no
    fi
    operating_system
    units
    commands
    ufw_state
    live_rules
    rules_file
    kernel_modules
}

# The script itself comes in on standard input: nothing it starts may eat the rest of it.
main </dev/null
