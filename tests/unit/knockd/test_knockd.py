# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""knockd's configuration, units and scripts as texts: what is in them, what a scan or a knock does with them."""

import configparser
import ipaddress
import os
import random
import re
import shutil
import subprocess

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import steps_of_turn
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import build_rules
from ansible_collections.sesame.portknock.plugins.module_utils._knockd import config as _knockd
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.config import (
    config_id,
    config_text,
    interface_of,
    is_edited,
    is_too_old,
    seq_timeout,
    steps_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.decoys import DECOYS, decoy_ports
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.findings import findings
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.interface import (
    choose_interface,
    default_interfaces,
)
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.service import is_needed
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.units import (
    ADDRESSES_SCRIPT,
    ADDRESSES_UNIT,
    PREFIX_SCRIPT,
    drop_in_text,
)
from ansible_collections.sesame.portknock.plugins.module_utils._redact import readable_config
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_host import ROUTE, ROUTE6
from hypothesis import assume, example, given
from hypothesis import strategies as st
from knockd_model import Knockd

DOOR = {"name": "ssh", "knock": ["17005", "19100/udp", "18300"], "opens": ["22"]}
BOTH = ("ipv4", "ipv6")
HERE = "/etc/portknock"


def spec_of(*doors, **more):
    return spec_from_options(dict({"doors": list(doors) or [DOOR], "engine": "knockd"}, **more))


def text_of(*doors, **more):
    return config_text(spec_of(*doors, **more), more.get("ip_versions", BOTH), "eth0", HERE)


def sections_of(text):
    """Return section to its keys, as a parser that is not ours reads them."""
    parser = configparser.RawConfigParser(allow_no_value=True, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str
    parser.read_string(text)
    return {name: dict(parser[name]) for name in parser.sections()}


# The configuration

SEVERAL = [
    dict(DOOR, close=["18311/udp", "17444"], step_timeout=3),
    {"name": "web_2", "knock": ["40001"], "opens": ["443", "8000-8010"], "sources": ["198.51.100.0/24"]},
    {"name": "six", "knock": ["9005", "2044/udp"], "opens": ["53/udp"], "sources": ["2001:db8::/32"]},
]


def test_golden(golden):
    golden("knockd.conf", text_of(*SEVERAL, log=True, ipv6_prefix=64))


def test_knockd_takes_it():
    daemon = Knockd(text_of(*SEVERAL, log=True, ipv6_prefix=64))
    assert daemon.interface == "eth0"
    names = [each.name for each in daemon.sections]
    assert names[:4] == ["open ssh", "close ssh", "open web_2", "open six"]
    assert all(name.startswith("decoy ") for name in names[4:])
    assert len(set(names)) == len(names)


WHO_MAY = [
    ([], BOTH, True, True),
    ([], ("ipv4",), True, False),
    ([], ("ipv6",), False, True),
    (["192.0.2.0/24"], BOTH, True, False),
    (["2001:db8::/32"], BOTH, False, True),
    (["192.0.2.0/24", "2001:db8::/32"], BOTH, True, True),
]


@pytest.mark.parametrize(("sources", "families", "v4", "v6"), WHO_MAY)
def test_a_knock_over_a_family_that_has_no_list_does_nothing(sources, families, v4, v6):
    """Without a line of its own, knockd would take IPv4's command for IPv6."""
    spec = spec_of(dict(DOOR, sources=sources, close=["18311"]))
    found = sections_of(config_text(spec, families, "eth0", HERE))
    for name, sign in (("open ssh", "+"), ("close ssh", "-")):
        commands = found[name]["start_command"], found[name]["start_command_6"]
        assert commands == (
            "echo {0}%IP% > /proc/net/xt_recent/pk4_ssh".format(sign) if v4 else ":",
            "echo {0}%IP% > /proc/net/xt_recent/pk6_ssh".format(sign) if v6 else ":",
        )


NAMES = st.from_regex(r"\A[A-Za-z][A-Za-z0-9_]{0,15}\Z")
ADDRESSES = st.one_of(
    st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address), st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)
)


@given(name=NAMES, address=ADDRESSES, prefix=st.sampled_from([64, 100, 128]))
@example(name="options", address=ipaddress.ip_address("192.0.2.1"), prefix=128)
def test_the_shell_gets_no_surprise(name, address, prefix):
    door = dict(DOOR, name=name, close=["18311"])
    daemon = Knockd(text_of(door, ipv6_prefix=prefix))
    source = str(address)
    done = daemon.knock(spec_of(door).doors[0].knock, source) + daemon.knock([(18311, "tcp")], source)
    assert [section for section, _command in done] == ["open " + name, "close " + name]
    for sign, (_section, command) in zip("+-", done):
        what = re.escape(source)
        if address.version == 6 and prefix != 128:
            what = r"\$\(sh /etc/portknock/ipv6-prefix {0} {1}\)".format(prefix, what)
        wanted = r"echo {0}{1} > /proc/net/xt_recent/pk[46](\.\d+)?_{2}\Z".format(re.escape(sign), what, name)
        assert re.match(wanted, command)


