# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is sent to a host and waited for, and how little of it."""

import random

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import ENGINES, SETTLE
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify import observe
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.observe import (
    SLACK,
    Observer,
    RealNetwork,
    free_ports,
    is_free,
    ports_of,
    wrong_knock,
)
from shown_steps import steps_in
from verify_world import DNS, SSH, V4, V6, WEB, KnockdWorld, World, nobody, observed, spec_of


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


def test_doors_to_hosts_behind_are_left_alone():
    behind = dict(SSH, name="inside", knock=["33000", "32100", "31005"], to=["10.1.0.7"], opens=["22", "9999"])
    world, found, _seconds = observed(SSH, behind)
    note = ("unseen", "it guards hosts behind this one, which are not tried from here")
    assert {what: row for what, row in found.items() if row[0] != "ok"} == {
        ("door inside", family): note for family in ("ipv4", "ipv6")
    }
    assert len([what for what in world.log if what[0] == "knock"]) == len(
        [what for what in observed(SSH)[0].log if what[0] == "knock"]
    )
