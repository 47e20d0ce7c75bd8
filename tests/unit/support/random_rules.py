# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random rules that others might have made, as texts."""

import random
from typing import Mapping, Sequence

CHAINS = ("F1", "F2", "F3", "F4")
PORTS = (1, 22, 53, 80, 443, 2791, 7144, 8443, 9000, 9005, 9318, 40000, 65535)
RANGES = ("20:30", "1:1023", "1024:65535", "0:65535", "9000:9010", "2000:8000", "22:9318")
SOURCES = {
    "ipv4": ("192.0.2.1", "192.0.2.77", "198.51.100.9", "10.1.2.3", "203.0.113.200", "130.0.0.1"),
    "ipv6": ("2001:db8::1", "2001:db8:1::77", "2001:db8:2:3::9", "fe80::1", "fd00::3", "2a00::1"),
}
NETWORKS = {
    "ipv4": ("192.0.2.1/32", "192.0.2.0/24", "10.0.0.0/8", "198.51.100.0/25"),
    "ipv6": ("2001:db8::1/128", "2001:db8::/32", "2001:db8:2::/48", "2a00::/16"),
}
BROAD = {
    "ipv4": ("0.0.0.0/1", "128.0.0.0/1", "192.0.0.0/4", "0.0.0.0/0"),
    "ipv6": ("2000::/3", "::/1", "8000::/1", "::/0"),
}
INTERFACES = ("eth0", "eth1", "wg0", "lo", "eth+", "+")
FLAGS = (
    "FIN,SYN,RST,ACK SYN", "ALL SYN", "ALL NONE", "ALL ALL", "SYN,ACK SYN", "SYN,RST SYN,RST", "ACK ACK", "RST RST", "SYN SYN",
    "ALL SYN,PSH", "SYN,URG SYN,URG", "FIN FIN", "SYN NONE", "FIN,ACK FIN",
)  # fmt: skip
MATCHES = (
    "-m recent --rcheck --seconds 60 --name bad --rsource", "-m recent ! --rcheck --seconds 60 --name bad --rsource",
    "-m recent --update --seconds 60 --hitcount 3 --name bad --rsource", "-m recent --set --name bad --rsource",
    "-m recent --remove --name bad --rsource", "-m recent ! --set --name bad --rsource", "-m recent ! --remove --name bad --rsource",
    "-m set --match-set bad src", "-m set ! --match-set bad src", "-m set --match-set bad dst", "-m limit --limit 5/min",
    "-m addrtype --dst-type LOCAL", "-m addrtype ! --dst-type LOCAL", "-m addrtype --dst-type BROADCAST",
    "-m addrtype --src-type LOCAL", "-m pkttype --pkt-type unicast", "-m pkttype ! --pkt-type unicast",
    "-m mac --mac-source 02:00:00:00:00:01", "-m mac ! --mac-source 02:00:00:00:00:01", "-m geoip --src-cc AQ",
    "-m geoip ! --src-cc AQ", "-m string --string x --algo bm", "-m mark --mark 0x1", "-m u32 --u32 0x0=0x0",
    "-m connlimit --connlimit-above 5", "-m connlimit --connlimit-upto 5", "-m connlimit ! --connlimit-above 5",
    "-m connlimit --connlimit-above 5 --connlimit-mask 0",
    "-m hashlimit --hashlimit-above 5/min --hashlimit-mode srcip --hashlimit-name h",
    "-m hashlimit --hashlimit-upto 5/min --hashlimit-mode srcip --hashlimit-name h",
    "-m hashlimit --hashlimit-above 5/min --hashlimit-mode dstport --hashlimit-name h",
    "-m conntrack --ctstate NEW -m recent --set --name bad --rsource", "-m conntrack --ctorigdstport 22", "-m conntrack --ctstatus NONE",
    "-m owner --uid-owner 0", "-m time --timestart 00:00:00", "-m statistic --mode random --probability 0.5",
    "-m conntrack --ctstate DNAT", "-m conntrack --ctproto 6", "-m cpu --cpu 0", "-m length --length 40:60", "-m ttl --ttl-gt 10",
)  # fmt: skip
SPANS = {
    "ipv4": ("-m iprange --src-range 192.0.2.1-192.0.2.77", "-m iprange ! --src-range 192.0.2.1-192.0.2.77",
             "-m iprange --src-range 0.0.0.0-223.255.255.255", "-d 203.0.113.1/32", "! -d 203.0.113.1/32", "-d 224.0.0.0/4",
             "! -d 224.0.0.0/4", "-d 0.0.0.0/0", "-m iprange --dst-range 203.0.113.1-203.0.113.9"),
    "ipv6": ("-m iprange --src-range 2001:db8::-2001:db8::ffff", "-m iprange ! --src-range 2001:db8::-2001:db8::ffff",
             "-m iprange --src-range ::-ffff::", "-d 2001:db8:ffff::1/128", "! -d 2001:db8:ffff::1/128", "-d ff00::/8",
             "! -d ff00::/8", "-d ::/0"),
}  # fmt: skip
COMMENTS = ("", "", "", "", '-m comment --comment "-A INPUT -j ACCEPT, in words"', "-m comment --comment plain")
ENDS = ("-j ACCEPT", "-j ACCEPT", "-j ACCEPT", "-j DROP", "-j DROP", "-j REJECT", "-j RETURN", "-j RETURN", "", "-j LOG",
        "-j MARK --set-xmark 0x1/0xffffffff")  # fmt: skip


