# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a ruleset does to a packet, worked out without a kernel.

    walker = Walker(parse(text))
    walker.send(Packet("192.0.2.1", 22)).action    # 'ACCEPT', 'DROP' or 'REJECT'
    walker.later(5)

Follows ip_tables and xt_recent of the kernel: matches are asked from left to right and the first that
does not match ends the rule, what those before it did to a list stays done. It knows nothing of the
planner: options are read by code of its own. tests/wire compares it with real packets.
"""

import functools
import ipaddress
import re
from typing import NamedTuple

ACCEPT, DROP, REJECT = "ACCEPT", "DROP", "REJECT"
FLAGS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ALL": 63, "NONE": 0}
STAMPS = 32
"""Times that xt_recent keeps for a source, unless a hitcount asks for more."""
DEFAULT_LIST_SIZE = 100


class UnknownMatch(Exception):
    """The ruleset asks what the walker cannot answer; give it an oracle."""


class Packet(
    NamedTuple(
        "Packet",
        [
            ("source", str),
            ("port", int),
            ("protocol", str),
            ("sport", int),
            ("flags", str),
            ("interface", str),
            ("state", str),
            ("icmp_type", int),
            ("pkttype", str),
            ("destination", str),
            ("ttl", int),
            ("mac", str),
            ("mark", int),
        ],
    )
):
    """One packet to this host; ``port`` is the destination's. Flags are written with commas."""

    __slots__ = ()

    def __new__(
        cls, source, port=0, protocol="tcp", sport=40000, flags="SYN", interface="eth0", state="NEW",
        icmp_type=8, pkttype="unicast", destination=None, ttl=64, mac="02:00:00:00:00:01", mark=0,
    ):  # fmt: skip
        if destination is None:
            destination = "2001:db8:ffff::1" if ":" in source else "203.0.113.1"
        return super().__new__(
            cls, source, port, protocol, sport, flags, interface, state, icmp_type, pkttype, destination, ttl, mac, mark
        )


Verdict = NamedTuple("Verdict", [("action", str), ("trail", tuple), ("answer", str), ("logged", tuple)])
"""trail: (chain, rule) of every rule that matched; answer: what REJECT answers with; logged: prefixes."""


class Clock:
    """Seconds that pass only when they are told to; give one to two walkers to let them share it."""

    def __init__(self):
        self.now = 1000.0

    def later(self, seconds):
        self.now += seconds


class RecentList:
    """One list of xt_recent: address to [time to live, times seen], the longest unseen first."""

    def __init__(self, mask, size):
        self.mask, self.size, self.stamps = mask, size, STAMPS
        self.entries = {}

    def _put(self, key, ttl, now):
        times = self.entries.pop(key, [0, []])[1]
        self.entries[key] = [ttl, (times + [now])[-self.stamps :]]

    def _room(self):
        while len(self.entries) >= self.size:
            self.entries.pop(next(iter(self.entries)))

    def ask(self, how, address, ttl, now):
        """Answer one match, with its side effects; the order is that of recent_mt() in the kernel."""
        key = address & self.mask
        entry = self.entries.get(key)
        if entry is not None and how.rttl and entry[0] != ttl:
            entry = None
        if entry is None:
            if how.verb != "--set":
                return how.negated
            self.entries.pop(key, None)
            self._room()
            self._put(key, ttl, now)
            return not how.negated
        answer = self._known(how, key, entry, now)
        if how.verb == "--set" or (how.verb == "--update" and answer):
            self._put(key, ttl, now)
        return answer

    def _known(self, how, key, entry, now):
        if how.verb == "--set":
            return not how.negated
        if how.verb == "--remove":
            del self.entries[key]
            return not how.negated
        hits = sum(1 for time in entry[1] if not how.seconds or time >= now - how.seconds)
        enough = hits >= max(1, how.hitcount)
        if how.reap:
            self._reap(now - how.seconds)
        return enough != how.negated

    def _reap(self, before):
        oldest = next(iter(self.entries), None)
        if oldest is not None and self.entries[oldest][1][-1] < before:
            del self.entries[oldest]


Recent = NamedTuple(
    "Recent",
    [("verb", str), ("negated", bool), ("name", str), ("mask", int), ("seconds", int), ("hitcount", int), ("rttl", bool),
     ("reap", bool), ("rdest", bool)],
)  # fmt: skip
Compiled = NamedTuple(
    "Compiled",
    [("text", str), ("checks", tuple), ("target", str), ("goto", bool), ("values", dict), ("recents", tuple)],
)
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
_GOES_ON = frozenset("LOG NFLOG ULOG MARK CONNMARK TRACE SET CT TCPMSS TOS DSCP SECMARK CONNSECMARK AUDIT TEE".split())
_ICMP = {
    "echo-request": 8, "echo-reply": 0, "destination-unreachable": 3, "time-exceeded": 11, "parameter-problem": 12,
    "source-quench": 4, "redirect": 5, "router-advertisement": 134, "neighbour-solicitation": 135,
}  # fmt: skip


