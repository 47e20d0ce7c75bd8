# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard on a host in memory: whatever fails while a change is applied, confirmed or undone."""

import re
import signal
import threading

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import plan_change
from ansible_collections.sesame.portknock.plugins.module_utils._errors import AppliedError, HostError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import LAST, MODPROBE, PENDING
from shown_steps import steps_in
from story import IDENT, MINE, NAMES, TIMEOUT, Story, nth_restore_fails, options


def test_without_an_agent_nothing_is_changed(story):
    story.agent.error, before = HostError("no agent"), len(loads(story.host))
    with pytest.raises(HostError, match="no agent"):
        story.apply()
    story.assert_old()
    assert len(loads(story.host)) == before, "rules were loaded"
    assert story.guard.ended(IDENT)["why"] == "nothing could be armed to undo it"


class HangUp(BaseException):
    """What ends this process where nothing keeps it."""


def test_a_terminal_that_is_lost_while_the_change_is_armed_ends_it_once_something_will_undo_it(story, monkeypatch):
    """So that a killed controller never leaves a record that nothing ends."""

    def hang_up(*_words):
        raise HangUp

    def arm(*words):
        # To this thread: a module has no other, pytest's workers have.
        signal.pthread_kill(threading.get_ident(), signal.SIGHUP)
        return armed(*words)

    armed, was = story.agent.arm, signal.signal(signal.SIGHUP, hang_up)
    monkeypatch.setattr(story.agent, "arm", arm)
    try:
        with pytest.raises(HangUp):
            story.apply()
    finally:
        signal.signal(signal.SIGHUP, was)
    assert story.agent.armed == [(IDENT, TIMEOUT)]
    assert story.state() == "armed"
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def loads(host):
    return [what for what in host.done if what[0] == "restore"]


@pytest.mark.parametrize("number", [1, 2])
def test_a_family_that_does_not_load_rolls_all_back(story, number):
    change = plan_change(options(**story.wanted), story.host)
    (ruleset,) = [plan for plan in change.parts if plan.part == "ruleset"]
    changing = [family for way in ruleset.before["backends"] for family in way["families"]]
    story.host.refuse = nth_restore_fails(number)
    if number > len(changing):
        story.apply()
        return
    with pytest.raises(AppliedError, match="no such luck.*are as they were before the change") as error:
        story.apply()
    assert error.value.undo == "exact"
    story.assert_old()
    assert story.agent.disarmed == [IDENT]
    assert story.guard.ended(IDENT)["outcome"] == "rolled_back"


def test_a_full_disk_rolls_back():
    story = Story()
    story.host.disk_full = "/etc/iptables/rules.v6"
    with pytest.raises(AppliedError, match="No space left on device"):
        story.apply()
    story.assert_old()


def test_a_full_run_changes_nothing():
    story = Story()
    story.host.disk_full = PENDING
    with pytest.raises(HostError, match="No space left on device"):
        story.apply()
    story.assert_old()
    assert story.agent.armed == []


def test_a_run_that_fills_up_rolls_back():
    story = Story()
    arm = story.agent.arm

    def arm_then_full(*words):
        story.host.disk_full = PENDING
        return arm(*words)

    story.agent.arm = arm_then_full
    with pytest.raises(AppliedError, match="No space left on device"):
        story.apply()
    story.assert_old()


def test_an_outcome_that_cannot_be_written_keeps_nothing_alive():
    story = Story()
    story.apply()
    story.host.disk_full = LAST
    story.guard.undo(IDENT, "")
    story.assert_old()


@pytest.mark.parametrize("path", ["/etc/iptables/rules.v4", "/etc/iptables/rules.v6", "/etc/portknock/iptables.rules"])
def test_what_cannot_be_kept_is_rolled_back(path):
    story = Story()
    story.apply()
    story.host.settle_refuses = path

    def heal(_command, _words, _data):
        story.host.settle_refuses = None

    story.host.refuse = heal
    assert story.host.unit
    del story.host.done[:]
    answer = story.confirm()
    assert answer["outcome"] == "rolled_back"
    assert answer["why"].startswith("it could not be kept: {0} cannot be replaced".format(path))
    story.assert_old()
    assert "enable_unit" not in [what[0] for what in story.host.done], (
        "run again, it brings doors that were missing before"
    )


def test_what_was_to_be_kept_and_is_gone_is_not_confirmed():
    """Others tidy up a folder of files that they do not know, or remove a package with its folder."""
    story = Story()
    temporary, path = story.apply().staged[-1]
    del story.host.staged[temporary]
    answer = story.confirm()
    assert answer["outcome"] == "rolled_back"
    assert answer["why"] == "something else removed what was to be kept as {0} before it was confirmed".format(path)
    story.assert_old()


def test_a_unit_that_does_not_start_is_rolled_back():
    story = Story("a bare host gets doors")
    story.apply()
    story.host.unit_refuses = True
    answer = story.confirm()
    assert answer["outcome"] == "rolled_back"
    assert "systemctl restart portknock.service failed" in answer["why"]
    story.assert_old()


