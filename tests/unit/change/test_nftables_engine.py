# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine nftables on a host in memory: whole runs, the change from and to the other engine, and the way back."""

import copy
import json
from ipaddress import ip_address

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change.guard import AppliedError, Guard
from ansible_collections.sesame.portknock.plugins.module_utils._change.info import inspect
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import plan_change
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError, SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import (
    BOOT_SCRIPT,
    PREVIOUS,
    RUN_TABLE,
    SPARE_RECORD,
    TABLE_FILE,
    UNIT,
)
from ansible_collections.sesame.portknock.plugins.module_utils._tables.commands import own_lines
from fake_host import FakeHost
from module_run import NoAgent, options, run, settled
from story import FakeAgent

OTHER = {"name": "web", "knock": ["21005", "19001", "24007"], "opens": ["8080"]}
PREVIOUS_FILE = f"{PREVIOUS}/table.nft"
STEPS = ("17005", "19100", "18300")


def a_host(*without, **more):
    host = FakeHost(**more)
    host.tools = (host.tools | {"nft"}) - set(without)
    return host


def state_of(host):
    """What must be as before; in which order chains are listed is of no account."""
    return [sorted(own_lines(text).splitlines()) for text in host.state()[:2]], host.state()[2:]


def switched(host, **more):
    return settled(host, engine="nftables", **more)


def test_a_first_run_and_a_second_that_changes_nothing():
    host = a_host()
    result = switched(host)
    assert result["engine"] == "nftables"
    assert host.nft.exists
    assert host.files[TABLE_FILE][1] == 0o600
    assert "nft -f" in host.files[BOOT_SCRIPT][0]
    assert "-A" not in host.rules["iptables"].save().replace("COMMIT", "")
    shown = repr(result)
    assert not [step for step in STEPS if step in shown]


def test_the_version_before_is_kept_as_the_rules_files_are():
    host = a_host()
    switched(host)
    before = host.files[TABLE_FILE]
    assert PREVIOUS_FILE not in host.files
    switched(host, doors=[OTHER])
    assert host.files[PREVIOUS_FILE] == before
    assert before[1] == 0o600
    assert host.files[TABLE_FILE] != before
    run(host, state="absent")
    assert PREVIOUS_FILE not in host.files


def test_what_refuses_the_change_may_refuse_the_way_back_too():
    host = a_host()
    switched(host)
    before = state_of(host)
    wanted = options(engine="nftables", doors=[OTHER], guard=False)
    change = plan_change(wanted, host)
    host.refuse = lambda command, words, _data: (1, "", "no\n") if command == "nft" and "-f" in words else None
    with pytest.raises(AppliedError) as caught:
        Guard(host, NoAgent()).apply(change, wanted)
    assert caught.value.undo == "exact"
    assert state_of(host) == before


def test_the_last_way_empties_the_table_and_looks():
    host, agent = a_host(), FakeAgent()
    wanted = options(engine="nftables")
    Guard(host, agent).apply(plan_change(wanted, host), wanted)
    nft = host.command.find("nft")
    assert f"{nft} flush table inet portknock" in agent.last_way
    assert agent.last_look[0] == f"{nft} list tables > /dev/null"
    assert len(agent.last_look) == 2


def test_the_last_way_looks_at_both_tables_of_iptables_in_both_families():
    host, agent = a_host(), FakeAgent()
    wanted = options()
    Guard(host, agent).apply(plan_change(wanted, host), wanted)
    for name in ("iptables", "ip6tables"):
        for table in ("filter", "nat"):
            looks = [
                words for words in agent.last_look if f"{host.command.find(name + '-save')} -t {table} | " in words
            ]
            assert len(looks) == 2, agent.last_look


def test_no_iptables_is_needed():
    tools = {name + tail for name in ("iptables", "ip6tables") for tail in ("", "-save", "-restore")}
    host = a_host(*tools)
    switched(host)
    run(host, state="absent")
    assert not host.nft.exists


def test_without_nft_it_says_what_to_install():
    with pytest.raises(HostError, match="Install the package nftables"):
        run(FakeHost(), engine="nftables")


