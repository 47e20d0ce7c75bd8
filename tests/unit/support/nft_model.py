# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One packet after the other on its way through the collection's table, with a clock and the sets: what the kernel does, in Python.

It reads the text of the rules on its own, so a mistake of the prover's readers is seen.
"""

import functools
import ipaddress
import re
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple

_RULE = re.compile(r'add rule inet portknock (\w+) (.*) comment "[^"]*"$')
_WORD = r"[\w.:/*+-]+"
_VALUES = r"(\{ [^}]* \}|\"[^\"]*\"|@\w+|" + _WORD + ")"
_SOURCE = r"ip6? saddr(?: & [0-9a-f:]+)?(?: \. meta mark & 0x[0-9a-f]{8} \| 0x[0-9a-f]{8})?"


class Sent(NamedTuple):
    """A packet, the first of a connection, with SYN where it is TCP."""

    source: str
    port: int
    protocol: str = "tcp"
    interface: str = "eth0"
    state: str = "new"
    destination: str = ""
    sport: int = 40000
    mark: int = 0
    first: Optional[Tuple[str, int]] = None
    """Where it was sent to before nat has changed that; None where nat has not."""


class _Break(Exception):
    """The packet does not meet the rule."""


class Model:
    """The table in a kernel."""

    def __init__(self, text: str) -> None:
        """Take a text of load_text()."""
        self._chains: Dict[str, List[str]] = {}
        for line in text.splitlines():
            rule = _RULE.match(line)
            if rule:
                self._chains.setdefault(rule.group(1), []).append(rule.group(2))
        self._sets: Dict[str, Dict[Any, float]] = {}
        self._now = 0.0
        self.is_often = False
        """Whether knocks are broken so often that the limit of them is exceeded."""

    @property
    def chains(self) -> Set[str]:
        """The names of the chains that have rules."""
        return set(self._chains)

    def forget(self) -> None:
        """Have all sets empty."""
        self._sets = {}

    def later(self, seconds: float) -> None:
        """Let time go by."""
        self._now += seconds

    def send(self, packet: Sent) -> bool:
        """Return whether a packet is accepted."""
        return self._chain("input", packet) in (None, "accept")

    def forward(self, packet: Sent) -> bool:
        """Return whether a packet that the host sends on is let through."""
        return self._chain("forward", packet) in (None, "accept")

    def _chain(self, name: str, packet: Sent) -> Optional[str]:
        for rule in self._chains.get(name, ()):
            try:
                verdict = self._rule(rule, packet)
            except _Break:
                continue
            word, _space, target = verdict.partition(" ")
            if word in ("accept", "drop", "reject"):
                return "accept" if word == "accept" else "drop"
            if word == "return":
                return None
            if word in ("jump", "goto"):
                inner = self._chain(target, packet)
                if inner is not None or word == "goto":
                    return inner
        return None

    def _rule(self, text: str, packet: Sent) -> str:
        """Return the verdict of a rule, '' for none."""
        for method, groups in _parts(text):
            verdict = method(self, packet, *groups)
            if verdict:
                return str(verdict)
        return ""

    # What rules ask and do.

    def _source(self, expression: str, packet: Sent) -> Any:
        expression, _dot, mark = expression.partition(" . meta mark & ")
        address: Any = ipaddress.ip_address(packet.source)
        if (address.version == 4) != expression.startswith("ip "):
            raise _Break
        mask = expression.partition(" & ")[2]
        address = ipaddress.IPv6Address(int(address) & int(ipaddress.ip_address(mask))) if mask else address
        kept, _or, added = mark.partition(" | ")
        return (address, packet.mark & int(kept, 0) | int(added, 0)) if mark else address

    def _seen(self, packet: Sent, expression: str, negated: Optional[str], name: str) -> None:
        if self._is_in(name, expression, packet) == bool(negated):
            raise _Break

    def _is_in(self, name: str, expression: str, packet: Sent) -> bool:
        return self._sets.get(name, {}).get(self._source(expression, packet), -1) > self._now

    def _current(self, packet: Sent, elements: str) -> str:
        if f"{'ipv4' if '.' in packet.source else 'ipv6'} : return" not in elements:
            raise _Break
        return "return"

    def _often(self, _packet: Sent) -> None:
        """Knocks are broken seldom here, unless it is said."""
        if not self.is_often:
            raise _Break

    def _sent_to(self, packet: Sent, first: Optional[str]) -> Tuple[str, int]:
        usual = "192.0.2.1" if "." in packet.source else "2001:db8::1"
        found = packet.first if first and packet.first else (packet.destination, packet.port)
        return found[0] or usual, found[1]

    def _first_port(self, packet: Sent, elements: str) -> str:
        return self._in_ranges(self._sent_to(packet, "first")[1], elements, int)

    def _by_address(self, packet: Sent, first: Optional[str], protocol: str, elements: str) -> str:
        if ("." in packet.source) != (protocol == "ip"):
            raise _Break
        address = int(ipaddress.ip_address(self._sent_to(packet, first)[0]))
        return self._in_ranges(address, elements, lambda text: int(ipaddress.ip_address(text)))

    @staticmethod
    def _in_ranges(number: int, elements: str, one: Any) -> str:
        for each in elements.split(", "):
            span, verdict = each.split(" : ")
            low, _dash, high = span.partition("-")
            if one(low) <= number <= one(high or low):
                return verdict
        raise _Break

    def _diverted(self, packet: Sent) -> None:
        if packet.first is None:
            raise _Break

    def _mapped(self, packet: Sent, key: str, elements: str) -> str:
        if key == "meta l4proto . th dport":
            wanted = f"{6 if packet.protocol == 'tcp' else 17} . {packet.port}"
            found = re.search(rf"(?:^|, ){re.escape(wanted)} : (\w+ \w+|accept)", elements)
            if found:
                return found.group(1)
        elif key.split()[0] == packet.protocol:
            for each in elements.split(", "):
                ports, verdict = each.split(" : ")
                first, _dash, last = ports.partition("-")
                if int(first) <= packet.port <= int(last or first):
                    return verdict
        raise _Break

    def _update(self, packet: Sent, name: str, expression: str, seconds: str) -> None:
        self._sets.setdefault(name, {})[self._source(expression, packet)] = self._now + int(seconds)

    def _delete(self, packet: Sent, name: str, expression: str) -> None:
        self._sets.get(name, {}).pop(self._source(expression, packet), None)

    def _address(
        self, packet: Sent, first: Optional[str], protocol: str, field: str, negated: Optional[str], values: str
    ) -> None:
        address: Any = ipaddress.ip_address(packet.source if field == "saddr" else self._sent_to(packet, first)[0])
        networks = [ipaddress.ip_network(each) for each in _listed(values)]
        inside = any(address in each for each in networks)
        if (address.version == 4) != (protocol == "ip") or inside == bool(negated):
            raise _Break

    def _asked(self, packet: Sent, field: str, negated: Optional[str], values: str) -> None:
        found = {
            "meta nfproto": "ipv4" if "." in packet.source else "ipv6", "meta l4proto": "6" if packet.protocol == "tcp" else "17",
            "meta pkttype": "0", "ct state": packet.state, "icmp type": "", "icmpv6 type": "", "iifname": packet.interface,
            "udp sport": str(packet.sport) if packet.protocol == "udp" else "",
            "udp dport": str(packet.port) if packet.protocol == "udp" else "",
            "tcp dport": str(packet.port) if packet.protocol == "tcp" else "", "th dport": str(packet.port),
        }[field]  # fmt: skip
        if any(_fits(found, value) for value in _listed(values)) == bool(negated):
            raise _Break

    def _flags(self, packet: Sent, operation: str) -> None:
        if packet.protocol != "tcp" or operation == "!=":
            raise _Break

    def _limited(self, _packet: Sent) -> None:
        """A limit is not reached here."""

    def _verdict(self, _packet: Sent, verdict: str) -> str:
        return verdict


def _listed(values: str) -> Set[str]:
    return set(values.strip("{} ").replace('"', "").split(", "))


def _fits(found: str, value: str) -> bool:
    return found.startswith(value[:-1]) if value.endswith("*") else found == value


_PARTS = [
    (re.compile(pattern + r"(?: |$)"), method)
    for pattern, method in (
        (rf"({_SOURCE}) (!= )?@(\w+)", Model._seen),
        (r"meta nfproto vmap \{ ([^}]*) \}", Model._current),
        (r"ct status dnat", Model._diverted),
        (r"ct original proto-dst vmap \{ ([^}]*) \}", Model._first_port),
        (r"(ct original )?(ip6?) daddr vmap \{ ([^}]*) \}", Model._by_address),
        (r"(ct original )?(ip6?) (saddr|daddr) (!= )?" + _VALUES, Model._address),
        (r"(meta l4proto \. th dport|tcp dport|udp dport) vmap \{ ([^}]*) \}", Model._mapped),
        (rf"update @(\w+) \{{ ({_SOURCE}) timeout (\d+)s \}}", Model._update),
        (rf"delete @(\w+) \{{ ({_SOURCE}) \}}", Model._delete),
        (r"tcp flags & \(fin \| syn \| rst \| ack\) (==|!=) syn", Model._flags),
        (r"(meta nfproto|meta l4proto|meta pkttype|ct state|icmp type|icmpv6 type|iifname|udp sport|udp dport|tcp dport|th dport) (!= )?"
         + _VALUES, Model._asked),
        (r"counter", Model._limited),
        (r"limit rate 10/minute", Model._limited),
        (r"limit rate over 20/second burst 50 packets", Model._often),
        (r'log prefix "[^"]*"', Model._limited),
        (r"(reject)(?: with .*)?", Model._verdict),
        (r"(accept|drop|return|jump \w+|goto \w+)", Model._verdict),
    )
]  # fmt: skip


@functools.lru_cache(maxsize=None)
def _parts(text: str) -> List[Tuple[Any, Tuple[str, ...]]]:
    """Return the parts of a rule."""
    found: List[Tuple[Any, Tuple[str, ...]]] = []
    while text:
        for pattern, method in _PARTS:
            match = pattern.match(text)
            if match:
                text = text[match.end() :].lstrip()
                found.append((method, match.groups()))
                break
        else:
            raise AssertionError(text)
    return found
