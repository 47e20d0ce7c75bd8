#!/usr/bin/env bash
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Records the rulesets of this directory again: builds one root filesystem per Debian release, starts the real
# firewall software in it, in name spaces of its own, and keeps what iptables-save prints.
# Usage (as root): record.sh [ID...]        WORK=DIR keeps the root filesystems somewhere else.
# Needs mmdebstrap and unshare. The dates, the counters and what a newer package prints will differ.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-/var/tmp/portknock-corpus}
OUT=${OUT:-$here}
COMMON=iptables,iproute2,python3,ipset,nftables,busybox-static,procps

# id, Debian release, backend, the function of jobs.sh that makes it
table() {
    cat <<'TABLE'
empty-nft bookworm nft untouched
empty-legacy bookworm legacy untouched
touched-legacy bookworm legacy touched
touched-nft bookworm nft touched
article-nft bookworm nft article
article-legacy bullseye legacy article
docker bookworm nft docker
docker-legacy bookworm legacy docker
docker-trixie trixie nft docker
fail2ban bookworm nft fail2ban
fail2ban-legacy bookworm legacy fail2ban
fail2ban-bullseye bullseye nft fail2ban
fail2ban-trixie trixie nft fail2ban
fail2ban-ipset bookworm nft fail2ban_ipset
ufw bookworm nft ufw
ufw-legacy bookworm legacy ufw
ufw-bullseye bullseye nft ufw
ufw-trixie trixie nft ufw
ferm bookworm nft ferm
ferm-legacy bookworm legacy ferm
firewalld bookworm nft firewalld
libvirt bookworm nft libvirt
shorewall bookworm nft shorewall
shorewall-legacy bookworm legacy shorewall
arno bookworm legacy arno
kube bookworm nft kube
kube-legacy bookworm legacy kube
kube-bullseye bullseye nft kube
kube-trixie trixie nft kube
el-stock-live bookworm nft el_stock
headers bookworm nft headers
headers-legacy bookworm legacy headers
headers-bullseye bullseye nft headers
headers-trixie trixie nft headers
both-backends bookworm nft both_backends
native-nft bookworm nft native_nft
rules-5000 bookworm nft rules_5000
hand-written-live bookworm nft hand_written
spelling-1.8.7-nft bullseye nft spelling
spelling-1.8.7-legacy bullseye legacy spelling
spelling-1.8.9-nft bookworm nft spelling
spelling-1.8.9-legacy bookworm legacy spelling
spelling-1.8.11-nft trixie nft spelling
spelling-1.8.11-legacy trixie legacy spelling
more-1.8.7-nft bullseye nft more
more-1.8.7-legacy bullseye legacy more
more-1.8.9-nft bookworm nft more
more-1.8.9-legacy bookworm legacy more
more-1.8.11-nft trixie nft more
more-1.8.11-legacy trixie legacy more
TABLE
}

packages() {
    case $1 in
    bullseye) echo "$COMMON,fail2ban,ufw" ;;
    trixie) echo "$COMMON,fail2ban,python3-systemd,ufw,docker.io,docker-cli" ;;
    *) echo "$COMMON,fail2ban,python3-systemd,ufw,docker.io,ferm,firewalld,shorewall,shorewall6,\
libvirt-daemon-system,libvirt-clients,libvirt-daemon-config-network,dnsmasq-base,dbus,arno-iptables-firewall" ;;
    esac
}

build_root() {
    local suite=$1 root=$WORK/$1
    [ -d "$root" ] && return
    echo "record: building the $suite root filesystem" >&2
    mkdir -p "$WORK"
    # shellcheck disable=SC2016  # $1 is mmdebstrap's
    mmdebstrap --variant=minbase --include="$(packages "$suite")" \
        --setup-hook='mkdir -p "$1/usr/sbin"; printf "#!/bin/sh\nexit 101\n" > "$1/usr/sbin/policy-rc.d"; chmod +x "$1/usr/sbin/policy-rc.d"' \
        "$suite" "$root.new"
    mv "$root.new" "$root"
}

# Runs one job in an overlay of the root filesystem, so that none sees what another left.
run_job() {
    local id=$1 suite=$2 backend=$3 job=$4
    echo "record: $id ($job, $suite, $backend)" >&2
    # shellcheck disable=SC2016  # expanded by the inner shell
    timeout 150 unshare -n -m -p -u -i -C --kill-child -f bash -c '
        set -e
        root=$1 here=$2 out=$3; shift 3
        mount --make-rprivate /
        mount -t tmpfs tmpfs /mnt
        mkdir /mnt/up /mnt/wk /mnt/r
        mount -t overlay overlay -o "lowerdir=$root,upperdir=/mnt/up,workdir=/mnt/wk" /mnt/r
        mount -t proc proc /mnt/r/proc
        mount -t sysfs sysfs /mnt/r/sys
        mount -t cgroup2 cgroup2 /mnt/r/sys/fs/cgroup || true
        mount --rbind /dev /mnt/r/dev
        mount -t tmpfs tmpfs /mnt/r/run
        mkdir -p /mnt/r/corpus /mnt/r/out /mnt/r/var/lib/docker
        mount -t tmpfs tmpfs /mnt/r/var/lib/docker
        mount --bind "$here" /mnt/r/corpus
        mount --bind "$out" /mnt/r/out
        hostname recorder
        exec chroot /mnt/r bash /corpus/jobs.sh "$@"
    ' run "$WORK/$suite" "$here" "$OUT" "$id" "$backend" "$job" </dev/null
}

main() {
    local id suite backend job failed=0
    while read -r id suite backend job <&3; do
        if [ $# -gt 0 ] && [[ " $* " != *" $id "* ]]; then continue; fi
        build_root "$suite"
        run_job "$id" "$suite" "$backend" "$job" || { echo "record: $id FAILED" >&2; failed=1; }
    done 3< <(table)
    return $failed
}

main "$@"
