# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of what knock_verify saw of some hosts. Pure.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.sesame.portknock.plugins.plugin_utils._report.fleet import WAITING, Fleet

_HEAD = ("host", "what", "IP", "no knock", "wrong knock", "right knock", "afterwards", "proof", "")
_WORDS = {"ok": "ok", "wrong": "WRONG", "unseen": "not seen"}


def table(seen: Mapping[str, Mapping[str, Any]], check_mode: bool, fleet: Fleet) -> list[str]:
    """Return the lines of the table: once no host is left, and whenever one of the batch is not as it should be; else none.

    :param seen: host to the result of knock_verify, empty where there is none.
    """
    waiting = [
        host for host, result in seen.items() if not result and host not in fleet.gone and host not in fleet.batch
    ]
    if waiting and all(seen[host].get("ok", True) for host in fleet.batch):
        return []
    cells = [row for host, result in seen.items() for row in _rows(host, result, check_mode, host in waiting)]
    widths = [max(map(len, column)) for column in zip(*[_HEAD[:-1], *[row[:-1] for row in cells]], strict=True)]
    found = [row["state"] for result in seen.values() for row in result.get("rows", ())]
    unseen = found.count("unseen") + sum("rows" not in result for result in seen.values()) - len(waiting)
    counted = f"{found.count('wrong')} wrong, {unseen} not seen"
    last = f"{counted}, {len(waiting)} {WAITING}" if waiting else counted
    return [*[_line(row, widths) for row in (_HEAD, *cells)], last]


def _rows(host: str, result: Mapping[str, Any], check_mode: bool, waiting: bool) -> list[Sequence[str]]:
    if waiting or not result.get("rows"):
        why = "nothing to look at: no doors" if "rows" in result else "not looked at, see above"
        words = WAITING if waiting else "not looked at in check mode" if check_mode else why
        return [(host, "-", "-", "-", "-", "-", "-", "-", words)]
    return [
        (
            host,
            *(row[key] for key in ("what", "ip_version", "without", "wrong", "right", "later", "proof")),
            _verdict(row),
        )
        for row in result["rows"]
    ]


def _verdict(row: Mapping[str, str]) -> str:
    word = _WORDS[row["state"]]
    return f"{word}: {row['note']}" if row["note"] else word


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)]
    return "  ".join([*padded, row[-1]]).rstrip()
