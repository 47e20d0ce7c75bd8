# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wanted behaviour of knocks, as flows of packets through rulesets that the core made."""

import itertools

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from flows import Host
from hypothesis import assume, given
from hypothesis import strategies as st
from walker import Packet

FAMILIES = ("ipv4", "ipv6")
LONG = ["50000", "3000", "41000/udp", "900", "33000", "2100/udp", "60000", "700"]


def door(knock, **more):
    return dict({"name": "ssh", "knock": knock.split() if isinstance(knock, str) else knock, "opens": ["22"]}, **more)


def doors(*items, **more):
    return dict({"doors": list(items)}, **more)


ONE = doors(door("1000"))
THREE = doors(door("7005 9100 8300"))
MIXED = doors(door("7005 9100/udp 8300"))
TWO_DOORS = doors(door("7005 9100 8300"), {"name": "web", "knock": ["6000", "4000"], "opens": ["8443"]})
CLOSES = doors(door("7005 9100", close=["5000", "4000"]))
CLOSES_ONE = doors(door("7005 9100", close=["5000"]))

FLOWS = [
    ("closed", ONE, "shut:22 shut:22/udp shut:1000 shut:80"),
    ("one step", ONE, "shut:22 1000 open:22 open:22 +15 open:22 +0.1 shut:22"),
    ("one step: the knock port stays shut", ONE, "shut:1000 shut:1000 1000 shut:1000"),
    ("one step: only the source that knocked", ONE, "1000 shut|you:22 open:22"),
    ("one step: wrong ports do not matter", ONE, "1000 999 1001 80 open:22"),
    ("one step: over UDP it is none", ONE, "1000/udp shut:22"),
    ("one step: the window runs from the last knock", ONE, "1000 +10 1000 +10 open:22"),
    ("one step: using it does not extend it", ONE, "1000 +10 open:22 +10 shut:22"),
    ("window", doors(door("1000", window=60)), "1000 +60 open:22 +0.1 shut:22"),
    ("UDP step", doors(door("1000/udp")), "1000 shut:22 1000/udp open:22"),
    ("right order", THREE, "7005 shut:22 9100 shut:22 8300 open:22"),
    ("reversed", THREE, "8300 9100 7005 shut:22"),
    ("swapped", THREE, "7005 8300 9100 shut:22"),
    ("one missing", THREE, "7005 8300 shut:22 +20 9100 8300 shut:22 +20 7005 9100 shut:22"),
    ("each step twice", THREE, "7005 7005 9100 9100 8300 8300 open:22"),
    ("each step four times with pauses", THREE, "7005 +1 7005 +1 9100 +2 9100 +1 9100 +2 8300 +1 8300 open:22"),
    ("a late repeat of an older step", THREE, "7005 9100 7005 8300 open:22"),
    ("a late repeat of the last step", THREE, "7005 9100 8300 +10 8300 +6 shut:22"),
    ("wrong port between", THREE, "7005 9100 7006 8300 shut:22"),
    ("wrong port between, then right from the start", THREE, "7005 80 7005 9100 8300 open:22"),
    ("wrong port, then the rest", THREE, "7005 9100 80 8300 9100 8300 shut:22"),
    ("a restart does not revive what a wrong port ended", THREE, "7005 9100 80 7005 8300 shut:22"),
    ("wrong port after opening", THREE, "7005 9100 8300 80 open:22"),
    ("a wrong port over a protocol that no knock uses", THREE, "7005 9100 53/udp 8300 open:22"),
    ("right port over the wrong protocol", THREE, "7005 9100/udp 9100 8300 shut:22"),
    ("last step over the wrong protocol", THREE, "7005 9100 8300/udp 8300 shut:22"),
    ("early try", THREE, "7005 shut:22 9100 shut:22 8300 open:22"),
    ("too slow", THREE, "7005 +5.1 9100 8300 shut:22"),
    ("too slow at the end", THREE, "7005 9100 +5.1 8300 shut:22"),
    ("just in time", THREE, "7005 +5 9100 +5 8300 +15 open:22 +0.1 shut:22"),
    ("step_timeout", doors(door("7005 9100 8300", step_timeout=60)), "7005 +59 9100 +59 8300 open:22"),
    ("broken off and restarted", THREE, "7005 9100 +20 7005 9100 8300 open:22"),
    ("another source is another knock", THREE, "7005 you:9100 9100 you:8300 8300 open:22 shut|you:22"),
    ("another source's wrong port", THREE, "7005 you:80 9100 you:81 8300 open:22"),
    ("TCP and UDP", MIXED, "7005 9100/udp 8300 open:22"),
    ("TCP and UDP, a wrong port of each", MIXED, "7005 1/udp 9100/udp 8300 shut:22 7005 9100/udp 1 8300 shut:22"),
    ("TCP and UDP, all TCP", MIXED, "7005 9100 8300 shut:22"),
    ("interleaved doors", TWO_DOORS, "7005 6000 9100 4000 8300 open:22 open:8443"),
    ("a door opens only itself", TWO_DOORS, "7005 9100 8300 open:22 shut:8443 +20 6000 4000 open:8443 shut:22"),
    ("an early try at the other door", TWO_DOORS, "7005 shut:8443 9100 shut:8443 8300 open:22"),
    ("an allowed port never counts", dict(THREE, allow=[{"port": 443}]), "7005 open:443 9100 open:443 8300 open:22"),
    ("close", CLOSES, "7005 9100 open:22 5000 open:22 4000 shut:22 7005 9100 open:22"),
    ("close over a wrong port", CLOSES, "7005 9100 5000 80 4000 open:22"),
    ("close is the source's own", CLOSES, "7005 9100 you:5000 you:4000 open:22"),
    ("close in one step", CLOSES_ONE, "7005 9100 open:22 5000 shut:22"),
    ("close before open", CLOSES, "5000 4000 shut:22 7005 9100 open:22"),
    ("once", doors(door("7005 9100", once=True)), "7005 9100 open:22 shut:22 7005 9100 open:22 shut:22"),
    ("once, UDP", doors(door("7005 9100", once=True, opens=["51820/udp"])), "7005 9100 open:51820/udp shut:51820/udp"),
    ("a knock not used in time is no second one", doors(door("7005 9100", once=True)), "7005 9100 +16 shut:22"),
    ("range", doors(door("7005 9100", opens=["22", "5900-5910", "53/udp"])),
     "shut:5905 7005 9100 open:5900 open:5910 shut:5911 shut:5899 open:53/udp shut:53 shut:5905/udp"),
    ("two doors to one port", doors(door("7005 9100"), {"name": "b", "knock": ["6000", "4000"], "opens": ["22"]}),
     "shut:22 6000 4000 open:22 +20 shut:22 7005 9100 open:22"),
    ("policy accept", dict(THREE, policy="accept"), "open:80 open:53/udp shut:22 7005 9100 8300 open:22 open:8300"),
    ("policy accept: a wrong port still counts", dict(THREE, policy="accept"), "7005 9100 80 8300 shut:22"),
    ("policy reject", THREE, "shut:80 shut:53/udp shut:8300"),
    ("allow", doors(allow=[{"port": 443}, {"port": "53/udp"}, {"port": "100-110", "protocol": "udp"}]),
     "open:443 shut:443/udp open:53/udp shut:53 open:105/udp shut:111/udp shut:80"),
    ("a step twice in a knock", doors(door("7005 9100 7005 8300")),
     "7005 9100 8300 shut:22 +9 7005 9100 7005 8300 open:22 +20 7005 7005 9100 9100 7005 7005 8300 open:22"),
]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("options", "flow"), [item[1:] for item in FLOWS], ids=[item[0] for item in FLOWS])
def test_flow(options, flow, family):
    assert Host(options, family).flow(flow) == []


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("length", range(1, 9))
def test_lengths(length, family):
    steps = LONG[:length]
    options = doors(door(steps))
    assert Host(options, family).flow(" ".join(steps) + " open:22") == []
    for number in range(length):
        left_out = steps[:number] + steps[number + 1 :]
        assert Host(options, family).flow(" ".join(left_out) + " shut:22") == []
    if length > 1:
        assert Host(options, family).flow(" ".join(reversed(steps)) + " shut:22") == []
        doubled = [step for step in steps for _turn in (0, 1)]
        assert Host(options, family).flow(" ".join(doubled) + " open:22") == []
        broken = " 81 ".join(steps)
        assert Host(options, family).flow(broken + " shut:22") == []


