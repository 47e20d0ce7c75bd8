#!/usr/bin/env bash
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Writes rules with iptables-nft and prints what iptables-save and ip6tables-save say of them; what this kernel lacks is left out. For
# iptables-*.json beside this one it ran in containers of Debian 11, 12 and 13, with record_kernel.py behind it.
set -u
iptables -A INPUT -p tcp --syn -m multiport --dports 1,2 -m conntrack --ctstate NEW -m comment --comment "hi there" \
    -m mark --mark 5 -m limit --limit 5/sec -j REJECT
iptables -A INPUT -p icmp --icmp-type 8 -s 1.2.3.0/24 ! -d 1.2.3.4 -i eth+ -m ttl --ttl-eq 5 -m length --length 5:10 \
    -j LOG --log-prefix x
iptables -A INPUT -f -m pkttype --pkt-type broadcast -m iprange --src-range 1.2.3.4-1.2.3.9 -j NFLOG
while read -r command rule; do
    # shellcheck disable=SC2086
    "$command" -A INPUT $rule 2>/dev/null
done <<'RULES'
iptables -p udp --dport 5:7 -m mac --mac-source 00:11:22:33:44:55
iptables -p sctp --dport 5:7
iptables -m owner --uid-owner 0 -j DROP
iptables -m statistic --mode random --probability 0.5 -j DROP
iptables -m hashlimit --hashlimit-upto 5/sec --hashlimit-name x -j DROP
iptables -p tcp -m connlimit --connlimit-above 3 -j DROP
iptables -m recent --name y --set -j DROP
iptables -m addrtype --dst-type LOCAL -j DROP
iptables -m tos --tos 5 -j DROP
iptables -m dscp --dscp 5 -j DROP
iptables -m socket -j DROP
iptables -m string --string x --algo bm -j DROP
iptables -m time --timestart 10:00 -j DROP
iptables -m helper --helper ftp -j DROP
iptables -p icmp --icmp-type 3/4 -j DROP
iptables -p icmp --icmp-type any -j DROP
iptables -m cpu --cpu 0 -j DROP
iptables -m state --state NEW -j DROP
iptables -m connmark --mark 5 -j DROP
iptables -p tcp --tcp-option 5 -j DROP
iptables -m devgroup --src-group 5 -j DROP
iptables -p esp -m esp --espspi 5 -j DROP
iptables -m u32 --u32 0&0xFFFF=0x100:0xFFFF -j DROP
iptables -m set --match-set x src -j DROP
iptables -p tcp -m tcpmss --mss 5:6 -j DROP
iptables -p tcp --sport 5 ! --dport 7 -j DROP
iptables -p udplite -j DROP
iptables ! -i lo -j DROP
iptables ! -p tcp -j DROP
ip6tables -p icmpv6 --icmpv6-type 135 -j DROP
ip6tables -m hl --hl-eq 255 -j DROP
ip6tables -p icmpv6 --icmpv6-type 1/4 -j DROP
ip6tables -m rt --rt-type 0 -j DROP
ip6tables -m frag --fragmore -j DROP
ip6tables -m ipv6header --header frag -j DROP
ip6tables -s fe80::/10 -j DROP
ip6tables -m eui64 -j DROP
ip6tables -p ipv6-icmp -j DROP
RULES
iptables-save
ip6tables-save
