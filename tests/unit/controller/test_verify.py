# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is seen of doors from outside, and what it means; the way there; and how little is sent and waited for."""

import random

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import ENGINES, SETTLE
from ansible_collections.sesame.portknock.plugins.module_utils._client.probe import (
    OPEN,
    REFUSED,
    RESET,
    SILENT,
    UNREACHABLE,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import REJECT_WITH
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify import observe
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.addresses import (
    HostAddress,
    addresses_to_try,
    read_facts,
)
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.answers import let_in, look_of
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.judge import (
    Context,
    seconds_open,
    wants_counters,
)
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.observe import (
    SLACK,
    Observer,
    RealNetwork,
    free_ports,
    is_free,
    ports_of,
    wrong_knock,
)
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.table import jump_row, problems, rows
from shown_steps import steps_in
from test_knock import Knockd

ICMP = {"ipv4": "icmp 3/3", "ipv6": "icmp 1/4"}
V4 = HostAddress("ipv4", "192.0.2.1", True, "192.0.2.7", "eth0", "")
V6 = HostAddress("ipv6", "2001:db8::1", False, "2001:db8::7", "eth0", "")
SSH = {"name": "ssh", "knock": ["7000", "9100/udp", "3100"], "opens": ["22"], "window": 15}
WEB = {"name": "web", "knock": ["7500", "2500"], "opens": ["8000-8010", "443"], "window": 30}
DNS = {"name": "dns", "knock": ["7600", "2600"], "opens": ["53/udp"], "window": 15}


def spec_of(*doors, **options):
    return spec_from_options(dict({"doors": list(doors or (SSH,))}, **options))


# What an answer means


@pytest.mark.parametrize(
    ("answer", "reject_with", "expected"),
    [
        (OPEN, "icmp-port-unreachable", "yes"),
        (OPEN, "drop", "yes"),
        (RESET, "icmp-port-unreachable", "yes"),
        (RESET, "tcp-reset", "maybe"),
        (RESET, "icmp-admin-prohibited", "yes"),
        (RESET, "drop", "yes"),
        (REFUSED, "icmp-port-unreachable", "maybe"),
        (REFUSED, "tcp-reset", "maybe"),
        (REFUSED, "icmp-admin-prohibited", "maybe"),
        (REFUSED, "drop", "yes"),
        ("icmp 3/3", "icmp-port-unreachable", "no"),
        ("icmp 3/13", "icmp-admin-prohibited", "no"),
        ("icmp 3/13 by 192.0.2.254", "drop", "no"),
        (SILENT, "icmp-port-unreachable", "no"),
        (SILENT, "drop", "no"),
        (UNREACHABLE, "drop", "no"),
    ],
)
def test_what_a_connect_means(answer, reject_with, expected):
    assert let_in(answer, "tcp", reject_with) == expected


@pytest.mark.parametrize(
    ("answer", "reject_with", "expected"),
    [
        (OPEN, "drop", "yes"),
        # The kernel's own answer where nobody listens is the same as the firewall's.
        ("icmp 3/3", "icmp-port-unreachable", "maybe"),
        ("icmp 1/4", "tcp-reset", "maybe"),
        ("icmp 3/3", "icmp-admin-prohibited", "yes"),
        ("icmp 3/3", "drop", "yes"),
        ("icmp 3/13", "icmp-admin-prohibited", "no"),
        (REFUSED, "icmp-port-unreachable", "maybe"),
        (SILENT, "icmp-port-unreachable", "maybe"),
        (SILENT, "drop", "maybe"),
        (UNREACHABLE, "drop", "no"),
    ],
)
def test_what_a_datagram_means(answer, reject_with, expected):
    assert let_in(answer, "udp", reject_with) == expected


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"22/tcp": "icmp 3/3", "23/tcp": SILENT}, "refused (icmp 3/3)"),
        ({"22/tcp": OPEN, "23/tcp": RESET}, "open"),
        ({"22/tcp": RESET, "23/tcp": SILENT}, "refused (reset)"),
        ({"22/tcp": REFUSED}, "refused"),
        ({"22/tcp": SILENT}, "silent"),
        ({"22/tcp": UNREACHABLE}, "no way there"),
        ({}, "-"),
    ],
)
def test_what_it_looks_like(answers, expected):
    assert look_of(answers) == expected


# Rows

RIGHT = {
    "first": {"22/tcp": "icmp 3/3"},
    "wrong": {"22/tcp": "icmp 3/3"},
    "right": {"22/tcp": OPEN},
    "later": {"22/tcp": SILENT},
    "tries": 1,
}
COUNTED = {"name": "ssh", "ip_version": "ipv4", "knocked": 4, "let_in": 9, "open_for": {}}
TOLD = {"doors": [COUNTED], "drift": [], "ip_versions": ["ipv4", "ipv6"], "pending": {}}


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
        "state": "ok",
        "note": "",
    }


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


