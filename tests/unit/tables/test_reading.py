# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A ruleset that cannot be read whole is an error before a change, and a way back that needs no reading after one."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change.guard import Guard
from ansible_collections.sesame.portknock.plugins.module_utils._change.info import inspect
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import plan_change
from ansible_collections.sesame.portknock.plugins.module_utils._errors import AppliedError, HostError, SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_kernel import KernelRule
from ansible_collections.sesame.portknock.plugins.module_utils._tables.commands import Commands, Iptables
from fake_host import FakeHost
from module_run import options, run
from story import FakeAgent
from two_backends import TwoBackends

ADVICE = "cannot be read with iptables: it holds rules that were written with nft.*nft -a list table ip filter"
FOREIGN = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 443 -j ACCEPT\nCOMMIT\n"


def unread(host, how):
    getattr(host, how).add("ipv4")


def guarded(host, **wanted):
    """Apply a change that waits to be confirmed; return the Guard and its Record."""
    asked = options(**wanted)
    guard = Guard(host, FakeAgent())
    return guard, guard.apply(plan_change(asked, host), asked)


@pytest.mark.parametrize("state", ["present", "absent"])
@pytest.mark.parametrize("installed", [False, True])
@pytest.mark.parametrize("how", ["native", "cut_short"])
def test_what_cannot_be_read_is_not_changed(how, installed, state):
    host = TwoBackends(v4=FOREIGN)
    if installed:
        run(host)
    unread(host, how)
    before = host.state()
    host.frozen = True
    for check in (False, True):
        with pytest.raises(HostError, match=ADVICE):
            run(host, check=check, state=state, doors=[dict(name="web", knock=["20001"], opens=["22"])])
    with pytest.raises(HostError, match=ADVICE):
        inspect(host)
    assert host.state() == before


DORMANT = "the ipv4 table filter is dormant .* 'nft add table ip filter'"


@pytest.mark.parametrize("installed", [False, True])
def test_rules_that_are_not_in_force(installed):
    """No door is called closed by rules that no packet meets; they can be taken out."""
    host = TwoBackends(v4=FOREIGN)
    if installed:
        run(host)
    host.dormant = {"ip"}
    host.frozen, before = True, host.state()
    for check in (False, True):
        with pytest.raises(HostError, match=DORMANT):
            run(host, check=check)
    with pytest.raises(HostError, match=DORMANT):
        inspect(host)
    assert host.state() == before
    host.frozen = False
    assert run(host, state="absent")["changed"] is installed
    assert host.ours() == {}


def test_a_table_that_a_program_keeps_to_itself():
    """Loading would fail, and iptables-restore --test does not: it is said before. What changes nothing in it goes on."""
    host = TwoBackends(v4=FOREIGN)
    host.owned = {"ip6"}
    host.frozen, before = True, host.state()
    for check in (False, True):
        with pytest.raises(
            HostError, match="the ipv6 table filter belongs to a running program .* 'nft list table ip6 filter'"
        ):
            run(host, check=check)
    assert inspect(host)["engine"] == ""
    assert host.state() == before
    assert run(host, state="absent")["changed"] is False
    host.frozen = False
    assert run(host, ip_versions=["ipv4"])["changed"]


def test_rules_that_somebody_takes_out_of_force_are_not_confirmed():
    host = TwoBackends(v4=FOREIGN)
    before = host.ours()
    guard, record = guarded(host)
    host.dormant = {"ip"}
    answer = guard.confirm(record.id)
    assert answer["outcome"] == "rolled_back"
    assert answer["why"].startswith("the ipv4 table filter is dormant")
    assert host.ours() == before


def test_a_nat_table_that_cannot_be_read():
    host = TwoBackends(v4=FOREIGN)
    run(host)
    host.native_nat.add("ipv4")
    with pytest.raises(HostError, match="ipv4 table nat cannot be read.*nft -a list table ip nat"):
        run(host)
    assert run(host, state="absent")["changed"], "what is ours is not in nat"
    assert host.ours() == {}