@pytest.mark.parametrize("family", FAMILIES)
def test_every_wrong_order_of_four(family):
    steps = ("50000", "3000", "41000", "900")
    for order in itertools.permutations(steps):
        wanted = "open:22" if order == steps else "shut:22"
        assert Host(doors(door(list(steps))), family).flow(" ".join(order) + " " + wanted) == []


def test_sources_of_a_door():
    options = doors(door("7005 9100", sources=["192.0.2.0/31", "2001:db8::/64"]))
    for family in FAMILIES:
        assert Host(options, family).flow("7005 9100 open:22 you:7005 you:9100 shut|you:22") == []
    only_v4 = doors(door("7005 9100", sources=["192.0.2.1"]))
    assert Host(only_v4, "ipv6").flow("7005 9100 shut:22") == []
    assert Host(only_v4, "ipv4").flow("7005 9100 open:22") == []
    everyone = doors(door("7005 9100", sources=["0.0.0.0/0", "::/0"]))
    for family in FAMILIES:
        assert Host(everyone, family).flow("7005 9100 open:22") == []


def test_sources_of_one_step():
    options = doors(door("7005", sources=["192.0.2.1"]))
    assert Host(options).flow("7005 open:22 you:7005 shut|you:22") == []


def test_sources_that_knock_for_the_same_port_by_other_doors():
    options = doors(door("7005 9100", sources=["192.0.2.1"]), {"name": "b", "knock": ["6000", "4000"], "opens": ["22"]})
    assert Host(options).flow("you:7005 you:9100 shut|you:22 you:6000 you:4000 open|you:22") == []