def _not(rng: random.Random, text: str, odds: int = 4) -> str:
    return "! " + text if rng.randrange(odds) == 0 else text


def _some_ports(rng: random.Random) -> str:
    return str(rng.choice(PORTS)) if rng.random() < 0.6 else rng.choice(RANGES)


def _many_ports(rng: random.Random) -> str:
    return ",".join(_some_ports(rng) for _turn in range(rng.randint(1, 5)))


def _tcp(rng: random.Random) -> str:
    kind = rng.randrange(6)
    if kind == 0:
        return "-p tcp"
    if kind == 1:
        return "-p tcp -m tcp --sport {0}".format(_some_ports(rng))
    if kind == 2:
        return "-p tcp -m multiport {0}".format(_not(rng, "--dports " + _many_ports(rng)))
    if kind == 3:
        return "-p tcp -m multiport --ports {0}".format(_many_ports(rng))
    parts = ["-p tcp -m tcp"]
    if rng.random() < 0.7:
        parts.append(_not(rng, "--dport " + _some_ports(rng)))
    if rng.random() < 0.5:
        parts.append(_not(rng, rng.choice(["--syn", "--syn", "--tcp-flags " + rng.choice(FLAGS)]), 3))
    return " ".join(parts)


def _udp(rng: random.Random) -> str:
    kind = rng.randrange(3)
    return ("-p udp", "-p udp -m udp " + _not(rng, "--dport " + _some_ports(rng)),
            "-p udp -m multiport --dports " + _many_ports(rng))[kind]  # fmt: skip


def _protocol(rng: random.Random, family: str) -> str:
    kind = rng.randrange(9)
    if kind < 2:
        return ""
    if kind < 6:
        return _tcp(rng)
    if kind < 8:
        return _udp(rng)
    return rng.choice(
        ["-p icmp" if family == "ipv4" else "-p ipv6-icmp", "! -p tcp", "! -p udp", "-p 6", "-p all", "-p sctp"]
    )


def _source(rng: random.Random, family: str) -> str:
    kind = rng.randrange(5)
    if kind < 3:
        return ""
    return _not(rng, "-s " + rng.choice((NETWORKS if kind == 3 else BROAD)[family]))


def _states(rng: random.Random) -> str:
    return ",".join(rng.sample(["NEW", "ESTABLISHED", "RELATED", "INVALID"], rng.randint(1, 3)))


def _more(rng: random.Random, family: str) -> str:
    kind = rng.randrange(6)
    if kind < 3:
        return ""
    if kind == 3:
        return "-m conntrack " + _not(rng, "--ctstate " + _states(rng))
    if kind == 4:
        return "-m state " + _not(rng, "--state " + _states(rng))
    return rng.choice(MATCHES + SPANS[family])


def make_rule(rng: random.Random, family: str, later: Sequence[str] = CHAINS) -> str:
    """Return one rule that may jump or go to the chains named."""
    interface = _not(rng, "-i " + rng.choice(INTERFACES)) if rng.random() < 0.4 else ""
    parts = [_source(rng, family), interface, _protocol(rng, family), _more(rng, family), rng.choice(COMMENTS)]
    if later and rng.random() < 0.3:
        parts.append(rng.choice(["-j ", "-j ", "-g "]) + rng.choice(later))
    else:
        parts.append(rng.choice(ENDS))
    return " ".join(" ".join(parts).split())


def save_text(policy: str, rules: Sequence[str], chains: Mapping[str, Sequence[str]]) -> str:
    """Write a ruleset as iptables-save does."""
    lines = ["*filter", ":INPUT {0} [0:0]".format(policy), ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]"]
    lines += [":{0} - [0:0]".format(name) for name in chains]
    lines += ["-A INPUT " + text for text in rules]
    lines += ["-A {0} {1}".format(name, text) for name in chains for text in chains[name]]
    return "\n".join(lines + ["COMMIT", ""])
