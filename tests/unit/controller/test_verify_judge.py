# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of knock_verify: what is right, what is wrong, and what is worth a word."""

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible_collections.sesame.portknock.plugins.module_utils._client.probe import OPEN, RESET, SILENT, UNREACHABLE
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import REJECT_WITH
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.judge import (
    Context,
    seconds_open,
    wants_counters,
)
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.table import jump_row, problems, rows
from verify_world import COUNTED, DNS, SSH, TOLD, V4, V6, WEB, spec_of

RIGHT = {
    "first": {"22/tcp": "icmp 3/3"},
    "wrong": {"22/tcp": "icmp 3/3"},
    "right": {"22/tcp": OPEN},
    "later": {"22/tcp": SILENT},
    "tries": 1,
}


def told(**more):
    return dict(TOLD, doors=[dict(COUNTED, **more)])


def row_of(seen, door=None, place=V4, told=None, after=None, longest=30, **options):
    spec = spec_of(door or SSH, **options)
    context = Context(spec, {place.family: place}, told or TOLD, after or {}, longest)
    found = rows({"doors": [dict(seen, door=spec.doors[0].name, family=place.family)]}, context)
    assert {row["what"] for row in found[1:]} <= {"rules"}
    return found[0]


def changed(**more):
    return dict(RIGHT, **more)


def without(*names, **more):
    return {key: value for key, value in changed(**more).items() if key not in names}


def test_a_door_that_is_right():
    assert row_of(RIGHT) == {
        "what": "door ssh",
        "ip_version": "ipv4",
        "without": "refused (icmp 3/3)",
        "wrong": "refused (icmp 3/3)",
        "right": "open",
        "later": "silent",
        "proof": "-",
        "state": "ok",
        "note": "",
    }


def proof(result, message=""):
    entry = {"door": "ssh", "ip_version": "ipv4", "result": result, "message": message}
    return dict(TOLD, proof=[dict(entry, ip_version="ipv6", result="void", message="Of the other family."), entry])


FOUND = "Void: TCP from 203.0.113.77 port 12345 to port 22 (SYN) on eth1 gets in without the knock, by -A INPUT -i eth1 -j ACCEPT."


def test_what_is_proved_and_seen_is_right():
    row = row_of(RIGHT, told=proof("proved"))
    assert (row["proof"], row["state"], row["note"]) == ("proved", "ok", "")
    row = row_of(RIGHT, told=proof("not proved", "Not proved: some reason."))
    assert (row["proof"], row["state"], row["note"]) == ("not proved", "ok", "")


def test_a_packet_that_others_send_gets_in():
    row = row_of(RIGHT, told=proof("void", FOUND))
    assert (row["proof"], row["state"]) == ("void", "wrong")
    assert row["note"] == (
        f"nothing wrong is seen from here, but the ruleset does not hold. {FOUND} Remove that rule, or name whom it is for in "
        "portknock_trusted_sources; then run sesame.portknock.site."
    )


def test_an_open_door_and_its_proof():
    seen = {"first": {"22/tcp": OPEN}, "second": {"22/tcp": OPEN}}
    row = row_of(seen, told=proof("void", FOUND))
    assert row["state"] == "wrong"
    assert row["note"].endswith("then run sesame.portknock.site. " + FOUND)
    row = row_of(seen, told=proof("proved"))
    assert row["state"] == "wrong"
    assert row["note"].endswith(
        "then run sesame.portknock.site. The tables of iptables are proved to let nobody in without a knock: look for another host or "
        "program that answers at this address, and for rules of nft."
    )


SHUT = {"22/tcp": "icmp 3/3"}
IS_OPEN = {"22/tcp": OPEN}


