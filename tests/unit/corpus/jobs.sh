#!/usr/bin/env bash
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The inner half of record.sh: runs as PID 1 of a throwaway name space and root filesystem.
# jobs.sh ID BACKEND JOB
set -euo pipefail

id=$1 backend=$2 job=$3
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 TZ=UTC

# --- helpers ---------------------------------------------------------------------------------------------------------
use_backend() {
    local tool
    for tool in iptables ip6tables; do
        update-alternatives --set $tool "/usr/sbin/$tool-$backend" >/dev/null
    done
}

network() {
    sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 2>/dev/null || true
    ip link set lo up
    ip link add eth0 type veth peer name peer0
    ip link set eth0 up
    ip link set peer0 up
    ip addr add 198.51.100.10/24 dev eth0
    ip -6 addr add 2001:db8:100::10/64 dev eth0 nodad
    ip route add default via 198.51.100.1
    ip -6 route add default via 2001:db8:100::1
}

# Plain or with counters: both are what people keep.
save() {
    iptables-save "$@" > "/out/$id.v4.save"
    ip6tables-save "$@" > "/out/$id.v6.save"
    # software that does not touch a family: only the job "untouched" keeps the nothing it left
    [ "$job" = untouched ] || find "/out/$id.v4.save" "/out/$id.v6.save" -empty -delete
}

wait_for() {
    local try
    for try in $(seq 1 100); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.2
    done
    echo "jobs: gave up after $try tries: $*" >&2
    return 1
}

# So that some of the counters are not zero.
traffic() {
    local _
    for _ in 1 2 3; do
        echo x > /dev/udp/127.0.0.1/9 || true
        echo x > /dev/udp/::1/9 || true
    done 2>/dev/null
    (exec 3<>/dev/tcp/127.0.0.1/22) 2>/dev/null || true
}

# --- the jobs --------------------------------------------------------------------------------------------------------
job_untouched() { save; }

# Tables without a rule. A list is enough to make them in legacy, not in nft.
job_touched() {
    iptables -P INPUT ACCEPT
    ip6tables -P INPUT ACCEPT
    iptables -t nat -L -n >/dev/null
    traffic
    save
}

job_article() {
    iptables -I INPUT -p icmp -j ACCEPT
    iptables -I INPUT -p tcp -m state --state RELATED,ESTABLISHED -j ACCEPT
    iptables -A INPUT -p tcp --dport 1000 -m recent --set --name KNOCKING --rsource
    iptables -A INPUT -p tcp --dport 22 -m recent --rcheck --seconds 15 --name KNOCKING --rsource -j ACCEPT
    iptables -A INPUT -j REJECT --reject-with icmp-port-unreachable
    save -c
}

job_docker() {
    mkdir -p /tmp/image/bin
    cp /bin/busybox /tmp/image/bin/busybox
    dockerd --storage-driver vfs --exec-opt native.cgroupdriver=cgroupfs >/tmp/dockerd.log 2>&1 &
    wait_for docker info || { tail -n 20 /tmp/dockerd.log >&2; return 1; }
    tar -C /tmp/image -c . | docker import - tiny >/dev/null
    docker network create backend >/dev/null
    docker run -d --name web -p 8080:80 tiny /bin/busybox sleep 600 >/dev/null
    docker run -d --name api -p 127.0.0.1:9000:9000 -p 2222:22/tcp --network backend tiny /bin/busybox sleep 600 >/dev/null
    save -c
    docker rm -f web api >/dev/null
}

fail2ban_config() {
    cat > /etc/fail2ban/jail.d/defaults-debian.conf <<CONF
[DEFAULT]
backend = polling
banaction = $1
banaction_allports = $2
bantime = 1h
[sshd]
enabled = true
logpath = /var/log/auth.log
[recidive]
enabled = true
CONF
    touch /var/log/auth.log /var/log/fail2ban.log
    mkdir -p /run/fail2ban
    fail2ban-server -xb start >/dev/null
    wait_for fail2ban-client status recidive
}

fail2ban_bans() {
    fail2ban-client set sshd banip 192.0.2.10 192.0.2.77 2001:db8:bad::1 >/dev/null
    fail2ban-client set recidive banip 192.0.2.200 >/dev/null
    wait_for sh -c 'iptables-save | grep -q 192.0.2.200 || ipset list | grep -q 192.0.2.200'
    wait_for sh -c 'iptables-save | grep -q 192.0.2.77 || ipset list | grep -q 192.0.2.77'
    wait_for sh -c 'ip6tables-save | grep -q 2001:db8:bad::1 || ipset list | grep -q 2001:db8:bad::1'
}

job_fail2ban() {
    fail2ban_config iptables-multiport iptables-allports
    fail2ban_bans
    traffic
    save -c
}

job_fail2ban_ipset() {
    local action=iptables-ipset-proto6
    [ -e "/etc/fail2ban/action.d/iptables-ipset.conf" ] && action=iptables-ipset
    fail2ban_config "$action" "$action-proto6-allports"
    [ -e /etc/fail2ban/action.d/iptables-ipset-proto6-allports.conf ] || echo "jobs: no allports ipset action" >&2
    fail2ban_bans
    ipset save > "/out/$id.ipset"
    save
}

job_ufw() {
    ufw allow ssh >/dev/null
    ufw limit from 192.0.2.0/24 to any port 8443 proto tcp comment 'admin panel' >/dev/null
    ufw deny in on eth0 to any port 25 >/dev/null
    ufw --force enable >/dev/null
    traffic
    save -c
}

