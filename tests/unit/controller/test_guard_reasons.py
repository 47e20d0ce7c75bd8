# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a change was not confirmed: told apart, and in words for the operator."""

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible_collections.sesame.portknock.plugins.plugin_utils._guard import reasons
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.client import Attempt, Outcome
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.reasons import cause_of, explain, kind_of
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.results import (
    failed_result,
    guard_result,
    proof_of,
)
from guard_answers import CONFIRMED, IDENT, LATE, NOT_RUN, STALE, TIMED_OUT, UNHEARD, UNKNOWN

REFUSED = "ssh: connect to host h port 22: Connection refused"


def outcome_of(answer, *errors, reached=True, tries=14, unheard=False):
    return Outcome(answer, tries, 31.0, errors, reached, unheard)


AT_DOOR, NO_DOOR = Attempt(IDENT, 30.0, "ssh", 2222), Attempt(IDENT, 30.0, "", 2222)
AT_KNOCKD = AT_DOOR._replace(engine="knockd")
FOR_PROOF = NO_DOOR._replace(engine="knockd", proof_door="web")
RESTORED = (
    "The collection's rules, files and services are as they were before the change; rules of others were not touched."
)
SAID = [
    ("behind a door", outcome_of(LATE, TIMED_OUT), AT_DOOR,
     ["Rolled back: the change would have cut this controller off", "No new connection to h came through within 30 s (14 tries)",
      "Door ssh was knocked at", "firewall between", RESTORED, f"The last try: {TIMED_OUT}."]),
    ("no door", outcome_of(LATE, TIMED_OUT), NO_DOOR, ["No door opens port 2222", "check allow and trusted_sources"]),
    ("behind knockd", outcome_of(LATE, TIMED_OUT), AT_KNOCKD,
     ["would have cut this controller off", "Door ssh was knocked at", "knockd_interface", "over ipv4 or ipv6",
      "systemctl status knockd", RESTORED]),
    ("knockd is deaf", outcome_of(LATE, UNHEARD["why"], unheard=True), FOR_PROOF,
     ["Rolled back: knockd receives no knock from this controller", "A new connection to h came through", "at door web",
      "knockd_interface", f"The last try: {UNHEARD['why']}.", RESTORED]),
    ("no door and knockd", outcome_of(LATE), NO_DOOR._replace(engine="knockd"), ["No door opens port 2222"]),
    ("the port is not known", outcome_of(LATE), Attempt(IDENT, 30.0), ["No door opens the connection's port"]),
    ("the whole table", outcome_of(dict(LATE, undo="snapshot")), NO_DOOR, ["the whole filter table was put back", "is lost"]),
    ("restarted", outcome_of(UNKNOWN)._replace(restarted=True), NO_DOOR, ["it was restarted, which undoes it too"]),
    ("forgotten", outcome_of(UNKNOWN, TIMED_OUT), AT_DOOR,
     ["was not confirmed", "h knows nothing of it any more although it was not restarted", "/run/portknock was removed",
      "It is not known whether the change was undone", "knock_ruleset_info"]),
    ("a slow login", outcome_of(LATE, TIMED_OUT, f"{reasons.NOT_DONE} after 26 s"), AT_DOOR,
     ["Rolled back: login and confirmation took too long", "guard_timeout (30 s)", "UseDNS", "set guard_timeout to 60 or more"]),
    ("no key", outcome_of(LATE, "root@h: Permission denied (publickey)"), AT_DOOR,
     ["Rolled back: a new connection to h reached sshd, but could not log in (14 tries within 30 s): check the keys"]),
    ("penalties", outcome_of(LATE, "kex_exchange_identification: read: Connection reset by peer"), AT_DOOR,
     ["was accepted, and closed before the login", "PerSourcePenalties", "relay", "put its address into trusted_sources"]),
    ("no banner", outcome_of(LATE, "Connection timed out during banner exchange"), AT_DOOR,
     ["was accepted, and then nothing was said", "MaxStartups"]),
    ("no name", outcome_of(LATE, "ssh: Could not resolve hostname h: Temporary failure in name resolution"), AT_DOOR,
     ["the address of h could not be looked up any more", "check the name servers"]),
    ("a dead first address", outcome_of(LATE, REFUSED)._replace(late=10.1), AT_DOOR._replace(window=3, addresses=2),
     ["New connections to h come too late: 10.1 s after the knock, and the window of door ssh is 3 s",
      "ssh tries 2 addresses, one after the other", "Set its window to 13 or more", "ansible_host to an address that answers"]),
    ("a slow name server", outcome_of(LATE, REFUSED)._replace(late=4.2), AT_DOOR._replace(window=3),
     ["4.2 s after the knock", "looking up the name for instance"]),
    ("not cut off", outcome_of(dict(LATE, why="it could not be kept: no space.")), AT_DOOR,
     ["Rolled back: it could not be kept: no space. The collection's rules, files and services are as they were before the change;"]),
    ("no Python", outcome_of(dict(LATE, undo="emptied"), NOT_RUN["why"]), AT_DOOR,
     ["Rolled back: new connections to h came through (14 tries within 30 s), but the program that confirms the change could not be run",
      "whether Python is still installed", f"The last try: {NOT_RUN['why']}.", "chains were emptied"]),
    ("nobody saw how it ended", outcome_of(NOT_RUN, NOT_RUN["why"]), AT_DOOR,
     ["not confirmed within guard_timeout (30 s)", "h can be reached by ssh, but how the change ended could not be seen",
      f"The last try: {NOT_RUN['why']}.", "The host undoes the change by itself", "run 'portknock status' there"]),
    ("gone", outcome_of({}, TIMED_OUT, reached=False), AT_DOOR,
     ["not confirmed within guard_timeout (30 s)", "h cannot be reached since", TIMED_OUT, "undoes the change by itself",
      "run 'portknock status' there."]),
]  # fmt: skip


