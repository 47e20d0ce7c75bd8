# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules as the walker asks them: the options of each match, read by code that knows nothing of the planner's."""

import functools
import ipaddress
import re
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

FLAGS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ALL": 63, "NONE": 0}


class UnknownMatch(Exception):
    """The ruleset asks what the walker cannot answer; give it an oracle."""


Recent = NamedTuple(
    "Recent",
    [("verb", str), ("negated", bool), ("name", str), ("mask", int), ("seconds", int), ("hitcount", int), ("rttl", bool),
     ("reap", bool), ("rdest", bool)],
)  # fmt: skip
Compiled = NamedTuple(
    "Compiled",
    [("text", str), ("checks", tuple), ("target", str), ("goto", bool), ("values", dict), ("recents", tuple)],
)
Option = Tuple[str, List[str], bool]
"""An option, its values, and whether it is negated."""
Check = Callable[[Any], bool]
"""Whether a packet on its way, the _Walk of walker.py, is matched; that file imports this one."""
Maker = Callable[[List[str]], Optional[Check]]
"""Makes the check of an option from its values."""
_WORD = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^\s"])+', re.S)

_LONG = {
    "--protocol": "-p", "--proto": "-p", "--source": "-s", "--src": "-s", "--destination": "-d", "--dst": "-d",
    "--in-interface": "-i", "--jump": "-j", "--goto": "-g", "--match": "-m", "--destination-port": "--dport",
    "--destination-ports": "--dports", "--source-port": "--sport", "--source-ports": "--sports", "--out-interface": "-o",
}  # fmt: skip
_FLAGLIKE = frozenset("--syn --rsource --rdest --rttl --reap --set --rcheck --update --remove --fragment -f".split())
_PROTOCOLS = {
    "tcp": 6, "udp": 17, "icmp": 1, "ipv6-icmp": 58, "icmpv6": 58, "sctp": 132, "dccp": 33, "gre": 47, "esp": 50, "ah": 51,
    "igmp": 2, "ipv6": 41, "ospf": 89, "vrrp": 112, "udplite": 136, "ipencap": 4, "pim": 103, "all": 0,
}  # fmt: skip
_SERVICES = {"ssh": 22, "http": 80, "https": 443, "domain": 53, "smtp": 25, "telnet": 23, "ftp": 21}
_ICMP = {
    "echo-request": 8, "echo-reply": 0, "destination-unreachable": 3, "time-exceeded": 11, "parameter-problem": 12,
    "source-quench": 4, "redirect": 5, "router-advertisement": 134, "neighbour-solicitation": 135,
}  # fmt: skip


def words_of(text: str) -> List[str]:
    """Split a rule at blanks; double quotes hold words together."""
    return [re.sub(r"\\(.)", r"\1", word.replace('"', "") if "\\" not in word else word[1:-1]) if '"' in word else word
            for word in _WORD.findall(text)]  # fmt: skip


@functools.lru_cache(maxsize=100000)
def compiled(chain: str, place: int, text: str) -> Compiled:
    """Read a rule; the same rule is read once, whatever ruleset it is in."""
    return _Reader(chain, place, text).compiled()


