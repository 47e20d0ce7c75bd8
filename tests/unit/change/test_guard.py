# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard on a host in memory: a change is kept or undone."""

from ipaddress import ip_address

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change.guard import Guard
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import plan_change
from ansible_collections.sesame.portknock.plugins.module_utils._change.undone import why_untracked
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError, PendingError
from ansible_collections.sesame.portknock.plugins.module_utils._host.conntrack import Flow
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_kernel import KernelRule
from fake_host import FakeHost, Killed
from fake_kernel import FakeNftables
from story import DOOR, IDENT, NEW_SSH, OLD_SSH, TIMEOUT, FakeAgent, Story, apply_at_once, options

# The two ends


def test_nothing_is_kept_before_the_confirm(story):
    files = dict(story.old[1])
    record = story.apply()
    assert (record.state, record.id, record.agent) == ("applied", IDENT, "systemd")
    assert story.agent.armed == [(IDENT, TIMEOUT)]
    assert story.seen()[1:3] == (files, story.old[2]), "files or the unit were changed"
    assert story.seen()[3][0] == story.old[3][0], "knockd was enabled or disabled"
    assert story.seen()[0::3] != story.old[0::3]
    assert story.pending_is(record)
    told = story.guard.answer(record, "ssh")
    assert told == dict(
        state="pending", id=IDENT, door="ssh", port=22, seconds_left=TIMEOUT - 1, agent="systemd", proof_door="", boot="one"
    )  # fmt: skip


@pytest.mark.parametrize("session", ["127.0.0.1 50000 127.0.0.1 22", "::1 50000 ::1 22", ""])
def test_a_relay_on_the_host(session):
    """What listens in front of sshd makes a connection of its own, which says nothing of where the controller connects to."""
    story = Story("a bare host gets doors")
    story.wanted = dict(doors=[dict(DOOR, opens=["443"])])
    story.host.ssh = session or None
    answer = story.guard.answer(story.apply(), "")
    assert (answer["port"], answer["door"]) == (0, "")


def test_confirmed(story):
    story.apply()
    assert story.confirm() == dict(outcome="confirmed", connection=NEW_SSH, why="")
    story.assert_new()
    assert story.agent.disarmed == [IDENT]
    assert story.guard.ended(IDENT)["outcome"] == "confirmed"
    assert story.confirm()["outcome"] == "confirmed", "asked again, because the first answer got lost"


def test_not_confirmed(story):
    story.apply()
    story.host.now += TIMEOUT
    answer = story.guard.undo(IDENT, "it was not confirmed in time")
    assert (answer["outcome"], answer["undo"], answer["why"]) == (
        "rolled_back",
        "exact",
        "it was not confirmed in time",
    )
    story.assert_old()
    late = story.confirm()
    assert (late["outcome"], late["why"]) == ("rolled_back", "it was not confirmed in time")
    story.assert_old()


def test_the_guard_does_what_runs_without_it(story):
    """After either end the next run has nothing, or everything, to do."""
    story.apply()
    story.confirm()
    assert not plan_change(options(**story.wanted), story.host).changed


@pytest.mark.parametrize("engine", ["iptables", "nftables"])
def test_connections_from_before_the_first_rules_go_on(engine):
    """Nothing may have tracked them until then; later changes find them tracked."""
    host = Story("a bare host gets doors").host
    host.tools |= {"nft"}
    host.connected = [Flow(ip_address("192.0.2.9"), 50009, ip_address("192.0.2.1"), 5432)]
    apply_at_once(host, doors=[DOOR], engine=engine)
    assert host.adopted == host.connected
    apply_at_once(host, doors=[DOOR], engine=engine, log=True)
    assert host.adopted == host.connected


def test_an_administrator_needs_no_new_connection(story):
    story.apply()
    assert story.confirm("", ssh=OLD_SSH)["outcome"] == "confirmed"
    story.assert_new()


def test_an_administrator_undoes(story):
    story.apply()
    assert story.guard.undo("", "it was asked for")["outcome"] == "rolled_back"
    story.assert_old()


