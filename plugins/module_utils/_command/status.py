# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``portknock status`` shows, and whether all is well. Pure."""

import time
from typing import Any, Dict, List, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._command.in_panic import in_panic_text
from ansible_collections.sesame.portknock.plugins.module_utils._command.verbs import CRITICAL, OK, WARNING
from ansible_collections.sesame.portknock.plugins.module_utils._engine import ERROR
from ansible_collections.sesame.portknock.plugins.module_utils._engine import WARNING as WARNING_FINDING

Found = Dict[str, Any]
"""What inspect() returns."""

_STATES = {OK: "OK", WARNING: "WARNING", CRITICAL: "CRITICAL"}
_FEW_LISTS = 8
_PUBLISHED = {
    "doors": "those of doors are closed as well",
    "policy": "refused as those of this host are, unless a door or an allowed port has them",
    "none": "not guarded",
}
_NAMES = {"ipv4": "IPv4", "ipv6": "IPv6"}


def check(found: Found) -> Tuple[int, str]:
    """Return OK, WARNING or CRITICAL, and a line that says why."""
    severe = [each["message"] for each in found["findings"] if each["severity"] == ERROR]
    if not found["engine"]:
        severe.insert(0, "there are no doors of this collection on this host.")
    if found.get("panic"):
        severe.insert(0, _panic(found["panic"]))
    if found.get("daemon") and not found["daemon"]["running"]:
        severe.insert(0, "knockd does not listen, so no knock opens a door.")
    # Until then it is the files of the boot that differ from what is loaded.
    mild = [f"drift: {line.strip()}" for line in found["drift"]] if not found["pending"] else []
    mild += [each["message"] for each in found["findings"] if each["severity"] == WARNING_FINDING]
    if found["pending"]:
        mild.insert(0, _pending(found["pending"]))
    code = CRITICAL if severe else WARNING if mild else OK
    reasons = severe + mild
    names = sorted({door["name"] for door in found["doors"]})
    doors = "{} door{}".format(len(names), "" if len(names) == 1 else "s")
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return code, f"portknock {_STATES[code]}: {reasons[0] + more if reasons else doors + ', engine ' + found['engine']}"


def status_text(found: Found) -> str:
    """Return what a person reads: a table of the doors, and what else there is to know."""
    if not found["engine"] and not found["doors"]:
        lines = ["There are no doors of sesame.portknock on this host."]
    else:
        lines = [_heading(found), "", *_table(_rows(found)), "", *_counted(found)]
    lines += [f"pending: {_pending(found['pending']) if found['pending'] else 'no change'}"]
    lines += ["drift: not known while a change is pending"] if found["pending"] else _listed("drift", found["drift"])
    lines += _listed("findings", [f"{each['severity']}: {each['message']}" for each in found["findings"]])
    return "\n".join(_panic_lines(found) + lines) + "\n"


def _heading(found: Found) -> str:
    backend = f" ({found['backend']})" if found.get("backend") else ""
    versions = " and ".join(_NAMES[each] for each in found["ip_versions"])
    health = "healthy" if check(found)[0] != CRITICAL else "NOT as it should be, see below"
    daemon = found.get("daemon") or {}
    if daemon:
        health += f", knockd {'listens' if daemon['running'] else 'does NOT listen'} on {daemon['interface']}"
    return f"Engine {found['engine']}{backend}, {versions}: {health}"


def _rows(found: Found) -> List[Sequence[str]]:
    rows: List[Sequence[str]] = [("DOOR", "OPENS", "WINDOW", "KNOCKS", "LET IN", "REFUSED", "OPEN TO", "FOR")]
    for name in dict.fromkeys(door["name"] for door in found["doors"]):
        doors = [door for door in found["doors"] if door["name"] == name]
        sources = [(source, f"{left} s") for door in doors for source, left in sorted(door["open_for"].items())]
        first = (
            name,
            _opens(doors),
            f"{doors[0]['window']} s",
            *(_sum(doors, counted) for counted in ("knocked", "let_in", "refused")),
        )
        for index, (source, left) in enumerate(sources or [("-", "")]):
            rows.append((*(first if index == 0 else ("",) * len(first)), source, left))
    return rows


def _opens(doors: Sequence[Dict[str, Any]]) -> str:
    """Return the ports of a door, and the hosts behind this one that they are of, of all IP versions."""
    behind = dict.fromkeys(address for door in doors for address in door.get("to", ()))
    return " ".join([*doors[0]["opens"], *(["of", *behind] if behind else [])])


def _sum(doors: Sequence[Dict[str, Any]], counted: str) -> str:
    """Return what the IP versions of a door have counted, ``-`` where none counts it."""
    found = [door[counted] for door in doors if counted in door]
    return str(sum(found)) if found else "-"


def _table(rows: List[Sequence[str]]) -> List[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _counted(found: Found) -> List[str]:
    wrong = found.get("wrong_knocks")
    lines = ["packets refused at the doors' ports: {}".format(found.get("refused", 0))]
    if wrong is not None:
        lines.append(f"wrong knocks: {wrong} reset")
    if found.get("published"):
        lines.append(f"ports that nat publishes: {_PUBLISHED[found['published']]}")
    return lines + _filled(found.get("lists", []))


def _filled(lists: Sequence[Dict[str, Any]]) -> List[str]:
    """Return a line with how full the lists are; of many, only those that are not empty."""
    shown = [each for each in lists if each["entries"] or len(lists) <= _FEW_LISTS]
    words = ["{} {} {} of {}".format(each["door"] or "knocks in progress", _NAMES[each["ip_version"]], each["entries"],
                                     each["size"] or "?") for each in shown]  # fmt: skip
    empty = len(lists) - len(shown)
    words += [f"{empty} {'more ' if shown else ''}of {lists[0]['size'] or '?'} empty"] if empty else []
    return ["sources on the lists: " + ", ".join(words)] if words else []


def _listed(name: str, lines: Sequence[str]) -> List[str]:
    return [f"{name}:"] + [f"  {line}" for line in lines] if lines else [f"{name}: none"]


def _panic_lines(found: Found) -> List[str]:
    """Return what stands above all else where the host is in panic."""
    if not found.get("panic"):
        return []
    closed = found.get("in_panic")
    return [_panic(found["panic"]), *(f"  {line}" for line in (in_panic_text(closed) if closed else [])), ""]


def _panic(since: int) -> str:
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(since))
    return f"PANIC since {when}: all doors and allowed ports are closed, except to trusted sources. To open them: portknock resume"


def _pending(pending: Dict[str, Any]) -> str:
    return "a change by {} is undone in {} s unless it is confirmed".format(
        pending["owner"] or "an unknown run", pending["seconds_left"]
    )


__all__ = ("check", "status_text")
