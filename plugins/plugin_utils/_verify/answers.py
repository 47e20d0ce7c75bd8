# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the answers of ports mean: let in or not, and how they look from outside. Pure.

An observation of a door is a dictionary: the moment of a look (``first``, ``second``, ``wrong``, ``right``, ``again``, ``closed``,
``reopened``, ``later``) to what each port, ``PORT/PROTOCOL``, answered then. PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.sesame.portknock.plugins.module_utils._client.probe import (
    OPEN,
    REFUSED,
    RESET,
    SILENT,
    UNREACHABLE,
)

YES, NO, MAYBE = "yes", "no", "maybe"

_WORDS = {
    OPEN: "open",
    RESET: "refused (reset)",
    REFUSED: "refused",
    SILENT: "silent",
    UNREACHABLE: "no way there",
}


def let_in(answer: str, protocol: str, reject_with: str) -> str:
    """Return whether an answer means that the firewall let the packet in: YES, NO or MAYBE.

    A host's kernel answers a packet that was let in, and that no process listens for, with a reset, or with
    port-unreachable for a datagram; what the firewall answers follows from reject_with.
    """
    if answer == OPEN:
        return YES
    if protocol == "udp":
        return _let_in_udp(answer, reject_with)
    if answer == RESET:
        return MAYBE if reject_with == "tcp-reset" else YES
    if answer == REFUSED:
        return YES if reject_with == "drop" else MAYBE
    return NO


def _let_in_udp(answer: str, reject_with: str) -> str:
    unreachable = answer == REFUSED or answer in ("icmp 3/3", "icmp 1/4")
    if unreachable:
        return YES if reject_with in ("drop", "icmp-admin-prohibited") else MAYBE
    return MAYBE if answer == SILENT else NO


def is_open(seen: Mapping[str, Any], moment: str, reject_with: str) -> bool:
    """Return whether any port was let in for certain. After a knock, a datagram that is no longer refused was let in."""
    return any(was_let_in(seen, moment, name, reject_with) == YES for name in seen.get(moment, {}))


def was_let_in(seen: Mapping[str, Any], moment: str, name: str, reject_with: str) -> str:
    """Return whether a port was let in at a moment: YES, NO or MAYBE."""
    answer, before = seen[moment][name], seen.get("second", seen.get("first", {})).get(name)
    protocol = name.partition("/")[2]
    found = let_in(answer, protocol, reject_with)
    if protocol == "udp" and found == MAYBE and moment in ("right", "reopened"):
        return YES if answer == SILENT and _is_refusal(before) else MAYBE
    return found


def _is_refusal(answer: str | None) -> bool:
    return answer == REFUSED or str(answer).startswith("icmp")


def look_of(answers: Mapping[str, str]) -> str:
    """Return what answers look like from outside, in a word or two."""
    found = set(answers.values())
    icmp = sorted(answer for answer in found if answer.startswith("icmp"))
    if icmp:
        return f"refused ({icmp[0]})"
    return next((words for answer, words in _WORDS.items() if answer in found), "-")
