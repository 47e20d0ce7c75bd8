# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``portknock status`` shows of a host in memory, for people, programs and monitoring."""

import json
from ipaddress import ip_address

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._command.status import check, status_text
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.elements import Element, add_text
from ansible_collections.sesame.portknock.plugins.module_utils._paths import OPTIONS, STATE_FILE
from fake_host import knockd_host
from module_run import DOOR, run
from shown_steps import steps_in

WEB = {"name": "web", "knock": ["20100", "20300/udp"], "opens": ["443", "8000-8010"], "window": 60}
STEPS = ("17005", "19100", "18300", "20100", "20300")
HERTZ = 250


def entry(host, source, seconds_ago):
    stamp = int((host.now - seconds_ago - 300) * HERTZ) % 2**32
    return "src={0} ttl: 64 last_seen: {1} oldest_pkt: 1 {1}\n".format(source, stamp)


FOUND = dict(
    engine="iptables", backend="nft", ip_versions=["ipv4", "ipv6"], drift=[], findings=[], pending={}, refused=12, wrong_knocks=3,
    lists=[dict(door="ssh", ip_version="ipv4", entries=2, size=4096), dict(door="", ip_version="ipv4", entries=1, size=0)],
    doors=[
        dict(name="ssh", ip_version="ipv4", opens=["22/tcp"], window=15, steps=3, open_for={"192.0.2.7": 9}, let_in=4, knocked=5,
             refused=8),
        dict(name="ssh", ip_version="ipv6", opens=["22/tcp"], window=15, steps=3, open_for={"2001:db8::7": 14}, let_in=1, knocked=1,
             refused=4),
        dict(name="web", ip_version="ipv4", opens=["443/tcp", "53/udp"], window=60, steps=2, open_for={}, let_in=0, knocked=0),
    ],
)  # fmt: skip


def test_the_table():
    assert status_text(FOUND).splitlines() == [
        "Engine iptables (nft), IPv4 and IPv6: healthy",
        "",
        "DOOR  OPENS           WINDOW  KNOCKS  LET IN  REFUSED  OPEN TO      FOR",
        "ssh   22/tcp          15 s    6       5       12       192.0.2.7    9 s",
        "                                                       2001:db8::7  14 s",
        "web   443/tcp 53/udp  60 s    0       0       -        -",
        "",
        "packets refused at the doors' ports: 12",
        "wrong knocks: 3 reset",
        "sources on the lists: ssh IPv4 2 of 4096, knocks in progress IPv4 1 of ?",
        "pending: no change",
        "drift: none",
        "findings: none",
    ]


def test_a_door_to_hosts_behind():
    doors = [dict(door, to=to) for door, to in zip(FOUND["doors"], (["10.1.0.7"], ["fd00::7"]))]
    lines = status_text(dict(FOUND, doors=doors)).splitlines()
    assert lines[3].startswith("ssh   22/tcp of 10.1.0.7 fd00::7  15 s ")


@pytest.mark.parametrize(
    ("published", "line"),
    [
        ("doors", "ports that nat publishes: those of doors are closed as well"),
        (
            "policy",
            "ports that nat publishes: refused as those of this host are, unless a door or an allowed port has them",
        ),
        ("none", "ports that nat publishes: not guarded"),
    ],
)
def test_what_nat_publishes(published, line):
    assert status_text(dict(FOUND, published=published)).splitlines()[9] == line


def test_of_many_lists_only_those_with_sources_are_shown():
    def line(*entries):
        lists = [
            dict(door=f"d{number}", ip_version="ipv4", entries=each, size=100) for number, each in enumerate(entries)
        ]
        return next(line for line in status_text(dict(FOUND, lists=lists)).splitlines() if line.startswith("sources"))

    assert line(0, 2) == "sources on the lists: d0 IPv4 0 of 100, d1 IPv4 2 of 100"
    assert line(*[0] * 8, 2) == "sources on the lists: d8 IPv4 2 of 100, 8 more of 100 empty"
    assert line(*[0] * 9) == "sources on the lists: 9 of 100 empty"


def finding(severity):
    return dict(kind="list_size", severity=severity, message="something.", ip_version="", rule="")