@pytest.mark.parametrize("name", ["a;id", "$(id)", "a\nb", "a]", "a=b", "a b", "%IP%", "..", "a/b", "`id`", "a|b", "é"])
def test_no_door_has_a_name_that_means_something(name):
    with pytest.raises(SpecError, match="is not a valid name"):
        spec_of(dict(DOOR, name=name))


@pytest.mark.parametrize(
    ("source", "prefix", "written"),
    [
        ("192.0.2.7", 64, {"pk4_ssh": "+192.0.2.7\n"}),
        ("2001:db8:1:2:3:4:5:6", 128, {"pk6_ssh": "+2001:db8:1:2:3:4:5:6\n"}),
        ("2001:db8:1:2:3:4:5:6", 64, {"pk6.64_ssh": "+2001:db8:1:2:0:0:0:0\n"}),
    ],
)
def test_what_the_shell_does_with_it(source, prefix, written, tmp_path, monkeypatch):
    monkeypatch.setattr(_knockd, "RECENT_LISTS", str(tmp_path))
    (tmp_path / "ipv6-prefix").write_text(PREFIX_SCRIPT)
    spec = spec_of(ipv6_prefix=prefix)
    text = config_text(spec, BOTH, "eth0", str(tmp_path))
    for _section, command in Knockd(text).knock(spec.doors[0].knock, source):
        subprocess.check_call(["/bin/sh", "-c", command])
    found = {name: (tmp_path / name).read_text() for name in os.listdir(str(tmp_path)) if name != "ipv6-prefix"}
    assert len(found) == 1
    assert list(found.values()) == list(written.values())
    assert {name.split("_")[-1] for name in found} == {"ssh"}


def test_the_list_is_the_one_that_the_rules_ask():
    for prefix in (128, 64):
        spec = spec_of(*SEVERAL, ipv6_prefix=prefix)
        rules = [text for family in BOTH for chain in build_rules(spec, family).chains.values() for text in chain]
        asked = set(re.findall(r"--rcheck .*?--name (\S+)", "\n".join(rules)))
        text = config_text(spec, BOTH, "eth0", HERE)
        assert set(re.findall(r"xt_recent/(\S+)", text)) == asked
        assert "--set" not in "\n".join(rules)


@pytest.mark.parametrize(("count", "pause", "wanted"), [(1, 5, 1), (2, 5, 6), (3, 5, 11), (8, 1, 8), (2, 86400, 86401)])
def test_seq_timeout(count, pause, wanted):
    steps = [str(20000 - 500 * n + 9000 * (n % 2)) for n in range(count)]
    spec = spec_of(dict(DOOR, knock=steps, step_timeout=pause))
    assert seq_timeout(spec.doors[0], spec.doors[0].knock) == wanted
    text = config_text(spec, BOTH, "eth0", HERE)
    assert sections_of(text)["open ssh"]["seq_timeout"] == str(wanted)


def test_a_close_has_its_own_time():
    door = dict(DOOR, close=["18311", "17444"], step_timeout=3)
    found = sections_of(text_of(door))
    assert (found["open ssh"]["seq_timeout"], found["close ssh"]["seq_timeout"]) == ("7", "4")


@pytest.mark.parametrize(("more", "wanted"), [({}, True), ({"doors": []}, False), ({"doors": None}, False)])
def test_who_needs_knockd(more, wanted):
    assert is_needed(spec_from_options(dict({"doors": [DOOR], "engine": "knockd"}, **more))) is wanted
    assert is_needed(None) is False


@pytest.mark.parametrize(
    ("said", "old"),
    [
        ("knockd 0.8\nCopyright (C) 2004-2012 Judd Vinet\n", False),
        ("knockd 0.7\nCopyright\n", True),
        ("knockd 0.7.8\n", True),
        ("knockd 0.10\n", False),
        ("knockd 1.0\n", False),
        ("", False),
        ("usage: knockd [options]\n", False),
    ],
)
def test_versions(said, old):
    assert is_too_old(said) is old


# Read back


def test_what_is_read_back():
    text = text_of(*SEVERAL)
    assert interface_of(text) == "eth0"
    assert steps_of(text) == {"ssh": 3, "web_2": 1, "six": 2}
    assert re.match(r"[0-9a-f]{16}\Z", config_id(text))
    assert not is_edited(text)
    assert (config_id(""), interface_of(""), steps_of("")) == ("", "", {})


EDITS = [
    lambda text: text.replace("eth0", "eth1"),
    lambda text: text.replace("seq_timeout = 7", "seq_timeout = 700"),
    lambda text: text + "\n",
    lambda text: text[:-1],
    lambda text: text + "[more]\nsequence = 1:tcp\n",
    lambda text: re.sub("id [0-9a-f]{16}", "id 0123456789abcdef", text),
    lambda text: text.partition("\n")[2],
    lambda _text: "[options]\nUseSyslog\n",
]


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_shows(edit):
    text = text_of(*SEVERAL)
    assert edit(text) != text
    assert is_edited(edit(text))