# Where to look

FACTS = """connection 192.0.2.7 50122 192.0.2.1 22
listed
address 2: eth0    inet 192.0.2.1/24 brd 192.0.2.255 scope global eth0\\       valid_lft forever
address 2: eth0    inet6 2001:db8::bad/64 scope global temporary dynamic \\       valid_lft 1sec
address 2: eth0    inet6 2001:db8::1/64 scope global \\       valid_lft forever
address 3: docker0    inet 172.17.0.1/16 scope global docker0\\       valid_lft forever
address 4: wg0@NONE    inet 10.9.0.1/24 scope global wg0\\       valid_lft forever
"""


def here(address):
    return "2001:db8::7" if ":" in address else "192.0.2.7"


def found_places(addresses, text=FACTS, local=here, **options):
    return {place.family: place for place in addresses_to_try(addresses, read_facts(text), spec_of(**options), local)}


def test_the_other_familys_address_comes_from_the_host():
    found = found_places(["192.0.2.1"])
    assert found["ipv4"] == V4
    assert found["ipv6"] == V6
    found = found_places(["2001:db8::1"])
    assert (found["ipv4"].address, found["ipv4"].given) == ("192.0.2.1", False)


@pytest.mark.parametrize(
    ("more", "family", "why"),
    [
        ({"text": "connection 192.0.2.7 1 192.0.2.1 22\nlisted\n"}, "ipv6", "the host has no IPv6 address"),
        ({"text": ""}, "ipv6", "no IPv6 address of the host is known"),
        ({"ip_versions": ["ipv4"]}, "ipv6", "portknock_ip_versions leaves it out"),
        (
            {"local": lambda address: "" if ":" in address else "192.0.2.7"},
            "ipv6",
            "this controller has no route to 2001:db8::1",
        ),
        ({"local": lambda address: address}, "ipv6", "this controller is the host itself"),
        ({"trusted_sources": ["192.0.2.0/28"]}, "ipv4", "this controller is in portknock_trusted_sources"),
        ({"trusted_interfaces": ["lo", "eth+"]}, "ipv4", "this controller comes in by eth0, a trusted interface"),
    ],
)
def test_why_nothing_can_be_seen_from_here(more, family, why):
    found = found_places(["192.0.2.1"], **more)
    assert found[family].unseen.startswith(why)
    context = Context(
        spec_of(**{key: value for key, value in more.items() if key not in ("text", "local")}), found, TOLD, {}, 30
    )
    row = next(row for row in rows({}, context) if row["ip_version"] == family and row["what"] == "door ssh")
    assert (row["state"], row["note"]) == ("unseen", found[family].unseen)


def test_the_client_is_whom_the_host_sees():
    found = found_places(["198.51.100.1"], FACTS.replace("192.0.2.7", "::ffff:203.0.113.9"))
    assert found["ipv4"].client == "203.0.113.9"


def test_seconds_open():
    left = seconds_open(told(open_for={"192.0.2.7": 3, "192.0.2.8": 12}))
    assert (left("ssh", "ipv4"), left("ssh", "ipv6"), left("web", "ipv4")) == (12, 0, 0)


# What is sent


def test_a_wrong_knock_has_one_wrong_step_in_place_of_the_last():
    spec = spec_of(SSH, DNS, allow=[{"port": "20000-60000"}])
    (port,) = free_ports(spec, 1, random.Random(1).randint)
    wrong = wrong_knock(spec.doors[0], port)
    assert wrong[:-1] == spec.doors[0].knock[:-1]
    assert wrong[-1] == (port, "tcp")
    assert wrong_knock(spec.doors[0]._replace(knock=spec.doors[0].knock[:2]), port)[-1] == (port, "udp")
    assert port > 60000


def test_no_free_port_means_anything_to_anybody():
    spec = spec_of(SSH, WEB, dict(DNS, close=["7300", "2800"]), allow=[{"port": "80"}, {"port": "514/udp"}])
    taken = (7000, 9100, 3100, 22, 443, 8000, 8005, 8010, 53, 7300, 2800, 80, 514)
    assert [port for port in taken if is_free(spec, port)] == []
    assert is_free(spec, 7999)


def test_no_free_port_at_all():
    assert free_ports(spec_of(allow=[{"port": "10000-65535"}]), 1, random.Random(1).randint) == ()


def test_some_ports_of_a_door():
    spec = spec_of(WEB, DNS, dict(SSH, opens=["1000-2000/udp", "22", "30-40", "50", "60"]))
    assert ports_of(spec.doors[0].opens) == ((8000, "tcp"), (8010, "tcp"), (443, "tcp"))
    assert ports_of(spec.doors[1].opens) == ((53, "udp"),)
    assert ports_of(spec.doors[2].opens) == ((22, "tcp"), (30, "tcp"), (40, "tcp"), (50, "tcp"))


