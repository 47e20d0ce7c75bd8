# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What it means that a port did not open after a knock, in words for a person. Pure.

This file also runs alone, beside the program that ssh calls: nothing of the collection is imported. The bash program
portknock-connect.sh has the same words; a test compares them.
"""

from typing import Dict, Optional

LATE, NO_ROUTE, DOWN, ON_THE_WAY, CLOSED = "late", "no_route", "down", "on_the_way", "closed"
FILTERED = "filtered"
"""What the bash program says of ICMP errors, as it cannot tell who has sent one."""
NO_LISTENER, RESET, PERHAPS = "no_listener", "reset", "perhaps"
DROPPED, SILENT, UNKNOWN = "dropped", "silent", "unknown"
MUTE, HUNG_UP = "mute", "hung_up"

MEANINGS: Dict[str, str] = {
    LATE: "it is open now, so the door opened after the last try",
    NO_ROUTE: "this machine has no route to it",
    DOWN: "no host answers at this address: it is down, or the address is not its own",
    ON_THE_WAY: "a router or firewall on the way refuses it by ICMP, not the host",
    CLOSED: "the host refuses it by ICMP, as a closed door does: it did not accept the knock",
    FILTERED: "a firewall refuses it by ICMP: perhaps the host's, as a closed door does, perhaps one on the way",
    NO_LISTENER: "the door is open, but nothing listens behind it: the port is refused in another way than closed ports are",
    RESET: "it is refused by a TCP reset: perhaps the door is closed and refuses so, as the host did not accept the knock, perhaps "
    "the door is open and nothing listens behind it",
    PERHAPS: "it is refused: perhaps the host did not accept the knock, perhaps the door is open and nothing listens behind it",
    DROPPED: "the host is up, but this port does not answer, as a door that drops packets does while it is closed: the host did "
    "not accept the knock, or a firewall on the way drops the packets",
    SILENT: "nothing answers, not even to ping: perhaps the host is down, perhaps a firewall drops the packets, perhaps the host "
    "did not accept the knock",
    UNKNOWN: "nothing answers: perhaps the host is down, perhaps a firewall drops the packets, perhaps the host did not accept "
    "the knock",
    MUTE: "it accepts the connection and then sends nothing: what listens there hangs, or is no ssh server",
    HUNG_UP: "it accepts the connection and closes it at once: the ssh server does not take this address for now "
    "(MaxStartups, PerSourcePenalties), or the port is forwarded to where nothing listens",
}
"""The verdicts, each with the words that follow the name of a port and a colon."""

ABOUT_THE_KNOCK = frozenset((CLOSED, FILTERED, RESET, PERHAPS, DROPPED, SILENT, UNKNOWN))
"""The verdicts under which the knock may be a wrong one."""


def verdict(answer: str, closed: str = "", alive: Optional[bool] = None, routed: bool = True) -> str:
    """Return what an answer means.

    :param answer: what became of the port after the knocks, as _client/probe.py names it.
    :param closed: the same of a port of this host that is closed for certain, '' where none was tried.
    :param alive: whether the host answers ping, None where that is not known.
    :param routed: whether this machine has a route to the host.
    """
    if answer == "silent":
        return _of_silence(closed, alive)
    if answer == "open":
        return LATE
    if answer == "unreachable":
        return DOWN if routed else NO_ROUTE
    if answer in ("reset", "refused"):
        # Where a closed port is refused in the same way, or it is not known how it is, both are possible.
        both = closed in ("", "reset", "refused", "unreachable", "open")
        return (RESET if answer == "reset" else PERHAPS) if both else NO_LISTENER
    return ON_THE_WAY if " by " in answer else CLOSED


def describe(verdicts: Dict[str, str]) -> str:
    """Return what is to be said of addresses that did not open: once, where it is the same of all.

    :param verdicts: address to verdict.
    """
    if len(set(verdicts.values())) == 1:
        return MEANINGS[next(iter(verdicts.values()))]
    return "; ".join(f"{address}: {MEANINGS[each]}" for address, each in verdicts.items())


def _of_silence(closed: str, alive: Optional[bool]) -> str:
    if alive or closed in ("reset", "refused") or (closed.startswith("icmp") and " by " not in closed):
        return DROPPED
    return UNKNOWN if alive is None else SILENT


__all__ = (
    "ABOUT_THE_KNOCK",
    "HUNG_UP",
    "MEANINGS",
    "MUTE",
    "describe",
    "verdict",
)
