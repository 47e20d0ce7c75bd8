# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What publishes ports on hosts, but for Docker with iptables: its rules of nat, with the ports and the host behind of docker_rules.

Recorded are those of podman: 4.3.1 of Debian 12 and 5.4.2 of Debian 13, whose netavark has a table of nftables of its own. Written from
their documents are Docker 29's own nftables (firewall-backend), the plugin portmap of CNI, with which k3s publishes a hostPort and its
servicelb a service, and kube-proxy 1.31 in mode nftables.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from rig.docker_rules import INNER, NETWORK
from rig.network import Rig
from rig.packets import IPV4
from rig.peer import TARGET
from rig.target import FAMILIES


class Publisher(NamedTuple):
    """Rules that publish the ports."""

    text: str
    """For one version of IP, as iptables-restore or nft reads it."""
    table: str
    """The table of nftables, '' for rules of iptables."""


_PORTMAP = """*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:{prefix}-HOSTPORT-DNAT - [0:0]
:{prefix}-HOSTPORT-MASQ - [0:0]
:{prefix}-HOSTPORT-SETMARK - [0:0]
:{prefix}-DN-1D8721804F16F - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j {prefix}-HOSTPORT-DNAT
-A OUTPUT -m addrtype --dst-type LOCAL -j {prefix}-HOSTPORT-DNAT
-A POSTROUTING -j {prefix}-HOSTPORT-MASQ
-A POSTROUTING -s {{network}} ! -d {{network}} -j MASQUERADE
-A {prefix}-DN-1D8721804F16F -s {{network}} -p tcp -m tcp --dport 8080 -j {prefix}-HOSTPORT-SETMARK
-A {prefix}-DN-1D8721804F16F -p tcp -m tcp --dport 8080 -j DNAT --to-destination {{to}}:80
-A {prefix}-DN-1D8721804F16F -p tcp -m tcp --dport 8081 -j DNAT --to-destination {{to}}:443
-A {prefix}-DN-1D8721804F16F -p udp -m udp --dport 8053 -j DNAT --to-destination {{to}}:5353
-A {prefix}-HOSTPORT-DNAT -p tcp {match} 8080 -m comment --comment "dnat name: web" -j {prefix}-DN-1D8721804F16F
-A {prefix}-HOSTPORT-DNAT -p tcp {match} 8081 -m comment --comment "dnat name: web" -j {prefix}-DN-1D8721804F16F
-A {prefix}-HOSTPORT-DNAT -p udp {match_udp} 8053 -m comment --comment "dnat name: web" -j {prefix}-DN-1D8721804F16F
-A {prefix}-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
-A {prefix}-HOSTPORT-SETMARK -j MARK --set-xmark 0x2000/0x2000
COMMIT
"""
_MULTIPORT = "-m multiport --dports"

_NETAVARK = """
table inet {table} {{
    chain FORWARD {{
        type filter hook forward priority filter; policy accept;
        ct state invalid drop
        {ip} daddr {network} ct state established,related accept
        {ip} saddr {network} accept
    }}
    chain POSTROUTING {{
        type nat hook postrouting priority srcnat; policy accept;
        meta mark & 0x00002000 == 0x00002000 masquerade
        {ip} saddr {network} {ip} daddr != {network} masquerade
    }}
    chain PREROUTING {{
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local jump NETAVARK-HOSTPORT-DNAT
    }}
    chain OUTPUT {{
        type nat hook output priority -100; policy accept;
        fib daddr type local jump NETAVARK-HOSTPORT-DNAT
    }}
    chain NETAVARK-HOSTPORT-DNAT {{
        tcp dport {{ 8080, 8081 }} jump nv_2f259bab_10_88_0_0_nm16_dnat
        udp dport 8053 jump nv_2f259bab_10_88_0_0_nm16_dnat
    }}
    chain NETAVARK-HOSTPORT-SETMARK {{
        meta mark set meta mark | 0x00002000
    }}
    chain nv_2f259bab_10_88_0_0_nm16_dnat {{
        {ip} saddr {network} tcp dport 8080 jump NETAVARK-HOSTPORT-SETMARK
        tcp dport 8080 dnat {ip} to {to}:80
        tcp dport 8081 dnat {ip} to {to}:443
        udp dport 8053 dnat {ip} to {to}:5353
    }}
}}
"""

