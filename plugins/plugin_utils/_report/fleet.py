# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of what a roll-out over many hosts did. Pure.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

_HEAD = ("host", "result", "findings", "")
_FAILED = ("failed", "rolled back")
_UNREACHED = "not reached"
WAITING = "not begun"
"""What is said of a host whose batch does not come, or has yet to."""
_LONGEST_REASON = 300


class Fleet(NamedTuple):
    """Where a play with batches stands, at the end of one."""

    hosts: Sequence[str]
    """All hosts of the play, in its order."""
    batch: Collection[str]
    """The hosts of the batch that is done, but those that could not be reached."""
    gone: Collection[str]
    """The hosts that the play has given up."""


class Outcome(NamedTuple):
    """What a host's tasks left, empty where they did not run."""

    change: Mapping[str, Any]
    """The result of knock_ruleset."""
    failure: Mapping[str, Any]
    """``rolled_back`` and ``why`` of a host where a task failed."""


def fleet_table(fleet: Fleet, outcomes: Mapping[str, Outcome], check_mode: bool) -> list[str]:
    """Return the lines of the table: once no host is left, and whenever one of the batch failed; else none.

    :param outcomes: what came of each host.
    """
    results = {host: _result(host, fleet, outcomes[host], check_mode) for host in fleet.hosts}
    failed = [host for host in fleet.batch if results[host] in _FAILED]
    if len(fleet.hosts) < 2 or not (failed or WAITING not in results.values()):
        return []
    rows = [(host, result, *_cells(result, outcomes[host])) for host, result in results.items()]
    widths = [max(map(len, column)) for column in zip(*[_HEAD[:-1], *[row[:-1] for row in rows]], strict=True)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)), row[-1]]).rstrip()
        for row in (_HEAD, *rows)
    ]
    return [*lines, ", ".join(f"{number} {result}" for result, number in Counter(results.values()).items())]


def after_failure(failure: Mapping[str, Any]) -> str:
    """Return what is said of a host where a task failed: the reason was shown when it did, and is in the table."""
    result = "Rolled back" if failure.get("rolled_back") else "Failed"
    return f"{result}, for the reason above. Hosts that were not begun are as they were."


def _result(host: str, fleet: Fleet, outcome: Outcome, check_mode: bool) -> str:
    if outcome.failure:
        return "rolled back" if outcome.failure.get("rolled_back") else "failed"
    if outcome.change.get("unreachable"):
        return _UNREACHED
    if outcome.change:
        changed = "would change" if check_mode else "changed"
        return changed if outcome.change.get("changed") else "unchanged"
    if host in fleet.gone:
        return _UNREACHED
    return "done" if host in fleet.batch else WAITING


def _cells(result: str, outcome: Outcome) -> tuple[str, str]:
    counted = Counter(each["severity"] for each in outcome.change.get("findings") or () if not each.get("acknowledged"))
    findings = ", ".join(
        f"{counted[severity]} {severity}" for severity in ("error", "warning", "info") if counted[severity]
    )
    return findings or "-", _shortened(str(outcome.failure.get("why") or "")) if result in _FAILED else ""


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}… (all of it is above)"
