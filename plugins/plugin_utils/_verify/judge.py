# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What observations mean: for each door, exception and the rest, whether it is as it should be and what to do if not. Pure.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import ENGINES
from ansible_collections.sesame.portknock.plugins.module_utils._client.probe import (
    OPEN,
    REFUSED,
    RESET,
    SILENT,
    UNREACHABLE,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Door, Spec
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.addresses import (
    FAMILY_NAMES,
    HostAddress,
    may_use,
)
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.answers import (
    MAYBE,
    NO,
    YES,
    is_open,
    let_in,
    was_let_in,
)

OK, WRONG, UNSEEN = "ok", "wrong", "unseen"
"""What a row says: as it should be, not as it should be, cannot be seen from here."""

Seen = Mapping[str, Any]


class Context(NamedTuple):
    """What observations are judged by."""

    spec: Spec
    """What was asked for."""
    addresses: dict[str, HostAddress]
    """Family to the address that is looked at."""
    info: dict[str, Any]
    """What knock_ruleset_info returned before; empty where the host was not asked."""
    info_after: dict[str, Any]
    """What it returned afterwards; empty where it was not asked again."""
    longest_wait: float
    """Seconds; a longer window is not waited for."""


class Verdict(NamedTuple):
    """What is to be said of a row."""

    state: str
    """OK, WRONG or UNSEEN."""
    note: str = ""
    """What is wrong and what to do, or what else there is to say."""


KEEPS_SHUT = ("limited", "unguarded", "may_be_unguarded", "policy_drop", "native_table", "other_backend")
"""Kinds of findings that explain why a right knock does not open."""


def door_info(info: Mapping[str, Any], name: str, family: str) -> dict[str, Any]:
    """Return what the host says of a door, empty where it says nothing."""
    for door in info.get("doors") or ():
        if door.get("name") == name and door.get("ip_version") == family:
            return dict(door)
    return {}


def seconds_open(info: Mapping[str, Any]) -> Callable[[str, str], float]:
    """Return a function of a door's name and family: for how many seconds it is open for any source, 0 where for none."""

    def of_door(name: str, family: str) -> float:
        return max((door_info(info, name, family).get("open_for") or {"": 0}).values())

    return of_door


def drift_of(info: Mapping[str, Any], family: str) -> str:
    """Return what is not as it was written in a family's rules, in a few words; '' where everything is."""
    prefix = f"{family}: "
    lines = [str(line)[len(prefix) :] for line in info.get("drift") or () if str(line).startswith(prefix)]
    if not lines:
        return ""
    # A rule says more than the name of its chain.
    first = next((line for line in lines if " -A " in line), lines[0])
    word = {"+": "missing: ", "-": "unwanted: "}.get(first[:1], "")
    return word + first[1:].strip() + (f" and {len(lines) - 1} more" if lines[1:] else "")


def judge_door(seen: Seen, door: Door, context: Context) -> Verdict:
    """Return the first thing that is wrong, or what there is to say of a door that is right."""
    moments = ("first", "second", "wrong", "again", "closed", "later")
    opens = [moment for moment in moments if is_open(seen, moment, context.spec.reject_with)]
    if seen.get("waited") == "no":
        return _judge_unwaited(seen, door, context)
    if "second" in opens or ("first" in opens and "second" not in seen):
        return Verdict(WRONG, _open_without_knock(seen["family"], context))
    if "wrong" in opens:
        return Verdict(WRONG, (
            "a wrong knock opens it. The host's knock is not the inventory's, or another rule lets in a source that was "
            "refused before. Run sesame.portknock.site."
        ))  # fmt: skip
    return _judge_opening(seen, door, context) or _judge_closing(seen, opens, door, context)


def proof_of(info: Mapping[str, Any], name: str, family: str) -> dict[str, Any]:
    """Return what the host's prover says of a door, empty where it says nothing."""
    for entry in info.get("proof") or ():
        if (entry["door"], entry["ip_version"]) == (name, family):
            return dict(entry)
    return {}


def with_proof(verdict: Verdict, seen: Seen, proof: Mapping[str, Any], reject_with: str) -> Verdict:
    """Return what is to be said of a door when its packets and its proof are looked at together.

    A packet that the prover found, and that did not come from this controller, is as bad as one that was seen to get in.

    :param proof: what proof_of() returned.
    """
    result = proof.get("result")
    if result == "void":
        if verdict.state == WRONG:
            return verdict._replace(note=f"{verdict.note} {proof['message']}")
        return Verdict(WRONG, (
            f"nothing wrong is seen from here, but the ruleset does not hold. {proof['message']} Remove that rule, or name whom it is "
            "for in portknock_trusted_sources; then run sesame.portknock.site."
        ))  # fmt: skip
    if result == "proved" and any(is_open(seen, moment, reject_with) for moment in ("first", "second")):
        return Verdict(verdict.state, (
            f"{verdict.note} The tables of iptables are proved to let nobody in without a knock: look for another host or program that "
            "answers at this address, and for rules of nft."
        ))  # fmt: skip
    return verdict


def _judge_unwaited(seen: Seen, door: Door, context: Context) -> Verdict:
    if not door_info(context.info, door.name, seen["family"]).get("open_for"):
        note = "open, and the host knows of no source that has knocked. " + _open_without_knock(seen["family"], context)
        return Verdict(WRONG, note)
    return Verdict(UNSEEN, (
        f"open because of an earlier knock, and its window of {door.window} s is not waited for (portknock_verify_wait is "
        f"{context.longest_wait}). Run this again when it is over, or with a longer wait."
    ))  # fmt: skip


def _open_without_knock(family: str, context: Context) -> str:
    if family not in context.info.get("ip_versions", (family,)):
        name = FAMILY_NAMES[family]
        return f"open without a knock: the host has no portknock rules for {name}. Run sesame.portknock.site."
    drift = drift_of(context.info, family)
    if drift:
        return f"open without a knock: the rules were changed by hand ({drift}). Run sesame.portknock.site."
    return (
        "open without a knock, also when no window runs: another rule lets it in before the doors. Look at what is above "
        "PORTKNOCK in INPUT, and at nat and raw, with iptables-save; then run sesame.portknock.site."
    )


def _judge_opening(seen: Seen, door: Door, context: Context) -> Verdict | None:
    """Return what is wrong with the right knock, or cannot be seen of it, or nothing."""
    address = context.addresses[seen["family"]]
    reject_with = context.spec.reject_with
    opened = is_open(seen, "right", reject_with)
    if not may_use(door.sources, address):
        if opened:
            return Verdict(
                WRONG, f"opens for {address.client}, which is not in the door's sources. Run sesame.portknock.site."
            )
        return Verdict(OK, "this controller is not in the door's sources: it stays closed for it")
    if opened:
        return None
    maybe = any(was_let_in(seen, "right", name, reject_with) == MAYBE for name in seen.get("right", {}))
    if maybe and _counted_more("let_in", seen, context):
        return None
    verdict = _judge_unopened(seen, maybe, context)
    if verdict.state != WRONG:
        return verdict
    return verdict._replace(note=verdict.note + _host_says(seen["family"], context))


def _host_says(family: str, context: Context) -> str:
    """Return what the host itself has found that may keep a right knock from opening, '' where it has found nothing."""
    found = [
        f"{each['message']} ({each['rule']})" if each["rule"] else each["message"]
        for each in context.info.get("findings") or ()
        if each["kind"] in KEEPS_SHUT and each["ip_version"] in ("", family)
    ]
    return f" The host has found what may be the reason: {found[0]}" if found else ""


def _judge_unopened(seen: Seen, maybe: bool, context: Context) -> Verdict:
    knocked = _counted_more("knocked", seen, context)
    if knocked == 0:
        return Verdict(WRONG, (
            "does not open, and the host has not counted the right knock: a firewall on the way drops a step, the steps "
            "come from another address, or the host has another knock than the inventory. Run sesame.portknock.site, "
            "then check the firewalls between."
        ))  # fmt: skip
    if seen["right"] and set(seen["right"].values()) == {UNREACHABLE}:
        address = context.addresses[seen["family"]].address
        return Verdict(
            WRONG,
            f"cannot be reached: there is no route to {address} from here. Check routes and firewalls on the way.",
        )
    if knocked:
        return _judge_counted_knock(seen, maybe)
    if maybe:
        note = "open or not: the answer is the same with and without a knock, as no process listens behind it"
        return Verdict(UNSEEN, note)
    return Verdict(WRONG, (
        f"does not open to the right knock: a step or the connection is dropped on the way, {_wrong_interface(context)}or the "
        "host has another knock than the inventory. Run sesame.portknock.site, then check the firewalls between."
    ))  # fmt: skip


def _wrong_interface(context: Context) -> str:
    """Return why an engine that is a daemon may receive no knock, which only its own log would show."""
    daemon = ENGINES[context.spec.engine].daemon
    if not daemon:
        return ""
    interface = (context.info.get("daemon") or {}).get("interface", "")
    return (
        f"the knock does not arrive on the interface that {daemon} listens on{f' ({interface})' if interface else ''}, "
    )


def _judge_counted_knock(seen: Seen, maybe: bool) -> Verdict:
    if not maybe:
        return Verdict(WRONG, (
            "the host counted the right knock, but the connection is not let in: another firewall, on the host or on the "
            "way, drops it. Look at the rules below the doors, and at the firewalls between."
        ))  # fmt: skip
    if any(name.endswith("/udp") for name in seen["right"]):
        note = (
            "the host counted the knock; whether it lets datagrams in cannot be seen, as no process answers behind it"
        )
        return Verdict(UNSEEN, note)
    note = "the host counted the right knock and still refuses, or nothing listens there. Run sesame.portknock.site."
    return Verdict(WRONG, note)


def _counted_more(name: str, seen: Seen, context: Context) -> int | None:
    """Return how many packets more the host counted afterwards, None where that is not known."""
    before, after = (door_info(info, seen["door"], seen["family"]) for info in (context.info, context.info_after))
    if name not in before or name not in after:
        return None
    return max(0, after[name] - before[name])


def _judge_closing(seen: Seen, opens: list[str], door: Door, context: Context) -> Verdict:
    if "again" in opens:
        note = "lets in more than one connection a knock, though once is set. Run sesame.portknock.site."
        return Verdict(WRONG, note)
    if "closed" in opens:
        note = (
            "its close knock does not close it. A firewall on the way may drop a step; else run sesame.portknock.site."
        )
        return Verdict(WRONG, note)
    if "later" in opens:
        note = f"still open {door.window} s after the knock. The host has another window; run sesame.portknock.site."
        return Verdict(WRONG, note)
    if door.close and "reopened" in seen and not is_open(seen, "reopened", context.spec.reject_with):
        return Verdict(WRONG, "does not open a second time after its close knock. Run sesame.portknock.site.")
    return Verdict(OK, "; ".join(_remarks(seen, door, context)))


def _remarks(seen: Seen, door: Door, context: Context) -> list[str]:
    """Return what there is to say of a door that is right."""
    notes = []
    silent = sorted(name for name, answer in seen["right"].items() if answer in (RESET, REFUSED))
    if silent:
        notes.append("nothing listens on " + ", ".join(silent))
    if door.window > context.longest_wait:
        notes.append(f"its window of {door.window} s is not waited for")
    elif any(name.endswith("/udp") for name in seen["right"]) and set(seen.get("later", {}).values()) == {SILENT}:
        notes.append("silence over UDP does not show whether it is closed again")
    if door.close:
        notes.append("closed by its close knock")
    if door.once:
        notes.append("one connection a knock")
    return notes


def judge_allowed(answers: Mapping[str, str], wanted: bool, spec: Spec) -> Verdict:
    """Return what there is to say of an exception.

    :param wanted: whether it is for this controller.
    """
    found = {let_in(answer, name.partition("/")[2], spec.reject_with) for name, answer in answers.items()}
    if not wanted:
        if YES in found and spec.policy == "reject":
            return Verdict(WRONG, (
                "open to this controller, which is not in its sources. Look for a rule that lets it in, with iptables-save."
            ))  # fmt: skip
        return Verdict(OK, "not for this controller")
    if NO in found:
        return Verdict(WRONG, (
            "allowed, but not let in. Run sesame.portknock.site; if that changes nothing, a firewall on the way or another "
            "rule on the host refuses it."
        ))  # fmt: skip
    if MAYBE in found:
        return Verdict(UNSEEN, "let in or not: no process answers there")
    silent = sorted(name for name, answer in answers.items() if answer != OPEN)
    return Verdict(OK, "nothing listens on " + ", ".join(silent) if silent else "")


def judge_rest(answers: Mapping[str, str], context: Context) -> Verdict:
    """Return what there is to say of ports that no option names."""
    found = {let_in(answer, "tcp", context.spec.reject_with) for answer in answers.values()}
    if found == {YES}:
        return Verdict(WRONG, (
            "ports that no option names are not refused, though portknock_policy is reject: the last rule is gone, or a rule "
            "before it lets everything in. Run sesame.portknock.site."
        ))  # fmt: skip
    if found and NO not in found:
        note = "a host without the last rule answers the same; only the host's own report of its rules shows it"
        return Verdict(OK if "ip_versions" in context.info else UNSEEN, note)
    return Verdict(OK)


def wants_counters(seen: Seen, context: Context) -> bool:
    """Return whether the host's counters would show more: a door did not open for certain, or did and nothing answered."""
    doors = {door.name: door for door in context.spec.doors}
    return any(
        "right" in each
        and may_use(doors[each["door"]].sources, context.addresses[each["family"]])
        and not is_open(each, "right", context.spec.reject_with)
        for each in seen.get("doors", ())
    )