class _Reader:
    """Reads one rule into checks, in the order in which the kernel asks them."""

    def __init__(self, chain: str, place: int, text: str) -> None:
        self.chain, self.place, self.text = chain, place, text
        self.checks: List[Check] = []
        self.recents: List[Recent] = []
        self.values: Dict[str, str] = {}
        self.target, self.goto = "", False
        self.groups = self._groups()

    def _groups(self) -> List[Tuple[str, List[Option]]]:
        """Return (match name, [(option, values, negated)]) in order; '' is what needs no match."""
        groups: List[Tuple[str, List[Option]]] = [("", [])]
        for option, values, negated in self._options():
            if option == "-m":
                groups.append((values[0], []))
            elif option in ("-j", "-g"):
                self.target, self.goto = values[0], option == "-g"
                groups.append(("-j", []))
            elif option in ("-s", "-d", "-i", "-o", "-p", "-f"):
                groups[0][1].append((option, values, negated))
            else:
                groups[-1][1].append((option, values, negated))
        return groups

    def _options(self) -> Iterator[Option]:
        words = words_of(self.text)
        index, negated = 0, False
        while index < len(words):
            word, index = _LONG.get(words[index], words[index]), index + 1
            if word == "!":
                negated = True
                continue
            count = 0 if word in _FLAGLIKE else 2 if word in ("--tcp-flags", "--match-set") else 1
            if word in (
                "--random",
                "--persistent",
                "--queue-bypass",
                "--log-ip-options",
                "--log-tcp-options",
                "--exist",
            ):
                count = 0
            yield word, words[index : index + count], negated
            index, negated = index + count, False

    def compiled(self) -> Compiled:
        for name, options in self.groups:
            if name == "-j":
                self.values = {option: (values or [""])[0] for option, values, _negated in options}
                continue
            if name == "recent":
                self._recent(options)
            elif name == "limit":
                self._limit(options)
            elif name in _KNOWN:
                for option, values, negated in options:
                    self._one(name, option, values, negated)
            else:
                self._unknown(name, options)
        return Compiled(self.text, tuple(self.checks), self.target, self.goto, self.values, tuple(self.recents))

    def _one(self, name: str, option: str, values: List[str], negated: bool) -> None:
        maker = _OPTIONS.get(option)
        if maker is None:
            self._unknown(name, [(option, values, negated)])
            return
        check = maker(values)
        if check is not None:
            self.checks.append((lambda walk: not check(walk)) if negated else check)

    def _unknown(self, name: str, options: List[Option]) -> None:
        words = (name,) + tuple(options)

        def check(walk: Any) -> bool:
            oracle = walk.walker.oracle
            if oracle is None:
                raise UnknownMatch("-A {0} {1}: {2}".format(self.chain, self.text, words))
            return bool(oracle(self.chain, self.text, words, walk.packet))

        self.checks.append(check)

    def _limit(self, options: List[Option]) -> None:
        given = {option: values[0] for option, values, _negated in options}
        number, _slash, unit = given.get("--limit", "3/hour").partition("/")
        seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400}[(unit or "s")[0]]
        key, rate, burst = (self.chain, self.place), float(number) / seconds, int(given.get("--limit-burst", 5))
        self.checks.append(lambda walk: walk.walker.limit(key, rate, burst))

    def _recent(self, options: List[Option]) -> None:
        given = {option: (values or [""])[0] for option, values, _negated in options}
        verbs = [
            (option, negated)
            for option, _values, negated in options
            if option in ("--set", "--rcheck", "--update", "--remove")
        ]
        mask = given.get("--mask")
        how = Recent(
            verb=verbs[0][0], negated=verbs[0][1], name=given.get("--name", "DEFAULT"),
            mask=int(ipaddress.ip_address(mask)) if mask else (1 << 128) - 1, seconds=int(given.get("--seconds", 0)),
            hitcount=int(given.get("--hitcount", 0)), rttl="--rttl" in given, reap="--reap" in given, rdest="--rdest" in given,
        )  # fmt: skip
        self.recents.append(how)

        def check(walk: Any) -> bool:
            address = walk.destination if how.rdest else walk.source
            now = walk.walker.clock.now
            return walk.walker.lists[how.name].ask(how, int(address), walk.packet.ttl, now)

        self.checks.append(check)


def _masked(text: str) -> Tuple[int, int, int]:
    """Return (version, mask, masked address); a mask may have holes."""
    name, _slash, mask = text.partition("/")
    address = ipaddress.ip_address(name)
    if "." in mask or ":" in mask:
        bits = int(ipaddress.ip_address(mask))
    else:
        length = int(mask) if mask else address.max_prefixlen
        bits = (1 << address.max_prefixlen) - (1 << (address.max_prefixlen - length))
    return address.version, bits, int(address) & bits


def _addresses(which: str, values: List[str]) -> Check:
    masked = [_masked(item) for item in values[0].split(",")]

    def check(walk: Any) -> bool:
        address = getattr(walk, which)
        number = int(address)
        return any(version == address.version and number & mask == wanted for version, mask, wanted in masked)

    return check


def _interface(values: List[str]) -> Check:
    name = values[0]
    if name.endswith("+"):
        return lambda walk: walk.packet.interface.startswith(name[:-1])
    return lambda walk: walk.packet.interface == name


def _protocol(values: List[str]) -> Optional[Check]:
    number = int(values[0]) if values[0].isdigit() else _PROTOCOLS[values[0].lower()]
    if number == 0:
        return None
    return lambda walk: _PROTOCOLS[walk.packet.protocol] == number


def _port(text: str) -> int:
    return int(text) if text.isdigit() else _SERVICES[text]