class Walker:
    """A family's ruleset, its lists, and the packets that come."""

    def __init__(self, document, clock=None, lists=None, list_size=DEFAULT_LIST_SIZE, oracle=None, sets=None):
        """Load a ruleset.

        :param document: what ``_save.parse`` returns.
        :param lists: name to RecentList that were there before.
        :param oracle: function (chain, rule, words of the match or target, Packet) to whether it matches,
            for matches that are not known; a target that is not known ends with the action of its name.
        :param sets: name to networks, for ``--match-set``.
        """
        self.clock = clock or Clock()
        self.lists = {} if lists is None else lists
        self.list_size, self.oracle = list_size, oracle
        self.sets = {name: [ipaddress.ip_network(item) for item in items] for name, items in (sets or {}).items()}
        self.load(document)

    def load(self, document):
        """Replace the ruleset; lists that a rule still names live on, as in the kernel."""
        self._buckets = {}
        self._chains, self._policy, named = {}, ACCEPT, set()
        table = document.table("filter")
        if table is not None:
            self._policy = table.policy("INPUT")
            for chain, rules in table.chains.items():
                self._chains[chain] = [compiled(chain, place, rule.text) for place, rule in enumerate(rules)]
        self._chains.setdefault("INPUT", [])
        for how in [how for rules in self._chains.values() for rule in rules for how in rule.recents]:
            named.add(how.name)
            self.open_list(how)
        for name in set(self.lists) - named:
            del self.lists[name]

    def later(self, seconds):
        """Let time pass."""
        self.clock.later(seconds)

    def open_list(self, how):
        """Make the list a rule names; the first rule's mask is the list's for good."""
        if how.name not in self.lists:
            self.lists[how.name] = RecentList(how.mask, self.list_size)
        while self.lists[how.name].stamps < how.hitcount:
            self.lists[how.name].stamps *= 2

    def send(self, packet):
        """Walk a packet through INPUT."""
        walk = _Walk(self, packet)
        action = walk.chain("INPUT", self._chains) or self._policy
        return Verdict(action, tuple(walk.trail), walk.answer, tuple(walk.logged))

    def limit(self, key, rate, burst):
        """Take a token of a bucket if there is one."""
        tokens, since = self._buckets.get(key, (float(burst), self.clock.now))
        tokens = min(float(burst), tokens + (self.clock.now - since) * rate)
        self._buckets[key] = (tokens - 1 if tokens >= 1 else tokens, self.clock.now)
        return tokens >= 1


class _Walk:
    """One packet on its way."""

    def __init__(self, walker, packet):
        self.walker, self.packet = walker, packet
        self.source = ipaddress.ip_address(packet.source)
        self.destination = ipaddress.ip_address(packet.destination)
        self.flags = sum(FLAGS[flag] for flag in packet.flags.split(",") if flag)
        self.mark = packet.mark
        self.trail, self.logged, self.answer = [], [], ""

    def chain(self, name, chains):
        """Return the action, or None where the chain ends without one."""
        for rule in chains[name]:
            if not all(check(self) for check in rule.checks):
                continue
            self.trail.append((name, rule.text))
            if rule.target in chains:
                action = self.chain(rule.target, chains)
                if action or rule.goto:
                    return action
            elif rule.target == "RETURN":
                return None
            elif rule.target:
                action = self._target(rule)
                if action:
                    return action
        return None

    def _target(self, rule):
        if rule.target in _GOES_ON:
            if rule.target in ("LOG", "NFLOG"):
                self.logged.append(rule.values.get("--log-prefix", ""))
            if rule.target == "MARK":
                self._set_mark(rule.values)
            return None
        if rule.target == REJECT:
            v6 = self.source.version == 6
            self.answer = rule.values.get("--reject-with", "icmp6-port-unreachable" if v6 else "icmp-port-unreachable")
        return rule.target

    def _set_mark(self, values):
        text = values.get("--set-mark") or values.get("--set-xmark") or "0"
        value, _slash, mask = text.partition("/")
        mask = int(mask, 0) if mask else 0xFFFFFFFF
        self.mark = (self.mark & ~mask) | int(value, 0)


def words_of(text):
    """Split a rule at blanks; double quotes hold words together."""
    return [re.sub(r"\\(.)", r"\1", word.replace('"', "") if "\\" not in word else word[1:-1]) if '"' in word else word
            for word in _WORD.findall(text)]  # fmt: skip


@functools.lru_cache(maxsize=100000)
def compiled(chain, place, text):
    """Read a rule; the same rule is read once, whatever ruleset it is in."""
    return _Reader(chain, place, text).compiled()