@pytest.mark.parametrize(("first", "second"), [("iptables", "nftables"), ("nftables", "iptables")])
def test_the_engine_changes_in_one_run_and_nothing_of_the_old_one_is_left(first, second):
    changed, fresh = a_host(), a_host()
    settled(changed, engine=first)
    settled(changed, engine=second)
    settled(fresh, engine=second)
    own = [path for path in changed.files if "portknock" in path and not path.startswith("/run/")]
    assert sorted(own) == sorted(path for path in fresh.files if "portknock" in path and not path.startswith("/run/"))
    for name in ("iptables", "ip6tables"):
        assert own_lines(changed.rules[name].save()) == own_lines(fresh.rules[name].save())
    assert changed.nft.state() == fresh.nft.state()
    assert changed.files[UNIT] == fresh.files[UNIT]
    loads = [what for what in changed.done if what[0] in ("restore", "load")]
    assert loads[-1][0] == ("restore" if second == "nftables" else "load"), "the old one goes last"


def test_who_is_in_stays_in():
    host = a_host()
    settled(host)
    host.recent = {"pk4_ssh": ""}
    host.recent_lists.put("pk4_ssh", ip_address("192.0.2.9"))
    host.now += 3
    run(host, engine="nftables")
    assert list(host.nft.elements["open4_ssh"]) == ["192.0.2.9"]
    host.recent = {"pk4_ssh": "", "pk6_ssh": ""}
    run(host, engine="iptables")
    assert "src=192.0.2.9 " in host.recent["pk4_ssh"]


@pytest.mark.parametrize("first", ["iptables", "nftables"])
@pytest.mark.parametrize("second", ["iptables", "nftables"])
def test_what_cannot_be_loaded_leaves_all_as_it_was(first, second):
    host = a_host()
    settled(host, engine=first)
    before = state_of(host)
    wanted = options(engine=second, doors=[OTHER], guard=False)
    change = plan_change(wanted, host)

    def refuse(command, words, _data):
        refused = command == "nft" if second == "nftables" else command == "ip6tables-restore" and "--test" not in words
        if refused and "-c" not in words and ("-f" in words or command != "nft"):
            host.refuse = None
            return 1, "", "Error: no\n"
        return None

    host.refuse = refuse
    with pytest.raises(AppliedError):
        Guard(host, NoAgent()).apply(change, wanted)
    assert state_of(host) == before


def test_the_table_flushed_by_hand_is_seen_and_put_back():
    host = a_host()
    switched(host)
    assert inspect(host)["drift"] == []
    assert inspect(host)["engine"] == "nftables"
    host.nft.forget_all()
    found = inspect(host)
    assert found["drift"] == ["table inet portknock: it is gone"]
    assert [each["kind"] for each in found["findings"] if each["severity"] == "error"] == ["doors_gone"]
    assert found["doors"]
    assert run(host, engine="nftables")["changed"]
    assert inspect(host)["drift"] == []


def test_a_dormant_table_is_refused():
    host = a_host()
    switched(host)
    host.dormant.add("inet")
    with pytest.raises(HostError, match="dormant.*nft add table inet portknock"):
        run(host, engine="nftables")
    assert "doors_gone" in [each["kind"] for each in inspect(host)["findings"]]


@pytest.mark.parametrize("engine", ["nftables", "iptables"])
def test_a_table_that_another_program_owns_is_refused(engine):
    """With any engine: it has the collection's name, so it would be changed, or taken out."""
    host = a_host()
    switched(host)
    host.owned.add("inet")
    with pytest.raises(HostError, match=r"the table inet portknock belongs to a running program .*, which names it"):
        run(host, engine=engine, policy="accept")


@pytest.mark.parametrize("more", [{}, {"doors": [dict(OTHER, opens=["22"], sources=["198.51.100.0/24"])]}])
def test_a_policy_that_shuts_out_this_connection_is_refused(more):
    host = a_host()
    host.ssh = "192.0.2.9 40000 192.0.2.1 2222" if not more else "192.0.2.9 40000 192.0.2.1 22"
    with pytest.raises(SpecError, match="would shut out this connection"):
        run(host, engine="nftables", **more)
    assert not host.nft.exists


def test_nothing_kept_for_the_boot():
    host = a_host()
    result = switched(host, persist=False)
    assert "not_persisted" in [each["kind"] for each in result["findings"]]
    assert UNIT not in host.files
    host.reboot()
    assert not host.nft.exists


def test_a_text_of_a_pending_change_is_known_before_it_is_kept():
    host = a_host()
    switched(host)
    kept = host.files[TABLE_FILE]
    wanted = options(engine="nftables", doors=[OTHER], guard=False)
    Guard(host, NoAgent()).apply(plan_change(wanted, host), wanted)
    assert host.files[TABLE_FILE] == kept
    assert host.files[RUN_TABLE][1] == 0o600
    assert [door["name"] for door in inspect(host)["doors"]] == ["web", "web"]