def test_another_spec_has_another_id():
    texts = {text_of(*doors, **more) for doors, more in [
        (SEVERAL, {}), ([DOOR], {}), ([DOOR], {"log": True}), ([dict(DOOR, step_timeout=6)], {}), ([DOOR], {"ipv6_prefix": 64}),
    ]}  # fmt: skip
    assert len({config_id(text) for text in texts}) == 5


# Doors that hypothesis makes up

PORTS = st.one_of(
    st.integers(1, 65535),
    st.integers(7000, 7040),
    st.integers(1, 8),
    st.integers(65500, 65535),
    st.integers(1020, 1030),
)
STEPS = st.builds("{0}/{1}".format, PORTS, st.sampled_from(["tcp", "tcp", "udp"]))


@st.composite
def specs(draw, least=1):
    """A Spec with knocks of ``least`` steps or more."""
    doors = []
    for name in "abc"[: draw(st.integers(1, 3))]:
        opens = draw(st.sampled_from([["22"], ["22/udp"], ["7001-7030"], ["1024-60000"], ["2-6"], ["65000-65535"]]))
        close = draw(st.one_of(st.just([]), st.lists(STEPS, min_size=1, max_size=3)))
        knock = draw(st.lists(STEPS, min_size=least, max_size=4))
        doors.append(dict(name=name, knock=knock, opens=opens, close=close, step_timeout=draw(st.integers(1, 5))))
    try:
        return spec_from_options({"doors": doors, "engine": "knockd"})
    except SpecError:
        assume(False)


def config_of(spec):
    return config_text(spec, BOTH, "eth0", HERE)


def ports_used(spec):
    """Return (port, protocol) of what the doors open, and of the steps."""
    opened = {
        (port, each.protocol) for door in spec.doors for each in door.opens for port in range(each.first, each.last + 1)
    }
    steps = {tuple(step) for door in spec.doors for step in door.knock + door.close}
    return opened, steps


@pytest.mark.slow
@given(spec=specs())
def test_traps_are_nobodys_ports(spec):
    opened, steps = ports_used(spec)
    for protocol in {protocol for _port, protocol in steps}:
        traps = decoy_ports(spec, protocol)
        assert len(set(traps)) == len(traps)
        assert all(0 < port < 65536 for port in traps)
        assert not (opened | steps) & {(port, protocol) for port in traps}
        assert traps == decoy_ports(spec, protocol)