def test_a_host_before_any_change():
    guard = Guard(FakeHost(), FakeAgent())
    assert guard.finish_earlier() == ""
    for answer in (guard.confirm("x"), guard.confirm(""), guard.undo("x", ""), guard.undo("", ""), guard.ended("")):
        assert answer == dict(outcome="unknown", boot="one")
    assert guard.pending() is None


# Confirms that prove nothing


def test_a_wrong_id_is_unknown_and_does_nothing(story):
    record = story.apply()
    story.host.frozen = True
    assert story.confirm("ffff") == dict(outcome="unknown", boot="one")
    assert story.guard.undo("ffff", "") == dict(outcome="unknown", boot="one")
    assert story.pending_is(record)


STALE = [
    ("the connection that applied it", OLD_SSH, 100.0, True),
    ("the same, whenever it began", OLD_SSH, -1.0, True),
    ("another one from before", NEW_SSH, 100.0, True),
    ("another one from just before", NEW_SSH, 0.1, True),
    ("one within a clock tick", NEW_SSH, 0.0, False),
    ("one made since", NEW_SSH, -0.5, False),
    ("from another address", "192.0.2.8 50000 192.0.2.1 22", -0.5, False),
]


@pytest.mark.parametrize(("words", "older", "stale"), [item[1:] for item in STALE], ids=[item[0] for item in STALE])
def test_a_connection_that_is_not_new_is_stale(words, older, stale):
    story = Story()
    record = story.apply()
    story.host.frozen = stale
    answer = story.guard.confirm(IDENT, (words.split(), record.applied - older))
    assert answer["outcome"] == ("stale" if stale else "confirmed")
    assert answer["connection"] == words
    assert story.pending_is(record) is stale


@pytest.mark.parametrize("session", [(None, None), (NEW_SSH.split(), None)])
def test_a_connection_of_unknown_age_counts(session):
    story = Story()
    story.apply()
    assert story.guard.confirm(IDENT, session)["outcome"] == "confirmed"


def test_a_confirm_at_the_deadline_is_too_late(story):
    record = story.apply()
    story.host.now = record.deadline
    answer = story.confirm()
    assert (answer["outcome"], answer["why"]) == ("rolled_back", "it was confirmed too late")
    story.assert_old()


def test_a_confirm_just_before_the_deadline(story):
    record = story.apply()
    story.host.now = record.deadline - 0.01
    assert story.confirm()["outcome"] == "confirmed"


def test_an_administrator_may_confirm_late(story):
    record = story.apply()
    story.host.now = record.deadline + 5
    assert story.confirm("")["outcome"] == "confirmed"
    story.assert_new()


def test_our_rules_changed_by_others_are_not_confirmed():
    story = Story()
    story.apply()
    story.host.rules["iptables"].tables["filter"].chains["PORTKNOCK"].pop()
    answer = story.confirm()
    assert answer["outcome"] == "rolled_back"
    assert "something else changed the knock rules of ipv4" in answer["why"]
    story.assert_old()


def test_rules_of_others_do_not_keep_it_from_being_confirmed():
    story = Story()
    story.apply()
    story.host.rules["iptables"].restore("*filter\n-I INPUT 1 -s 198.51.100.1 -j DROP\nCOMMIT\n")
    assert story.confirm()["outcome"] == "confirmed"
    assert "-A INPUT -s 198.51.100.1 -j DROP" in story.host.rules["iptables"].save()


def test_rules_of_others_stay_when_it_is_undone():
    story = Story()
    story.apply()
    story.host.rules["iptables"].restore("*filter\n-I INPUT 1 -s 198.51.100.1 -j DROP\nCOMMIT\n")
    assert story.guard.undo(IDENT, "")["undo"] == "exact"
    assert "-A INPUT -s 198.51.100.1 -j DROP" in story.host.rules["iptables"].save()
    story.host.rules["iptables"].restore("*filter\n-D INPUT -s 198.51.100.1 -j DROP\nCOMMIT\n")
    story.assert_old()


