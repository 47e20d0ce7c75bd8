# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that release 1.0.0 closed: it is read back, updated by one change, and no source whose door is open is locked out.

corpus/released holds the rules that 1.0.0 loaded, as iptables-save 1.8.9 (nft) printed them, and the options they are from.
"""

import json
import os
import re

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import read_state
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.read_back import (
    counters,
    drift,
    expected_rules,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.module_utils._tables.installed_doors import read_installed
from fake_iptables import FakeIptables, without_empty_nat
from walker import Packet, Walker

RELEASED = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "corpus", "released")
ME = {"ipv4": "192.0.2.77", "ipv6": "2001:db8:2::77"}
families = pytest.mark.parametrize("family", ["ipv4", "ipv6"])


def released(family):
    with open(os.path.join(RELEASED, "1.0.0.{0}.save".format(family.replace("ip", ""))), encoding="utf-8") as stream:
        return stream.read()


def options():
    with open(os.path.join(RELEASED, "1.0.0.options.json"), encoding="utf-8") as stream:
        return json.load(stream)


SPEC = spec_from_options(options())


def door_lists(text):
    """Return the lists of sources whose door is open; the names of the others hold a dot since 1.0.0 and before."""
    return {name for name in re.findall(r"--name (\S+)", text) if "." not in name}


def updated(family):
    host = FakeIptables(released(family))
    plan = plan_family(host.save(), SPEC, family)
    host.restore(plan.change)
    return host, plan


@families
def test_its_doors_are_read_back(family):
    state = read_state(parse(released(family)))
    found = {door.name: door for door in read_installed(state.chains).doors}
    for door in SPEC.doors:
        assert found[door.name].knock == door.knock
        assert found[door.name].close == door.close
        assert found[door.name].window == door.window
        assert found[door.name].once == door.once
        assert sorted(found[door.name].opens) == sorted(door.opens)
    assert sorted(found) == ["single", "ssh", "web"]


@families
def test_its_rules_are_no_drift(family):
    document = parse(released(family))
    live = read_state(document)
    own = expected_rules("", live)
    assert drift(document, own, read_installed(own.chains), family) == []


@families
def test_its_counters_are_read(family):
    text = re.sub(r"^-A (PORTKNOCK_[DK])", r"[3:180] -A \1", released(family), flags=re.M)
    counted = counters(parse(text).table("filter"))
    assert counted["ssh"] == {"let_in": 3, "knocked": 3}
    assert counted["web"] == {"let_in": 9, "knocked": 3}, "three ranges of ports"


@families
def test_the_update_is_one_change(family):
    host, plan = updated(family)
    assert plan.change
    assert door_lists(plan.change) == door_lists(released(family)) != set(), (
        "sources whose door is open stay on its list"
    )
    assert set(plan.now.chains) - set(plan.then.chains) == {"PORTKNOCK_FORGET"}
    assert set(plan.then.chains) - set(plan.now.chains) == {
        "PORTKNOCK_CATALOG",
        "PORTKNOCK_RELATED",
        "PORTKNOCK_CATALOG_UNUSED",
        *(f"PORTKNOCK_FWD{rest}" for rest in ("", "_OPEN", "_REFUSE", "_USER")),
        *(f"PORTKNOCK_NAT{rest}" for rest in ("", "1", "2", "_SENT")),
    }
    assert [hook.position for hook in plan.now.hooks] == [hook.position for hook in plan.then.hooks_of("INPUT")]
    again = plan_family(host.save(), SPEC, family)
    assert (again.change, again.undo) == ("", "")


@families
def test_what_changes_is_named(family):
    """Knocks in progress have other lists, RELATED is parted from ESTABLISHED, refusals are counted; doors and ports are as they were."""
    _host, plan = updated(family)
    wording = re.compile(r'-m comment --comment "[^"]*"')
    progress = re.compile(
        r"-m recent --(?:rcheck|remove|set)(?: --seconds \d+)? --name pk[46]_\w*\.\S+ --mask \S+ --rsource "
    )

    def plain(state):
        return {
            name: [progress.sub("", wording.sub("", text)) for text in texts] for name, texts in state.chains.items()
        }

    now, then = plain(plan.now), plain(plan.then)
    differing = {name for name in set(now) & set(then) if now[name] != then[name]}
    assert differing == {"PORTKNOCK_HEAD", "PORTKNOCK", "PORTKNOCK_D1"}
    # What is refused is counted by door: three of its four ports have a rule of their own now.
    refusing = [text for text in then["PORTKNOCK_D1"] if "-g PORTKNOCK_REFUSE" in text]
    assert len(refusing) == 4
    assert [*then["PORTKNOCK_D1"][:-4], refusing[-1]] == now["PORTKNOCK_D1"]
    errors = 3 if family == "ipv4" else 0  # the types of ICMP that are let in where ping is not; IPv6 had them
    for name, more in (("PORTKNOCK_HEAD", 1 + errors), ("PORTKNOCK", 1)):
        assert len(then[name]) == len(now[name]) + more
        assert sum("RELATED" in text for text in then[name]) == more


@families
def test_it_can_be_undone(family):
    host, plan = updated(family)
    before = FakeIptables(released(family)).save()
    assert host.save() != before
    host.restore(plan.undo)
    after = without_empty_nat(host.save())
    assert sorted(after.splitlines()) == sorted(before.splitlines()), "a chain that came back stands last"
    assert read_state(parse(host.save())) == read_state(parse(before))


@families
def test_who_is_in_stays_in(family):
    host, _plan = updated(family)
    walker = Walker(parse(released(family)))
    me = ME[family]
    assert walker.send(Packet(me, 22, "tcp")).action != "ACCEPT"
    for step in SPEC.doors[0].knock:
        walker.send(Packet(me, step.port, step.protocol))
    assert walker.send(Packet(me, 22, "tcp")).action == "ACCEPT"
    walker.send(Packet(me, SPEC.doors[1].knock[0].port, "tcp"))
    walker.load(parse(host.save()))
    assert walker.send(Packet(me, 22, "tcp")).action == "ACCEPT"
    walker.send(Packet(me, SPEC.doors[1].knock[1].port, "udp"))
    assert walker.send(Packet(me, 443, "tcp")).action != "ACCEPT", "a knock that was half done begins anew"
    for step in SPEC.doors[1].knock:
        walker.send(Packet(me, step.port, step.protocol))
    assert walker.send(Packet(me, 443, "tcp")).action == "ACCEPT"


@families
def test_it_can_be_taken_out(family):
    host = FakeIptables(released(family))
    host.restore(plan_family(host.save(), None, family).change)
    assert "PORTKNOCK" not in host.save()