def test_there_are_as_many_as_is_said():
    for protocol, low, high in (("tcp", 1024, 65535), ("udp", 1024, 32767)):
        traps = decoy_ports(spec_of(), protocol)[:DECOYS]
        assert all(low <= port <= high for port in traps)
        # All over the range, and not in a corner of it.
        assert len({(port - low) * 8 // (high - low + 1) for port in traps}) == 8


def test_a_scan_of_popular_ports_alone_steps_on_traps():
    """In any order: between most two of nmap's hundred there is one."""
    few = {7, 26, 79, 81, 113, 199, 514, 554, 1433, 1720, 5000, 8008, 49152}
    assert few <= set(decoy_ports(spec_of(), "tcp"))
    assert 1433 not in decoy_ports(spec_of(dict(DOOR, opens=["1433"])), "tcp")
    assert 1433 not in decoy_ports(spec_of(dict(DOOR, knock=["17005", "1433", "18300"])), "tcp")


def test_allowed_ports_are_no_traps():
    wide = [{"port": "1024-40000"}, {"port": "1024-32000/udp"}]
    spec = spec_of(dict(DOOR, knock=["50000", "64000/udp", "45000"]), allow=wide)
    assert not [port for port in decoy_ports(spec, "tcp") if 1024 <= port <= 40000]
    assert all(port > 32000 for port in decoy_ports(spec, "udp"))


def test_traps_stay_where_they_are():
    """Whatever else is changed: a knock that was told to people keeps its surroundings."""
    one, other = spec_of(), spec_of(log=True, ipv6_prefix=64, trusted_sources=["192.0.2.0/24"])
    assert decoy_ports(one, "tcp") == decoy_ports(other, "tcp")
    assert decoy_ports(one, "tcp") != decoy_ports(spec_of(dict(DOOR, knock=["17006", "19100/udp", "18300"])), "tcp")


@pytest.mark.slow
@given(spec=specs(2))
def test_between_and_around_two_steps_is_a_trap_where_there_is_room(spec):
    opened, steps = ports_used(spec)
    for door in spec.doors:
        for one, other in zip(door.knock, door.knock[1:]):
            low, high = sorted((one.port, other.port))
            for protocol in sorted({one.protocol, other.protocol}):
                between, around = set(range(low + 1, high)), set(range(1, low)) | set(range(high + 1, 65536))
                taken = {port for port, each in opened | steps if each == protocol}
                traps = set(decoy_ports(spec, protocol))
                assert bool(between - taken) == bool(between & traps)
                assert bool(around - taken) == bool(around & traps)


def test_no_room_for_traps_ends():
    """There is none at all over UDP, and over TCP only below what is open."""
    door = dict(DOOR, knock=["512", "1023", "5"], opens=["1024-65535"])
    spec = spec_of(door, {"name": "one", "knock": ["1/udp"], "opens": ["2-65535/udp"]})
    assert decoy_ports(spec, "udp") == ()
    assert all(port < 1023 for port in decoy_ports(spec, "tcp"))


def test_the_only_port_between_may_be_a_step_over_another_protocol():
    other = {"name": "other", "knock": ["7001/udp", "900"], "opens": ["80"]}
    assert 7001 in decoy_ports(spec_of(dict(DOOR, knock=["7000", "7002"]), other), "tcp")


def test_a_thousand_doors():
    doors = [dict(name="d{0}".format(n), knock=[str(5000 + n), str(40000 - 7 * n), str(20000 + 3 * n)], opens=[str(50000 + n)])
             for n in range(1000)]  # fmt: skip
    text = text_of(*doors)
    assert len(steps_of(text)) == 1000
    assert max(len(line) for line in text.splitlines()) < 4096, "knockd reads lines of PATH_MAX"


# What it does


def scans(protocols, down):
    """Return the ports of a scan of all ports in the order of the scan, of several protocols at once or after each other."""
    ports = range(65535, 0, -1) if down else range(1, 65536)
    yield [(port, protocol) for port in ports for protocol in protocols]
    if len(protocols) > 1:
        yield [(port, protocol) for protocol in protocols for port in ports]


SCANS = [
    (protocols, down, order)
    for protocols in (("tcp",), ("udp",), ("tcp", "udp"))
    for down in (False, True)
    for order in range(len(protocols))
]


def scan(daemon, protocols, down, order, rate):
    """Scan twice in a row; return the doors that opened. What knockd does not see costs time alone."""
    done, packets = [], 65535 * len(protocols)
    visible = sorted(daemon.ports & {(port, each) for port, each in daemon.ports if each in protocols}, reverse=down)
    if order:
        visible.sort(key=lambda step: protocols.index(step[1]))
    for turn in range(2):
        for port, protocol in visible:
            place = 65535 - port if down else port - 1
            place = place + 65535 * protocols.index(protocol) if order else place * len(protocols)
            done += daemon.packet(port, protocol, now=(turn * packets + place) / rate)
    return {section for section, _command in done if section.startswith("open ")}


@pytest.mark.slow
@example(spec=spec_of(dict(DOOR, knock=["1931", "32749/udp"])), rate=1e9)
@example(spec=spec_of(dict(DOOR, knock=["1", "65207"])), rate=1e9)
@given(spec=specs(2), rate=st.sampled_from([1e9, 1e5, 1e4, 1e3, 100.0]))
def test_no_scan_opens_a_door(spec, rate):
    text = config_of(spec)
    for protocols, down, order in SCANS:
        assert not scan(Knockd(text), protocols, down, order, rate), (protocols, down, order)


def test_without_traps_a_scan_would():
    """The test above can fail."""
    text = text_of(dict(DOOR, knock=["7100", "7200", "7300"]))
    without = text.partition("\n[decoy ")[0]
    assert scan(Knockd(without), ("tcp",), False, 0, 1e5) == {"open ssh"}
    assert scan(Knockd(text), ("tcp",), False, 0, 1e5) == set()


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "chance"), [(2, DECOYS + 2), (3, (DECOYS + 1) * (DECOYS + 2))])
def test_scans_in_random_order_open_next_to_never(steps, chance):
    daemon = Knockd(text_of(dict(DOOR, knock=["17005", "9100", "38300"][:steps])))
    order, tries, opened = random.Random(5), 6000, 0
    visible = sorted(step for step in daemon.ports if step[1] == "tcp")
    for turn in range(tries):
        order.shuffle(visible)
        daemon.attempts = []
        opened += any(daemon.packet(port, protocol, now=turn * 100.0) for port, protocol in visible)
    assert opened <= 2 * tries / chance + 2
    assert opened > 0 or steps > 2


@pytest.mark.slow
@given(spec=specs(), begun=st.floats(0, 5), share=st.floats(0, 1), door=st.integers(0, 2))
def test_a_knock_opens_its_door_and_no_other(spec, begun, share, door):
    door = spec.doors[door % len(spec.doors)]
    daemon = Knockd(config_of(spec))
    # Any pause that is allowed, wherever in the second it begins.
    done = daemon.knock(door.knock, now=begun, pause=share * door.step_timeout)
    assert [section for section, _command in done if section.startswith("open ")][:1] == ["open " + door.name]
    single = {"open " + each.name for each in spec.doors if len(each.knock) == 1}
    assert {section for section, _command in done if section.startswith("open ")} <= single | {"open " + door.name}


@pytest.mark.slow
@given(spec=specs(2), data=st.data())
def test_a_broken_attempt_costs_as_many_knocks_as_the_client_has_left(spec, data):
    """Whatever packets came before: the first knock, or one of the four after it that the client sends then, gets in."""
    daemon = Knockd(config_of(spec))
    for port, protocol in data.draw(st.lists(st.sampled_from(sorted(daemon.ports)), max_size=12)):
        daemon.packet(port, protocol)
    door = data.draw(st.sampled_from(spec.doors))
    for turn in range(5):
        done = daemon.knock(steps_of_turn(door.knock, turn, "knockd"))
        if "open " + door.name in [section for section, _command in done]:
            return
    raise AssertionError("shut after five knocks")