# A second run


def test_a_second_run_while_one_is_pending():
    story = Story()
    record = story.apply()
    story.host.now = record.deadline - 12.5
    story.host.frozen = True
    with pytest.raises(
        PendingError, match=r"made by me@here, \d+ s ago, it is undone in 12 s .*'portknock rollback' undoes it"
    ) as e:
        story.guard.finish_earlier()
    assert e.value.pending == dict(id=IDENT, owner="me@here", seconds_left=12)
    assert story.pending_is(record)


def test_a_second_run_after_the_deadline_undoes():
    story = Story()
    record = story.apply()
    story.host.now = record.deadline
    assert "had been left unfinished; it was undone first" in story.guard.finish_earlier()
    story.assert_old()
    assert story.guard.ended(IDENT)["why"] == "it was not confirmed"


def test_a_second_run_after_one_that_died_before_it_was_applied():
    story = Story()
    die_in(story.host, story.apply, lambda: story.host.done[-1:] == [("restore", "iptables-restore")])
    assert story.guard.pending().state == "armed"
    assert story.seen() != story.old
    assert "it was undone first" in story.guard.finish_earlier()
    story.assert_old()
    assert story.guard.ended(IDENT)["why"] == "its run ended before it was applied"


def die_in(host, action, when):
    """Run an action that is killed at the first step in front of which a condition holds."""
    step = host._step

    def watched():
        if when() and not host.dead:
            host.dies_at = host.steps
        step()

    host._step = watched
    with pytest.raises(Killed):
        action()
    host._step = step
    host.next_process()


def test_nobody_confirms_what_was_never_applied():
    story = Story()
    die_in(story.host, story.apply, lambda: story.host.done[-1:] == [("restore", "iptables-restore")])
    answer = story.confirm("")
    assert (answer["outcome"], answer["why"]) == ("rolled_back", "its run ended before it was applied")
    story.assert_old()


@pytest.mark.parametrize("actor", ["run", "confirm", "admin", "undo"])
def test_confirmed_and_dead_is_finished_by_the_next(story, actor):
    story.apply()
    die_in(story.host, story.confirm, lambda: story.state() == "confirming")
    if actor == "run":
        assert "had been confirmed but not kept to the end" in story.guard.finish_earlier()
    elif actor == "undo":
        assert story.guard.undo(IDENT, "in vain")["outcome"] == "confirmed"
    else:
        answer = story.confirm(IDENT if actor == "confirm" else "")
        assert (answer["outcome"], answer["connection"]) == ("confirmed", NEW_SSH if actor == "confirm" else "")
    story.assert_new()


def test_a_reboot_is_a_rollback(story):
    story.apply()
    story.host.reboot()
    answer = story.confirm()
    assert (answer["outcome"], answer["why"]) == ("rolled_back", "the host was restarted before it was confirmed")
    story.assert_old_after_boot()
    assert story.guard.finish_earlier() == ""


def test_a_restarted_container_keeps_run():
    """Its /run may be a plain directory, and the record of the life before is still there."""
    for actor in ("run", "confirm"):
        story = Story()
        story.apply()
        kept = {path: value for path, value in story.host.files.items() if path.startswith("/run/")}
        story.host.reboot()
        story.host.files.update(kept)
        if actor == "run":
            assert story.guard.finish_earlier() == ""
        else:
            assert story.guard.undo("", "deadline")["why"] == "the host was restarted before it was confirmed"
            answer = story.confirm()
            assert (answer["outcome"], answer["why"]) == (
                "rolled_back",
                "the host was restarted before it was confirmed",
            )
        assert story.guard.pending() is None
        assert not story.host.staged
        story.assert_old_after_boot()


# The connection that confirms must be tracked