@pytest.mark.parametrize("story", NAMES, indirect=True)
def test_applying_that_takes_too_long_is_rolled_back(story):
    def slow(_command, _words, _data):
        story.host.now += TIMEOUT

    story.host.refuse = slow
    with pytest.raises(AppliedError, match="longer than guard_timeout"):
        story.apply()
    story.host.refuse = None
    story.assert_old()


def test_an_interrupt_rolls_back():
    story = Story()
    story.host.hide_lists = interrupt
    with pytest.raises(KeyboardInterrupt):
        story.apply()
    story.assert_old()


def interrupt():
    raise KeyboardInterrupt


def test_the_snapshot_is_the_last_resort():
    story = Story(v4=MINE)
    story.apply()
    story.host.refuse = lambda _command, words, _data: (1, "", "refused") if "--noflush" in words else None
    answer = story.guard.undo(IDENT, "")
    assert (answer["outcome"], answer["undo"]) == ("rolled_back", "snapshot")
    story.assert_old()


def test_nat_that_cannot_be_read_is_not_said_to_be_as_it_was():
    """Rules that nft wrote there meanwhile: iptables-save leaves the table out, and ours would stay in it."""
    story = Story()
    story.apply()
    unreadable = "# Table `nat' is incompatible, use 'nft' tool.\n"
    story.host.spell = lambda text: re.sub(r"\*nat\n.*?COMMIT\n", unreadable, text, flags=re.S)
    assert story.guard.undo(IDENT, "")["undo"] == "emptied"
    story.host.spell = None
    assert not re.search("^-A PORTKNOCK", "".join(story.host.rules[name].save() for name in story.host.rules), re.M)


def test_what_others_put_into_nat_meanwhile_stays():
    """Also where the filter must be put back whole."""
    story = Story()
    story.apply()
    rule = "-p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80"
    for tables in story.host.rules.values():
        tables.tables["nat"].chains["PREROUTING"].append(rule)
    story.host.refuse = lambda _command, words, data: (
        (1, "", "refused") if "--noflush" in words and "*filter" in data else None
    )
    assert story.guard.undo(IDENT, "")["undo"] == "snapshot"
    for tables in story.host.rules.values():
        found = tables.tables["nat"].chains["PREROUTING"]
        assert found.pop(found.index(rule))
    story.assert_old()


def test_rules_that_cannot_be_read_are_put_back_whole():
    story = Story()
    story.apply()
    story.host.spell = lambda text: text.replace("*filter\n", "*filter\nrubbish\n")
    assert story.guard.undo(IDENT, "")["undo"] == "snapshot"
    story.host.spell = None
    story.assert_old()


@pytest.mark.parametrize("broken", ["iptables", "ip6tables"])
def test_one_family_is_undone_though_the_other_cannot_be(broken):
    story = Story()
    story.apply()
    story.host.refuse = lambda command, _words, _data: (1, "", "broken") if command == broken + "-restore" else None
    with pytest.raises(HostError, match="broken"):
        story.guard.undo(IDENT, "")
    sound = {"iptables": 1, "ip6tables": 0}[broken]
    assert story.seen()[0][sound] == story.old[0][sound]
    assert story.guard.pending().id == IDENT, "it stays, to be tried again"
    story.host.refuse = None
    assert story.guard.undo(IDENT, "")["outcome"] == "rolled_back"
    story.assert_old()


@pytest.mark.parametrize("actor", ["run", "confirm", "undo"])
@pytest.mark.parametrize("broken", ["iptables", "ip6tables"])
def test_a_rollback_that_failed_half_way_is_not_turned_into_a_confirm(broken, actor):
    """Keeping it failed, undoing it failed for one family: whoever comes next must not keep the other one."""
    story = Story()
    record = story.apply()
    story.host.settle_refuses = "/etc/iptables/rules.v6"
    story.host.refuse = lambda command, _words, _data: (1, "", "broken") if command == broken + "-restore" else None
    with pytest.raises(HostError, match="broken"):
        story.confirm()
    story.host.refuse = story.host.settle_refuses = None
    story.host.now = record.deadline + 1
    if actor == "run":
        story.guard.finish_earlier()
    elif actor == "confirm":
        assert story.confirm()["outcome"] == "rolled_back"
    else:
        assert story.guard.undo(IDENT, "")["outcome"] == "rolled_back"
    story.assert_old()


def test_the_options_of_a_kernel_module_go_back_too():
    story = Story("a bare host gets doors", module=True)
    story.apply()
    assert MODPROBE in story.host.files
    story.guard.undo(IDENT, "")
    story.assert_old()


def test_no_step_in_what_is_told():
    story = Story()
    told = [story.guard.answer(story.apply(), "ssh"), story.guard.undo(IDENT, "x"), story.guard.ended("")]
    steps = ("17005", "19100", "18300", "20001", "20500")
    assert steps_in(steps, repr(told)) == []
    assert story.host.mode(LAST) == 0o600
    assert steps_in(steps, story.host.read(LAST)) == [], "it stays until the next boot"


def test_the_record_holds_steps_so_it_is_for_root_alone():
    story = Story()
    story.apply()
    assert "17005" in story.host.read(PENDING)
    assert story.host.mode(PENDING) == 0o600