def test_a_knock_too_slow_for_the_kernel_may_be_quick_enough_for_knockd():
    """As the finding says: one time for the whole knock."""
    steps = spec_of().doors[0].knock
    assert Knockd(text_of()).packet(*steps[0]) == []
    for pauses, opens in (((9, 1), True), ((1, 9), True), ((5, 5), True), ((6, 6), False), ((0, 11), False)):
        daemon, now, done = Knockd(text_of()), 0.0, []
        for step, pause in zip(steps, pauses + (0,)):
            done = daemon.packet(step.port, step.protocol, now=now)
            now += pause
        assert bool(done) is opens


STRANGE = [
    ("the end of a connection", frozenset(["FIN", "ACK"])),
    ("a packet of a connection", frozenset(["ACK"])),
    ("an answer", frozenset(["SYN", "ACK"])),
    ("a reset", frozenset(["RST"])),
]


@pytest.mark.parametrize("flags", [item[1] for item in STRANGE], ids=[item[0] for item in STRANGE])
def test_packets_that_begin_nothing_are_no_steps_and_break_nothing(flags):
    steps, daemon = spec_of().doors[0].knock, Knockd(text_of())
    assert daemon.packet(*steps[0]) == []
    assert daemon.packet(steps[2].port, "tcp", flags=flags) == []
    assert daemon.packet(*steps[1]) == []
    assert daemon.packet(*steps[2]) == [("open ssh", "echo +192.0.2.7 > /proc/net/xt_recent/pk4_ssh")]
    shut = Knockd(text_of())
    assert [shut.packet(port, protocol, flags=flags) for port, protocol in steps if protocol == "tcp"] == [[], []]
    assert shut.attempts == []


def test_two_sources_do_not_open_for_each_other():
    daemon, (one, two, three) = Knockd(text_of()), spec_of().doors[0].knock
    for source, step in (("192.0.2.1", one), ("192.0.2.2", two), ("192.0.2.1", two), ("192.0.2.2", three)):
        assert daemon.packet(step.port, step.protocol, source) == []
    assert daemon.packet(three.port, three.protocol, "192.0.2.1") == [
        ("open ssh", "echo +192.0.2.1 > /proc/net/xt_recent/pk4_ssh")
    ]


def test_another_source_that_ends_may_cost_a_knock_and_the_next_one_opens():
    """knockd forgets every attempt when the oldest one ends. Nobody is let in by that."""
    daemon, steps = Knockd(text_of()), spec_of().doors[0].knock
    daemon.packet(*steps[0], source="192.0.2.1")
    daemon.packet(*steps[0], source="192.0.2.2")
    assert daemon.knock(steps[1:], "192.0.2.1")
    assert daemon.knock(steps[1:], "192.0.2.2") == []
    assert daemon.knock(steps, "192.0.2.2")


def test_doors_that_begin_alike_are_refused():
    """Both would be followed, and with the first that breaks knockd forgets the other."""
    doors = [dict(DOOR, name="a", knock=["7005", "9100"]), dict(DOOR, name="b", knock=["7005", "3000", "9300"])]
    spec = spec_from_options({"doors": doors})
    assert Knockd(config_of(spec)).knock(spec.doors[1].knock) == [], "else nothing would have to be refused"
    with pytest.raises(
        SpecError, match=r"doors\[1\].knock\[0\]: is also the first step of doors\[0\].knock"
    ) as refusal:
        spec_of(*doors)
    assert "7005" not in str(refusal.value)
    with pytest.raises(SpecError, match=r"doors\[0\].close\[0\]: is also the first step"):
        spec_of(dict(DOOR, close=["17005", "3000"]))
    spec_of(dict(doors[0], knock=["7005/udp", "9100"]), doors[1])


# What is shown


@pytest.mark.slow
@given(spec=specs(), log=st.booleans())
def test_no_step_in_what_is_shown(spec, log):
    spec = spec._replace(log=log)
    text = config_of(spec)
    shown = readable_config(text)
    _opened, steps = ports_used(spec)
    numbers = set(re.findall(r"\d{2,}", shown))
    assert not {str(port) for port, _protocol in steps if port > 99} & numbers
    assert not {str(port) for port, _protocol in Knockd(text).ports if port > 99} & numbers, "decoys tell of steps"
    assert "sequence = " in shown
    assert not re.search(r"sequence = .*\d", shown)
    # Neither what the steps could be tried against.
    assert config_id(text) not in shown


# Which interface

HEAD = ROUTE.splitlines()[0] + "\n"


def route(interface, destination="00000000", flags="0003", metric=0, mask="00000000"):
    return "\t".join([interface, destination, "010200C0", flags, "0", "0", str(metric), mask, "0", "0", "0"]) + "\n"


def route6(interface, destination="0" * 32, bits="00", flags=0x3, metric=1024):
    words = [destination, bits, "0" * 32, "00", "fe80" + "0" * 24 + "fffe", "{0:08x}".format(metric)]
    return " ".join(words + ["00000001", "00000000", "{0:08x}".format(flags), interface.rjust(8)]) + "\n"


