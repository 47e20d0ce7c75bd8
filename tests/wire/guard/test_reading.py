# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rulesets that iptables cannot read, and backends that are switched: before a change, between two runs, in the window."""

import contextlib
import subprocess
import time

import pytest
from rig import faults, native
from rig.guard import DOOR, Case
from rig.target import COMMANDS, FAMILIES

NFT = pytest.mark.only("nft")
NATIVE = {**native.UNPRINTED, **native.MISPRINTED}
WISH = {"doors": [DOOR]}
SOAKED = {"anonymous set", "ct count", "meter", "named set", "sequence"}
KINDS = [
    pytest.param(rules, id=name, marks=[NFT] + [pytest.mark.soak] * (name in SOAKED)) for name, rules in NATIVE.items()
]


@pytest.fixture
def with_native(rig):
    """The target, without native rules once the test is over."""
    yield rig
    faults.clean_up(rig)


@pytest.mark.parametrize("rules", KINDS)
def test_native_rules_before(with_native, rules):
    rig = with_native
    native.put(rig, *rules)
    before = native.listed(rig)
    for check in (True, False):
        said = rig.target.module(check=check, expect=1, **WISH)["msg"]
        assert "the ipv4 table filter cannot be read with iptables" in said
        assert "'nft -a list table ip filter'" in said
    assert native.listed(rig) == before