@pytest.mark.parametrize(
    ("prefix", "other", "opens"),
    [(128, "2001:db8::2", False), (64, "2001:db8::2", True), (64, "2001:db8:0:1::1", False), (127, "2001:db8::2", False),
     (120, "2001:db8::ff", True), (120, "2001:db8::100", False)],
)  # fmt: skip
def test_ipv6_prefix(prefix, other, opens):
    for knock in ("7005 9100 8300", "7005"):
        host = Host(dict(doors(door(knock)), ipv6_prefix=prefix), "ipv6")
        assert host.flow(knock + " open:22") == []
        assert (host.send("22", other).action == "ACCEPT") == opens


def test_the_families_share_no_list():
    names = [set(Host(TWO_DOORS, family).walker.lists) for family in FAMILIES]
    assert names[0]
    assert not names[0] & names[1]


def test_prefixes_share_no_list():
    names = [set(Host(dict(TWO_DOORS, ipv6_prefix=prefix), "ipv6").walker.lists) for prefix in (64, 96, 128)]
    assert not (names[0] & names[1] or names[1] & names[2] or names[0] & names[2])


@pytest.mark.parametrize("family", FAMILIES)
def test_trusted(family):
    trusted = {"ipv4": "198.51.100.7", "ipv6": "2001:db8:9::7"}[family]
    options = dict(THREE, trusted_sources=["198.51.100.0/24", "2001:db8:9::/48"], trusted_interfaces=["wg+"])
    host = Host(options, family)
    assert host.send("22", trusted).action == "ACCEPT"
    assert host.send("80", trusted).action == "ACCEPT"
    assert host.send("22", interface="wg1").action == "ACCEPT"
    assert host.send("22", interface="lo").action == "ACCEPT"
    assert host.send("22", interface="eth0").action == "REJECT"


@pytest.mark.parametrize("family", FAMILIES)
def test_allow_for_some_sources(family):
    options = doors(allow=[{"port": 443, "sources": ["192.0.2.1", "2001:db8::1"]}])
    assert Host(options, family).flow("open:443 shut|you:443") == []
    assert Host(doors(allow=[{"port": 443, "sources": ["192.0.2.1"]}]), "ipv6").flow("shut:443") == []


@pytest.mark.parametrize("state", ["ESTABLISHED", "RELATED"])
@pytest.mark.parametrize("family", FAMILIES)
def test_running_sessions_live_on(family, state):
    host = Host(THREE, family)
    for port in ("50000", "50000/udp", "7005", "7006"):
        assert host.send(port, state=state, flags="ACK").action == "ACCEPT"
    assert (host.send("22", state=state, flags="ACK").action == "ACCEPT") is (state == "ESTABLISHED")
    assert host.send("0/icmp", state=state).action == "ACCEPT"