NONE6 = route6("lo", flags=0x200200, metric=0xFFFFFFFF)
DEFAULT_ROUTES = [
    ("as on a plain host", ROUTE, ROUTE6, {"ipv4": "eth0", "ipv6": "eth0"}),
    ("none at all", "", "", {}),
    ("no route of the kind", HEAD + route("eth0", "000200C0", mask="00FFFFFF"), NONE6, {}),
    ("the kernel's own reject route", HEAD, NONE6, {}),
    ("unreachable by hand", HEAD, route6("eth0", flags=0x200), {}),
    ("unreachable, and a real one", HEAD, NONE6 + route6("eth1"), {"ipv6": "eth1"}),
    ("two, by their metric", HEAD + route("wlan0", metric=600) + route("eth0", metric=100), "", {"ipv4": "eth0"}),
    ("two of IPv6", "", route6("wlan0", metric=600) + route6("eth0", metric=100), {"ipv6": "eth0"}),
    ("a VPN's two halves are no default", HEAD + route("tun0", mask="00000080") + route("eth0"), "", {"ipv4": "eth0"}),
    ("one that is down", HEAD + route("eth1", flags="0002") + route("eth0", metric=5), "", {"ipv4": "eth0"}),
    ("reject route of IPv4", HEAD + route("*", flags="0200"), "", {}),
    ("a network", "", route6("eth0", destination="2001" + "0" * 28, bits="20"), {}),
    ("different ones", HEAD + route("eth0"), route6("eth1"), {"ipv4": "eth0", "ipv6": "eth1"}),
    ("cut short", "Iface\n\neth0\t0000\n", "0000 00\n\n", {}),
]


@pytest.mark.parametrize(
    ("v4", "v6", "wanted"), [item[1:] for item in DEFAULT_ROUTES], ids=[item[0] for item in DEFAULT_ROUTES]
)
def test_default_interfaces(v4, v6, wanted):
    assert default_interfaces(v4, v6) == wanted


def test_default_interfaces_of_this_machine():
    """As the kernel of whoever runs this writes them."""
    texts = []
    for path in ("/proc/net/route", "/proc/net/ipv6_route"):
        texts.append(open(path).read() if os.path.exists(path) else "")  # noqa: SIM115
    found = default_interfaces(*texts)
    assert set(found) <= set(BOTH)
    assert set(found.values()) <= set(os.listdir("/sys/class/net"))


KNOWN = ["eth0", "eth1", "lo"]
CHOICES = [
    ("", {"ipv4": "eth0", "ipv6": "eth0"}, BOTH, "eth0"),
    ("", {"ipv4": "eth0"}, BOTH, "eth0"),
    ("", {"ipv6": "eth1"}, BOTH, "eth1"),
    ("", {"ipv4": "eth0", "ipv6": "eth1"}, ("ipv6",), "eth1"),
    ("eth1", {"ipv4": "eth0", "ipv6": "eth0"}, BOTH, "eth1"),
    ("eth1", {}, BOTH, "eth1"),
    ("lo", {}, BOTH, "lo"),
]


@pytest.mark.parametrize(("wanted", "defaults", "families", "chosen"), CHOICES)
def test_choose_interface(wanted, defaults, families, chosen):
    assert choose_interface(wanted, KNOWN, defaults, families) == chosen


NOT_CHOSEN = [
    ("eth9", {"ipv4": "eth0"}, r"this host has no interface eth9\. It has eth0, eth1\."),
    ("", {"ipv4": "eth0", "ipv6": "eth1"}, r"different interfaces \(eth0, eth1\), and knockd listens on one\. Name"),
    ("", {}, r"no default route to tell the interface by\. Name the one that knocks come in by: eth0, eth1\."),
]


@pytest.mark.parametrize(("wanted", "defaults", "message"), NOT_CHOSEN)
def test_choose_interface_refuses(wanted, defaults, message):
    with pytest.raises(SpecError, match="^knockd_interface: .*" + message):
        choose_interface(wanted, KNOWN, defaults, BOTH)


INTERFACES = st.from_regex(r"\A[A-Za-z0-9_.:@-]{1,15}\Z")


@given(name=INTERFACES)
@example(name="-")
@example(name="--")
@example(name="eth0.100")
def test_no_interface_breaks_the_configuration(name):
    spec = spec_of(knockd_interface=name)
    text = config_text(spec, BOTH, spec.knockd_interface, HERE)
    assert Knockd(text).interface == name
    assert interface_of(text) == name
    assert not is_edited(text)


# Findings


@pytest.mark.parametrize(
    ("kind", "families", "deaf"),
    [("1\n", BOTH, False), ("772\n", BOTH, False), ("512\n", BOTH, True), ("65534\n", BOTH, True), ("512\n", ("ipv4",), False),
     ("", BOTH, True)],
)  # fmt: skip
def test_an_interface_on_which_knockd_sees_no_ipv6(kind, families, deaf):
    found = [each for each in findings(spec_of(), families, "ppp0", kind) if each.ip_version == "ipv6"]
    assert bool(found) is deaf
    assert all("ppp0 is no Ethernet interface" in each.message and each.kind == "knockd" for each in found)