def finding(kind, message, rule="", ip_version=""):
    return dict(kind=kind, severity="error", ip_version=ip_version, rule=rule, message=message)


NAT = finding("unguarded", "table nat redirects packets to door ssh.", "-A PREROUTING -j REDIRECT")
OTHER_DOOR = finding("unguarded", "table nat redirects packets to door web.")
DROPS = finding("policy_drop", "the policy of INPUT in the other backend is DROP.")
LOST = finding("lost_effect", "accepts 192.0.2.7 on ports of door ssh.", "-A INPUT -s 192.0.2.7/32 -j ACCEPT")
SIZE = finding("list_size", "list_size: remembers 100 sources.")
TIMES = finding("knockd", "It gets the same time in all.")
NO_IPV6 = finding("knockd", "over IPv6 no door opens.", ip_version="ipv6")
QUOTED = [
    (AT_DOOR, [SIZE, NAT], "-A PREROUTING -j REDIRECT: table nat redirects packets to door ssh."),
    (AT_DOOR, [NAT, DROPS], "the policy of INPUT in the other backend is DROP."),
    (AT_DOOR, [OTHER_DOOR], ""),
    (AT_DOOR, [OTHER_DOOR, NAT], "-A PREROUTING -j REDIRECT: table nat redirects packets to door ssh."),
    (AT_DOOR, [LOST, SIZE], ""),
    (NO_DOOR, [LOST], "-A INPUT -s 192.0.2.7/32 -j ACCEPT: accepts 192.0.2.7 on ports of door ssh."),
    (AT_KNOCKD, [TIMES], ""),
    (AT_KNOCKD, [TIMES, NO_IPV6], "over IPv6 no door opens."),
    (AT_DOOR, [], ""),
]


@pytest.mark.parametrize(("attempt", "findings", "quoted"), QUOTED)
def test_the_finding_that_explains_it_is_quoted(attempt, findings, quoted):
    text = explain(outcome_of(LATE, TIMED_OUT), attempt, "h", 30, findings)
    sentence = f" A finding of this change may be the reason: {quoted}" if quoted else ""
    assert text == explain(outcome_of(LATE, TIMED_OUT), attempt, "h", 30).replace(
        " The last try:", f"{sentence} The last try:"
    )


def test_what_keeps_packets_out_of_connection_tracking_is_quoted():
    raw = finding(
        "untracked", "table raw keeps packets of door ssh out of connection tracking.", "-A PREROUTING -j CT --notrack"
    )
    why = "the host does not track the new connection to port 22 (conntrack), so this one would break when the door closes"
    text = explain(outcome_of(dict(LATE, why=why)), AT_DOOR, "h", 30, [NAT, raw])
    assert text == (
        f"Rolled back: {why}. A finding of this change may be the reason: -A PREROUTING -j CT --notrack: table raw keeps packets "
        f"of door ssh out of connection tracking. {RESTORED}"
    )


