# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A wrong port makes a source's progress in every door forgotten, at a cost that hardly grows with the doors."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import build_rules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.catalog import Catalog
from ansible_collections.sesame.portknock.plugins.module_utils._names.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from flows import Host
from hypothesis import given
from hypothesis import strategies as st

FAMILIES = ("ipv4", "ipv6")
WRONG = "64999"


def ports(number, count):
    """Return ports of a door's own, far from those of its neighbours and in no order that a scan hits."""
    chosen = [str(2000 + 97 * number + 11 * step) for step in range(count)]
    return chosen[1::2] + chosen[0::2]


def options(counts, closes=()):
    """Return the options for doors with those numbers of steps, each with a knock of two steps that closes it if it is in closes."""
    doors = []
    for number, count in enumerate(counts):
        taken = ports(number, count + 2)
        door = {"name": f"d{number}", "knock": taken[:count], "opens": [str(20000 + number)]}
        doors.append(dict(door, close=taken[count:]) if number in closes else door)
    return {"doors": doors}


def numbered(host):
    """Return the lists that are not a door's and have a source on them."""
    return {name for name, one in host.walker.lists.items() if "." in name and one.entries}


def test_few_doors_need_no_groups():
    catalog = Catalog(spec_from_options(options([4, 4, 4])).doors, Lists("ipv4", 128))
    assert sorted(catalog.chains()) == ["PORTKNOCK_CATALOG", "PORTKNOCK_CATALOG_UNUSED"]
    assert {sequence.path for sequence in catalog.sequences} == {()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("counts", [[4] * 3, [4] * 6, [2, 8] * 10, [1, 2, 3] * 12, [4] * 100], ids=len)
def test_every_knock_still_opens_its_door(counts, family):
    chosen = options(counts, closes=range(0, len(counts), 3))
    host = Host(chosen, family)
    for door in chosen["doors"]:
        assert host.flow(" ".join([*door["knock"], "open:" + door["opens"][0]])) == []
        if door.get("close"):
            assert host.flow(" ".join([*door["close"], "shut:" + door["opens"][0]])) == []


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("counts", [[4] * 3, [2, 8] * 10, [4] * 100], ids=len)
def test_a_wrong_port_takes_the_source_off_all_lists(counts, family):
    chosen = options(counts, closes=(0, 1, 2))
    host = Host(chosen, family)
    for door in chosen["doors"]:
        for sequence in (door["knock"], door.get("close", [])):
            for step in sequence[:-1]:
                host.send(step)
    assert len(numbered(host)) > len(counts)
    host.send(WRONG)
    assert numbered(host) == set()


MANY = options([2, 3, 4] * 8, closes=(0, 5, 6))
STEPS = [step for door in MANY["doors"] for step in door["knock"] + door.get("close", [])]


@given(st.lists(st.sampled_from(STEPS), max_size=30))
def test_nothing_is_left_of_any_progress(steps):
    host = Host(MANY)
    for step in steps:
        host.send(step)
    host.send(WRONG)
    assert numbered(host) == set()


def lookups(host, port):
    """Return how many rules that ask a list a packet passes, whether they match or not."""
    asked = []
    for one in host.walker.lists.values():
        ask = one.ask
        one.ask = lambda *words, ask=ask: asked.append(1) or ask(*words)
    host.send(port)
    for one in host.walker.lists.values():
        del one.ask
    return len(asked)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cost_hardly_grows_with_the_doors(family):
    cost = {}
    for count in (1, 10, 100):
        chosen = options([4] * count)
        host = Host(chosen, family)
        cost[count] = max(
            lookups(host, door["knock"][0]) + lookups(host, WRONG)
            for door in chosen["doors"][:: max(1, count // 10)]
        )  # fmt: skip
    assert cost[1] <= 8
    assert cost[10] <= 20
    assert cost[100] <= 30


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_counts_only_where_forgetting_would_find_it(family):
    """A list that overflowed has lost the source: then its steps do not count, until a wrong port could end them again."""
    chosen = options([4] * 40)
    spec = spec_from_options(chosen)
    path = Catalog(spec.doors, Lists(family, 128)).sequences[17].path
    assert len(path) > 1
    knock, opens = chosen["doors"][17]["knock"], chosen["doors"][17]["opens"][0]
    for name in path:
        host = Host(chosen, family)
        assert host.flow(" ".join(knock[:3])) == []
        host.walker.lists[name].entries.clear()
        assert host.flow(" ".join([knock[3], "shut:" + opens])) == []
        host.send(WRONG)
        assert host.flow(" ".join([knock[0], WRONG, knock[3], "shut:" + opens])) == []
        assert host.flow(" ".join([knock[0], knock[3], WRONG, *knock, "open:" + opens])) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_an_overflow_lets_in_no_scan(family):
    """With lists of three sources, other sources at the first steps push this one out again and again."""
    chosen = options([3] * 30)
    host = Host(chosen, family, list_size=3)
    others = "192.0.2.{0}" if family == "ipv4" else "2001:db8:9::{0}"
    target = chosen["doors"][7]
    for step in target["knock"][:2]:
        host.send(step)
    for guess in (WRONG, target["knock"][2]):
        for number in range(10, 14):
            host.send(target["knock"][0], others.format(number))
        host.send(guess)
    assert host.flow("shut:" + target["opens"][0]) == []


def test_all_chains_are_named_by_a_rule_or_hold_names_only():
    for counts in ([1], [4], [4] * 7, [4] * 100):
        built = build_rules(spec_from_options(options(counts)), "ipv4")
        named = {
            text.split()[-1] for texts in built.chains.values() for text in texts if " -j " in text or " -g " in text
        }
        assert set(built.chains) - named == {
            "PORTKNOCK_HEAD",
            "PORTKNOCK",
            "PORTKNOCK_NAT",
            "PORTKNOCK_TAIL",
            "PORTKNOCK_CATALOG_UNUSED",
            "PORTKNOCK_FWD",
        }


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("counts", [[3] * 12, [2, 5] * 10], ids=str)
def test_two_scans_in_a_row_open_no_door(counts, down):
    """Ports that are in no rule all behave alike, so those beside the steps are tried in place of all."""
    chosen = options(counts, closes=(1, 2))
    host = Host(chosen)
    steps = {int(step) for door in chosen["doors"] for step in door["knock"] + door.get("close", [])}
    scanned = sorted({port for step in steps for port in (step - 1, step, step + 1)}, reverse=down)
    for port in scanned * 2:
        host.send(str(port))
    assert host.flow(" ".join("shut:" + door["opens"][0] for door in chosen["doors"])) == []