def test_the_time_that_counts_is_told():
    spec = spec_of(*SEVERAL)
    (found,) = findings(spec, BOTH, "eth0", "1\n")
    assert "(ssh: 7 s for 3 steps; six: 6 s for 2 steps)" in found.message
    assert findings(spec_of(dict(DOOR, knock=["17005"])), BOTH, "eth0", "1\n") == []


@pytest.mark.slow
@given(spec=specs())
def test_no_step_in_a_finding(spec):
    numbers = set(re.findall(r"\d{3,}", repr(findings(spec, BOTH, "eth0", "512"))))
    assert not {str(port) for port, _protocol in ports_used(spec)[1]} & numbers


# Units


def test_nothing_of_the_package_counts():
    text = drop_in_text("/usr/sbin/knockd", "/etc/portknock/knockd.conf", "/usr/local/sbin/portknock-addresses")
    lines = text.splitlines()
    starts = [line for line in lines if line.startswith("ExecStart=")]
    assert starts == ["ExecStart=", "ExecStart=/usr/sbin/knockd -c /etc/portknock/knockd.conf $PORTKNOCK_INTERFACE"]
    assert lines.index("ExecStartPre=") < lines.index("ExecStartPre=/bin/sh /usr/local/sbin/portknock-addresses note")
    assert not re.search(r"KNOCKD|/etc/knockd\.conf|/etc/default|/etc/sysconfig", text)
    assert [line for line in lines if "EnvironmentFile" in line] == ["EnvironmentFile=-/run/portknock-knockd/interface"]
    assert {"Type=simple", "Restart=always", "NoNewPrivileges=yes", "StartLimitIntervalSec=0"} <= set(lines)
    assert lines.index("CapabilityBoundingSet=") < lines.index("CapabilityBoundingSet=CAP_NET_RAW")


def test_unconfirmed_nothing_watches_the_addresses():
    text = drop_in_text("/usr/sbin/knockd", "/run/portknock/knockd.conf", "")
    assert "portknock-addresses" not in text
    assert "ExecStartPre=\n" in text


def test_every_line_of_a_unit_is_one():
    texts = [drop_in_text("/usr/sbin/knockd", "/x", noted) for noted in ("", "/y")] + [ADDRESSES_UNIT.format("/y")]
    for text in texts:
        assert all(re.match(r"#|\[[A-Z][a-z]+\]$|[A-Z][A-Za-z]+=|$", line) for line in text.splitlines()), text
        assert text.endswith("\n")
        assert "{" not in text


# Scripts

SHELLS = ["sh", "bash"]


@pytest.fixture(params=["addresses", "prefix"])
def script(request, tmp_path):
    path = tmp_path / request.param
    path.write_text({"addresses": ADDRESSES_SCRIPT, "prefix": PREFIX_SCRIPT}[request.param])
    return str(path)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_parses(script, shell):
    subprocess.check_call([shell, "-n", script])


def test_a_script_passes_shellcheck(script):
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck on this machine")
    subprocess.check_call(["shellcheck", "--shell=sh", script])


@pytest.fixture(scope="module")
def prefix_script(tmp_path_factory):
    path = tmp_path_factory.mktemp("prefix") / "ipv6-prefix"
    path.write_text(PREFIX_SCRIPT)
    return str(path)


def network_of(shell, path, bits, address):
    return subprocess.check_output([shell, path, str(bits), address], universal_newlines=True)


GROUPS = st.lists(st.sampled_from([0, 0, 0, 1, 0xFF, 0x8000, 0xFFFF, 0xABCD]), min_size=8, max_size=8)


@pytest.mark.slow
@given(groups=GROUPS, bits=st.integers(64, 128), shell=st.sampled_from(SHELLS))
def test_the_network_of_an_address(prefix_script, groups, bits, shell):
    text = ":".join("{0:x}".format(group) for group in groups)
    address = ipaddress.IPv6Address(text)
    wanted = ipaddress.ip_network("{0}/{1}".format(address, bits), strict=False).network_address
    # As inet_ntop(3) writes it, with '::', and without.
    for written in (str(address), text):
        said = network_of(shell, prefix_script, bits, written)
        assert said.count("\n") == 1
        assert ipaddress.IPv6Address(said.strip()) == wanted


