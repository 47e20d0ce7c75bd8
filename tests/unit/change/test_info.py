# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What knock_ruleset_info tells of a host in memory: doors, who has them open, drift, findings, and never a step."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change.info import inspect
from ansible_collections.sesame.portknock.plugins.module_utils._command.status import status_text
from fake_host import FakeHost, knockd_host
from module_run import DOOR, run
from shown_steps import steps_in

STEPS = ("17005", "19100", "18300", "20100", "20300", "20500")
UPTIME, HERTZ = 5000.0, 250
WEB = {
    "name": "web",
    "knock": ["20100", "20300/udp"],
    "opens": ["443", "8000-8010", "53/udp"],
    "close": ["20500"],
    "window": 60,
    "once": True,
    "sources": ["192.0.2.0/24"],
}


def jiffies(seconds_ago):
    return int((UPTIME - seconds_ago - 300) * HERTZ) % 2**32


def entry(source, seconds_ago):
    return "src={0} ttl: 64 last_seen: {1} oldest_pkt: 1 {1}\n".format(source, jiffies(seconds_ago))


class Host(FakeHost):
    """A fake host that also has lists and a clock; it fails on any change once it is looked at."""

    def monotonic(self):
        return UPTIME


def with_nft():
    host = Host()
    host.tools |= {"nft"}
    return host


def looked_at(host):
    host.frozen = True
    try:
        return inspect(host)
    finally:
        host.frozen = False


def test_a_bare_host():
    told = looked_at(Host())
    assert (told["doors"], told["drift"], told["findings"], told["ip_versions"]) == ([], [], [], [])


def test_doors_and_who_has_them_open():
    host = Host()
    run(host, doors=[DOOR, WEB])
    host.recent = {
        "pk4_ssh": entry("198.51.100.7", 5) + entry("198.51.100.8", 14.5) + entry("198.51.100.9", 16),
        "pk4_web": entry("192.0.2.1", 20),
        "pk4_.2": entry("198.51.100.1", 1),
        "pk6_ssh": entry("2001:db8::1", 0),
    }
    told = looked_at(host)
    assert told["drift"] == []
    assert told["ip_versions"] == ["ipv4", "ipv6"]
    doors = {(door["name"], door["ip_version"]): door for door in told["doors"]}
    assert doors["ssh", "ipv4"]["open_for"] == {"198.51.100.7": 10, "198.51.100.8": 1}
    assert doors["ssh", "ipv6"]["open_for"] == {"2001:db8::1": 15}
    assert doors["web", "ipv4"]["open_for"] == {"192.0.2.1": 40}
    assert doors["web", "ipv4"]["opens"] == ["53/udp", "443/tcp", "8000-8010/tcp"]
    assert (doors["web", "ipv4"]["steps"], doors["web", "ipv4"]["window"]) == (2, 60)
    # Its only sources are IPv4.
    assert ("web", "ipv6") not in doors


@pytest.mark.parametrize("family", ["iptables", "ip6tables"])
def test_the_whole_table_is_gone(family):
    """As after a reboot without our unit, or where the alternative was switched to a backend that never had rules."""
    host = Host()
    run(host, doors=[DOOR, WEB])
    host.rules[family].tables.clear()
    told = looked_at(host)
    assert any("PORTKNOCK" in line for line in told["drift"])
    assert {
        entry["result"] for entry in told["proof"] if entry["ip_version"] == {"iptables": "ipv4"}.get(family, "ipv6")
    } == {"void"}
    assert "DOOR" in status_text(told)


@pytest.mark.parametrize("engine", ["iptables", "nftables"])
def test_a_door_to_hosts_behind(engine):
    host = with_nft()
    run(host, doors=[DOOR, dict(WEB, to=["10.1.0.7", "10.2.0.0/16", "fd00::7"], sources=[])], engine=engine)
    told = looked_at(host)
    assert told["drift"] == []
    assert " of 10.1.0.7 10.2.0.0/16 fd00::7  60 s " in status_text(told)
    doors = {(door["name"], door["ip_version"]): door for door in told["doors"]}
    assert (doors["web", "ipv4"]["to"], doors["web", "ipv6"]["to"]) == (["10.1.0.7", "10.2.0.0/16"], ["fd00::7"])
    assert set(doors["web", "ipv4"]["opens"]) == {"53/udp", "443/tcp", "8000-8010/tcp"}
    assert "to" not in doors["ssh", "ipv4"]
    if engine == "iptables":
        assert {entry["door"] for entry in told["proof"] if entry["door"]} == {"ssh"}, "FORWARD is not walked"


