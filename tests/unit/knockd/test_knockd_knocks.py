# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a scan or a knock does with knockd's configuration, by a model of knockd."""

import random

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import steps_of_turn
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.decoys import DECOYS
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from hypothesis import example, given
from hypothesis import strategies as st
from knockd_model import Knockd
from knockd_specs import DOOR, config_of, spec_of, specs, text_of


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
