# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random rules of nftables that others might have made, as texts."""

import random
import re
import sys
from collections.abc import Sequence

from rig.packets import IPV4, IPV6
from rig.target import ROOT

sys.path.append(str(ROOT / "tests/unit/support"))
from random_rules import BROAD, NETWORKS, PORTS, SOURCES

WORD = {IPV4: "ip", IPV6: "ip6"}
CHAINS = ("c1", "c2", "c3")
HOST = {IPV4: "203.0.113.1", IPV6: "2001:db8:ffff::1"}
SPANS = {
    IPV4: ("192.0.2.1-192.0.2.77", "0.0.0.0-223.255.255.255", "10.0.0.0-10.1.2.3"),
    IPV6: ("2001:db8::-2001:db8::ffff", "::-fdff::", "2a00::-2a00::ffff"),
}
PRIORITIES = (-310, -290, -160, -140, -60, -40, -20, -10, 0, 0, 5, 20)
RANGES = ("20-30", "1-1023", "1024-65535", "9000-9010", "2000-8000", "22-9318")
FLAGS = (
    "& (fin | syn | rst | ack) == syn", "& (fin | syn | rst | ack) != syn", "syn", "!= syn", "& psh == psh", "& (psh | urg) == 0x0",
    "& (syn | psh) == syn | psh", "& (syn | ack) == syn", "& ack == ack", "& urg != urg", "== syn | psh", "{ syn, syn | urg }",
)  # fmt: skip
STATES = (
    "new", "new", "established", "established,related", "invalid", "untracked", "!= new", "!= established", "{ new, untracked }",
    "new,untracked", "!= { new, related }", "!= invalid", "& new == new",
)  # fmt: skip
INTERFACES = (
    '"eth0"',
    '"eth1"',
    '"lo"',
    '"eth*"',
    '!= "eth0"',
    '!= "wg0"',
    '!= "eth*"',
    '{ "eth0", "lo" }',
    '!= { "eth1", "lo" }',
)
MARKS = (
    "0x1", "0x0", "!= 0x0", "!= 0x2", "& 0x1 == 0x1", "& 0x3 != 0x0", "& 0xff == 0x0", "{ 0x0, 0x2 }", "0x1-0x3", "> 0x0",
    "& 0x2 == 0x2",
)  # fmt: skip
SEEN_AS = (
    "meta pkttype host", "meta pkttype != host", "meta pkttype { broadcast, multicast }", "fib daddr type local", "fib daddr type != local",
    "ct status dnat", "meta nfproto ipv4", "meta nfproto ipv6", "meta protocol ip", "meta protocol != ip6",
    "meta oifname \"eth0\"", "meta oifname != \"eth0\"",
)  # fmt: skip
DOUBTFUL = (
    "limit rate 5/second", "limit rate over 100/second", "meta length 20-60", "ct direction original", "ct mark 0x1", "ct status snat",
    "ct original proto-dst 22", "tcp option maxseg exists", "meta cpu 0", "ether saddr 02:00:00:00:00:01", "quota over 50 mbytes",
    "ct original protocol 6", "fib saddr . iif oif exists", "meta iifgroup 0", "udp length 8-30", "ct count over 100000", "tcp window 0",
    "numgen random mod 2 0",
)  # fmt: skip
CHANGES = (
    "meta mark set 0x1", "meta mark set 0x1", "meta mark set 0x2", "meta mark set 0x3", "notrack", "notrack", "meta priority set 1:2",
)  # fmt: skip
DOUBTFUL_CHANGES = (
    "meta mark set meta mark | 0x2", "meta mark set meta mark & 0x1", "ct mark set 0x1", "meta mark set ct mark", "ct mark set meta mark",
    "meta mark set tcp dport map { 22 : 0x1, 8443 : 0x2 }", "ct mark set udp dport map { 53 : 0x1 }", "ip dscp set cs1",
    "tcp option maxseg size set 1200",
)  # fmt: skip
TABLES = ("family", "family", "inet", "inet", "other")


