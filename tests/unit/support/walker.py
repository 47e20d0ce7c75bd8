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

import ipaddress
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document
from walker_rules import FLAGS, Compiled, Recent, compiled

ACCEPT, DROP, REJECT = "ACCEPT", "DROP", "REJECT"
STAMPS = 32
"""Times that xt_recent keeps for a source, unless a hitcount asks for more."""
DEFAULT_LIST_SIZE = 100


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
            ("original", Optional[Tuple[str, int]]),
        ],
    )
):
    """One packet to this host; ``port`` is the destination's. Flags are written with commas.

    ``original`` is where it was sent to before nat changed that, an address and a port.
    """

    __slots__ = ()

    def __new__(
        cls,
        source: str,
        port: int = 0,
        protocol: str = "tcp",
        sport: int = 40000,
        flags: str = "SYN",
        interface: str = "eth0",
        state: str = "NEW",
        icmp_type: int = 8,
        pkttype: str = "unicast",
        destination: Optional[str] = None,
        ttl: int = 64,
        mac: str = "02:00:00:00:00:01",
        mark: int = 0,
        original: Optional[Tuple[str, int]] = None,
    ) -> "Packet":
        if destination is None:
            destination = "2001:db8:ffff::1" if ":" in source else "203.0.113.1"
        return super().__new__(
            cls, source, port, protocol, sport, flags, interface, state, icmp_type, pkttype, destination, ttl, mac, mark,
            original,
        )  # fmt: skip


Verdict = NamedTuple("Verdict", [("action", str), ("trail", tuple), ("answer", str), ("logged", tuple)])
"""trail: (chain, rule) of every rule that matched; answer: what REJECT answers with; logged: prefixes."""


class Clock:
    """Seconds that pass only when later() is called; give one to two walkers to let them share it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def later(self, seconds: float) -> None:
        self.now += seconds


class RecentList:
    """One list of xt_recent: address to [time to live, times seen], the longest unseen first."""

    def __init__(self, mask: int, size: int) -> None:
        self.mask, self.size, self.stamps = mask, size, STAMPS
        self.entries: Dict[int, List[Any]] = {}

    def _put(self, key: int, ttl: int, now: float) -> None:
        times = self.entries.pop(key, [0, []])[1]
        self.entries[key] = [ttl, (times + [now])[-self.stamps :]]

    def _room(self) -> None:
        while len(self.entries) >= self.size:
            self.entries.pop(next(iter(self.entries)))

    def ask(self, how: Recent, address: int, ttl: int, now: float) -> bool:
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

    def _known(self, how: Recent, key: int, entry: List[Any], now: float) -> bool:
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

    def _reap(self, before: float) -> None:
        oldest = next(iter(self.entries), None)
        if oldest is not None and self.entries[oldest][1][-1] < before:
            del self.entries[oldest]


_GOES_ON = frozenset("LOG NFLOG ULOG MARK CONNMARK TRACE SET CT TCPMSS TOS DSCP SECMARK CONNSECMARK AUDIT TEE".split())


class Walker:
    """A family's ruleset, its lists, and the packets that come."""

    def __init__(
        self,
        document: Document,
        clock: Optional[Clock] = None,
        lists: Optional[Dict[str, RecentList]] = None,
        list_size: int = DEFAULT_LIST_SIZE,
        oracle: Optional[Callable[[str, str, Tuple[Any, ...], Packet], Any]] = None,
        sets: Optional[Dict[str, Iterable[str]]] = None,
    ) -> None:
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

    def load(self, document: Document) -> None:
        """Replace the ruleset; lists that a rule still names live on, as in the kernel."""
        self._buckets: Dict[Tuple[str, int], Tuple[float, float]] = {}
        self._chains: Dict[str, List[Compiled]] = {}
        self._policies, named = {"INPUT": ACCEPT, "FORWARD": ACCEPT}, set()
        table = document.table("filter")
        if table is not None:
            self._policies = {name: table.policy(name) for name in self._policies}
            for chain, rules in table.chains.items():
                self._chains[chain] = [compiled(chain, place, rule.text) for place, rule in enumerate(rules)]
        for name in self._policies:
            self._chains.setdefault(name, [])
        nat = document.table("nat")
        # Of nat those of the collection alone: what others do there is not followed.
        self._nat: Dict[str, List[Compiled]] = {
            chain: [
                compiled(chain, place, rule.text)
                for place, rule in enumerate(rules)
                if "PORTKNOCK" in chain + rule.text
            ]
            for chain, rules in (nat.chains.items() if nat is not None else ())
        }
        chains = [*self._chains.values(), *self._nat.values()]
        for how in [how for rules in chains for rule in rules for how in rule.recents]:
            named.add(how.name)
            self.open_list(how)
        for name in set(self.lists) - named:
            del self.lists[name]

    def later(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.later(seconds)

    def open_list(self, how: Recent) -> None:
        """Make the list a rule names; the first rule's mask is the list's for good."""
        if how.name not in self.lists:
            self.lists[how.name] = RecentList(how.mask, self.list_size)
        while self.lists[how.name].stamps < how.hitcount:
            self.lists[how.name].stamps *= 2

    def send(self, packet: Packet, chain: str = "INPUT") -> Verdict:
        """Walk a packet through INPUT, or one that is sent on through FORWARD."""
        walk = _Walk(self, packet)
        action = walk.chain(chain, self._chains) or self._policies[chain]
        return Verdict(action, tuple(walk.trail), walk.answer, tuple(walk.logged))

    def keeps_destination(self, packet: Packet, chain: str = "PREROUTING") -> bool:
        """Walk the first packet of a connection through a chain of nat: return whether no rule of others there sees it."""
        return _Walk(self, packet).chain(chain, self._nat) is not None if chain in self._nat else False

    def limit(self, key: Tuple[str, int], rate: float, burst: int) -> bool:
        """Take a token of a bucket if there is one."""
        tokens, since = self._buckets.get(key, (float(burst), self.clock.now))
        tokens = min(float(burst), tokens + (self.clock.now - since) * rate)
        self._buckets[key] = (tokens - 1 if tokens >= 1 else tokens, self.clock.now)
        return tokens >= 1


class _Walk:
    """One packet on its way."""

    def __init__(self, walker: Walker, packet: Packet) -> None:
        self.walker, self.packet = walker, packet
        self.source = ipaddress.ip_address(packet.source)
        self.destination = ipaddress.ip_address(packet.destination)
        self.flags = sum(FLAGS[flag] for flag in packet.flags.split(",") if flag)
        self.mark = packet.mark
        self.trail: List[Tuple[str, str]] = []
        self.logged: List[str] = []
        self.answer = ""

    def chain(self, name: str, chains: Dict[str, List[Compiled]]) -> Optional[str]:
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

    def _target(self, rule: Compiled) -> Optional[str]:
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

    def _set_mark(self, values: Dict[str, str]) -> None:
        text = values.get("--set-mark") or values.get("--set-xmark") or "0"
        value, _slash, masked = text.partition("/")
        mask = int(masked, 0) if masked else 0xFFFFFFFF
        self.mark = (self.mark & ~mask) | int(value, 0)
