# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planning a table: once more plans nothing, what was edited is put right, and undoing is the table of before."""

import ipaddress

from ansible_collections.sesame.portknock.plugins.module_utils._nftables.build import build_table
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.carried import known_of_lists
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.elements import Element
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.nft import Nft
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.plan import (
    plan_table,
    undo_text,
    with_known,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.text import load_text
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_nft import FakeNft
from hypothesis import given
from nft_options import A_FIFTH, OPTIONS, RECORDED, spec_of

SPEC = spec_from_options(RECORDED)


def host_with(spec):
    fake = FakeNft()
    nft = Nft(fake.run, fake.find)
    if spec is not None:
        nft.load(plan_table(spec, None).change)
    return fake, nft


@A_FIFTH
@given(OPTIONS, OPTIONS)
def test_planning_twice_plans_nothing_and_undoing_is_the_table_before(one, other):
    before, after = spec_of(one), spec_of(other)
    fake, nft = host_with(before)
    assert plan_table(before, nft.installed()).change == ""
    was = nft.installed()
    nft.load(plan_table(after, was).change or "")
    plan = plan_table(after, nft.installed())
    assert (plan.change, plan.drift) == ("", [])
    nft.load(undo_text(load_text(build_table(before)).text, nft.installed()))
    assert nft.installed()._replace(shape="") == was._replace(shape="")
    assert fake.exists


def test_there_is_to_be_no_table():
    _fake, nft = host_with(SPEC)
    nft.load(plan_table(None, nft.installed()).change)
    assert nft.installed() is None
    assert plan_table(None, None).change == ""


def test_undoing_the_first_table_takes_it_out():
    _fake, nft = host_with(SPEC)
    nft.load(undo_text("", nft.installed()))
    assert nft.installed() is None
    assert undo_text("", None) == ""


def test_other_options_are_no_drift():
    _fake, nft = host_with(SPEC)
    plan = plan_table(SPEC._replace(log=False), nft.installed())
    assert plan.change
    assert plan.drift == []


def test_what_was_edited_is_put_right():
    fake, nft = host_with(SPEC)
    fake.chains["input"].insert(0, "")
    plan = plan_table(SPEC, nft.installed())
    assert plan.drift == ["rules of chain input were added, removed or edited"]
    nft.load(plan.change)
    assert plan_table(SPEC, nft.installed()).change == ""


def test_an_edit_that_leaves_all_comments_is_seen_by_the_shape():
    _fake, nft = host_with(SPEC)
    installed = nft.installed()
    assert plan_table(SPEC, installed, installed.shape).change == ""
    release = installed.shape.partition(" ")[0]
    # Another release lists the same in other words.
    assert plan_table(SPEC, installed, "9.9.9 another").change == ""
    plan = plan_table(SPEC, installed, f"{release} another")
    assert plan.drift == ["a rule or a set was edited"]
    assert plan.change == plan.text


def test_emptied_by_hand_is_loaded_anew():
    fake, nft = host_with(SPEC)
    nft.load("flush table inet portknock\n")
    assert nft.installed().digest == ""
    plan = plan_table(SPEC, nft.installed())
    assert plan.drift == ["the table was emptied"]
    nft.load(plan.change)
    assert plan_table(SPEC, nft.installed()).change == ""
    assert fake.exists


def test_the_last_way_leaves_no_rule_that_refuses():
    fake, nft = host_with(SPEC)
    nft.let_in()
    assert fake.loaded[-1] == "flush table inet portknock\n"


def test_who_is_known_to_another_engine():
    known = {
        "open6_ssh": [],
        "open4_ssh": [Element(ipaddress.ip_address("192.0.2.1"), 7)],
    }
    plan = plan_table(SPEC, None)
    assert with_known(plan.change, known) == (
        plan.change + "add element inet portknock open4_ssh { 192.0.2.1 timeout 7s }\n"
    )


def listed(*sources, age, hertz=250, uptime=10000):
    """Return a list of xt_recent: the kernel counts from five minutes before zero."""
    stamp = int((uptime - 300 - age) * hertz)
    return "".join(f"src={source} ttl: 64 last_seen: {stamp} oldest_pkt: 1 {stamp}\n" for source in sources)


def test_who_has_knocked_is_taken_along_for_the_rest_of_the_window():
    spec = spec_from_options({"doors": [{"name": "ssh", "knock": ["7000", "9100"], "opens": ["22"], "window": 15}]})
    lists = {
        "pk4_ssh": listed("192.0.2.2", "192.0.2.1", age=5) + listed("192.0.2.3", age=20),
        "pk4_.2": listed("192.0.2.4", age=1),
        "pk4_gone": listed("192.0.2.5", age=1),
        "pk6_ssh": listed("2001:0db8:0000:0000:0000:0000:0000:0001", age=14),
        "pk6.64_ssh": listed("2001:0db8:0000:0000:0000:0000:0000:0000", age=1),
    }
    known = known_of_lists(spec, lists, 10000.0)
    assert {name: [(str(each.source), each.seconds) for each in known[name]] for name in known} == {
        "open4_ssh": [("192.0.2.1", 10), ("192.0.2.2", 10)],
        "open6_ssh": [("2001:db8::1", 1)],
    }
    assert known_of_lists(spec, {}, 10000.0) == {}
    assert known_of_lists(spec._replace(ip_versions=("ipv4",)), lists, 10000.0).keys() == {"open4_ssh"}
    assert list(known_of_lists(spec._replace(ipv6_prefix=64), lists, 10000.0)["open6_ssh"]) == [
        Element(ipaddress.ip_address("2001:db8::"), 14)
    ]