@pytest.mark.parametrize("engine", ["iptables", "nftables"])
@pytest.mark.parametrize(
    ("more", "published"),
    [
        ({}, "doors"),
        ({"published": "policy"}, "policy"),
        ({"published": "none"}, "none"),
        ({"published": "policy", "policy": "accept"}, "doors"),
        ({"doors": [dict(DOOR, to=["10.1.0.7"])]}, "none"),
    ],
)
def test_how_what_nat_publishes_is_guarded(engine, more, published):
    host = with_nft()
    run(host, **dict({"doors": [DOOR], "engine": engine, "policy": "reject"}, **more))
    told = looked_at(host)
    assert told["published"] == published
    assert "ports that nat publishes: " in status_text(told)


def test_the_doors_are_proved_or_a_way_in_is_shown():
    host = Host()
    run(host, doors=[DOOR, WEB])
    assert [(word["door"], word["ip_version"], word["result"]) for word in looked_at(host)["proof"]] == [
        ("ssh", "ipv4", "proved"), ("web", "ipv4", "proved"), ("", "ipv4", "proved"), ("ssh", "ipv6", "proved"), ("", "ipv6", "proved"),
    ]  # fmt: skip
    host.rules["ip6tables"].tables["filter"].chains["INPUT"].insert(0, "-i eth1 -p tcp -j ACCEPT")
    told = [word for word in looked_at(host)["proof"] if word["result"] != "proved"]
    assert [(word["door"], word["ip_version"], word["result"], word["rule"]) for word in told] == [
        ("ssh", "ipv6", "void", "-A INPUT -i eth1 -p tcp -j ACCEPT")
    ]
    assert told[0]["packet"]["interface"] == "eth1"
    run(host)
    assert {word["result"] for word in looked_at(host)["proof"]} == {"proved"}


def test_this_connection_is_proved():
    host = Host()
    run(host, doors=[DOOR, WEB])
    host.ssh = "192.0.2.7 50122 192.0.2.1 22"
    told = [word for word in looked_at(host)["proof"] if word["what"] == "connection"]
    assert [(word["door"], word["ip_version"], word["ruleset"], word["result"]) for word in told] == [
        ("", "ipv4", "live", "proved")
    ]
    host.rules["iptables"].tables["filter"].chains["INPUT"].insert(0, "-s 192.0.2.7/32 -j DROP")
    found = looked_at(host)
    assert [word["result"] for word in found["proof"] if word["what"] == "connection"] == ["void"]
    assert "void" in [each["kind"] for each in found["findings"]]


def test_no_step_is_told():
    host = Host(v4="*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 17005 -j ACCEPT\nCOMMIT\n")
    run(host, doors=[DOOR, WEB])
    host.rules["iptables"].restore("*filter\n:PORTKNOCK_K1 - [0:0]\nCOMMIT\n")
    told = looked_at(host)
    assert told["drift"]
    assert steps_in(STEPS, repr([told["doors"], told["drift"]])) == []


DRIFTS = [
    ("-D PORTKNOCK_D1 2", "+ "),
    ("-D INPUT 1", "+ "),
    ("-A PORTKNOCK_D1 -j ACCEPT", "- "),
    ("-I INPUT 1 -p tcp -m tcp --dport 22 -j ACCEPT", "- "),
    ("-I PORTKNOCK_HEAD 1 -p tcp -j ACCEPT", "- "),
]


@pytest.mark.parametrize(("command", "sign"), DRIFTS)
def test_drift_is_told_and_mended(command, sign):
    host = Host()
    run(host)
    rules = host.rules["iptables"].tables["filter"].chains
    words = command.split(" ", 2)
    if words[0] == "-D":
        del rules[words[1]][int(words[2]) - 1]
    elif words[0] == "-A":
        rules[words[1]].append(words[2])
    else:
        rules[words[1]].insert(0, words[2].split(" ", 1)[1])
    drift = looked_at(host)["drift"]
    assert any(line.startswith("ipv4: " + sign) for line in drift)
    assert not any(line.startswith("ipv6") for line in drift)
    run(host)
    assert looked_at(host)["drift"] == []


def test_an_edited_rule_is_told_though_nothing_is_kept():
    host = Host()
    run(host, persist=False)
    assert looked_at(host)["drift"] == []
    rules = host.rules["iptables"].tables["filter"].chains["PORTKNOCK_D1"]
    rules[0] = rules[0].replace("--seconds 15", "--seconds 1500")
    assert looked_at(host)["drift"] == ["ipv4: edited by hand: a rule in chain PORTKNOCK_D1"]