def test_nothing_is_said_of_lists_that_this_engine_does_not_have():
    host = a_host()
    host.size = 100
    switched(host)
    host.files["/etc/portknock/options.json"] = (json.dumps(options(engine="nftables")), 0o600)
    assert inspect(host)["findings"] == []


def test_a_boot_before_the_confirmation_needs_no_iptables():
    tools = {name + tail for name in ("iptables", "ip6tables") for tail in ("", "-save", "-restore")}
    host = a_host(*tools)
    switched(host)
    kept = copy.deepcopy(host.nft.state())
    wanted = options(engine="nftables", doors=[OTHER], guard=False)
    guard = Guard(host, NoAgent())
    guard.apply(plan_change(wanted, host), wanted)
    record = host.files[SPARE_RECORD]
    host.reboot()
    host.files[SPARE_RECORD] = record
    guard.undo("", "the host was restarted")
    assert host.nft.state()[:3] == kept[:3]


def etc_of(host):
    return {path: value for path, value in host.files.items() if path.startswith("/etc/")}


@pytest.mark.parametrize("ends", ["confirm", "undo"])
@pytest.mark.parametrize("undone", ["exact", "emptied"])
def test_nft_that_is_lost_in_the_window_shuts_nobody_out(undone, ends):
    """The kernel is asked without it; a table that was not there before is gone, one that was refuses nothing."""
    host = a_host()
    if undone == "emptied":
        switched(host)
    kept, rules = etc_of(host), state_of(host)[0]
    wanted = options(engine="nftables", doors=[OTHER], guard=False)
    guard = Guard(host, NoAgent())
    record = guard.apply(plan_change(wanted, host), wanted)
    assert host.nft.chains["input"]
    host.lost = {"nft"}
    if ends == "confirm":
        assert guard.confirm("")["outcome"] == "rolled_back"
        assert guard.ended(record.id)["why"] == "/usr/sbin/nft cannot be run. Install the package nftables again."
    else:
        guard.undo("", "it was not confirmed")
    assert guard.ended(record.id)["undo"] == undone
    assert host.nft.exists == (undone == "emptied")
    assert not host.nft.chains.get("input")
    assert etc_of(host) == kept
    assert state_of(host)[0] == rules
    host.lost = set()
    if undone == "emptied":
        assert switched(host)["changed"]
    assert host.nft.exists == (undone == "emptied")


def test_what_cannot_be_undone_of_one_engine_keeps_nothing_of_the_other():
    """Say, nft refuses the table: the rules of iptables, which nobody has confirmed, go all the same."""
    host = a_host()
    switched(host)
    wanted = options(engine="iptables", doors=[OTHER], guard=False)
    guard = Guard(host, NoAgent())
    guard.apply(plan_change(wanted, host), wanted)
    assert own_lines(host.rules["iptables"].save())
    host.refuse = lambda command, words, _data: (1, "", "no\n") if command == "nft" and "-f" in words else None
    with pytest.raises(HostError, match="nft refused the table"):
        guard.undo("", "it was not confirmed")
    assert own_lines(host.rules["iptables"].save()) == ""
    host.refuse = None
    guard.undo("", "it was not confirmed")
    assert host.nft.exists


@pytest.mark.parametrize("backend", ["nf_tables", "legacy"])
def test_iptables_that_is_lost_in_the_window_shuts_nobody_out(backend):
    """What the kernel has in nftables it empties without it; of the other backend it can be asked only by its command."""
    host = a_host("nft")
    host.version = f"iptables v1.8.9 ({backend})\n"
    wanted = options(guard=False)
    guard = Guard(host, NoAgent())
    record = guard.apply(plan_change(wanted, host), wanted)
    host.lost = {name + tail for name in ("iptables", "ip6tables") for tail in ("", "-save", "-restore")}
    if backend == "legacy":
        with pytest.raises(HostError, match="not found"):
            guard.undo("", "it was not confirmed")
        return
    guard.undo("", "it was not confirmed")
    assert guard.ended(record.id)["undo"] == "emptied"
    assert not [
        line for line in own_lines(host.rules["iptables"].save()).splitlines() if line.startswith("-A PORTKNOCK")
    ]