class World:
    """A host whose doors work, and the clock; it writes down all that reaches it."""

    def __init__(self, spec, places, broken=()):
        self.spec, self.log, self.clock = spec, [], 100.0
        self.until = {}
        self._broken = broken
        self._families = {place.address: place.family for place in places}

    def now(self):
        return self.clock

    def sleep(self, seconds):
        self.log.append(("sleep", round(max(0, seconds), 3)))
        self.clock += max(0, seconds)

    def knock(self, addresses, steps):
        self.clock += 0.1 * len(steps)
        name = "?"
        for door in self.spec.doors:
            if tuple(steps) == door.knock:
                name = door.name
                if "deaf" not in self._broken:
                    self.until.update({(door, address): self.clock + door.window for address in addresses})
            if tuple(steps) == door.close:
                name = "close " + door.name
                if "deaf to one close" in self._broken:
                    self._broken = ()
                    continue
                for address in addresses:
                    self.until.pop((door, address), None)
        self.log.append(("knock", name, len(addresses)))

    def probe(self, targets):
        self.clock += 0.01
        self.log.append(("probe", len(set(targets))))
        return {target: self._answer(*target) for target in targets}

    def _answer(self, address, port, protocol):
        for allow in self.spec.allow:
            if allow.ports.first <= port <= allow.ports.last:
                return OPEN
        for door in self.spec.doors:
            if any(each.first <= port <= each.last and each.protocol == protocol for each in door.opens):
                until = self.until.get((door, address), 0)
                if door.once and "reused" not in self._broken:
                    self.until.pop((door, address), None)
                if self.clock <= until or "void" in self._broken:
                    return OPEN
        return ICMP[self._families[address]]


def nobody(*_door):
    """Nobody has any door open."""
    return 0


class KnockdWorld(World):
    """A host where knockd hears the knocks."""

    def __init__(self, spec, places, broken=()):
        super().__init__(spec, places, broken)
        sequences = [steps for door in spec.doors for steps in (door.knock, door.close) if steps]
        self._daemons = {place.address: Knockd(*sequences) for place in places}

    def knock(self, addresses, steps):
        self.clock += 0.1 * len(steps)
        self.log.append(("knock", len(steps), len(addresses)))
        for address in addresses if "deaf" not in self._broken else ():
            daemon = self._daemons[address]
            daemon.opened.clear()
            for step in steps:
                daemon.hear(step)
            for door in self.spec.doors:
                if door.close in daemon.opened:
                    self.until.pop((door, address), None)
                if door.knock in daemon.opened:
                    self.until[door, address] = self.clock + door.window


def observed(*doors, places=(V4, V6), broken=(), longest=30, left=nobody, before=(), kind=World, **options):
    spec = spec_of(*doors, **options)
    world = kind(spec, places, broken)
    for door in spec.doors:
        if door.name in before:
            world.until.update({(door, place.address): world.clock + door.window for place in places})
    begun = world.clock
    seen = Observer(spec, places, world, longest, left, random.Random(1).randint).run()
    context = Context(spec, {place.family: place for place in places}, dict(TOLD, doors=[]), {}, longest)
    found = {(row["what"], row["ip_version"]): (row["state"], row["note"]) for row in rows(seen, context)}
    return world, found, world.clock - begun


def test_both_families_are_tried_at_once_and_windows_are_waited_for_together():
    world, found, seconds = observed(SSH, WEB, allow=[{"port": "80"}])
    assert set(found.values()) == {("ok", "")}
    assert [entry for entry in world.log if entry[0] == "knock"] == [
        ("knock", "?", 2),
        ("knock", "?", 2),
        ("knock", "web", 2),
        ("knock", "ssh", 2),
    ]
    assert seconds < 30 + SLACK + 2


def test_doors_that_are_open_at_first_are_waited_for_together():
    world, found, seconds = observed(SSH, WEB, before=("ssh", "web"), left=lambda *door: {"ssh": 4, "web": 30}[door[0]])
    assert {state for state, _note in found.values()} == {"ok"}
    assert next(entry for entry in world.log if entry[0] == "sleep") == ("sleep", 30 + SLACK)
    assert seconds < 2 * (30 + SLACK) + 3


def test_a_void_door_is_not_knocked_at():
    world, found, _seconds = observed(SSH, broken=("void",), places=(V4,))
    assert found["door ssh", "ipv4"][0] == "wrong"
    assert [entry for entry in world.log if entry[0] == "knock"] == []
    assert ("sleep", 15 + SLACK) in world.log


def test_a_deaf_door_is_knocked_at_a_few_times():
    world, found, _seconds = observed(SSH, broken=("deaf",), places=(V4,))
    assert found["door ssh", "ipv4"][0] == "wrong"
    assert world.log.count(("knock", "ssh", 1)) == ENGINES["iptables"].verify_knocks == 3


