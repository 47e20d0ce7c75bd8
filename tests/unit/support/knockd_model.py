# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What knockd 0.8 does with packets, after its parseconfig(), generate_pcap_filter(), sniff() and process_attempt().

As it is, with what looks like mistakes: when the attempt at the head of its list goes, all others go with it.
"""

import ipaddress
import re
from typing import Dict, Iterable, List, Optional, Tuple

from walker import RecentList

SEQ_MAX = 32
OPTIONS = {"INTERFACE"}
KEYS = {"SEQUENCE", "SEQ_TIMEOUT", "TCPFLAGS", "START_COMMAND", "START_COMMAND_6"}
NEW = frozenset(["SYN"])


class Section:
    """A door of knockd's."""

    def __init__(self, name: str) -> None:
        self.name, self.timeout = name, 25
        self.sequence: Tuple[Tuple[int, str], ...] = ()
        self.flags: Tuple[str, ...] = ()
        self.commands: Dict[int, Optional[str]] = {4: "", 6: None}

    def take(self, key: str, value: str) -> None:
        assert key in KEYS, "knockd would not start: {0}".format(key)
        if key == "SEQUENCE":
            steps = [step.split(":") for step in value.split(",")]
            assert len(steps) <= SEQ_MAX, "knockd would not start: too many ports"
            self.sequence = tuple((int(port), protocol) for port, protocol in steps)
        elif key == "SEQ_TIMEOUT":
            self.timeout = int(value)
        elif key == "TCPFLAGS":
            self.flags = tuple(value.upper().split(","))
        else:
            self.commands[6 if key.endswith("_6") else 4] = value

    def flags_match(self, protocol: str, flags: Iterable[str]) -> bool:
        return protocol != "tcp" or all((flag.lstrip("!") in flags) != flag.startswith("!") for flag in self.flags)

    def command(self, source: str) -> str:
        version = ipaddress.ip_address(source).version
        wanted = self.commands[4] if version == 4 or self.commands[6] is None else self.commands[6]
        assert wanted is not None
        return wanted.replace("%IP%", source)


class Attempt:
    """How far a source is in a section."""

    def __init__(self, section: Section, source: str, begun: float) -> None:
        self.section, self.source, self.begun, self.stage = section, source, begun, 0

    def is_over(self, now: float) -> bool:
        if self.stage >= len(self.section.sequence) or self.stage < 0:
            return True
        return int(now) - int(self.begun) >= self.section.timeout


class Knockd:
    """knockd with a configuration."""

    def __init__(self, text: str) -> None:
        self.interface = ""
        self.sections: List[Section] = []
        self.attempts: List[Attempt] = []
        section = None
        for line in text.split("\n"):
            line = line.strip()
            if not line or line[0] == "#":
                continue
            if line[0] == "[" and line[-1] == "]":
                section = line[1:-1]
                if section != "options":
                    self.sections.append(Section(section))
                continue
            assert section, "knockd would not start: outside of a section"
            key, equals, value = line.partition("=")
            self._take(section, key.strip().upper(), equals, value.strip())
        assert all(each.sequence for each in self.sections), "knockd would not start: no sequence"
        self.ports = {step for each in self.sections for step in each.sequence}

    def _take(self, section: str, key: str, equals: str, value: str) -> None:
        if section != "options":
            self.sections[-1].take(key, value)
        elif key != "USESYSLOG" or equals:
            assert key in OPTIONS, "knockd would not start: {0}".format(key)
            self.interface = value

    def packet(
        self, port: int, protocol: str = "tcp", source: str = "192.0.2.7", now: float = 0.0, flags: Iterable[str] = NEW
    ) -> List[Tuple[str, str]]:
        """Take a packet to one of its own addresses; return (section, command) of what is begun by it."""
        if (port, protocol) not in self.ports or not self.sections[0].flags_match(protocol, flags):
            return []  # libpcap's filter
        self._clean(now)
        found = [attempt for attempt in self.attempts if attempt.source == source]
        if not found:
            return [done for each in self.sections for done in self._begin(each, port, protocol, source, now)]
        return [done for attempt in found for done in self._go_on(attempt, port, protocol, flags)]

    def _clean(self, now: float) -> None:
        for attempt in list(self.attempts):
            if attempt.is_over(now):
                if self.attempts and attempt is self.attempts[0]:
                    self.attempts = []
                elif attempt in self.attempts:
                    self.attempts.remove(attempt)

    def _begin(self, section: Section, port: int, protocol: str, source: str, now: float) -> List[Tuple[str, str]]:
        if section.sequence[0] != (port, protocol):
            return []
        self.attempts.append(Attempt(section, source, now))
        return self._level_up(self.attempts[-1])

    def _go_on(self, attempt: Attempt, port: int, protocol: str, flags: Iterable[str]) -> List[Tuple[str, str]]:
        if attempt.section.sequence[attempt.stage] == (port, protocol):
            return self._level_up(attempt)
        if attempt.section.flags_match(protocol, flags):
            attempt.stage = -1
        return []

    def _level_up(self, attempt: Attempt) -> List[Tuple[str, str]]:
        attempt.stage += 1
        command = attempt.section.command(attempt.source)
        done = attempt.stage >= len(attempt.section.sequence) and command
        return [(attempt.section.name, command)] if done else []

    def knock(
        self, steps: Iterable[Tuple[int, str]], source: str = "192.0.2.7", now: float = 0.0, pause: float = 0.0
    ) -> List[Tuple[str, str]]:
        """Take the steps of a knock; return what is begun by them."""
        done = []
        for number, (port, protocol) in enumerate(steps):
            done += self.packet(port, protocol, source, now + number * pause)
        return done


_WRITTEN = re.compile(r"echo ([+-])(?:\$\(sh \S+ (\d+) )?([0-9a-f.:]+)\)? > /proc/net/xt_recent/(\S+)\Z")


def obey(command: str, lists: Dict[str, RecentList], now: float) -> None:
    """Do to a walker's lists what the shell and the kernel do: an address that is written is not masked."""
    if command == ":":
        return
    found = _WRITTEN.match(command)
    assert found, command
    sign, bits, text, name = found.groups()
    address = ipaddress.ip_address(text)
    if bits:
        address = ipaddress.ip_network("{0}/{1}".format(text, bits), strict=False).network_address
    lists[name].entries.pop(int(address), None)
    if sign == "+":
        lists[name].entries[int(address)] = [0, [now]]
