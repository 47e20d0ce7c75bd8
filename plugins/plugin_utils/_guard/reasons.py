# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why a change was not confirmed, distinguished by what became of the tries, in words for the operator. Pure.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from ansible_collections.sesame.portknock.plugins.module_utils._change.record import NOT_CONFIRMED
from ansible_collections.sesame.portknock.plugins.module_utils._change.undone import undone_sentence
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import ENGINES
from ansible_collections.sesame.portknock.plugins.module_utils._paths import RUN
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard import answers
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.client import Attempt, Outcome
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.results import state_of
from ansible_collections.sesame.portknock.plugins.plugin_utils._report.changed import in_words

NOT_DONE = "connected, but not done with login and confirmation"
"""What an error begins with whose connection was made, and then had no answer in time."""

REFUSED, SILENT, SLOW, MUTE, CLOSED = "refused", "silent", "slow", "mute", "closed"
NO_ROUTE, NO_NAME, NO_LOGIN, NO_PROGRAM, OTHER = "no route", "no name", "no login", "no program", "other"
LATE = "late"
"""Refused, because the window had ended when the connection was made."""

_KINDS = (
    (NO_PROGRAM, re.compile(re.escape(answers.PROGRAM_NOT_RUN))),
    (SLOW, re.compile(re.escape(NOT_DONE))),
    (MUTE, re.compile("banner exchange")),
    (REFUSED, re.compile("refused")),
    (SILENT, re.compile("timed out|no answer within")),
    (NO_ROUTE, re.compile("No route to host|unreachable")),
    (NO_NAME, re.compile("Could not resolve|has no address|Name or service|name resolution")),
    (
        NO_LOGIN,
        re.compile("Permission denied|Host key verification|Too many authentication|no matching|IDENTIFICATION"),
    ),
    (CLOSED, re.compile("kex_exchange_identification|reset by|closed by|connection was closed|Broken pipe")),
)

# None of these says that the rules keep the controller out.
_NOT_THE_RULES = {
    SLOW: (
        "login and confirmation took too long. A new connection to {where} was made, but they were not done within what was "
        "left of guard_timeout ({timeout} s): look for what slows logins down there (UseDNS, PAM, name servers that do not "
        "answer), or set guard_timeout to {longer} or more."
    ),
    MUTE: (
        "a new connection to {where} was accepted, and then nothing was said ({tries} tries within {timeout} s): check whether "
        "sshd runs there and is not overloaded (MaxStartups)."
    ),
    CLOSED: (
        "a new connection to {where} was accepted, and closed before the login ({tries} tries within {timeout} s): check "
        "MaxStartups, PerSourcePenalties and hosts.deny there. If a relay or a forwarded port takes the connection and passes it "
        "on, the change may keep out what comes from there: put its address into trusted_sources."
    ),
    NO_LOGIN: (
        "a new connection to {where} reached sshd, but could not log in ({tries} tries within {timeout} s): check the keys, and "
        "whether it is the same host that answers now."
    ),
    NO_PROGRAM: (
        "new connections to {where} came through ({tries} tries within {timeout} s), but the program that confirms the change could "
        "not be run there: look whether Python is still installed and works."
    ),
    NO_NAME: (
        "the address of {where} could not be looked up any more ({tries} tries within {timeout} s): check the name servers."
    ),
}


# Findings about what keeps a knock or a connection out beside the doors' own rules, the most certain first.
_CUTS_OFF = (
    "tunnel_closes", "other_backend", "policy_drop", "untracked", "unguarded", "list_shared", "native_table", "may_be_unguarded",
    "native_unknown", "limited", "lost_effect",
)  # fmt: skip


def kind_of(error: str) -> str:
    """Return what kind of failure ssh's last message is about."""
    return next((kind for kind, pattern in _KINDS if pattern.search(error)), OTHER)


def cause_of(errors: Sequence[str], late: float = 0.0, window: float = 0.0, addresses: int = 1) -> str:
    """Return what kept the tries from coming through: a login that was too slow, else what happened most often.

    :param late: the longest time in seconds from a knock to the end of a try that was not let in.
    :param window: the door's window, 0 where no door is in the way.
    :param addresses: how many ssh tries.
    """
    kinds = [kind_of(error) for error in errors]
    if not kinds:
        return OTHER
    if SLOW in kinds:
        return SLOW
    most = Counter(reversed(kinds)).most_common(1)[0][0]
    if 0 < window < late and (most == REFUSED or (most in (SILENT, NO_ROUTE) and addresses > 1)):
        return LATE
    return most


