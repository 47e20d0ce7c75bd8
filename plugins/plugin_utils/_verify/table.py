# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rows of verify's table: what was seen, what it means, and what the host itself reports. Pure.

No row holds a step of a knock. PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import ENGINES
from ansible_collections.sesame.portknock.plugins.module_utils._client.probe import SILENT, UNREACHABLE
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_question import CONNECTION
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import FAMILIES
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import ports_name
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.addresses import FAMILY_NAMES, may_use
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.answers import is_open, look_of
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.judge import (
    OK,
    UNSEEN,
    WRONG,
    Context,
    Seen,
    Verdict,
    drift_of,
    judge_allowed,
    judge_door,
    judge_rest,
    proof_of,
    with_proof,
)

Row = dict[str, str]
_KINDS = ("door", "allow", "rest", "all")


def rows(seen: Seen, context: Context) -> list[Row]:
    """Return a row for every door and family, exception, the rest, and the host.

    :param seen: what the Observer returned.
    """
    found = _unseen_rows(context)
    silent = _silent_families(seen, context)
    found += [_door_row(each, context, silent) for each in seen.get("doors", ())]
    found += _behind_rows(context)
    found += [_allow_row(each, context, silent) for each in seen.get("allow", ())]
    found += [_rest_row(each, context, silent) for each in seen.get("rest", ())]
    names = [f"door {door.name}" for door in context.spec.doors]
    found.sort(key=lambda row: (
        _KINDS.index(row["what"].split(" ", 1)[0]),
        names.index(row["what"]) if row["what"] in names else 0,
        row["what"],
        row["ip_version"],
    ))  # fmt: skip
    return found + host_rows(context)


def _row(what: str, family: str, verdict: Verdict, **cells: str) -> Row:
    empty = {"proof": "-", "without": "-", "wrong": "-", "right": "-", "later": "-"}
    return {"what": what, "ip_version": family, **empty, "state": verdict.state, "note": verdict.note, **cells}


def _unseen_rows(context: Context) -> list[Row]:
    names = [f"door {door.name}" for door in context.spec.doors] or ["all"]
    return [
        _row(name, family, Verdict(UNSEEN, context.addresses[family].unseen))
        for family in FAMILIES
        if family in context.addresses and context.addresses[family].unseen
        for name in names
    ]


def _behind_rows(context: Context) -> list[Row]:
    """Return a row for each door to hosts behind this one, and family in which this one is looked at."""
    note = "it guards hosts behind this one, which are not tried from here"
    return [
        _row(f"door {door.name}", family, Verdict(UNSEEN, note))
        for family in FAMILIES
        if family in context.addresses and not context.addresses[family].unseen
        for door in context.spec.doors
        if door.to
    ]


def jump_row(jump: str) -> Row:
    """Return the row for a host behind a jump host."""
    named = f" ({jump})" if jump else ""
    return _row("all", "", Verdict(UNSEEN, (
        f"the host is reached through a jump host{named}, so what this controller sees says nothing about its doors. Run "
        "sesame.portknock.verify where the jump host is, or set ansible_knock_via to direct if it can be reached from here."
    )))  # fmt: skip


def _silent_families(seen: Seen, context: Context) -> set[str]:
    """Return the families of which the host itself named the address, and in which nothing at all answered."""
    answered = set()
    for each in [one for kind in ("doors", "allow", "rest") for one in seen.get(kind, ())]:
        answers = [value for item in each.values() if isinstance(item, dict) for value in item.values()]
        if any(answer not in (SILENT, UNREACHABLE) for answer in answers):
            answered.add(each["family"])
    return {family for family, address in context.addresses.items() if not address.given and family not in answered}


def _silent_row(what: str, family: str, context: Context) -> Row:
    address = context.addresses[family].address
    note = f"nothing answers at {address}, which the host names as its own: it may not be reachable from here at all"
    return _row(what, family, Verdict(UNSEEN, note))


def _door_row(seen: Seen, context: Context, silent: set[str]) -> Row:
    door = next(door for door in context.spec.doors if door.name == seen["door"])
    family, what = seen["family"], f"door {door.name}"
    if family in silent:
        return _silent_row(what, family, context)
    reject_with, proof = context.spec.reject_with, proof_of(context.info, door.name, family)
    verdict = with_proof(judge_door(seen, door, context), seen, proof, reject_with)
    cells = {
        "proof": proof.get("result", "-"),
        "without": _cell(seen, "second" if "second" in seen else "first", reject_with),
    }
    cells.update({moment: _cell(seen, moment, reject_with) for moment in ("wrong", "right", "later") if moment in seen})
    if "closed" in seen and "later" not in seen:
        cells["later"] = _cell(seen, "closed", reject_with)
    if verdict.state == OK and door.window > context.longest_wait and "right" in seen and not door.close:
        cells["later"] = "not waited for"
    return _row(what, family, verdict, **cells)