@pytest.mark.parametrize(
    ("seen", "more", "begins"),
    [
        ({"first": IS_OPEN, "second": IS_OPEN}, {}, "open without a knock, also when no window runs"),
        (
            {"first": IS_OPEN, "second": {"22/tcp": RESET}},
            {"told": dict(TOLD, ip_versions=["ipv6"])},
            "open without a knock: the host has no portknock rules for IPv4",
        ),
        (
            {"first": IS_OPEN, "second": IS_OPEN},
            {"told": dict(TOLD, drift=["ipv4: - -N one", "ipv4: + -A two", "ipv6: - x"])},
            "open without a knock: the rules were changed by hand (missing: -A two and 1 more)",
        ),
        ({"first": IS_OPEN, "waited": "no"}, {}, "open, and the host knows of no source that has knocked"),
        (without("right", "later", wrong=IS_OPEN), {}, "a wrong knock opens it"),
        (without("later", right=SHUT), {}, "does not open to the right knock"),
        (
            without("later", right=SHUT),
            {"after": told()},
            "does not open, and the host has not counted the right knock",
        ),
        (
            without("later", right=SHUT),
            {"after": told(knocked=5)},
            "the host counted the right knock, but the connection is not let in",
        ),
        (without("later", right={"22/tcp": UNREACHABLE}), {}, "cannot be reached: there is no route to 192.0.2.1"),
        (
            without("later", first={"22/tcp": RESET}, right={"22/tcp": RESET}),
            {"after": told(knocked=5), "reject_with": "tcp-reset"},
            "the host counted the right knock and still refuses, or nothing listens",
        ),
        (changed(later=IS_OPEN), {}, "still open 15 s after the knock"),
        (changed(closed=IS_OPEN), {"door": dict(SSH, close=["7300", "2800"])}, "its close knock does not close it"),
        (
            changed(closed=SHUT, reopened=SHUT),
            {"door": dict(SSH, close=["7300", "2800"])},
            "does not open a second time after its close knock",
        ),
        (changed(again=IS_OPEN), {"door": dict(SSH, once=True)}, "lets in more than one connection a knock"),
        (changed(), {"door": dict(SSH, sources=["198.51.100.0/24"])}, "opens for 192.0.2.7, which is not in"),
    ],
)
def test_what_is_wrong_is_named(seen, more, begins):
    row = row_of(seen, **more)
    assert row["state"] == "wrong"
    assert row["note"].startswith(begins)
    assert row["note"].endswith("."), "it does not say what to do"


@pytest.mark.parametrize(
    ("seen", "more", "note"),
    [
        (changed(right={"22/tcp": RESET}), {}, "nothing listens on 22/tcp"),
        (without("later", window=1), {"door": dict(SSH, window=600)}, "its window of 600 s is not waited for"),
        (
            changed(closed=SHUT, reopened=IS_OPEN),
            {"door": dict(SSH, close=["7300", "2800"])},
            "closed by its close knock",
        ),
        (changed(again=SHUT), {"door": dict(SSH, once=True)}, "one connection a knock"),
        (
            without("later", right=SHUT),
            {"door": dict(SSH, sources=["198.51.100.0/24"])},
            "this controller is not in the door's sources: it stays closed for it",
        ),
        # With a reset for both, the host's count of what it let in decides.
        (
            changed(first={"22/tcp": RESET}, right={"22/tcp": RESET}, later={"22/tcp": RESET}, wrong={"22/tcp": RESET}),
            {"reject_with": "tcp-reset", "after": told(knocked=5, let_in=10)},
            "nothing listens on 22/tcp",
        ),
    ],
)
def test_what_is_right_and_worth_a_word(seen, more, note):
    assert (row_of(seen, **more)["state"], row_of(seen, **more)["note"]) == ("ok", note)


DNS_SEEN = {key: {"53/udp": "icmp 3/3"} for key in ("first", "wrong", "later")}
DNS_COUNTED = dict(COUNTED, name="dns")


@pytest.mark.parametrize(
    ("right", "first", "after", "state"),
    [
        (OPEN, SILENT, {}, "ok"),
        # It was refused, and is not any more.
        (SILENT, "icmp 3/3", {}, "ok"),
        ("icmp 3/3", "icmp 3/3", {}, "unseen"),
        (SILENT, SILENT, {}, "unseen"),
        (SILENT, SILENT, {"knocked": 5}, "unseen"),
        (SILENT, SILENT, {"knocked": 5, "let_in": 10}, "ok"),
        ("icmp 3/3", "icmp 3/3", {"knocked": 4}, "wrong"),
    ],
)
def test_a_door_for_datagrams(right, first, after, state):
    seen = dict(DNS_SEEN, first={"53/udp": first}, right={"53/udp": right})
    later = {"doors": [dict(DNS_COUNTED, **after)]} if after else {}
    row = row_of(seen, door=DNS, told=dict(TOLD, doors=[DNS_COUNTED]), after=later)
    assert row["state"] == state, row


def test_an_opening_that_is_not_waited_for_is_no_mistake():
    row = row_of({"first": IS_OPEN, "waited": "no"}, door=dict(SSH, window=600), told=told(open_for={"192.0.2.7": 400}))
    assert row["state"] == "unseen"
    assert "is not waited for (portknock_verify_wait is 30)" in row["note"]


def rest_of(way, answers, **more):
    context = Context(spec_of(reject_with=way), {"ipv4": V4}, dict(TOLD, **more), {}, 30)
    return rows({"rest": [{"family": "ipv4", "answers": answers}]}, context)[0]