def explain(
    outcome: Outcome, attempt: Attempt, where: str, timeout: int, findings: Sequence[Mapping[str, str]] = ()
) -> str:
    """Return the message about a change that was not confirmed: what, where, what to do now.

    :param findings: those of the change; the one that explains it best is quoted.
    """
    why = outcome.answer.get("why", "")
    last = f" The last try: {outcome.errors[-1]}." if outcome.errors else ""
    if not outcome.reached:
        return (
            f"The change was not confirmed within guard_timeout ({timeout} s), and {where} cannot be reached since.{last} The host "
            f"undoes the change by itself; where it can be reached some other way, run 'portknock status' there."
        )
    if outcome.answer["outcome"] not in answers.ENDED:
        return (
            f"The change was not confirmed within guard_timeout ({timeout} s). {where} can be reached by ssh, but how the change ended "
            f"could not be seen.{last} The host undoes the change by itself; look at it with knock_ruleset_info, or run 'portknock status' "
            "there, once that is mended."
        )
    if state_of(outcome) == answers.UNKNOWN:
        return (
            f"The change was not confirmed, and {where} knows nothing of it any more although it was not restarted: {RUN} was "
            f"removed there. It is not known whether the change was undone.{last} Look at it with knock_ruleset_info, and run this "
            "again."
        )
    state = _state(outcome)
    if why and why != NOT_CONFIRMED:
        of_tracking = [each for each in findings if each["kind"] == "untracked"] if "does not track" in why else []
        return f"Rolled back: {why.rstrip('.')}.{_quote(attempt, of_tracking)} {state}"
    if outcome.unheard:
        return (
            f"Rolled back: {attempt.engine} receives no knock from this controller. {_unheard(outcome, attempt, where)}"
            f"{_quote(attempt, findings)}{last} {state}"
        )
    return f"Rolled back: {_reason(outcome, attempt, where, timeout, findings)}{last} {state}"


def _quote(attempt: Attempt, findings: Sequence[Mapping[str, str]]) -> str:
    """Return a sentence with the finding that explains best why nothing came through, or ''."""
    able = [each for each in findings if _may_explain(each, attempt)]
    if not able:
        return ""
    order = (ENGINES[attempt.engine].daemon, *_CUTS_OFF)
    best = min(able, key=lambda finding: order.index(finding["kind"]))
    return f" A finding of this change may be the reason: {in_words(best)}"


def _may_explain(finding: Mapping[str, str], attempt: Attempt) -> bool:
    kind, message = finding["kind"], finding["message"]
    if kind == ENGINES[attempt.engine].daemon:
        # Those about both families say how long a knock may take.
        return bool(finding["ip_version"])
    if kind not in _CUTS_OFF:
        return False
    if kind == "lost_effect":
        # A knock is not in need of the rules that the doors stand in front of.
        return not attempt.door
    names_ours = re.search(rf"\b{re.escape(attempt.knock_at)}\b", message) if attempt.knock_at else True
    return bool(names_ours or not re.search(r"\bdoors? [a-zA-Z]", message))


def _state(outcome: Outcome) -> str:
    if outcome.answer["outcome"] == answers.UNKNOWN:
        return "The host knows nothing of the change any more: it was restarted, which undoes it too."
    return undone_sentence(outcome.answer.get("undo", ""))


def _unheard(outcome: Outcome, attempt: Attempt, where: str) -> str:
    return (
        f"A new connection to {where} came through, but none of the knocks at door {attempt.knock_at} before it ({outcome.tries}) "
        f"was received: check whether a firewall between passes the knock's ports, and on which interface the knock arrives."
        f"{ENGINES[attempt.engine].advice}"
    )


def _reason(outcome: Outcome, attempt: Attempt, where: str, timeout: int, findings: Sequence[Mapping[str, str]]) -> str:
    cause = cause_of(outcome.errors, outcome.late, attempt.window, attempt.addresses)
    if cause in _NOT_THE_RULES:
        words = dict(where=where, tries=outcome.tries, timeout=timeout, longer=2 * timeout)
        return _NOT_THE_RULES[cause].format(**words)
    cut_off = "the change would have cut this controller off."
    if cause == LATE:
        return f"{cut_off} {_too_late(outcome, attempt, where)}"
    return f"{cut_off} {_cut_off(outcome, attempt, where, timeout)}{_quote(attempt, findings)}"


def _too_late(outcome: Outcome, attempt: Attempt, where: str) -> str:
    slow = f"ssh tries {attempt.addresses} addresses, one after the other, and not all of them answer"
    if attempt.addresses < 2:
        slow = "something before it takes long, looking up the name for instance"
    return (
        f"New connections to {where} come too late: {outcome.late:.1f} s after the knock, and the window of door "
        f"{attempt.door} is {attempt.window:g} s ({slow}). Set its window to {math.ceil(outcome.late) + 2} or more, or "
        "ansible_host to an address that answers."
    )


def _cut_off(outcome: Outcome, attempt: Attempt, where: str, timeout: int) -> str:
    text = f"No new connection to {where} came through within {timeout} s ({outcome.tries} tries)."
    if attempt.door:
        return (
            f"{text} Door {attempt.door} was knocked at before each and did not let it in: check whether a firewall between passes "
            "the knock's ports, whether knock and connection leave from the same address (doors[].sources, NAT), and "
            f"whether the steps are those of this host.{ENGINES[attempt.engine].advice}"
        )
    port = f" port {attempt.port}" if attempt.port else " the connection's port"
    return (
        f"{text} No door opens{port} to a knock: check allow and trusted_sources, and whether a new connection leaves from the same "
        "address and arrives at the same port as the one before."
    )