class Maker:
    """Makes the rules of one table."""

    def __init__(self, rng: random.Random, family: str, kind: str, sure: float = 0.93) -> None:
        """Take the IP version of the packets, and the family of the table.

        :param sure: how often what would be in doubt is left out.
        """
        self.rng, self.family, self.kind, self.sure = rng, family, kind, sure

    # Values

    def _not(self, odds: int = 5) -> str:
        return "!= " if self.rng.randrange(odds) == 0 else ""

    def address(self, family: str) -> str:
        """Return an address, a network or a range."""
        rng = self.rng
        return rng.choice(
            [*SOURCES[family], *NETWORKS[family][1:], *NETWORKS[family][1:], *SPANS[family], *BROAD[family][:-1]]
        )

    def _addresses(self, family: str) -> str:
        if self.rng.random() < 0.7:
            return self.address(family)
        return "{ " + ", ".join(self._apart(family)) + " }"

    def _apart(self, family: str) -> list[str]:
        """Return values that do not overlap."""
        pool = [*SOURCES[family][3:], NETWORKS[family][1], NETWORKS[family][3]]
        pool = [each for each in pool if not each.startswith("2a00::1")]
        return self.rng.sample(pool, self.rng.randint(1, 3))

    def port(self) -> str:
        """Return a port or a range."""
        return str(self.rng.choice(PORTS)) if self.rng.random() < 0.6 else self.rng.choice(RANGES)

    def _ports(self) -> str:
        rng = self.rng
        kind = rng.randrange(8)
        if kind < 5:
            return self._not() + self.port()
        if kind == 5:
            return f"{rng.choice(['<', '>', '<=', '>='])} {rng.choice(PORTS[1:-1])}"
        few = [str(port) for port in rng.sample(PORTS[:-3], rng.randint(1, 4))]
        return self._not() + "{ " + ", ".join([*few, "20000-45000"][-4:]) + " }"

    # Matches

    def _of_ports(self) -> str:
        rng = self.rng
        kind = rng.randrange(10)
        if kind < 6:
            return f"{rng.choice(['tcp', 'tcp', 'udp'])} dport {self._ports()}"
        if kind == 6:
            return f"{rng.choice(['tcp', 'udp'])} sport {self._ports()}"
        if kind == 7:
            return f"meta l4proto {{ tcp, udp }} th {rng.choice(['dport', 'sport'])} {self._ports()}"
        return "meta l4proto " + rng.choice(
            ["tcp", "udp", "!= tcp", "!= udp", "{ tcp, udp }", "icmp", "{ udp, sctp }", "6"]
        )

    def _of_addresses(self) -> str:
        rng, family = self.rng, self.family
        if self.kind == "inet" and rng.random() < 0.15:
            family = IPV6 if family == IPV4 else IPV4
        elif self.kind in WORD.values():
            family = next(key for key, word in WORD.items() if word == self.kind)
        word, kind = WORD[family], rng.randrange(10)
        if kind < 6:
            return f"{word} saddr {self._not()}{self._addresses(family)}"
        if kind < 8:
            host = rng.choice([HOST[family], HOST[family], *SOURCES[family][:1], NETWORKS[family][2]])
            return f"{word} daddr {self._not(3)}{host}"
        if kind == 8:
            mask, value = {
                IPV4: ("255.255.255.0", "192.0.2.0"), IPV6: ("ffff:ffff::", "2001:db8::"),
            }[family]  # fmt: skip
            return f"{word} saddr & {mask} {rng.choice(['==', '!='])} {value}"
        field = {IPV4: "protocol", IPV6: "nexthdr"}[family]
        return f"{word} {field} {rng.choice(['tcp', 'udp', '!= tcp', '{ tcp, udp }'])}"

    def _of_several(self) -> str:
        rng, word = self.rng, WORD[self.family]
        few = rng.sample(PORTS, 3)
        some = self._apart(self.family)
        return rng.choice([
            f"meta l4proto . th dport {{ tcp . {few[0]}, udp . {few[1]}, tcp . 10000-39005 }}",
            f"{word} saddr . tcp dport {{ {', '.join(f'{each} . {rng.choice(few)}' for each in some)} }}",
            f"{word} saddr . udp dport {{ {', '.join(f'{each} . 0-9005' for each in some)} }}",
            f'meta iifname . tcp dport {{ "eth0" . {few[0]}, "eth1" . {few[1]}, "eth0" . {few[2]} }}',
            f"meta mark . tcp dport {{ 0x0 . {few[0]}, 0x1 . {few[0]}, 0x0 . {few[1]} }}",
            "ct state . meta l4proto { new . tcp, new . udp, untracked . tcp }",
            f"tcp dport . tcp sport {{ {few[0]} . 1024-65535, {few[1]} . 22 }}",
            f"meta l4proto . th dport != {{ tcp . {few[0]}, udp . {few[1]} }}",
        ])  # fmt: skip

    def _of_sets(self) -> str:
        return self.rng.choice(
            [f"{WORD[self.family]} saddr @bad", "tcp dport @ports", f"{WORD[self.family]} saddr . tcp dport @pairs"]
        )

    def match(self) -> str:
        """Return what a rule asks of one thing."""
        rng = self.rng
        for _turn in range(100):
            kind = rng.randrange(20)
            found = (
                self._of_ports() if kind < 7
                else self._of_addresses() if kind < 11
                else "meta iifname " + rng.choice(INTERFACES) if kind == 11
                else "ct state " + rng.choice(STATES) if kind == 12
                else "tcp flags " + rng.choice(FLAGS) if kind == 13
                else "meta mark " + rng.choice(MARKS) if kind < 16
                else self._of_several() if kind == 16
                else rng.choice(SEEN_AS) if kind < 19
                else rng.choice(DOUBTFUL) if rng.random() > self.sure
                else self._of_sets() if rng.random() > self.sure
                else ""
            )  # fmt: skip
            if found and not (self.kind != "inet" and "nfproto" in found):
                return found
        raise AssertionError

    # Rules

    def _verdict(self, later: Sequence[str]) -> str:
        rng = self.rng
        if later and rng.random() < 0.3:
            return rng.choice(["jump ", "jump ", "goto "]) + rng.choice(later)
        return rng.choice(["accept"] * 4 + ["drop"] * 3 + ["return", "return", "", "counter", "reject", self._reject()])

    def _reject(self) -> str:
        kinds = {"ip": ["icmp type port-unreachable"], "ip6": ["icmpv6 type port-unreachable"]}
        kinds["inet"] = [*kinds["ip"], *kinds["ip6"], "icmpx type admin-prohibited"]
        return "reject with " + self.rng.choice([*kinds[self.kind], "tcp reset"])

    def _one_verdict(self, later: Sequence[str]) -> str:
        return self.rng.choice(["accept", "accept", "drop", "drop", "return", "continue", *(f"jump {name}" for name in later),
                                *(f"goto {name}" for name in later)])  # fmt: skip

    def _mapped(self, later: Sequence[str]) -> str:
        rng = self.rng
        some = rng.sample(PORTS, 3)
        keys, values = rng.choice([
            (rng.choice(["tcp dport", "udp dport", "tcp dport", "udp sport"]), [str(some[0]), str(some[1]), str(some[2])]),
            ("tcp dport", [str(some[0]) if some[0] < 1000 else "50", "2000-8000", "8100-9500"]),
            ("meta l4proto", ["tcp", "udp"]),
            ("ct state", ["new", "established", "untracked", "invalid"]),
            (f"{WORD[self.family]} saddr", self._apart(self.family)),
            ("meta mark", ["0x0", "0x1", "0x2"]),
            ("meta l4proto . th dport", [f"tcp . {some[0]}", f"udp . {some[0]}", f"tcp . {some[1]}", f"tcp . {some[2]}"]),
            ("meta iifname", ['"eth0"', '"eth1"', '"lo"']),
            (f"{WORD[self.family]} saddr . tcp dport", [f"{each} . 1-9100" for each in self._apart(self.family)]),
        ])  # fmt: skip
        if rng.random() > self.sure:
            return "tcp dport vmap @verdicts"
        values = rng.sample(values, rng.randint(1, len(values)))
        return f"{keys} vmap {{ {', '.join(f'{value} : {self._one_verdict(later)}' for value in values)} }}"

    def rule(self, later: Sequence[str] = ()) -> str:
        """Return a rule that may jump or go to the chains named."""
        return next(text for text in iter(lambda: self._rule(later), None) if _agrees(text))

    def _rule(self, later: Sequence[str]) -> str:
        rng = self.rng
        parts = [self.match() for _turn in range(rng.choice([0, 1, 1, 1, 2, 2]))]
        if rng.random() < 0.25:
            parts.append(rng.choice(CHANGES if rng.random() < self.sure else DOUBTFUL_CHANGES))
        if rng.random() < 0.1:
            parts.append(rng.choice(["counter", 'log prefix "x"', self._remembered()]))
        parts.append(self._mapped(later) if rng.random() < 0.15 else self._verdict(later))
        return " ".join(part for part in parts if part) or "counter"

    def _remembered(self) -> str:
        word = WORD[self.family]
        return self.rng.choice(
            [f"add @seen {{ {word} saddr }}", f"update @seen {{ {word} saddr timeout 1m }}", "add @few { tcp dport }"]
        )

    def nat(self) -> str:
        """Return a rule of nat."""
        return next(text for text in iter(self._nat, None) if _agrees(text))

    def _nat(self) -> str:
        rng, to = self.rng, self.rng.choice(PORTS)
        last = rng.choice([f"redirect to :{to}", f"redirect to :{to}", "accept", "return", "drop", self._sent_to(to)])
        protocol = rng.choice(["tcp", "udp"])
        return " ".join(
            [*(self.match() for _turn in range(rng.randrange(2))), f"{protocol} dport {self._ports()}", last]
        )

    def _sent_to(self, port: int) -> str:
        host = {"ip": HOST[IPV4], "ip6": f"[{HOST[IPV6]}]"}
        word = WORD[self.family] if self.kind == "inet" else self.kind
        if self.kind == "inet" and self.rng.random() < 0.3:
            word = "ip6" if word == "ip" else "ip"
        return f"dnat {word + ' ' if self.kind == 'inet' else ''}to {host[word]}:{port}"

    def base(self, name: str, later: Sequence[str]) -> str:
        """Return a chain that packets come to."""
        rng = self.rng
        hook, policy = rng.choice(["prerouting", "input", "input"]), rng.choice(["accept"] * 4 + ["drop"])
        head = f"type filter hook {hook} priority {rng.choice(PRIORITIES)}; policy {policy};"
        return _chain(name, head, [self.rule(later) for _turn in range(rng.randrange(5))])

    def named(self) -> list[str]:
        """Return the named sets that rules ask for, as a table has them."""
        family = next((key for key, word in WORD.items() if word == self.kind), self.family)
        kind = {IPV4: "ipv4_addr", IPV6: "ipv6_addr"}[family if self.kind != "inet" else self.family]
        some = ", ".join(self._apart(self.family))
        pairs = ", ".join(f"{each} . 1-9100" for each in self._apart(self.family))
        mine = {IPV4: "ipv4_addr", IPV6: "ipv6_addr"}[self.family]
        return (
            [
                f"set bad {{ type {mine}; flags interval; elements = {{ {some} }}; }}",
                "set ports { type inet_service; flags interval; elements = { 22, 80, 9000-9010 }; }",
                f"set pairs {{ type {mine} . inet_service; flags interval; elements = {{ {pairs} }}; }}",
                f"set seen {{ type {mine}; size 4; flags dynamic,timeout; timeout 1h; }}",
                "set few { type inet_service; size 2; flags dynamic; }",
                "map verdicts { type inet_service : verdict; elements = { 22 : accept, 443 : drop, 8443 : return }; }",
            ]
            if kind
            else []
        )