def test_rules_in_the_other_backend_are_a_finding():
    host = Host()
    run(host)
    host.files["/proc/net/ip_tables_names"] = ("filter\n", 0o444)
    host.tools.add("iptables-legacy-save")
    host.other_backend["iptables-legacy-save"] = "*filter\n-A INPUT -j DROP\nCOMMIT\n"
    found = [finding for finding in looked_at(host)["findings"] if finding["kind"] == "other_backend"]
    assert [finding["rule"] for finding in found] == ["iptables-legacy-save shows: -A INPUT -j DROP"]


# Engine knockd


@pytest.fixture
def served():
    host = knockd_host(kind=Host)
    run(host, doors=[DOOR, WEB], engine="knockd")
    return host


def test_which_engine_there_is(served):
    assert looked_at(Host())["engine"] == ""
    host = Host()
    run(host)
    assert (looked_at(host)["engine"], looked_at(host)["daemon"]) == ("iptables", {})
    run(host, doors=[])
    assert looked_at(host)["engine"] == "iptables", "no door, so no engine"
    told = looked_at(served)
    assert (told["engine"], told["daemon"]) == ("knockd", {"running": True, "interface": "eth0"})
    assert (told["drift"], told["findings"]) == ([], [])


def test_doors_that_knockd_opens(served):
    served.recent = {"pk4_ssh": entry("198.51.100.7", 5), "pk4_web": entry("192.0.2.1", 20)}
    doors = {(door["name"], door["ip_version"]): door for door in looked_at(served)["doors"]}
    assert sorted(doors) == [("ssh", "ipv4"), ("ssh", "ipv6"), ("web", "ipv4")]
    assert (doors["ssh", "ipv4"]["steps"], doors["ssh", "ipv6"]["steps"], doors["web", "ipv4"]["steps"]) == (3, 3, 2)
    assert doors["ssh", "ipv4"]["open_for"] == {"198.51.100.7": 10}
    assert doors["web", "ipv4"]["open_for"] == {"192.0.2.1": 40}
    for door in doors.values():
        assert door["let_in"] == 0
        assert "knocked" not in door, "the kernel counts no knock"


def test_a_door_of_one_step_is_a_finding_there_too():
    host = knockd_host(kind=Host)
    run(host, doors=[dict(DOOR, knock=["17005"])], engine="knockd")
    assert [each["kind"] for each in looked_at(host)["findings"]] == ["single_step"]


def test_a_dead_knockd_is_a_finding_and_mended(served):
    served._stop()
    told = looked_at(served)
    assert told["daemon"] == {"running": False, "interface": "eth0"}
    (found,) = told["findings"]
    assert found["kind"] == "knockd"
    assert "knockd does not listen on eth0, so knocks open nothing" in found["message"]
    run(served, doors=[DOOR, WEB], engine="knockd")
    assert looked_at(served)["findings"] == []


def test_an_edited_configuration_is_drift_and_mended(served):
    path = "/etc/portknock/knockd.conf"
    served.files[path] = (served.read(path).replace("17005", "17006"), 0o600)
    assert looked_at(served)["drift"] == ["edited by hand: the configuration of knockd"]
    run(served, doors=[DOOR, WEB], engine="knockd")
    assert looked_at(served)["drift"] == []


def test_one_that_is_not_kept_is_told_as_well():
    host = knockd_host(kind=Host)
    run(host, doors=[DOOR], engine="knockd", persist=False, knockd_interface="lo")
    told = looked_at(host)
    assert (told["engine"], told["daemon"]) == ("knockd", {"running": True, "interface": "lo"})
    assert {door["steps"] for door in told["doors"]} == {3}


def test_after_the_kernel_took_over_nothing_is_told_of_knockd(served):
    run(served, doors=[DOOR, WEB])
    told = looked_at(served)
    assert (told["engine"], told["daemon"], told["findings"]) == ("iptables", {}, [])
    assert all("knocked" in door for door in told["doors"])


def test_no_step_of_knockds_is_told(served):
    served._stop()
    path = "/etc/portknock/knockd.conf"
    served.files[path] = (served.read(path) + "[x]\nsequence = 17005:tcp\n", 0o600)
    told = repr(looked_at(served))
    assert steps_in(STEPS, told) == []