def test_a_connection_that_is_not_tracked_proves_nothing(story):
    """It gets in through the open door, and its session breaks when the window ends."""
    record = story.apply()
    story.host.tracking = "untracked"
    answer = story.confirm()
    if not record.door:
        assert answer["outcome"] == "confirmed", "each packet is accepted as it is"
        return
    assert (answer["outcome"], answer["undo"]) == ("rolled_back", "exact")
    assert answer["why"] == why_untracked("22", "ssh", ""), "no rule of this host says notrack"
    story.assert_old()


NOTRACK = "*raw\n-A PREROUTING {0} -j CT --notrack\nCOMMIT\n"


@pytest.mark.parametrize(
    ("raw", "native", "rule"),
    [
        ("-p tcp -m tcp --dport 22", [], "-A PREROUTING -p tcp -m tcp --dport 22 -j CT --notrack"),
        (
            "-p tcp -m multiport --dports 22,17005",
            [],
            "-A PREROUTING -p tcp -m multiport --dports **** -j CT --notrack",
        ),
        ("-p tcp -m tcp --dport 80", [], None),
        ("-p tcp -m tcp --dport 22 -m mark --mark 0x5", [], None),
        (None, [KernelRule("mine", "in", 7, ("--notrack",))], None),
        (None, [KernelRule("mine", "in", 7, None)], ""),
    ],
)
def test_what_keeps_the_connection_out_of_tracking_is_named_where_the_rules_prove_it(raw, native, rule):
    """Else the table of connections may have been flushed between the connection and its confirmation."""
    story = Story("a bare host gets doors")
    story.apply()
    story.host.tracking, story.host.held["inet"] = "untracked", native
    if raw:
        story.host.rules["iptables"].restore(NOTRACK.format(raw), noflush=True)
    answer = story.confirm()
    assert (answer["outcome"], answer["why"]) == ("rolled_back", why_untracked("22", "ssh", rule))


def test_rules_that_cannot_be_read_may_be_what_keeps_it_out(monkeypatch):
    story = Story("a bare host gets doors")
    story.apply()
    story.host.tracking = "untracked"

    def refuse(_self, _family):
        raise HostError("the kernel does not list the rules of nftables")

    monkeypatch.setattr(FakeNftables, "rules", refuse)
    assert story.confirm()["why"] == why_untracked("22", "ssh", None)


def test_the_words_about_a_connection_that_is_not_tracked():
    begins = "the host does not track the new connection to port 22 (conntrack), so it would break when the window of door ssh ends. "
    flushed = "entry was deleted after the connection was made, as 'conntrack -F' does: find out what does so, then run this again"
    assert why_untracked("22", "ssh", "") == begins + "No rule of this host says notrack. Its " + flushed
    assert why_untracked("22", "ssh", None) == (
        begins
        + "Either a rule says notrack for that port: find it with 'iptables -t raw -S' or 'nft list ruleset' and take the "
        "door's ports out of it, or put this controller into trusted_sources. Or its " + flushed
    )
    assert why_untracked("22", "ssh", "-A OUTPUT -j CT --notrack") == (
        begins
        + "A rule of table raw keeps it out: -A OUTPUT -j CT --notrack. Take the door's ports out of that rule, or put this "
        "controller into trusted_sources"
    )


def test_a_kernel_that_does_not_say_whether_it_tracks(story):
    record = story.apply()
    story.host.tracking = "unknown"
    wanted = dict(outcome="confirmed", connection=NEW_SSH, why="")
    assert story.confirm() == (dict(wanted, tracked="unknown") if record.door else wanted)
    story.assert_new()


def test_the_plays_own_session_is_not_tracked(story):
    """It came before anything was tracked here, and would break when the window ends: the controller makes a new one."""
    record = story.apply()
    story.host.untracked = {OLD_SSH}
    wanted = dict(outcome="confirmed", connection=NEW_SSH, why="")
    assert story.confirm() == (dict(wanted, session="untracked") if record.door else wanted)
    story.assert_new()


def test_an_administrator_decides_whatever_is_tracked(story):
    story.apply()
    story.host.tracking = "untracked"
    assert story.confirm("", ssh=OLD_SSH)["outcome"] == "confirmed"
    story.assert_new()