def _bounds(text: str) -> Tuple[int, int]:
    first, colon, last = text.partition(":")
    return _port(first or "0"), _port(last or "65535") if colon else _port(first)


def _ports(*which: str) -> Maker:
    def make(values: List[str]) -> Check:
        ranges = [_bounds(item) for item in values[0].split(",")]

        def check(walk: Any) -> bool:
            if walk.packet.protocol not in ("tcp", "udp", "sctp"):
                return False
            return any(low <= getattr(walk.packet, name) <= high for low, high in ranges for name in which)

        return check

    return make


def _tcp_flags(values: List[str]) -> Check:
    mask, wanted = (sum(FLAGS[flag] for flag in item.split(",")) for item in values)
    return lambda walk: walk.flags & mask == wanted


def _states(values: List[str]) -> Check:
    names = frozenset(values[0].split(","))
    return lambda walk: walk.packet.state in names or ("DNAT" in names and walk.packet.original is not None)


def _original_port(values: List[str]) -> Check:
    low, high = _bounds(values[0])
    return lambda walk: low <= (walk.packet.original or ("", walk.packet.port))[1] <= high


def _original_address(values: List[str]) -> Check:
    network = ipaddress.ip_network(values[0])
    return lambda walk: ipaddress.ip_address((walk.packet.original or (walk.packet.destination, 0))[0]) in network


def _icmp(values: List[str]) -> Optional[Check]:
    name = values[0].partition("/")[0]
    if name == "any":
        return None
    number = int(name) if name.isdigit() else _ICMP[name]
    return lambda walk: walk.packet.icmp_type == number


def _address_type(which: str) -> Maker:
    def kind(address: Any) -> str:
        if address.is_multicast:
            return "MULTICAST"
        if str(address) == "255.255.255.255":
            return "BROADCAST"
        return "LOCAL" if which == "destination" or address.is_loopback else "UNICAST"

    def make(values: List[str]) -> Check:
        names = values[0].split(",")
        return lambda walk: kind(getattr(walk, which)) in names

    return make


def _range(which: str) -> Maker:
    def make(values: List[str]) -> Check:
        first, _dash, last = values[0].partition("-")
        low, high = ipaddress.ip_address(first), ipaddress.ip_address(last or first)
        return lambda walk: low.version == getattr(walk, which).version and low <= getattr(walk, which) <= high

    return make


def _match_set(values: List[str]) -> Check:
    name, where = values[0], values[1].split(",")[0]

    def check(walk: Any) -> bool:
        address = walk.source if where == "src" else walk.destination
        return any(address in network for network in walk.walker.sets.get(name, ()))

    return check


def _mark(values: List[str]) -> Check:
    value, _slash, text = values[0].partition("/")
    mask = int(text, 0) if text else 0xFFFFFFFF
    return lambda walk: walk.mark & mask == int(value, 0)


_KNOWN = frozenset(["", "tcp", "udp", "multiport", "conntrack", "state", "comment", "addrtype", "pkttype", "icmp", "icmp6",
                    "icmpv6", "set", "iprange", "mac", "mark"])  # fmt: skip
_OPTIONS: Dict[str, Maker] = {
    "-s": lambda values: _addresses("source", values),
    "-d": lambda values: _addresses("destination", values),
    "-i": _interface,
    "-o": lambda _values: lambda _walk: False,
    "-p": _protocol,
    "--dport": _ports("port"),
    "--dports": _ports("port"),
    "--sport": _ports("sport"),
    "--sports": _ports("sport"),
    "--ports": _ports("port", "sport"),
    "--syn": lambda _values: _tcp_flags(["FIN,SYN,RST,ACK", "SYN"]),
    "--tcp-flags": _tcp_flags,
    "--ctstate": _states,
    "--state": _states,
    "--ctorigdstport": _original_port,
    "--ctorigdst": _original_address,
    "--comment": lambda _values: None,
    "--icmp-type": _icmp,
    "--icmpv6-type": _icmp,
    "--dst-type": _address_type("destination"),
    "--src-type": _address_type("source"),
    "--pkt-type": lambda values: lambda walk: walk.packet.pkttype == values[0],
    "--src-range": _range("source"),
    "--dst-range": _range("destination"),
    "--match-set": _match_set,
    "--mac-source": lambda values: lambda walk: walk.packet.mac.lower() == values[0].lower(),
    "--mark": _mark,
}