@pytest.mark.parametrize("has_nft", [True, False])
@pytest.mark.parametrize("how", ["native", "cut_short"])
@pytest.mark.parametrize("installed", [False, True])
def test_a_table_that_becomes_unreadable_in_the_window(installed, how, has_nft):
    host = TwoBackends(v4=FOREIGN)
    host.has_nft(has_nft)
    if installed:
        run(host, doors=[dict(name="web", knock=["20001", "20011"], opens=["80"])])
    guard, record = guarded(host)
    unread(host, how)
    assert guard.confirm(record.id)["outcome"] == "rolled_back"
    ended = guard.ended(record.id)
    assert ended["undo"] == "emptied"
    assert "cannot be read" in ended["why"]
    # Nothing is refused by us, and what others wrote is there.
    save = host.rules["iptables-nft"].save()
    assert "PORTKNOCK" not in save
    assert "DOCKER-USER" not in save
    assert "--dport 443" in save
    getattr(host, how).clear()
    assert run(host, state="absent")["changed"] is installed
    assert host.ours() == {}


@pytest.mark.parametrize("ends", ["confirmed", "rolled_back"])
def test_a_misprinted_rule_that_is_added_in_the_window(ends):
    """What was loaded is read back all the same: only rules of others are printed as something else. The next run refuses."""
    host = TwoBackends(v4=FOREIGN)
    guard, record = guarded(host)
    host.held["ip"] = [native_rule()]
    host.rules["iptables-nft"].restore("*filter\n-A INPUT -j DROP\nCOMMIT\n", noflush=True)
    answer = guard.confirm(record.id) if ends == "confirmed" else guard.undo(record.id, "late")
    assert (answer["outcome"], answer.get("undo")) == (ends, None if ends == "confirmed" else "exact")
    assert bool(host.ours()) is (ends == "confirmed")
    assert "-A INPUT -j DROP" in host.rules["iptables-nft"].save()
    host.frozen = True
    with pytest.raises(HostError, match="chain INPUT, handle 12"):
        run(host)


def test_a_table_that_becomes_unreadable_while_it_is_loaded():
    host = TwoBackends(v4=FOREIGN)
    asked = options()
    change = plan_change(asked, host)

    def refuse(_command, words, data):
        if "PORTKNOCK_HEAD" in data and "--test" not in words:
            unread(host, "native")

    host.refuse = refuse
    with pytest.raises(
        AppliedError, match="cannot be read.*chains were emptied instead, and refuse nothing any more"
    ) as error:
        Guard(host, FakeAgent()).apply(change, asked)
    assert error.value.undo == "emptied"
    assert "PORTKNOCK" not in host.rules["iptables-nft"].save()


def test_hooks_that_cannot_be_deleted_stay_and_refuse_nothing():
    host = TwoBackends(v4=FOREIGN)
    host.has_nft(False)
    guard, record = guarded(host)
    unread(host, "native")
    failed = (3, "", "Parsing nftables rule failed\n")
    host.refuse = lambda _command, _words, data: failed if "\n-D " in data or "\n-X " in data else None
    guard.undo(record.id, "late")
    assert guard.ended(record.id)["undo"] == "emptied"
    left = host.ours()["iptables-nft"]
    assert [line for line in left if line.startswith("-A PORTKNOCK")] == []
    assert len([line for line in left if line.startswith("-A INPUT")]) == 3
    host.refuse = None
    host.native.clear()
    assert run(host, state="absent")["changed"]
    assert host.ours() == {}