PENDING = dict(id="1", owner="me@here", seconds_left=20)
CHECKS = {
    "well": ({}, 0, "portknock OK: 2 doors, engine iptables"),
    "one to know of": (dict(findings=[finding("info")]), 0, "portknock OK: 2 doors, engine iptables"),
    "a warning": (dict(findings=[finding("warning")]), 1, "portknock WARNING: something."),
    "an error": (dict(findings=[finding("error"), finding("warning")]), 2, "portknock CRITICAL: something. (and 1 more)"),
    "drift": (dict(drift=["ipv4: - x"]), 1, "portknock WARNING: drift: ipv4: - x"),
    "pending": (dict(pending=PENDING), 1, "portknock WARNING: a change by me@here is undone in 20 s unless it is confirmed"),
    "no doors": (dict(engine="", doors=[]), 2, "portknock CRITICAL: there are no doors of this collection on this host."),
    "a deaf daemon": (
        dict(engine="knockd", daemon=dict(running=False, interface="eth0")),
        2,
        "portknock CRITICAL: knockd does not listen, so no knock opens a door.",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("more", "code", "line"), CHECKS.values(), ids=list(CHECKS))
def test_check(more, code, line):
    assert check(dict(FOUND, **more)) == (code, line)


def test_what_is_wrong_is_listed():
    text = status_text(dict(FOUND, drift=["ipv4: - x"], findings=[finding("error")]))
    assert text.splitlines()[0].endswith("NOT as it should be, see below")
    assert text.splitlines()[-5:] == [
        "pending: no change",
        "drift:",
        "  ipv4: - x",
        "findings:",
        "  error: something.",
    ]


def test_a_pending_change_is_no_drift():
    """What a boot loads is not what is loaded yet."""
    found = dict(FOUND, pending=PENDING, drift=["ipv4: - x"])
    assert check(found) == (1, "portknock WARNING: a change by me@here is undone in 20 s unless it is confirmed")
    assert status_text(found).splitlines()[-3:-1] == [
        "pending: a change by me@here is undone in 20 s unless it is confirmed",
        "drift: not known while a change is pending",
    ]


@pytest.fixture(params=["iptables", "knockd", "nftables"])
def engine(request, console):
    """A host with two doors, one of them open to somebody."""
    host = knockd_host()
    host.tools |= {"nft"}
    run(host, doors=[DOOR, WEB], engine=request.param)
    host.now = 5000.0
    if request.param == "nftables":
        host.nft.run(["nft", "-f", "-"], add_text("open4_ssh", [Element(ip_address("198.51.100.7"), 10)]))
    host.recent = {"pk4_ssh": entry(host, "198.51.100.7", 5) + entry(host, "198.51.100.9", 16)}
    host.frozen = True
    console.host = host
    return request.param


def test_the_same_answers_for_every_engine(console, engine):
    lines = console.out("status")
    daemon = ", knockd listens on eth0" if engine == "knockd" else ""
    backend = "" if engine == "nftables" else " (nft)"
    assert lines[0] == "Engine {0}{1}, IPv4 and IPv6: healthy{2}".format(engine, backend, daemon)
    shown = [line.split() for line in lines[3:5]]
    knocks = "-" if engine == "knockd" else "0"
    assert shown[0] == ["ssh", "22/tcp", "15", "s", knocks, "0", "0", "198.51.100.7", "10", "s"]
    assert shown[1] == ["web", "443/tcp", "8000-8010/tcp", "60", "s", knocks, "0", "0", "-"]
    told = json.loads("\n".join(console.out("status", "--json")))
    assert (told["engine"], told["code"], told["state"]) == (engine, 0, console.out("status", "--check")[0])
    assert (told["wrong_knocks"] is None) == (engine == "knockd")
    assert {(each["door"], each["entries"]) for each in told["lists"] if each["ip_version"] == "ipv4"} >= {
        # A list keeps those whose window is over.
        ("ssh", 1 if engine == "nftables" else 2),
        ("web", 0),
    }


@pytest.mark.usefixtures("engine")
def test_no_step_is_shown(console):
    for words in (["status"], ["status", "--json"], ["status", "--check"]):
        assert steps_in(STEPS, console.run(*words)[1]) == []


def test_what_cannot_be_read_is_unknown(console):
    run(console.host, doors=[DOOR])
    console.host.files[STATE_FILE] = (HostError("it cannot be read."), 0o600)
    code, out, err = console.run("status", "--check")
    assert (code, out) == (3, "") and err == "portknock: it cannot be read.\n"
    assert console.run("status")[0] == 1


def test_an_acknowledged_finding_is_not_shown(console):
    run(console.host, doors=[dict(DOOR, knock=["17005"])])
    assert console.run("status", "--check")[0] == 1
    assert "findings:" in console.out("status")
    console.host.files[OPTIONS] = ('{"acknowledge": ["single_step"]}', 0o600)
    assert console.run("status", "--check")[0] == 0
    assert "findings: none" in console.out("status")