def _cell(seen: Seen, moment: str, reject_with: str) -> str:
    return "open" if is_open(seen, moment, reject_with) else look_of(seen[moment])


def _allow_row(seen: Seen, context: Context, silent: set[str]) -> Row:
    allow = context.spec.allow[seen["index"]]
    family = seen["family"]
    what = f"allow {ports_name(allow.ports)}"
    if family in silent:
        return _silent_row(what, family, context)
    wanted = may_use(allow.sources, context.addresses[family])
    return _row(what, family, judge_allowed(seen["answers"], wanted, context.spec), without=look_of(seen["answers"]))


def _rest_row(seen: Seen, context: Context, silent: set[str]) -> Row:
    family = seen["family"]
    if family in silent:
        return _silent_row("rest", family, context)
    answers = seen["answers"]
    verdict = judge_rest(answers, context)
    return _row("rest", family, verdict, without="let in" if verdict.state == WRONG else look_of(answers))


def host_rows(context: Context) -> list[Row]:
    """Return what the host's own report (knock_ruleset_info) gives reason to say.

    What is proved of the connection that it was asked through, drift, and changes that are pending.
    """
    found = [_connection_row(entry) for entry in context.info.get("proof") or () if entry.get("what") == CONNECTION]
    for family in FAMILIES:
        drift = drift_of(context.info, family)
        if drift:
            note = f"the rules are not as they were written: {drift}. Run sesame.portknock.site."
            found.append(_row("rules", family, Verdict(WRONG, note)))
        elif _lacks_rules(family, context):
            note = f"the host has no portknock rules for {FAMILY_NAMES[family]}. Run sesame.portknock.site."
            found.append(_row("rules", family, Verdict(WRONG, note)))
    return found + [_row("rules", "", verdict) for verdict in _host_verdicts(context)]


def _connection_row(entry: Mapping[str, Any]) -> Row:
    """Return the row of the connection by which the host was asked: whether a new one would get in."""
    refused = entry["result"] == "void"
    note = f"a new connection of Ansible would not get in. {entry['message']} Remove that rule." if refused else ""
    return _row(CONNECTION, entry["ip_version"], Verdict(WRONG if refused else OK, note), proof=entry["result"])


def _host_verdicts(context: Context) -> Iterable[Verdict]:
    engine = _engine_problem(context)
    if engine:
        yield Verdict(WRONG, engine)
    more = sorted(
        {door["name"] for door in context.info.get("doors") or ()} - {door.name for door in context.spec.doors}
    )
    if more:
        note = f"the host has doors that the inventory does not have ({', '.join(more)}). Run sesame.portknock.site."
        yield Verdict(WRONG, note)
    if context.info and "ip_versions" not in context.info:
        note = "the host could not be asked for its own report: knock first, or use the connection knock_ssh"
        yield Verdict(UNSEEN, note)
    pending = context.info.get("pending")
    if pending:
        owner = pending.get("owner", "an unknown user")
        yield Verdict(WRONG, f"a change by {owner} waits to be confirmed: run this again when that is over.")


def _engine_problem(context: Context) -> str:
    """Return what is wrong with the recognition of knocks on the host, or ''."""
    engine, wanted = context.info.get("engine"), context.spec.engine
    if not engine or not context.spec.doors:
        return ""
    if engine != wanted:
        return (
            f"{engine} recognises the knocks on the host, and portknock_engine is {wanted}. Run sesame.portknock.site."
        )
    daemon = ENGINES[engine].daemon
    if daemon and not (context.info.get("daemon") or {}).get("running", True):
        return (
            f"{daemon} does not run on the host, so no knock opens a door. Look at 'journalctl -u {daemon}' there; then run "
            "sesame.portknock.site."
        )
    return ""


def _lacks_rules(family: str, context: Context) -> bool:
    address = context.addresses.get(family)
    guarded = context.spec.doors or context.spec.policy == "reject"
    return bool(
        guarded and address and address.address and family in context.spec.ip_versions
        and family not in context.info.get("ip_versions", (family,))
    )  # fmt: skip


def problems(found: Iterable[Mapping[str, str]]) -> list[str]:
    """Return a sentence for each row that is wrong."""
    return [
        f"{row['what']}{' over ' + FAMILY_NAMES[row['ip_version']] if row['ip_version'] else ''}: {row['note']}"
        for row in found
        if row["state"] == WRONG
    ]


def result_of(found: list[Row], seen: Seen) -> dict[str, Any]:
    """Return the result of the task for its rows."""
    states = [row["state"] for row in found]
    return {
        "changed": False,
        "observed": dict(seen),
        "ok": WRONG not in states,
        "problems": problems(found),
        "rows": found,
        "summary": {state: states.count(state) for state in (OK, WRONG, UNSEEN)},
    }