@pytest.mark.parametrize("policy", ["reject", "accept"])
def test_icmp(policy):
    def answer(icmp, number, family, protocol):
        host = Host(dict(THREE, icmp=icmp, policy=policy), family)
        return host.send("0/" + protocol, icmp_type=number).action == "ACCEPT"

    assert answer(True, 8, "ipv4", "icmp")
    assert answer(False, 8, "ipv4", "icmp") == (policy == "accept")
    assert answer(True, 128, "ipv6", "ipv6-icmp")
    assert answer(False, 128, "ipv6", "ipv6-icmp") == (policy == "accept")
    for needed in (1, 2, 3, 4, 130, 131, 132, 133, 134, 135, 136, 143):
        assert answer(False, needed, "ipv6", "ipv6-icmp")
        assert answer(True, needed, "ipv6", "ipv6-icmp")


def test_dhcpv6_is_let_in():
    verdict = Host(THREE, "ipv6").walker.send(Packet("fe80::1", 546, "udp", sport=547, destination="fe80::2"))
    assert verdict.action == "ACCEPT"


@pytest.mark.parametrize(
    ("reject_with", "family", "tcp", "udp"),
    [
        ("icmp-port-unreachable", "ipv4", "icmp-port-unreachable", "icmp-port-unreachable"),
        ("icmp-port-unreachable", "ipv6", "icmp6-port-unreachable", "icmp6-port-unreachable"),
        ("tcp-reset", "ipv4", "tcp-reset", "icmp-port-unreachable"),
        ("tcp-reset", "ipv6", "tcp-reset", "icmp6-port-unreachable"),
        ("icmp-admin-prohibited", "ipv4", "icmp-admin-prohibited", "icmp-admin-prohibited"),
        ("icmp-admin-prohibited", "ipv6", "icmp6-adm-prohibited", "icmp6-adm-prohibited"),
        ("drop", "ipv4", "", ""),
        ("drop", "ipv6", "", ""),
    ],
)
def test_every_closed_port_answers_alike(reject_with, family, tcp, udp):
    """A door's port, a knock port and any other: they answer alike."""
    host = Host(dict(MIXED, reject_with=reject_with), family)
    for port in ("22", "7005", "8300", "7006", "9100"):
        verdict = host.send(port)
        assert (verdict.action, verdict.answer) == ("DROP" if reject_with == "drop" else "REJECT", tcp)
        verdict = host.send(port + "/udp")
        assert (verdict.action, verdict.answer) == ("DROP" if reject_with == "drop" else "REJECT", udp)


@pytest.mark.parametrize("family", FAMILIES)
def test_log(family):
    host = Host(dict(THREE, log=True), family)
    assert host.send("22").logged == ("portknock refused: ",)
    assert host.flow("7005 9100 8300") == []
    verdict = host.send("22")
    assert (verdict.action, verdict.logged) == ("ACCEPT", ("portknock opened: ",))
    assert [host.send(port).logged for port in ("80", "7005", "9100", "8300")] == [(), (), (), ()]


def test_log_is_limited():
    host = Host(dict(THREE, log=True))
    assert sum(len(host.send("22").logged) for _turn in range(200)) < 12


def test_ipv6_prefix_leaves_ipv4_alone():
    assert Host(dict(THREE, ipv6_prefix=64)).flow("7005 9100 8300 open:22 shut|you:22") == []


def test_broadcast_noise_does_not_reset():
    host = Host(MIXED)
    for step in ("7005", "9100/udp", "8300"):
        host.send("137/udp", destination="192.0.2.255", pkttype="broadcast")
        host.send(step)
    assert host.flow("open:22") == []


@pytest.mark.parametrize("flags", ["ACK", "RST", "RST,ACK", "FIN,ACK"])
def test_only_new_connections_knock_or_reset(flags):
    host = Host(THREE)
    for step in ("7005", "9100", "8300"):
        host.send("81", flags=flags)
        host.send(step)
    assert host.flow("open:22") == []
    other = Host(THREE)
    for step in ("7005", "9100", "8300"):
        other.send(step, flags=flags)
    assert other.flow("shut:22") == []


def test_knocks_are_kept_when_the_ruleset_is_loaded_again():
    host = Host(THREE)
    assert host.flow("7005 9100 8300 open:22 you:7005 you:9100") == []
    host.iptables.restore("*filter\n:INPUT - [0:0]\nCOMMIT\n")
    again = Host(
        dict(THREE, allow=[{"port": 80}]), save=host.iptables.save(), clock=host.walker.clock, lists=host.walker.lists
    )
    assert again.flow("open:22 you:8300 open|you:22 open:80") == []


