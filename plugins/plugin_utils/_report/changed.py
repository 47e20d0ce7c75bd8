# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run of the role says of a host at its end: what holds now, how to get in, and what needs attention. Pure.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_ERROR, _FEW = "error", 3
_KEPT = ("confirmed", "unproved", "off")
_SERVICE_VERBS = ("stop", "disable", "enable")


class Moment(NamedTuple):
    """What matters of the run, beside the results of its tasks."""

    check: bool
    """Whether nothing was written."""
    diff: bool
    """Whether the diff was shown, which begins with the summary."""
    plain_ssh: bool
    """Whether Ansible comes to the host by core's own ssh."""


def report(change: Mapping[str, Any], host: Mapping[str, Any], moment: Moment) -> list[str]:
    """Return the lines to print, the first of which stands behind the host's name; none where there is nothing to say.

    :param change: the result of knock_ruleset; empty where the task did not run.
    :param host: the result of portknock_host, or an empty dictionary.
    """
    plans = _would(change, host, moment) if moment.check else []
    changed = bool(change.get("changed"))
    notes = [*plans, *(change.get("permissions") or ()), *_findings(change), *_closes(change)]
    if not changed and not plans:
        return ["findings:", *notes] if notes else []
    if moment.check:
        summary = _summary(change) if changed and not moment.diff else []
        return ["would change (check mode)", *summary, *notes]
    if not change.get("engine"):
        return ["all that the collection wrote is removed; other rules and the installed packages stay", *notes]
    if (change.get("guard") or {}).get("state") not in _KEPT:
        return ["only files and services changed, the rules are as they were", *notes]
    return ["changed. From now on:", *_summary(change), *_switched_off(change), *notes, *_ways_in(change, moment)]


def _summary(change: Mapping[str, Any]) -> list[str]:
    return list(change.get("summary") or ())


def _would(change: Mapping[str, Any], host: Mapping[str, Any], moment: Moment) -> list[str]:
    services = {} if moment.diff else change.get("services") or {}
    packages, later = (_packages(host.get(key) or ()) for key in ("installations", "later"))
    lines = [f"Would install {packages}"] if packages else []
    lines += [f"Would install {later}, which removes ufw"] if later else []
    return lines + [f"Would {verb} {', '.join(services[verb])}" for verb in _SERVICE_VERBS if services.get(verb)]


def _switched_off(change: Mapping[str, Any]) -> list[str]:
    services = change.get("services") or {}
    names = dict.fromkeys([*services.get("stop", ()), *services.get("disable", ())])
    return [f"switched off: {', '.join(names)}"] if names else []


def _packages(installations: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(package for each in installations for package in each["packages"])


def _findings(change: Mapping[str, Any]) -> list[str]:
    """Return a line for each finding that is not acknowledged, the worst first, as the module sorts them.

    Of a kind that is no error, no more than a few: what is so for one door is often so for many.
    """
    said: dict[tuple[str, str], list[str]] = {}
    for each in change.get("findings") or ():
        if not each.get("acknowledged"):
            severity, kind = each["severity"], each["kind"]
            said.setdefault((severity, kind), []).append(f"{severity}: {in_words(each)} [{kind}]")
    return [line for key, lines in said.items() for line in _few_of(*key, lines)]


def _few_of(severity: str, kind: str, lines: list[str]) -> list[str]:
    if severity == _ERROR or len(lines) <= _FEW:
        return lines
    shown = lines[: _FEW - 1]
    return [*shown, f"{severity}: and {len(lines) - len(shown)} more like it (-v shows them) [{kind}]"]


def in_words(finding: Mapping[str, str]) -> str:
    """Return what a finding says; messages about a rule go on from it, those about a chain or a policy name it."""
    rule, message = finding["rule"], finding["message"]
    return f"{rule}: {message}" if rule.startswith("-A ") else message


def _closes(change: Mapping[str, Any]) -> list[str]:
    ports = [
        f"{each['port']}/{each['protocol']}" + (f" ({each['process']})" if each["process"] else "")
        for each in change.get("closes") or ()
    ]
    # The same program may listen on the same port over IPv4 and IPv6.
    return [f"no longer reachable from outside: {', '.join(dict.fromkeys(ports))}"] if ports else []


def _ways_in(change: Mapping[str, Any], moment: Moment) -> list[str]:
    look = (
        "Look: portknock status on the host, or sesame.portknock.knock_ruleset_info. "
        "Try the doors: the playbook sesame.portknock.verify."
    )
    if not any(line.startswith("door ") for line in _summary(change)):
        return [look]
    # Whether this controller had to knock shows that the door is one for ssh.
    knocked = (change.get("guard") or {}).get("knocked")
    refused = "Plain ssh is" if knocked else "Connections to a door's ports are"
    ansible = (
        ["Ansible: set ansible_connection: sesame.portknock.knock_ssh in the inventory."] if moment.plain_ssh else []
    )
    return [
        f"{refused} refused without a knock.",
        *ansible,
        "People: run the playbook sesame.portknock.client_config on the machine that they ssh from.",
        look,
    ]