@pytest.mark.parametrize("way", REJECT_WITH)
def test_the_last_rule_is_missed(way):
    """The kernel of a host without it answers with a reset."""
    row = rest_of(way, {"1": RESET, "2": RESET, "3": RESET})
    assert row["state"] == ("ok" if way == "tcp-reset" else "wrong")
    assert ("answers the same" if way == "tcp-reset" else "ports that no option names are not refused") in row["note"]


def test_one_port_that_an_administrator_lets_in_is_no_mistake():
    assert rest_of("drop", {"1": RESET, "2": SILENT, "3": SILENT})["state"] == "ok"
    assert rest_of("icmp-port-unreachable", {"1": RESET, "2": "icmp 3/3", "3": SILENT})["state"] == "ok"


@pytest.mark.parametrize(
    ("allow", "answer", "way", "state"),
    [
        ({"port": "80"}, OPEN, "drop", "ok"),
        ({"port": "80"}, RESET, "drop", "ok"),
        ({"port": "80"}, RESET, "tcp-reset", "unseen"),
        ({"port": "80"}, SILENT, "drop", "wrong"),
        ({"port": "80"}, "icmp 3/3", "icmp-port-unreachable", "wrong"),
        ({"port": "80", "sources": ["192.0.2.7"]}, OPEN, "drop", "ok"),
        ({"port": "80", "sources": ["192.0.2.7"]}, SILENT, "drop", "wrong"),
        ({"port": "80", "sources": ["198.51.100.1"]}, SILENT, "drop", "ok"),
        ({"port": "80", "sources": ["198.51.100.1"]}, OPEN, "drop", "wrong"),
    ],
)
def test_allowed_ports(allow, answer, way, state):
    context = Context(spec_of(allow=[allow], reject_with=way), {"ipv4": V4}, TOLD, {}, 30)
    found = rows({"allow": [{"index": 0, "family": "ipv4", "answers": {"80/tcp": answer}}]}, context)
    assert [(row["what"], row["state"]) for row in found] == [("allow 80/tcp", state)]


def test_the_hosts_own_account():
    report = dict(TOLD, drift=["ipv6: - -A rule"], ip_versions=["ipv6"], pending={"owner": "ali@there", "id": "1"})
    found = rows({}, Context(spec_of(WEB), {"ipv4": V4, "ipv6": V6}, report, {}, 30))
    assert [(row["what"], row["ip_version"], row["state"]) for row in found] == [
        ("rules", "ipv4", "wrong"),
        ("rules", "ipv6", "wrong"),
        ("rules", "", "wrong"),
        ("rules", "", "wrong"),
    ]
    assert problems(found) == [
        "rules over IPv4: the host has no portknock rules for IPv4. Run sesame.portknock.site.",
        "rules over IPv6: the rules are not as they were written: unwanted: -A rule. Run sesame.portknock.site.",
        "rules: the host has doors that the inventory does not have (ssh). Run sesame.portknock.site.",
        "rules: a change by ali@there waits to be confirmed: run this again when that is over.",
    ]


@pytest.mark.parametrize(
    ("engine", "report", "note"),
    [
        ("iptables", {"engine": "iptables", "daemon": {}}, ""),
        ("knockd", {"engine": "knockd", "daemon": {"running": True, "interface": "eth0"}}, ""),
        # Of a host that did not say, nothing can be said.
        ("knockd", {}, ""),
        ("knockd", {"engine": ""}, ""),
        (
            "knockd",
            {"engine": "iptables"},
            "iptables recognises the knocks on the host, and portknock_engine is knockd.",
        ),
        (
            "iptables",
            {"engine": "knockd"},
            "knockd recognises the knocks on the host, and portknock_engine is iptables.",
        ),
        (
            "knockd",
            {"engine": "knockd", "daemon": {"running": False, "interface": ""}},
            "knockd does not run on the host,",
        ),
    ],
)
def test_who_recognises_the_knocks_on_the_host(engine, report, note):
    found = rows({}, Context(spec_of(engine=engine), {"ipv4": V4}, dict(TOLD, **report), {}, 30))
    assert [(row["what"], row["state"]) for row in found] == ([("rules", "wrong")] if note else [])
    assert [row["note"] for row in found if not row["note"].startswith(note)] == []
    assert [row["note"] for row in found if "Run sesame.portknock.site." not in row["note"].replace("run", "Run")] == []


def test_without_doors_nobody_need_recognise_anything():
    context = Context(
        spec_from_options({"policy": "accept"}), {"ipv4": V4}, dict(TOLD, doors=[], engine="knockd"), {}, 30
    )
    assert rows({}, context) == []