# Scans. Ports that are in no rule all behave alike, so one of them between is tested in place of all.

SMALL = st.integers(0, 7).flatmap(lambda group: st.integers(0, 3).map(lambda offset: 100 + 50 * group + offset))


@st.composite
def crowded(draw, protocols=("tcp",)):
    """Return options whose ports stand close together: the hard case for scans."""
    ports = st.tuples(SMALL, st.sampled_from(protocols)).map("{0[0]}/{0[1]}".format)
    items = []
    for number in range(draw(st.integers(1, 3))):
        knock = draw(st.lists(ports, min_size=1, max_size=4))
        close = draw(st.one_of(st.just([]), st.lists(ports, min_size=1, max_size=2)))
        items.append({"name": "d{0}".format(number), "knock": knock, "close": close, "opens": [str(20 + number)]})
    options = {"doors": items, "allow": [{"port": draw(SMALL)}] if draw(st.booleans()) else []}
    try:
        spec_from_options(options)
    except SpecError:
        assume(False)
    return options


def everywhere(protocol):
    return ["{0}/{1}".format(port, protocol) for port in [1, 20, 21, 22, 23] + [
        100 + 50 * group + offset for group in range(8) for offset in range(-2, 6)] + [65535]]  # fmt: skip


def opened(host, options):
    return [
        door["name"] for door in options["doors"]
        if len(door["knock"]) > 1 and host.send(door["opens"][0]).action == "ACCEPT"
    ]  # fmt: skip


@pytest.mark.slow
@given(options=crowded(), down=st.booleans(), passes=st.integers(1, 2))
def test_no_linear_scan_opens_a_door_of_more_steps(options, down, passes):
    host = Host(options)
    ports = everywhere("tcp")
    for _turn in range(passes):
        for port in reversed(ports) if down else ports:
            host.send(port)
            assert not opened(host, options), port


@pytest.mark.slow
@given(
    options=crowded(("tcp", "udp")), down=st.booleans(), order=st.permutations(["tcp", "udp"]), passes=st.integers(1, 2)
)
def test_no_linear_scan_of_both_protocols_opens_a_door_of_more_steps(options, down, order, passes):
    host = Host(options)
    for protocol in order * passes:
        ports = everywhere(protocol)
        for port in reversed(ports) if down else ports:
            host.send(port)
            assert not opened(host, options), port


@pytest.mark.slow
@given(options=crowded(("tcp", "udp")), repeats=st.integers(1, 2))
def test_a_knock_opens_its_door_and_no_other(options, repeats):
    for door in options["doors"]:
        host = Host(options)
        for step in door["knock"]:
            for _turn in range(repeats):
                host.send(step)
        now_open = [other["name"] for other in options["doors"] if host.send(other["opens"][0]).action == "ACCEPT"]
        assert now_open == [door["name"]]


@given(
    steps=st.lists(st.sampled_from(["7005", "9100/udp", "8300", "80", "9100", "22"]), max_size=12),
    pauses=st.lists(st.sampled_from([0, 0, 1, 6]), min_size=12, max_size=12),
)
def test_nothing_but_the_knock_in_order_opens(steps, pauses):
    """A door opens only if its steps came in order, each in time, with no wrong packet between."""
    host = Host(MIXED)
    clock, seen = 0, []
    for number, step in enumerate(steps):
        host.send(step)
        seen.append((step, clock, number))
        clock += pauses[number]
        host.walker.later(pauses[number])
    is_open = host.send("22").action == "ACCEPT"
    assert is_open == _knocked(seen, clock)


def _knocked(seen, now):
    """Return whether a right knock is in the packets seen: steps in time of each other, none wrong between."""
    wrong = [number for step, _clock, number in seen if step in ("80", "9100")]
    firsts, seconds, lasts = ([item for item in seen if item[0] == step] for step in ("7005", "9100/udp", "8300"))

    def joined(one, other):
        quiet = not any(one[2] < number < other[2] for number in wrong)
        return one[2] < other[2] and quiet and other[1] - one[1] <= 5

    return any(
        joined(a, b) and joined(b, c) and now - c[1] <= 15 for a in firsts for b in seconds for c in lasts
    )  # fmt: skip