@pytest.mark.parametrize("address", ["::", "::1", "1::", "fe80::1", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1::8"])
@pytest.mark.parametrize("shell", SHELLS)
def test_the_network_of_a_short_address(prefix_script, shell, address):
    for bits in range(64, 129):
        wanted = ipaddress.ip_network("{0}/{1}".format(address, bits), strict=False).network_address
        assert ipaddress.IPv6Address(network_of(shell, prefix_script, bits, address).strip()) == wanted


IP = """#!/bin/sh
case "$*" in
"-o address show dev eth0") cat "$SHOWN" ;;
"-o address show dev ens3") echo "3: ens3    inet 192.0.2.3/24 scope global ens3" ;;
"-o monitor address") cat "$CHANGES" ;;
"-4 -o route show default") cat "$ROUTES" ;;
"-6 -o route show default") ;;
*) exit 1 ;;
esac
"""
SHOWN = (
    "2: eth0    inet 192.0.2.1/24 brd 192.0.2.255 scope global dynamic eth0\\       valid_lft 80000sec preferred_lft 80000sec\n"
    "2: eth0    inet6 2001:db8::1/64 scope global \\       valid_lft forever preferred_lft forever\n"
)
PLACES = {
    "/etc/portknock/knockd.conf": "knockd.conf",
    "/run/portknock-knockd/addresses": "noted",
    "/run/portknock-knockd/interface": "option",
    "/sys/class/net": "net",
}
SECOND = "sleep 1 "


class Watched:
    """The script that looks after addresses, on a host whose ip, systemctl and interfaces are ours."""

    def __init__(self, directory):
        self.directory = directory
        for name, text in (
            ("shown", SHOWN),
            ("changes", ""),
            ("asked", ""),
            ("routes", ""),
            ("knockd.conf", text_of()),
        ):
            self.write(name, text)
        self._program("ip", IP)
        self._program("systemctl", '#!/bin/sh\necho "$*" >> "$ASKED"\n')
        (directory / "net" / "eth0").mkdir(parents=True)
        text = ADDRESSES_SCRIPT.replace("PATH=", "PATH={0}:".format(directory), 1)
        for path, name in PLACES.items():
            assert path in text
            text = text.replace(path, str(directory / name))
        assert SECOND in text
        self.write("script", text.replace(SECOND, "sleep 0.05 "))

    def write(self, name, text):
        (self.directory / name).write_text(text)

    def read(self, name):
        return (self.directory / name).read_text()

    def _program(self, name, text):
        self.write(name, text)
        (self.directory / name).chmod(0o755)

    def run(self, word):
        names = {name.upper(): str(self.directory / name) for name in ("shown", "changes", "asked", "routes")}
        words = ["/bin/sh", str(self.directory / "script"), word]
        subprocess.run(words, env=dict(os.environ, **names), check=True, timeout=200)

    def restarts(self):
        return self.read("asked").splitlines()


@pytest.fixture
def watched(tmp_path):
    return Watched(tmp_path)


def test_addresses_are_noted(watched):
    watched.run("note")
    assert watched.read("noted") == "eth0\ninet 192.0.2.1/24\ninet6 2001:db8::1/64\n"
    assert watched.read("option") == ""


def test_where_the_interface_is_gone_it_is_that_of_the_default_route(watched):
    (watched.directory / "net" / "eth0").rename(watched.directory / "net" / "ens3")
    watched.write("routes", "default via 192.0.2.254 dev ens3 proto dhcp src 192.0.2.3 metric 100 \n")
    watched.run("note")
    assert watched.read("noted") == "ens3\ninet 192.0.2.3/24\n"
    assert watched.read("option") == "PORTKNOCK_INTERFACE=-i ens3\n"
    watched.run("watch")
    assert watched.restarts() == []
    (watched.directory / "net" / "ens3").rename(watched.directory / "net" / "eth0")
    watched.run("watch")
    assert watched.restarts() == [RESTART], "it came back"


def test_without_any_interface_it_starts_all_the_same(watched):
    (watched.directory / "net" / "eth0").rmdir()
    watched.run("note")
    assert watched.read("option") == ""


RESTART = "--no-block try-restart knockd.service"


@pytest.mark.parametrize(
    ("now", "restarts"),
    [
        (SHOWN, []),
        (SHOWN.replace("80000sec", "79999sec"), []),
        ("".join(reversed(SHOWN.splitlines(True))), []),
        (SHOWN.replace("192.0.2.1/24", "192.0.2.2/24"), [RESTART]),
        (SHOWN.splitlines(True)[0], [RESTART]),
        (SHOWN + "2: eth0    inet 192.0.2.9/32 scope global eth0\n", [RESTART]),
        ("", [RESTART]),
    ],
)
def test_knockd_is_restarted_when_they_differ(watched, now, restarts):
    """The look a second after the watch began is enough for that; then the monitor, which here is at its end."""
    watched.run("note")
    watched.write("shown", now)
    watched.run("watch")
    assert watched.restarts() == restarts


def test_every_change_is_looked_at(watched):
    watched.run("note")
    watched.write("shown", SHOWN.replace("192.0.2.1", "192.0.2.2"))
    watched.write("changes", "2: eth0    inet 192.0.2.2/24 scope global eth0\nDeleted 2: eth0    inet 192.0.2.1/24\n")
    watched.run("watch")
    assert watched.restarts() == [RESTART] * 3


def test_a_knockd_whose_addresses_nobody_noted_is_left_alone(watched):
    watched.run("watch")
    assert watched.restarts() == []


@pytest.mark.parametrize("line", ["sequence = 7000,8000", "\tSequence=7000,8000", "  SEQUENCE\t=  7000:tcp,8000:udp"])
def test_no_spelling_of_a_sequence_is_shown(line):
    """Somebody who edited the file may have written it as knockd's own manual does."""
    shown = readable_config("[open ssh]\n" + line + "\nseq_timeout = 5\n")
    assert "000" not in shown and shown.endswith("****\nseq_timeout = 5\n")
