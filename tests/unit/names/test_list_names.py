# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every user of a host reads the names of its lists: they tell which doors there are, and nothing of the steps."""

import re

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import build_rules
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options

FAMILIES = ("ipv4", "ipv6")
STEPS = ["50000", "3000", "41000/udp", "900", "33000", "2100/udp", "60000", "700"]
CLOSES = ["50001", "3001", "41001/udp", "901", "33001", "2101/udp", "60001", "701"]


def names(options, family="ipv4"):
    built = build_rules(spec_from_options(options), family)
    return {name for rules in built.chains.values() for rule in rules for name in re.findall(r"--name (\S+)", rule)}


def door(name, steps, first=0, **more):
    moved = [f"{int(step.split('/')[0]) + first}/{'udp' if 'udp' in step else 'tcp'}" for step in steps]
    return dict({"name": name, "knock": moved, "opens": [str(22 + first)]}, **more)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_door_has_the_same_names_whatever_its_steps(family):
    seen = {frozenset(names({"doors": [door("ssh", STEPS[:count])]}, family)) for count in range(1, 9)}
    assert len(seen) == 1
    assert {name for name in next(iter(seen)) if "." not in name} == {"pk4_ssh" if family == "ipv4" else "pk6_ssh"}


@pytest.mark.parametrize("count", range(1, 9))
def test_a_knock_that_closes_tells_no_more(count):
    for other in (1, 8):
        options = {"doors": [door("ssh", STEPS[:count], close=CLOSES[:other])]}
        assert len(names(options)) == 1 + 16


def test_three_doors_have_the_same_names_whatever_their_steps():
    seen = set()
    for counts in ((1, 1, 1), (2, 3, 1), (8, 8, 8), (4, 4, 4)):
        doors = [door("d" + str(number), STEPS[:count], 10 * number) for number, count in enumerate(counts)]
        seen.add(frozenset(names({"doors": doors})))
    assert len(seen) == 1


@pytest.mark.parametrize("count", [1, 2, 3, 6, 8])
def test_many_doors_tell_an_order_of_magnitude_at_the_most(count):
    doors = [door("d" + str(number), STEPS[:count], 10 * number) for number in range(12)]
    hidden = {name for name in names({"doors": doors}) if "." in name}
    assert len(hidden) in (32, 64, 128)
    assert hidden == {f"pk4_.{number}" for number in range(1, len(hidden) + 1)}


@pytest.mark.parametrize("prefix", [64, 128])
def test_names_say_nothing_but_the_door(prefix):
    options = {"doors": [door("ssh", STEPS[:4], close=CLOSES[:2])], "ipv6_prefix": prefix}
    stem = "pk6_" if prefix == 128 else "pk6.64_"
    for name in names(options, "ipv6"):
        assert name == stem + "ssh" or re.fullmatch(re.escape(stem) + r"\.\d+", name)


def made_in_order(built, by_name):
    """Return the lists in the order in which a backend makes them: by the chains' order in the file, or by their names."""
    chains = sorted(built.chains) if by_name else list(built.chains)
    found = [name for chain in chains for rule in built.chains[chain] for name in re.findall(r"--name (\S+)", rule)]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_no_doors_list_parts_the_used_ones_from_the_unused(by_name, count):
    """The inode numbers of their files tell every user in which order they were made."""
    doors = [door("d" + str(number), STEPS[: 1 + number % 8], 10 * number) for number in range(count)]
    order = made_in_order(build_rules(spec_from_options({"doors": doors}), "ipv4"), by_name)
    hidden = ["." in name for name in order]
    assert hidden == sorted(hidden, reverse=True)
    assert not all(hidden)


def test_a_list_that_nothing_uses_is_never_used():
    built = build_rules(spec_from_options({"doors": [door("ssh", STEPS[:3])]}), "ipv4")
    used = {
        name
        for chain, rules in built.chains.items() if chain != "PORTKNOCK_CATALOG_UNUSED"
        for rule in rules
        for name in re.findall(r"--name (\S+)", rule)
    }  # fmt: skip
    unused = {name for rule in built.chains["PORTKNOCK_CATALOG_UNUSED"] for name in re.findall(r"--name (\S+)", rule)}
    assert not used & unused
    assert used | unused == {"pk4_ssh"} | {f"pk4_.{number}" for number in range(1, 9)}


def test_the_daemon_needs_no_other_lists():
    assert names({"doors": [door("ssh", STEPS[:3])], "engine": "knockd"}) == {"pk4_ssh"}