def _agrees(text: str) -> bool:
    """Return whether what a rule asks of protocols and versions of IP is not at odds, which nft takes for a mistake."""
    ports = set(re.findall("(tcp|udp) (?:dport|sport|flags|option|window|length)", text))
    ports |= set(re.findall("meta l4proto (icmp|tcp|udp|!= tcp|!= udp|6)", text)) if ports else set()
    ports -= {"6"} if ports >= {"tcp", "6"} else set()
    versions = set(re.findall("(ip6?) (?:saddr|daddr|protocol|nexthdr|dscp)|dnat (ip6?) to", text))
    found = {one or other for one, other in versions}
    found |= {"ip"} if "icmp type" in text else {"ip6"} if "icmpv6 type" in text else set()
    found |= (
        {word for word in ("ip", "ip6") if re.search(f"(protocol|nfproto) {word}(v4|v6)?( |$)", text)}
        if found
        else set()
    )
    reset = "tcp reset" in text and (ports - {"tcp"} or "l4proto" in text or re.search("(ip protocol|nexthdr)", text))
    return len(ports) < 2 and len(found) < 2 and not reset


def table(rng: random.Random, family: str, number: int) -> str:
    """Return a table of others."""
    kind = {"family": WORD[family], "other": WORD[IPV6 if family == IPV4 else IPV4]}.get(rng.choice(TABLES), "inet")
    maker = Maker(rng, family, kind)
    if kind not in ("inet", WORD[family]):
        maker.family = IPV6 if family == IPV4 else IPV4
    chains = []
    for place, name in enumerate(CHAINS):
        rules = [maker.rule(CHAINS[place + 1 :]) for _turn in range(rng.randrange(4))]
        chains.append(_chain(name, "", rules))
    for place in range(rng.randint(1, 3)):
        chains.append(maker.base(f"base{place}", CHAINS))
    if kind == "inet" and rng.random() < 0.15:
        head = f'type filter hook ingress device "{rng.choice(["lo", "eth0"])}" priority 0; policy {rng.choice(["accept", "drop"])};'
        chains.append(
            _chain("ingress", head, [f"ct state {rng.choice(STATES)} accept" for _turn in range(rng.randrange(2))])
        )
    if rng.random() < 0.35:
        head = f"type nat hook prerouting priority {rng.choice([-100, -100, -90, -30, -150])}; policy accept;"
        chains.append(_chain("nat", head, [maker.nat() for _turn in range(rng.randint(1, 3))]))
    return "\n".join([f"table {kind} t{number} {{", *maker.named(), *chains, "}", ""])


def _chain(name: str, head: str, rules: Sequence[str]) -> str:
    return "\n".join([f"chain {name} {{", *([head] if head else []), *rules, "}"])


__all__ = ("CHAINS", "Maker", "table")