@pytest.mark.parametrize("ends", ["undo", "confirm"])
def test_a_backend_that_is_switched_in_the_window(ends):
    host = TwoBackends(v4=FOREIGN)
    guard, record = guarded(host)
    host.switch("legacy")
    if ends == "confirm":
        assert guard.confirm(record.id)["outcome"] == "rolled_back"
        assert "the alternative of iptables was switched" in guard.ended(record.id)["why"]
    else:
        guard.undo(record.id, "late")
    assert guard.ended(record.id)["undo"] == "exact"
    assert host.ours() == {}
    assert "--dport 443" in host.rules["iptables-nft"].save()


@pytest.mark.parametrize("first", ["nft", "legacy"])
def test_a_backend_that_is_switched_between_runs(first):
    host = TwoBackends()
    host.switch(first)
    run(host)
    host.switch("legacy" if first == "nft" else "nft")
    with pytest.raises(
        HostError, match="both backends.*the collection's own, from before the alternative was switched.*state: absent"
    ):
        run(host)
    looked = inspect(host)
    assert {finding["kind"] for finding in looked["findings"]} >= {"other_backend"}
    assert {door["name"] for door in looked["doors"]} == {"ssh"}
    assert run(host, check=True, state="absent")["changed"]
    assert run(host, state="absent")["changed"]
    assert host.ours() == {}
    assert run(host, state="absent")["changed"] is False


def test_absent_in_the_other_backend_is_undone_there():
    host = TwoBackends()
    run(host)
    ours = host.ours()
    host.switch("legacy")
    guard, record = guarded(host, state="absent")
    assert host.ours() == {}
    guard.undo(record.id, "late")
    assert host.ours() == ours


def test_ip6tables_is_missing():
    host = FakeHost()
    host.tools -= {"ip6tables", "ip6tables-save", "ip6tables-restore"}
    for check in (False, True):
        with pytest.raises(
            SpecError, match=r"^ip_versions: this host speaks ipv6, and ip6tables.* ip_versions: \[ipv4\]\. Nothing"
        ):
            run(host, check=check)
    assert not host.writes()
    assert run(host, ip_versions=["ipv4"])["changed"]


def test_the_commands_are_those_of_the_backend():
    host = TwoBackends()
    run(host)
    called = {words[0] for words in host.commands if words[0].endswith(("-save", "-restore"))}
    assert called == {
        "/usr/sbin/ip{0}tables-{1}".format(six, each) for six in ("", "6") for each in ("nft-save", "nft-restore")
    }


def native_rule(table="filter"):
    return KernelRule(table, "INPUT", 12, None)


@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_native_rule_that_is_misprinted(state):
    host = TwoBackends(v4=FOREIGN.replace("COMMIT", "-A INPUT -j DROP\nCOMMIT"))
    host.held["ip"] = [KernelRule("filter", "INPUT", 11, ("--dport",)), native_rule()]
    host.frozen = True
    with pytest.raises(HostError, match=ADVICE.replace("nft.*nft", r"nft.*\(chain INPUT, handle 12\).*nft")):
        run(host, state=state)
    with pytest.raises(HostError, match="chain INPUT, handle 12"):
        inspect(host)


@pytest.mark.parametrize("table", ["nat", "mangle"])
def test_a_native_rule_in_another_table(table):
    host = TwoBackends(v4=FOREIGN)
    run(host)
    host.held["ip"] = [native_rule(table)]
    host.rules["iptables-nft"].restore("*{0}\n-A INPUT -j DROP\nCOMMIT\n".format(table))
    with pytest.raises(HostError, match="ipv4 table {0} cannot be read".format(table)):
        run(host)
    assert run(host, state="absent")["changed"]


@pytest.mark.parametrize(
    ("table", "counts", "is_refused"), [("nat", True, False), ("nat", False, True), ("mangle", True, True)]
)
def test_a_rule_that_a_newer_iptables_has_written(table, counts, is_refused):
    """A container engine outside of the host does that in nat: it is no reason to refuse the host."""
    host = TwoBackends(v4=FOREIGN)
    host.held["ip"] = [KernelRule(table, "INPUT", 12, ("--dport",), counts)]
    host.rules["iptables-nft"].restore("*{0}\n-A INPUT -p tcp -j DROP\nCOMMIT\n".format(table))
    if is_refused:
        with pytest.raises(HostError, match="ipv4 table {0} cannot be read".format(table)):
            run(host)
    else:
        assert run(host)["changed"]