def test_no_finding_is_quoted_for_a_login_that_failed():
    """The connection came through, so no rule is the reason."""
    denied = outcome_of(LATE, "root@h: Permission denied (publickey)")
    assert explain(denied, AT_DOOR, "h", 30, [DROPS]) == explain(denied, AT_DOOR, "h", 30)


@pytest.mark.parametrize(("outcome", "attempt", "parts"), [item[1:] for item in SAID], ids=[item[0] for item in SAID])
def test_what_the_operator_is_told(outcome, attempt, parts):
    text = explain(outcome, attempt, "h", 30)
    for part in parts:
        assert part in text, text
    assert text.endswith(".")
    assert ".." not in text
    assert "  " not in text


WORDS = [
    (TIMED_OUT, reasons.SILENT),
    (REFUSED, reasons.REFUSED),
    ("no answer within 9 s", reasons.SILENT),
    ("ssh: connect to host h port 22: No route to host", reasons.NO_ROUTE),
    ("ssh: connect to host h port 22: Network is unreachable", reasons.NO_ROUTE),
    ("ssh: Could not resolve hostname h: Name or service not known", reasons.NO_NAME),
    (
        "h has no address to knock at: Name or service not known. Check the name and the address family.",
        reasons.NO_NAME,
    ),
    ("Host key verification failed", reasons.NO_LOGIN),
    ("Connection closed by 192.0.2.1 port 22", reasons.CLOSED),
    (NOT_RUN["why"], reasons.NO_PROGRAM),
    ("something new", reasons.OTHER),
]


@pytest.mark.parametrize(("error", "kind"), WORDS)
def test_what_ssh_says(error, kind):
    assert kind_of(error) == kind


@pytest.mark.parametrize(
    ("errors", "more", "cause"),
    [
        ([], {}, reasons.OTHER),
        ([REFUSED, REFUSED, "Permission denied"], {}, reasons.REFUSED),
        ([REFUSED, "Permission denied"], {}, reasons.NO_LOGIN),
        ([REFUSED, f"{reasons.NOT_DONE} after 9 s", REFUSED, REFUSED], {}, reasons.SLOW),
        ([REFUSED], dict(late=3.1, window=3), reasons.LATE),
        ([REFUSED], dict(late=2.9, window=3), reasons.REFUSED),
        ([REFUSED], dict(late=9, window=0), reasons.REFUSED),
        ([TIMED_OUT], dict(late=4, window=3), reasons.SILENT),
        ([TIMED_OUT], dict(late=4, window=3, addresses=2), reasons.LATE),
    ],
)
def test_what_kept_the_tries_out(errors, more, cause):
    assert cause_of(errors, **more) == cause


@pytest.mark.parametrize(
    ("outcome", "state", "rolled_back"),
    [
        (outcome_of(LATE), "rolled_back", True),
        (outcome_of(UNKNOWN), "unknown", False),
        (outcome_of(UNKNOWN)._replace(restarted=True), "rolled_back", True),
        (outcome_of({}, reached=False), "unknown", False),
        (outcome_of(STALE), "unknown", False),
        (outcome_of(NOT_RUN), "unknown", False),
    ],
)
def test_nothing_is_called_undone_that_was_not_seen(outcome, state, rolled_back):
    guard = guard_result(outcome, AT_DOOR, "")
    assert (guard["state"], failed_result(outcome, guard, "m")["rolled_back"]) == (state, rolled_back)


def test_a_proof_says_what_could_not_be_seen():
    assert proof_of(outcome_of(CONFIRMED), "ssh", True, True) == "a new connection from 192.0.2.7 port 50001 to port 22"
    untold = proof_of(outcome_of(dict(CONFIRMED, tracked="unknown")), "ssh", True, True)
    assert untold.endswith("port 22; this kernel does not say whether it tracks it")


def test_nothing_of_a_cut_off_where_there_was_none():
    text = explain(outcome_of(dict(LATE, why="it was asked for on the host")), AT_DOOR, "h", 30)
    assert "cut this controller off" not in text
    assert "Door" not in text


def test_of_knockd_only_where_it_is_the_engine():
    for outcome in (outcome_of(LATE, TIMED_OUT), outcome_of({}, reached=False)):
        assert "knockd" not in explain(outcome, AT_DOOR, "h", 30)
    assert "cut this controller off" not in explain(outcome_of(LATE, unheard=True), FOR_PROOF, "h", 30)