@pytest.mark.parametrize("rules", KINDS)
def test_native_rules_between_two_runs(with_native, rules):
    rig = with_native
    rig.target.module(**WISH)
    native.put(rig, *rules)
    before = native.listed(rig)
    for state in ("present", "absent"):
        assert "cannot be read with iptables" in rig.target.module(expect=1, state=state, **WISH)["msg"]
    # The boot finds the hooks, and adds none.
    for _turn in range(2):
        done = rig.target.namespace.run("sh", "/usr/local/sbin/portknock-boot", check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert native.listed(rig) == before
    assert before.count("jump PORTKNOCK") >= 3


UNPRINTED = [
    pytest.param(rules, id=name, marks=[NFT] + [pytest.mark.soak] * (name != "vmap"))
    for name, rules in native.UNPRINTED.items()
]


@pytest.mark.parametrize("rules", UNPRINTED)
def test_native_rules_in_the_window(controller, with_native, rules):
    rig = with_native
    case = Case(rig, controller)
    before = native.listed(rig)
    with faults.way_blocked(rig, 7000):
        run = case.apply(start=True)
        run.until(case.applied)
        native.put(rig, *rules)
        run.wait()
    case.check_rolled_back(run.only(), run, "emptied")
    assert "chains were emptied" in run.only().result["msg"]
    assert case.gets_in()
    assert native.ours_anywhere(rig) == []
    # What others wrote is there, and the native rule.
    assert [line for line in before.splitlines() if line not in native.listed(rig).splitlines()] == []
    rig.target.reset()
    controller.end_masters()
    case.check_next()


@NFT
def test_the_commands_are_lost_in_the_window(rig, controller):
    """Say, their package was removed: the kernel is asked without them."""
    case, multi = Case(rig, controller), "/usr/sbin/xtables-nft-multi"
    with faults.way_blocked(rig, 7000):
        run = case.apply(start=True)
        run.until(case.applied)
        rig.target.namespace.run("mv", multi, multi + ".away")
        try:
            run.wait()
        finally:
            rig.target.namespace.run("mv", multi + ".away", multi)
    case.check_rolled_back(run.only(), run, "emptied")
    assert "chains were emptied" in run.only().result["msg"]
    assert case.gets_in()
    assert not [line for rules in faults.ruleset(rig).values() for line in rules if line.startswith("-A PORTKNOCK")]
    controller.end_masters()
    case.check_next()


@pytest.mark.parametrize("confirms", [True, False], ids=["confirmed", "late"])
def test_the_backend_is_switched_in_the_window(rig, controller, confirms):
    case = Case(rig, controller)
    with contextlib.ExitStack() as stack:
        with case.waiting() if confirms else faults.way_blocked(rig, 7000):
            run = case.apply(start=True)
            run.until(case.applied)
            stack.enter_context(native.switched(rig))
            if not confirms:
                run.wait()
        run.wait()
        case.check_rolled_back(run.only(), run, "exact")
        assert native.ours_anywhere(rig) == []
        assert case.gets_in()
    case.check_target("old")


def test_the_backend_is_switched_between_two_runs(rig):
    with contextlib.ExitStack() as stack:
        stack.callback(faults.clean_up, rig)
        rig.target.module(**WISH)
        with native.switched(rig):
            said = rig.target.module(expect=1, **WISH)["msg"]
            assert "both backends of iptables hold rules" in said
            assert "the collection's own, from before the alternative was switched" in said
            assert rig.target.module(state="absent")["changed"]
            assert native.ours_anywhere(rig) == []
            assert not rig.target.module(state="absent")["changed"]


@NFT
def test_rules_that_nft_takes_out_of_force(rig):
    with contextlib.ExitStack() as stack:
        stack.callback(faults.clean_up, rig)
        rig.target.module(**WISH)
        stack.callback(native.nft, rig, "add", "table", "ip", "filter")
        native.nft(rig, "add", "table", "ip", "filter", "{ flags dormant; }")
        assert "the ipv4 table filter is dormant" in rig.target.module(expect=1, **WISH)["msg"]
        native.nft(rig, "add", "table", "ip", "filter")
        assert not rig.target.module(**WISH)["changed"]


@NFT
@pytest.mark.parametrize(
    ("by", "table", "said"),
    [
        ("iptables", "ip filter", "the ipv4 table filter"),
        ("nftables", "inet portknock", "the table inet portknock"),
    ],
)
def test_a_table_that_a_program_keeps_to_itself(rig, by, table, said):
    wish = dict(WISH, engine=by)
    native.nft(rig, "flush ruleset")
    owner = rig.target.namespace.start("nft", "-i", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    with contextlib.ExitStack() as stack:
        stack.callback(faults.clean_up, rig)
        stack.callback(owner.kill)
        owner.stdin.write(f"add table {table} {{ flags owner; }}\n".encode())
        owner.stdin.flush()
        end = time.monotonic() + 60
        while "owner" not in native.nft(rig, "list", "ruleset"):
            assert owner.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        assert rig.target.module(expect=1, **wish)["msg"].startswith(f"{said} belongs to a running program")
        owner.communicate()
        assert rig.target.module(**wish)["changed"]


def test_ip6tables_is_missing(rig):
    link = "/etc/alternatives/ip6tables-restore"
    target = rig.target.namespace.run("readlink", link).stdout.strip()
    rig.target.namespace.run("rm", link)
    try:
        said = rig.target.module(expect=1, **WISH)["msg"]
        assert said.startswith("ip_versions: this host speaks ipv6, and ip6tables")
        assert not faults.ours(faults.ruleset(rig)["ipv4"])
        assert rig.target.module(ip_versions=["ipv4"], persist=False, **WISH)["changed"]
    finally:
        rig.target.namespace.run("ln", "-sfn", target, link)
        faults.clean_up(rig)


@NFT
def test_the_whole_ruleset_is_flushed_in_the_window(rig, controller):
    case = Case(rig, controller)
    with faults.way_blocked(rig, 7000):
        run = case.apply(start=True)
        run.until(case.applied)
        native.nft(rig, "flush", "ruleset")
        run.wait()
    case.check_rolled_back(run.only(), run, "exact")
    said = run.only().result["msg"]
    assert "Everything" not in said
    assert "The collection's rules, files and services are as they were before the change" in said
    assert case.gets_in()
    assert all(not faults.ours(faults.ruleset(rig)[family]) for family in FAMILIES), COMMANDS