def test_the_native_rule_is_named_where_the_table_cannot_be_read():
    host = TwoBackends(v4=FOREIGN)
    unread(host, "native")
    host.held["ip"] = [native_rule()]
    with pytest.raises(HostError, match=r"as they are \(chain INPUT, handle 12\)"):
        run(host)


def drops(chain="input", table="filter", family="inet"):
    return {"chain": dict(family=family, table=table, name=chain, hook="input", type="filter", prio=0, policy="drop")}


def kinds(result):
    return {finding["kind"] for finding in result["findings"]}


def test_a_table_beside_iptables_is_a_finding():
    host = TwoBackends()
    host.listing = [drops()]
    assert "policy_drop" in kinds(run(host))
    assert "policy_drop" in kinds(inspect(host))
    host.listing = None
    assert "native_unknown" in kinds(run(host))
    host.listing = []
    assert not {"policy_drop", "native_unknown"} & kinds(run(host))


def test_the_policy_of_the_other_backend_is_a_finding():
    host = TwoBackends()
    host.switch("nft")
    host.rules["iptables-legacy"].restore("*filter\n:INPUT DROP [0:0]\nCOMMIT\n")
    assert "policy_drop" in kinds(run(host))
    assert "policy_drop" in kinds(inspect(host))
    host.rules["iptables-legacy"].restore("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n")
    assert "policy_drop" not in kinds(run(host))


def test_absent_where_the_other_backend_cannot_be_read():
    """A host whose nftables was never iptables' own: nothing of ours is in it, nft shows."""
    host = TwoBackends()
    host.switch("legacy")
    unread(host, "native")
    host.chains = [drops("INPUT", "filter", "ip")]
    assert run(host, state="absent")["changed"] is False
    host.chains.append({"chain": dict(family="ip", table="filter", name="PORTKNOCK")})
    with pytest.raises(HostError, match=ADVICE):
        run(host, state="absent")


def test_ours_in_the_other_backend_which_cannot_be_read():
    host = TwoBackends()
    run(host)
    host.switch("legacy")
    unread(host, "native")
    host.chains = [{"chain": dict(family="ip", table="filter", name="PORTKNOCK")}]
    for state in ("present", "absent"):
        with pytest.raises(HostError, match=ADVICE):
            run(host, state=state)
    with pytest.raises(HostError, match=ADVICE):
        inspect(host)


@pytest.mark.parametrize("comment", ["a\n*b", "a\nCOMMIT", "*filter"])
def test_a_comment_that_looks_like_a_table_is_none(comment):
    text = '*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m comment --comment "{0}" -j ACCEPT\nCOMMIT\n# Completed\n'.format(
        comment
    )
    seams = Iptables(
        lambda _words, _data: (0, text, ""),
        lambda name: name,
        lambda _path: "",
        Commands("nft", {"iptables-save": "x"}),
    )
    assert seams.save("ipv4") == text


@pytest.mark.parametrize(("native", "undo"), [(False, "exact"), (True, "emptied")])
def test_a_boot_that_loaded_what_was_not_confirmed(native, undo):
    """Others had saved it, and the boot loads it again; what cannot be read then is not called exact either."""
    host = TwoBackends(v4=FOREIGN)
    guard, record = guarded(host)
    host.booted += "+"
    if native:
        unread(host, "native")
    guard.finish_earlier()
    assert (guard.ended(record.id)["outcome"], guard.ended(record.id)["undo"]) == ("rolled_back", undo)
    assert "PORTKNOCK" not in host.rules["iptables-nft"].save()