class _Reader:
    """Reads one rule into checks, in the order in which the kernel asks them."""

    def __init__(self, chain, place, text):
        self.chain, self.place, self.text = chain, place, text
        self.checks, self.recents = [], []
        self.target, self.goto, self.values = "", False, {}
        self.groups = self._groups()

    def _groups(self):
        """Return [match name, [(option, values, negated)]] in order; '' is what needs no match."""
        groups = [["", []]]
        for option, values, negated in self._options():
            if option == "-m":
                groups.append([values[0], []])
            elif option in ("-j", "-g"):
                self.target, self.goto = values[0], option == "-g"
                groups.append(["-j", []])
            elif option in ("-s", "-d", "-i", "-o", "-p", "-f"):
                groups[0][1].append((option, values, negated))
            else:
                groups[-1][1].append((option, values, negated))
        return groups

    def _options(self):
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

    def compiled(self):
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

    def _one(self, name, option, values, negated):
        maker = _OPTIONS.get((name, option)) or _OPTIONS.get(option)
        if maker is None:
            self._unknown(name, [(option, values, negated)])
            return
        check = maker(values)
        if check is not None:
            self.checks.append((lambda walk: not check(walk)) if negated else check)

    def _unknown(self, name, options):
        words = (name,) + tuple(options)

        def check(walk):
            oracle = walk.walker.oracle
            if oracle is None:
                raise UnknownMatch("-A {0} {1}: {2}".format(self.chain, self.text, words))
            return bool(oracle(self.chain, self.text, words, walk.packet))

        self.checks.append(check)

    def _limit(self, options):
        given = {option: values[0] for option, values, _negated in options}
        number, _slash, unit = given.get("--limit", "3/hour").partition("/")
        seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400}[(unit or "s")[0]]
        key, rate, burst = (self.chain, self.place), float(number) / seconds, int(given.get("--limit-burst", 5))
        self.checks.append(lambda walk: walk.walker.limit(key, rate, burst))

    def _recent(self, options):
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

        def check(walk):
            address = walk.destination if how.rdest else walk.source
            now = walk.walker.clock.now
            return walk.walker.lists[how.name].ask(how, int(address), walk.packet.ttl, now)

        self.checks.append(check)


def _masked(text):
    """Return (version, mask, masked address); a mask may have holes."""
    address, _slash, mask = text.partition("/")
    address = ipaddress.ip_address(address)
    if "." in mask or ":" in mask:
        bits = int(ipaddress.ip_address(mask))
    else:
        length = int(mask) if mask else address.max_prefixlen
        bits = (1 << address.max_prefixlen) - (1 << (address.max_prefixlen - length))
    return address.version, bits, int(address) & bits


def _addresses(which, values):
    masked = [_masked(item) for item in values[0].split(",")]

    def check(walk):
        address = getattr(walk, which)
        number = int(address)
        return any(version == address.version and number & mask == wanted for version, mask, wanted in masked)

    return check


def _interface(values):
    name = values[0]
    if name.endswith("+"):
        return lambda walk: walk.packet.interface.startswith(name[:-1])
    return lambda walk: walk.packet.interface == name


def _protocol(values):
    number = int(values[0]) if values[0].isdigit() else _PROTOCOLS[values[0].lower()]
    if number == 0:
        return None
    return lambda walk: _PROTOCOLS[walk.packet.protocol] == number


def _port(text):
    return int(text) if text.isdigit() else _SERVICES[text]


def _bounds(text):
    first, colon, last = text.partition(":")
    return _port(first or "0"), _port(last or "65535") if colon else _port(first)


def _ports(*which):
    def make(values):
        ranges = [_bounds(item) for item in values[0].split(",")]

        def check(walk):
            if walk.packet.protocol not in ("tcp", "udp", "sctp"):
                return False
            return any(low <= getattr(walk.packet, name) <= high for low, high in ranges for name in which)

        return check

    return make


def _tcp_flags(values):
    mask, wanted = (sum(FLAGS[flag] for flag in item.split(",")) for item in values)
    return lambda walk: walk.flags & mask == wanted


def _states(values):
    names = frozenset(values[0].split(","))
    return lambda walk: walk.packet.state in names


def _icmp(values):
    name = values[0].partition("/")[0]
    if name == "any":
        return None
    number = int(name) if name.isdigit() else _ICMP[name]
    return lambda walk: walk.packet.icmp_type == number


def _address_type(which):
    def kind(address):
        if address.is_multicast:
            return "MULTICAST"
        if str(address) == "255.255.255.255":
            return "BROADCAST"
        return "LOCAL" if which == "destination" or address.is_loopback else "UNICAST"

    def make(values):
        names = values[0].split(",")
        return lambda walk: kind(getattr(walk, which)) in names

    return make


def _range(which):
    def make(values):
        first, _dash, last = values[0].partition("-")
        low, high = ipaddress.ip_address(first), ipaddress.ip_address(last or first)
        return lambda walk: low.version == getattr(walk, which).version and low <= getattr(walk, which) <= high

    return make


def _match_set(values):
    name, where = values[0], values[1].split(",")[0]

    def check(walk):
        address = walk.source if where == "src" else walk.destination
        return any(address in network for network in walk.walker.sets.get(name, ()))

    return check


def _mark(values):
    value, _slash, mask = values[0].partition("/")
    mask = int(mask, 0) if mask else 0xFFFFFFFF
    return lambda walk: walk.mark & mask == int(value, 0)


_KNOWN = frozenset(["", "tcp", "udp", "multiport", "conntrack", "state", "comment", "addrtype", "pkttype", "icmp", "icmp6",
                    "icmpv6", "set", "iprange", "mac", "mark"])  # fmt: skip
_OPTIONS = {
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