_KUBE_PROXY = """
table {ip} {table} {{
    set nodeport-ips {{ type {kind}; elements = {{ {own} }}; }}
    map service-nodeports {{
        type inet_proto . inet_service : verdict
        elements = {{ tcp . 8080 : goto external-a, tcp . 8081 : goto external-b, udp . 8053 : goto external-c }}
    }}
    chain nat-prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        jump services
    }}
    chain nat-postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        meta mark & 0x4000 != 0 masquerade
        {ip} saddr {network} {ip} daddr != {network} masquerade
    }}
    chain services {{
        {ip} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
    }}
    chain mark-for-masquerade {{
        meta mark set meta mark | 0x4000
    }}
    chain external-a {{
        jump mark-for-masquerade
        meta l4proto tcp dnat to {to}:80
    }}
    chain external-b {{
        jump mark-for-masquerade
        meta l4proto tcp dnat to {to}:443
    }}
    chain external-c {{
        jump mark-for-masquerade
        meta l4proto udp dnat to {to}:5353
    }}
}}
"""

_DOCKER = """
table {ip} {table} {{
    chain filter-FORWARD {{
        type filter hook forward priority filter; policy accept;
        oifname "docker0" jump filter-forward-in__docker0
    }}
    chain filter-forward-in__docker0 {{
        ct state established,related counter accept
        iifname "docker0" counter accept
        {ip} daddr {inner} tcp dport {{ 80, 443 }} counter accept
        {ip} daddr {inner} udp dport 5353 counter accept
        counter drop
    }}
    chain nat-PREROUTING {{
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local counter jump nat-prerouting-and-output
    }}
    chain nat-prerouting-and-output {{
        iifname != "docker0" tcp dport 8080 counter dnat to {to}:80
        iifname != "docker0" tcp dport 8081 counter dnat to {to}:443
        iifname != "docker0" udp dport 8053 counter dnat to {to}:5353
    }}
    chain nat-POSTROUTING {{
        type nat hook postrouting priority srcnat; policy accept;
        {ip} saddr {inner} oifname != "docker0" counter masquerade
    }}
}}
"""

PUBLISHERS = {
    "nftables": Publisher(_DOCKER, "docker-bridges"),
    "portmap": Publisher(_PORTMAP.format(prefix="CNI", match=_MULTIPORT, match_udp=_MULTIPORT), ""),
    "netavark": Publisher(_PORTMAP.format(prefix="NETAVARK", match="-m tcp --dport", match_udp="-m udp --dport"), ""),
    "netavark-nft": Publisher(_NETAVARK, "netavark"),
    "kube-proxy": Publisher(_KUBE_PROXY, "kube-proxy"),
}
"""What publishes by other rules than Docker's with iptables."""


def text_of(name: str, family: str) -> str:
    """Return the rules of a publisher for one version of IP."""
    is_v4 = family == IPV4
    return PUBLISHERS[name].text.format(
        ip="ip" if is_v4 else "ip6", kind="ipv4_addr" if is_v4 else "ipv6_addr", own=TARGET[family], network=NETWORK[family],
        inner=INNER[family], to=INNER[family] if is_v4 else f"[{INNER[family]}]",
        table=PUBLISHERS[name].table + ("" if is_v4 else "6"),
    )  # fmt: skip


@contextlib.contextmanager
def published(rig: Rig, name: str) -> Iterator[None]:
    """Within the block a publisher's rules are there, but for its chains of iptables, which go with the host behind."""
    table = PUBLISHERS[name].table
    for family in FAMILIES:
        if table:
            rig.target.namespace.run("nft", "-f", "/dev/stdin", stdin=text_of(name, family))
        else:
            rig.target.restore(family, text_of(name, family), "--noflush")
    try:
        yield
    finally:
        for family in FAMILIES if table else ():
            kind = "inet" if "inet {table}" in PUBLISHERS[name].text else "ip" if family == IPV4 else "ip6"
            rig.target.namespace.run("nft", "delete", "table", kind, table + ("" if family == IPV4 else "6"))


__all__ = ("PUBLISHERS", "Publisher", "published", "text_of")