UNCOUNTED = {"doors": [{"name": "ssh", "ip_version": "ipv4", "let_in": 9, "open_for": {}}]}


@pytest.mark.parametrize(
    ("daemon", "where"),
    [({"running": True, "interface": "eth7"}, "listens on (eth7), or the host"), ({}, "listens on, or the host")],
)
def test_a_door_that_knockd_does_not_open(daemon, where):
    """The kernel does not count the knocks then, so that nothing tells a lost one from a wrong one."""
    told = dict(TOLD, **UNCOUNTED, engine="knockd", daemon=daemon)
    row = row_of(without("later", right=SHUT), told=told, after=UNCOUNTED, engine="knockd")
    assert row["state"] == "wrong"
    assert row["note"].startswith("does not open to the right knock: a step or the connection is dropped on the way, ")
    assert where in row["note"]
    assert "knockd" not in row_of(without("later", right=SHUT))["note"]


def test_a_host_that_could_not_be_asked():
    assert rows({}, Context(spec_of(), {"ipv4": V4}, {}, {}, 30)) == []
    found = rows({}, Context(spec_of(), {"ipv4": V4}, {"unreachable": True}, {}, 30))
    assert [(row["what"], row["state"]) for row in found] == [("rules", "unseen")]


def test_an_address_that_only_the_host_names_may_be_out_of_reach():
    """A host without the other family's address in the inventory is not wrong because its own is a private one."""
    dead = {key: {"22/tcp": SILENT} for key in ("first", "wrong", "right")}
    assert row_of(dead, place=V6)["state"] == "unseen"
    assert row_of(dead, place=V6._replace(given=True))["state"] == "wrong"
    assert row_of(dict(dead, first={"22/tcp": "icmp 1/4"}), place=V6)["state"] == "wrong"


def test_rows_are_in_the_order_of_the_doors():
    spec = spec_of(WEB, SSH, allow=[{"port": "80"}])
    seen = {
        "doors": [dict(RIGHT, door=name, family=family) for name in ("web", "ssh") for family in ("ipv6", "ipv4")],
        "allow": [{"index": 0, "family": "ipv4", "answers": {"80/tcp": OPEN}}],
        "rest": [{"family": "ipv4", "answers": {"9": "icmp 3/3"}}],
    }
    found = rows(seen, Context(spec, {"ipv4": V4, "ipv6": V6}, TOLD, {}, 30))
    assert [(row["what"], row["ip_version"]) for row in found] == [
        ("door web", "ipv4"),
        ("door web", "ipv6"),
        ("door ssh", "ipv4"),
        ("door ssh", "ipv6"),
        ("allow 80/tcp", "ipv4"),
        ("rest", "ipv4"),
    ]


def test_a_jump_host_is_a_row():
    assert jump_row("bastion")["state"] == "unseen"
    assert jump_row("bastion")["note"].startswith("the host is reached through a jump host (bastion), so")


@pytest.mark.parametrize(("right", "expected"), [(IS_OPEN, False), (SHUT, True), ({"22/tcp": RESET}, False)])
def test_the_host_is_asked_again_only_where_it_helps(right, expected):
    context = Context(spec_of(), {"ipv4": V4}, TOLD, {}, 30)
    assert wants_counters({"doors": [dict(RIGHT, right=right, door="ssh", family="ipv4")]}, context) is expected


def test_seconds_open():
    left = seconds_open(told(open_for={"192.0.2.7": 3, "192.0.2.8": 12}))
    assert (left("ssh", "ipv4"), left("ssh", "ipv6"), left("web", "ipv4")) == (12, 0, 0)


LIMIT = {
    "kind": "limited",
    "severity": "warning",
    "ip_version": "ipv4",
    "rule": "-A INPUT -j DROP",
    "message": "refuses too many.",
}


@pytest.mark.parametrize("after", [None, told(), told(knocked=9)])
def test_what_the_host_has_found_is_told_with_a_door_that_stays_shut(after):
    seen = without("later", right=SHUT)
    shut = row_of(seen, told=dict(TOLD, findings=[LIMIT]), after=after)
    plain = row_of(seen, after=after)
    assert shut["state"] == "wrong"
    assert shut["note"] == plain["note"] + (
        " The host has found what may be the reason: refuses too many. (-A INPUT -j DROP)"
    )
    for other in (dict(LIMIT, kind="lost_effect"), dict(LIMIT, ip_version="ipv6")):
        assert row_of(seen, told=dict(TOLD, findings=[other]), after=after) == plain


def test_a_door_that_opens_needs_no_reason():
    assert row_of(RIGHT, told=dict(TOLD, findings=[LIMIT]))["note"] == ""
