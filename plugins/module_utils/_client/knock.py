# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sending a knock, and what whoever knocks must know of the engine that recognises it.

A knock is a secret: no message of this file holds a step. This file also runs alone, sent to a jump host that must knock
for us, and beside the program that ssh calls: nothing of the collection is imported.
"""

import errno
import math
import os
import select
import socket
import time
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

Steps = Sequence[Tuple[int, str]]
"""The steps of a knock: (port, ``tcp`` or ``udp``) pairs."""

PAUSE = 0.1
"""Seconds between two steps that are not answered. Measured with three steps over a path that holds a quarter of the packets
back, by up to 50 ms: of 120 knocks each the door opened to 71 % without a pause, 79 % with 20 ms, 98 % with 50 ms, to all with
75 ms and more. Held back by up to 100 ms, which is far worse than ordinary paths: 70, 75, 83, 96 %, and to all with 100 ms and
more. A longer pause would only cost time: what is lost on the way is made up for by a new knock. A door's step_timeout (5 s) is
far away even with eight steps."""

SETTLE = 0.1
"""Seconds that knockd is given to open after the last step: it captures packets, and starts a shell for what it does then.
Measured with knockd 0.8 and two cores: of 100 knocks half had opened after 30 ms, 99 after 53 ms, on a busy host after 44 and
83 ms (libpcap hands over what it captured every 50 ms). What is slower still, a new knock makes up for."""


class EngineTraits(NamedTuple):
    """What whoever knocks must know of an engine."""

    settle: float = 0.0
    """Seconds that it needs after the last step, until the port is open."""
    keeps_broken_knocks: bool = False
    """Whether it keeps what it has seen of a knock that was broken off, so that a plain new knock fails."""
    tries: int = 3
    """How often a new connection is tried, each time with a new knock. Of 100 knocks over a path that loses one packet in
    fifty and mixes up one in four, seven to ten fail. knockd also breaks a knock of which a packet arrives twice, and keeps
    what is left of one, so that now and then the next one fails as well."""
    verify_knocks: int = 3
    """How many knocks a door gets before it counts as one that does not open: a packet may get lost."""
    needs_proof: bool = False
    """Whether only a knock shows that it receives knocks at all."""
    daemon: str = ""
    """The name of its process and unit on the host, where it is one."""
    advice: str = ""
    """Where to look if it does not receive the knock, as a sentence with a blank before it."""


ENGINES: Dict[str, EngineTraits] = {
    "iptables": EngineTraits(),
    "knockd": EngineTraits(
        settle=SETTLE,
        keeps_broken_knocks=True,
        tries=5,
        # The first one may complete the rest of another knock.
        verify_knocks=4,
        needs_proof=True,
        daemon="knockd",
        advice=(
            " knockd only sees packets that arrive on the interface named by knockd_interface (if it is empty, that of the "
            "default route), addressed to this interface, over ipv4 or ipv6 as the connection does: check 'systemctl status "
            "knockd' there as well."
        ),
    ),
    "nftables": EngineTraits(),
}
"""Every engine by its name. Nothing that knocks asks for an engine by name; it asks this table."""

HOLD = 0.5
"""Seconds after which a TCP step is given up at the latest: the kernel repeats an unanswered SYN after 1 s, and a
repeat could reach a host that is at a later step by then."""

_FAMILIES = {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}
_UNDER_WAY = (0, errno.EINPROGRESS, errno.ECONNREFUSED)
# Only the host itself opens or refuses: a router that answers "unreachable" says nothing about the step.
_ANSWERED = (0, errno.ECONNREFUSED)


class KnockError(OSError):
    """A knock that cannot have arrived: why, and what to do now."""


def resolve(host: str, family: str = "any") -> Tuple[str, ...]:
    """Return the addresses of a host, as ssh tries them one after the other.

    :param host: a name or an address.
    :param family: ``any``, ``inet`` or ``inet6``, as ssh's AddressFamily.
    :raises KnockError: if there is none.
    """
    try:
        found = socket.getaddrinfo(host, None, _FAMILIES[family], socket.SOCK_STREAM)
        # The numeric text keeps the zone of a link-local address.
        texts = [socket.getnameinfo(entry[4], socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0] for entry in found]
    except (OSError, UnicodeError) as error:
        raise KnockError(
            f"{host} has no address to knock at: {_reason(error)}. Check the name and the address family."
        ) from None
    return tuple(dict.fromkeys(texts))


def settle_of(engine: str) -> float:
    """Return the seconds that an engine needs after the last step; the kernel has opened before it answers."""
    return ENGINES[engine].settle


def steps_of_turn(steps: Iterable[Tuple[int, str]], turn: int, engine: str) -> Tuple[Tuple[int, str], ...]:
    """Return the steps to send the first time (turn 0), and for each try that follows one that was not let in.

    knockd keeps an attempt that is under way, and a step that it does not wait for, the first one too, ends that attempt and
    counts for nothing else. So behind a knock whose end got lost a plain new one fails for certain. The last step, sent
    before the first, ends what was left in either way: it completes the attempt or breaks it. Where nothing was left it
    means nothing, or begins another knock that has it as its first step, and then the try after this one is let in. Every
    fourth turn is plain, because a door may have a close knock that the others would begin each time.
    """
    steps = tuple(steps)
    begins_with_last = turn % 4 and len(steps) > 1 and ENGINES[engine].keeps_broken_knocks
    return steps[-1:] + steps if begins_with_last else steps


def send_knock(
    addresses: Sequence[str],
    steps: Steps,
    pause: float = PAUSE,
    source: str = "",
    network: "Optional[Network]" = None,
    settle: float = 0.0,
) -> float:
    """Send each step once to every address, and return the seconds it took.

    When it returns, the last step has arrived or had a pause's time to, and the host had some more to act on it.

    :param addresses: IP addresses as text; one that this machine cannot send to is left out if another can be.
    :param steps: (port, protocol) pairs.
    :param pause: seconds after each step; less where the host has answered already, as then the step has arrived.
    :param source: the address to send from, where it has the family of the one to send to.
    :param network: what to send with, for tests.
    :param settle: seconds after the last step, answered or not: a refusal says that the step has arrived, not that knockd
        has done what follows. Where it is given, each address gets its whole knock before the next one does: knockd has one list
        of attempts for all addresses, and forgets all of them when the first one ends.
    :raises KnockError: if not one of the addresses can be sent to.
    """
    network = network or Network()
    began = network.now()
    groups = [[address] for address in addresses] if settle and addresses else [addresses]
    problems: List[KnockError] = []
    for group in groups:
        try:
            _send_steps(network, group, steps, pause, source)
        except KnockError as error:
            problems.append(error)
    if len(problems) == len(groups):
        raise problems[0]
    network.rest(settle)
    return network.now() - began


def _send_steps(network: "Network", addresses: Sequence[str], steps: Steps, pause: float, source: str) -> None:
    for port, protocol in steps:
        addresses, sockets = _send_step(network, addresses, port, protocol, source)
        network.wait(sockets, pause)


def _send_step(
    network: "Network", addresses: Sequence[str], port: int, protocol: str, source: str
) -> Tuple[List[str], List[Any]]:
    reached, sockets, problems = [], [], []
    for address in addresses:
        try:
            sockets.append(network.send(address, port, protocol, source))
            reached.append(address)
        except OSError as error:
            problems.append(f"{address}: {_reason(error)}")
    if not reached:
        why = "; ".join(problems) or "no address"
        raise KnockError(
            f"the knock cannot leave this machine ({why}). Check the address, the routes and this machine's own firewall."
        )
    return reached, sockets


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or error.__class__.__name__


class Network:
    """Sockets and the clock, behind a seam that a test can replace."""

    def now(self) -> float:
        """Return seconds that only go up."""
        return time.monotonic()

    def send(self, address: str, port: int, protocol: str, source: str) -> Any:
        """Send one packet, a SYN or a datagram, and return its socket."""
        kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
        found = socket.getaddrinfo(address, port, 0, kind, 0, socket.AI_NUMERICHOST)
        family, target = found[0][0], found[0][4]
        opened = socket.socket(family, kind)
        try:
            opened.setblocking(False)
            if source and (":" in source) == (family == socket.AF_INET6):
                opened.bind((source, 0))
            self._start(opened, target)
        except OSError:
            opened.close()
            raise
        return opened

    def _start(self, opened: socket.socket, target: Any) -> None:
        if opened.type & socket.SOCK_DGRAM:
            # One byte, because some routers throw empty datagrams away.
            opened.sendto(b"\0", target)
            return
        code = opened.connect_ex(target)
        if code not in _UNDER_WAY:
            raise OSError(code, os.strerror(code))

    def wait(self, sockets: Sequence[Any], seconds: float) -> None:
        """Wait until every step was answered, or for so many seconds, and close the sockets."""
        end = self.now() + seconds
        try:
            silent = self._silent(sockets, min(end, self.now() + HOLD))
        finally:
            for opened in sockets:
                opened.close()
        if silent:
            time.sleep(max(0, end - self.now()))

    def rest(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def _silent(self, sockets: Sequence[socket.socket], end: float) -> int:
        """Return how many have not been answered in time. A datagram never is."""
        poller = select.poll()
        watched = {opened.fileno(): opened for opened in sockets if not opened.type & socket.SOCK_DGRAM}
        for number in watched:
            poller.register(number, select.POLLOUT)
        silent = len(sockets)
        while silent and end > self.now():
            for number, _event in poller.poll(math.ceil((end - self.now()) * 1000)):
                poller.unregister(number)
                if watched[number].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in _ANSWERED:
                    silent -= 1
        return silent


__all__ = (
    "ENGINES",
    "HOLD",
    "PAUSE",
    "SETTLE",
    "EngineTraits",
    "KnockError",
    "Network",
    "resolve",
    "send_knock",
    "settle_of",
    "steps_of_turn",
)