job_ferm() {
    # ferm prefers the legacy tools where they exist, whatever the alternatives say
    [ "$backend" = legacy ] || rm /usr/sbin/*-legacy*
    ferm /etc/ferm/ferm.conf
    traffic
    save -c
}

job_firewalld() {
    mkdir -p /run/dbus
    dbus-daemon --system --fork
    sed -i 's/^FirewallBackend=.*/FirewallBackend=iptables/' /etc/firewalld/firewalld.conf
    firewalld --nopid
    wait_for firewall-cmd --state
    firewall-cmd -q --zone=public --add-interface=eth0
    firewall-cmd -q --zone=public --add-port=8080/tcp
    firewall-cmd -q --zone=public --add-rich-rule='rule family=ipv4 source address=192.0.2.0/24 reject'
    # killed, not stopped: this is what stays behind
    kill -9 "$(pgrep -f /usr/sbin/firewalld)"
    save
}

job_libvirt() {
    mkdir -p /run/dbus
    dbus-daemon --system --fork
    virtlogd -d
    libvirtd -d
    wait_for virsh -c qemu:///system list
    virsh -c qemu:///system net-start default >/dev/null 2>&1 || virsh -c qemu:///system net-list --all | grep -q active
    wait_for sh -c 'iptables-save | grep -q LIBVIRT_PRT'
    save -c
}

# shellcheck disable=SC2016  # $FW is shorewall's
job_shorewall() {
    cp /usr/share/doc/shorewall/examples/one-interface/{interfaces,policy,rules,zones} /etc/shorewall/
    sed -i 's/NET_IF/eth0/' /etc/shorewall/interfaces
    echo 'SSH(ACCEPT)	net	$FW' >> /etc/shorewall/rules
    shorewall start >/tmp/shorewall.log 2>&1 || { tail -n 5 /tmp/shorewall.log >&2; return 1; }
    cp /usr/share/doc/shorewall6/examples/one-interface/{interfaces,policy,rules,zones} /etc/shorewall6/
    sed -i 's/NET_IF/eth0/' /etc/shorewall6/interfaces
    echo 'SSH(ACCEPT)	net	$FW' >> /etc/shorewall6/rules
    shorewall6 start >/tmp/shorewall6.log 2>&1 || { tail -n 5 /tmp/shorewall6.log >&2; return 1; }
    save -c
}

job_arno() {
    cat > /etc/arno-iptables-firewall/conf.d/50-local.conf <<'CONF'
EXT_IF="eth0"
EXT_IF_DHCP_IP=0
OPEN_TCP="22 443"
OPEN_UDP="51820"
OPEN_ICMP=1
IPV6_SUPPORT=1
CONF
    chmod 600 /etc/arno-iptables-firewall/conf.d/50-local.conf
    arno-iptables-firewall start >/tmp/arno.log 2>&1 || { tail -n 10 /tmp/arno.log >&2; return 1; }
    save -c
}

# Text that somebody loads: FILE.v4, FILE.v6 under sources/
load_sources() {
    iptables-restore < "/corpus/sources/$1.v4"
    ip6tables-restore < "/corpus/sources/$1.v6"
}

job_kube() {
    load_sources kube
    save -c
}

job_headers() {
    load_sources headers
    traffic
    save -c
}

job_el_stock() {
    iptables-restore < /corpus/el-stock.v4.save
    ip6tables-restore < /corpus/el-stock.v6.save
    save
}

job_hand_written() {
    iptables-restore < /corpus/hand-written.v4.save
    ip6tables-restore < /corpus/hand-written.v6.save
    save
}

job_spelling() {
    load_sources spelling
    save
}

# A backend that does not know a rule must not cost the others: each is tried alone first.
job_more() {
    local tool family line
    for family in 4 6; do
        tool=iptables
        [ $family = 6 ] && tool=ip6tables
        grep '^[*:]' "/corpus/sources/more.v$family" > /tmp/all
        while IFS= read -r line; do
            printf '*filter\n:C - [0:0]\n%s\nCOMMIT\n' "${line/#-I INPUT 3/-I INPUT 1}" > /tmp/one
            if $tool-restore < /tmp/one 2>/dev/null; then printf '%s\n' "$line" >> /tmp/all; fi
        done < <(grep '^-' "/corpus/sources/more.v$family")
        echo COMMIT >> /tmp/all
        $tool-restore < /tmp/all
    done
    save -c
}

job_both_backends() {
    iptables-legacy -A INPUT -p tcp --dport 22 -j ACCEPT
    ip6tables-legacy -A INPUT -p tcp --dport 22 -j ACCEPT
    iptables-nft -A INPUT -p tcp --dport 22 -j DROP
    ip6tables-nft -A INPUT -p tcp --dport 22 -j DROP
    # The warning goes to standard error or output according to the version; keep both.
    iptables-save > "/out/$id.v4.save" 2>&1
    ip6tables-save > "/out/$id.v6.save" 2>&1
}

job_native_nft() {
    local family
    for family in ip ip6; do
        nft -f - <<NFT
table $family filter {
    chain INPUT {
        type filter hook input priority 0; policy accept;
        tcp dport { 22, 80 } ct state new accept
        meta l4proto tcp reject
    }
}
table inet own {
    chain input { type filter hook input priority 5; policy accept; tcp dport 23 drop; }
}
NFT
    done
    iptables -t nat -A PREROUTING -p tcp --dport 81 -j REDIRECT --to-ports 80
    ip6tables -t nat -A PREROUTING -p tcp --dport 81 -j REDIRECT --to-ports 80
    iptables-save > "/out/$id.v4.save" 2>&1 || true
    ip6tables-save > "/out/$id.v6.save" 2>&1 || true
}

job_rules_5000() {
    python3 /corpus/sources/rules_5000.py 4 | iptables-restore
    python3 /corpus/sources/rules_5000.py 6 | ip6tables-restore
    save
}

use_backend
network
"job_$job"