BACKWARDS = dict(SSH, close=SSH["knock"][::-1])
WITH_KNOCKD = dict(engine="knockd", kind=KnockdWorld)


@pytest.mark.parametrize(
    ("doors", "knocks"),
    [
        # A wrong knock and a right one, and what a close knock needs.
        ([SSH], 2),
        ([SSH, WEB], 4),
        ([DNS, SSH], 4),
        ([dict(SSH, once=True)], 3),
        ([dict(SSH, close=["7300", "2800"])], 4),
        ([BACKWARDS], 4),
        # Nothing was left behind there, and what is for that begins the close knock.
        ([BACKWARDS, WEB, DNS], 9),
        ([WEB, dict(DNS, close=DNS["knock"][::-1]), SSH], 9),
        ([dict(SSH, knock=["7000"])], 2),
    ],
)
def test_knockd_opens_at_once_although_it_remembers_the_wrong_knock(doors, knocks):
    world, found, _seconds = observed(*doors, **WITH_KNOCKD)
    assert {state for state, _note in found.values()} == {"ok"}, found
    assert sum(entry[0] == "knock" for entry in world.log) == knocks


def test_knockd_is_knocked_at_once_more():
    assert ENGINES["knockd"].verify_knocks == 4
    world, found, _seconds = observed(SSH, broken=("deaf",), places=(V4,), **WITH_KNOCKD)
    assert found["door ssh", "ipv4"][0] == "wrong"
    # Behind the wrong one, which is as long as the right one.
    assert [entry[1] for entry in world.log if entry[0] == "knock"] == [3] + [4] * 4


@pytest.mark.parametrize(("engine", "settle"), [("iptables", 0.0), ("knockd", SETTLE)])
def test_whoever_knocks_gives_the_engine_its_time(engine, settle, monkeypatch):
    sent = []
    monkeypatch.setattr(observe, "send_knock", lambda *words, **more: sent.append((words, more)))
    RealNetwork(engine, 0.25, "192.0.2.9").knock(["192.0.2.1"], [(7000, "tcp")])
    assert sent == [((["192.0.2.1"], [(7000, "tcp")], 0.25, "192.0.2.9"), {"settle": settle})]


def test_a_door_that_this_controller_may_not_use_is_tried_once():
    world, found, _seconds = observed(dict(SSH, sources=["198.51.100.1"]), broken=("deaf",), places=(V4,))
    assert found["door ssh", "ipv4"][0] == "ok"
    assert world.log.count(("knock", "ssh", 1)) == 1


def test_a_door_with_a_close_knock_is_not_waited_for_at_first():
    world, found, seconds = observed(dict(SSH, close=["7300", "2800"]), before=("ssh",), places=(V4,))
    assert found["door ssh", "ipv4"] == ("ok", "closed by its close knock")
    assert world.log.count(("knock", "close ssh", 1)) == 2
    assert world.log.count(("knock", "ssh", 1)) == 2
    assert seconds < 15 + SLACK + 3


def test_a_close_knock_that_got_lost_makes_no_door_void():
    world, found, _seconds = observed(
        dict(SSH, close=["7300", "2800"]), before=("ssh",), places=(V4,), broken=("deaf to one close",)
    )
    assert found["door ssh", "ipv4"] == ("ok", "closed by its close knock")
    assert ("sleep", 15 + SLACK) in world.log


def test_a_long_window_is_not_waited_for():
    world, found, seconds = observed(dict(SSH, window=600), places=(V4,))
    assert found["door ssh", "ipv4"] == ("ok", "its window of 600 s is not waited for")
    assert seconds < 2
    world, found, seconds = observed(dict(SSH, window=600), before=("ssh",), places=(V4,), left=lambda *_door: 500)
    assert seconds < 2
    assert [entry for entry in world.log if entry[0] == "knock"] == []


@pytest.mark.parametrize(("broken", "state"), [((), "ok"), (("reused",), "wrong")])
def test_a_look_uses_a_once_door_up(broken, state):
    world, found, _seconds = observed(dict(SSH, once=True), broken=broken, before=("ssh",), places=(V4,))
    assert found["door ssh", "ipv4"][0] == state, found
    if not broken:
        assert world.log.count(("knock", "ssh", 1)) == 2


def test_no_doors():
    _world, found, _seconds = observed(doors=[], policy="accept", places=(V4,))
    assert found == {}


def test_no_observation_holds_a_step():
    spec = spec_of(SSH, WEB)
    world = World(spec, (V4, V6))
    seen = str(Observer(spec, (V4, V6), world, 30, nobody, random.Random(1).randint).run())
    assert steps_in([step for door in spec.doors for step in door.knock], seen) == []
