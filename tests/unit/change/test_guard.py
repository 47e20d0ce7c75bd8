# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard on a host in memory: a change is kept or undone, whoever comes when, and whoever dies on the way."""

import json
import re

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change.guard import Guard
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import plan_change
from ansible_collections.sesame.portknock.plugins.module_utils._change.record import OtherVersionError
from ansible_collections.sesame.portknock.plugins.module_utils._change.rollback import end_other_version
from ansible_collections.sesame.portknock.plugins.module_utils._errors import AppliedError, HostError, PendingError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import LAST, MODPROBE, PENDING, PREVIOUS, PROGRAM
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import DEFAULTS
from fake_host import FakeHost, Killed, knockd_host
from hypothesis import given
from hypothesis import strategies as st
from shown_steps import steps_in

DOOR = {"name": "ssh", "knock": ["17005", "19100/udp", "18300"], "opens": ["22"]}
WEB = {"name": "web", "knock": ["20001", "20500"], "opens": ["443"]}
OLD_SSH, NEW_SSH = "192.0.2.7 50000 192.0.2.1 22", "192.0.2.7 50001 192.0.2.1 22"
TIMEOUT = 30
IDENT = "0123456789abcdef"
MINE = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT\nCOMMIT\n"

CHANGES = {
    "a bare host gets doors": (None, dict(doors=[DOOR])),
    "another door": (dict(doors=[DOOR]), dict(doors=[DOOR, WEB], log=True)),
    "all goes": (dict(doors=[DOOR]), dict(doors=[DOOR], state="absent")),
    "one family goes": (dict(doors=[DOOR]), dict(doors=[DOOR], ip_versions=["ipv4"])),
    "only in the kernel": (None, dict(doors=[DOOR], persist=False)),
    "no longer kept": (dict(doors=[DOOR]), dict(doors=[DOOR, WEB], persist=False)),
    "a bare host gets knockd": (None, dict(doors=[DOOR], engine="knockd")),
    "knockd takes over": (dict(doors=[DOOR]), dict(doors=[DOOR], engine="knockd")),
    "another door for knockd": (dict(doors=[DOOR], engine="knockd"), dict(doors=[DOOR, WEB], engine="knockd")),
    "the kernel takes over": (dict(doors=[DOOR], engine="knockd"), dict(doors=[DOOR])),
    "knockd goes": (dict(doors=[DOOR], engine="knockd"), dict(doors=[DOOR], engine="knockd", state="absent")),
    "knockd until the next boot": (None, dict(doors=[DOOR], engine="knockd", persist=False)),
    "knockd no longer kept": (
        dict(doors=[DOOR], engine="knockd"),
        dict(doors=[DOOR, WEB], engine="knockd", persist=False),
    ),
    "knockd kept at last": (
        dict(doors=[DOOR], engine="knockd", persist=False),
        dict(doors=[DOOR], engine="knockd", ipv6_prefix=64),
    ),
}
NAMES = sorted(CHANGES)


class FakeAgent:
    """Remembers what it is armed for."""

    def __init__(self):
        self.armed, self.disarmed, self.error = [], [], None

    def arm(self, record, timeout):
        if self.error is not None:
            raise HostError(str(self.error))
        self.armed.append((record.id, timeout))
        return "systemd"

    def disarm(self, record):
        self.disarmed.append(record.id)


def options(**more):
    wanted = dict(DEFAULTS, guard=True, guard_timeout=TIMEOUT, guard_id=IDENT, guard_owner="me@here")
    return dict(wanted, **more)


def apply_at_once(host, **more):
    """Do what the module does without a guard."""
    wanted = options(**dict(more, guard=False, guard_id="before"))
    guard = Guard(host, FakeAgent())
    guard.keep(guard.apply(plan_change(wanted, host), wanted))
    # The boot that it was done in is over.
    del host.files[LAST]


class Story:
    """A host before a change, the change, and what the host is like before and after it."""

    def __init__(self, name="another door", module=False, v4=""):
        first, self.wanted = CHANGES[name]
        self.host, twin = knockd_host(v4=v4), knockd_host(v4=v4)
        for host in (self.host, twin):
            host.module = module
            if first is not None:
                apply_at_once(host, **first)
        self.old = seen(self.host)
        apply_at_once(twin, **self.wanted)
        self.new = seen(twin)
        assert self.old != self.new
        self.host.ssh = OLD_SSH
        self.agent = FakeAgent()
        self.guard = Guard(self.host, self.agent)

    def apply(self, **more):
        """Do what the module does: clear the way, plan, apply under guard."""
        wanted = options(**dict(self.wanted, **more))
        self.guard.finish_earlier()
        record = self.guard.apply(plan_change(wanted, self.host), wanted)
        self.host.now += 1
        return record

    def confirm(self, name=IDENT, ssh=NEW_SSH):
        self.host.ssh = ssh
        try:
            return self.guard.confirm(name, self.host.session())
        finally:
            self.host.ssh = OLD_SSH

    def seen(self):
        return seen(self.host)

    def state(self):
        """What the record on the host says of where the change is."""
        return json.loads(self.host.files.get(PENDING, ("{}", 0))[0]).get("state")

    def pending_is(self, record):
        """Tell whether a Record is the one on the host; JSON has no tuples."""
        return self.host.files.get(PENDING, ("", 0))[0] == json.dumps(record._asdict())

    def assert_old(self):
        assert self.seen() == self.old
        assert self.guard.pending() is None
        assert not [path for path in self.host.staged if path.startswith("/etc/")]

    def assert_old_after_boot(self):
        """Rules come with the boot from the files; knockd too, where it was kept, and as it was."""
        enabled, config = self.old[3]
        assert self.seen()[1:] == (*self.old[1:3], (enabled, config if enabled else None))

    def assert_new(self):
        assert self.seen() == self.new
        assert self.guard.pending() is None
        assert not self.host.staged


def seen(host):
    """What must be all old or all new: our rules and those of others, files, the unit, knockd. What is in /run is neither."""
    rules = [without_empty_table(host.rules[family].save()) for family in ("iptables", "ip6tables")]
    files = {path: value for path, value in host.files.items() if not path.startswith("/run/") and PREVIOUS not in path}
    return rules, files, host.unit, host.knockd()


def without_empty_table(text):
    """A table that iptables-restore made cannot be taken away again, so an empty one is as good as none.

    Nor does the order of chains mean anything: one that went and came back is the last one.
    """
    lines = [line for line in text.splitlines() if not re.match(r":[A-Z]+ ACCEPT ", line)]
    chains, rules = ([line for line in lines if line[:1] == first] for first in ":-")
    return sorted(chains) + sorted(rules, key=lambda rule: rule.split()[1])


@pytest.fixture(params=NAMES)
def story(request):
    return Story(request.param, v4=MINE)


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
        state="pending", id=IDENT, door="ssh", port=22, seconds_left=TIMEOUT - 1, agent="systemd", proof_door=""
    )  # fmt: skip


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
    answer = story.guard.undo(IDENT, "nobody confirmed it in time")
    assert (answer["outcome"], answer["undo"], answer["why"]) == (
        "rolled_back",
        "exact",
        "nobody confirmed it in time",
    )
    story.assert_old()
    late = story.confirm()
    assert (late["outcome"], late["why"]) == ("rolled_back", "nobody confirmed it in time")
    story.assert_old()


def test_the_guard_does_what_runs_without_it(story):
    """After either end the next run has nothing, or everything, to do."""
    story.apply()
    story.confirm()
    assert not plan_change(options(**story.wanted), story.host).changed


def test_an_administrator_needs_no_new_connection(story):
    story.apply()
    assert story.confirm("", ssh=OLD_SSH)["outcome"] == "confirmed"
    story.assert_new()


def test_an_administrator_undoes(story):
    story.apply()
    assert story.guard.undo("", "somebody asked for it")["outcome"] == "rolled_back"
    story.assert_old()


def test_a_host_before_any_change():
    guard = Guard(FakeHost(), FakeAgent())
    assert guard.finish_earlier() == ""
    for answer in (guard.confirm("x"), guard.confirm(""), guard.undo("x", ""), guard.undo("", ""), guard.ended("")):
        assert answer == dict(outcome="unknown")
    assert guard.pending() is None


# Confirms that prove nothing


def test_a_wrong_id_is_unknown_and_does_nothing(story):
    record = story.apply()
    story.host.frozen = True
    assert story.confirm("ffff") == dict(outcome="unknown")
    assert story.guard.undo("ffff", "") == dict(outcome="unknown")
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
        PendingError, match=r"made by me@here, \d+ s ago, it is undone in 12 s .*portknock/rollback"
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
    assert story.guard.ended(IDENT)["why"] == "nobody confirmed it"


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
        assert story.confirm(IDENT if actor == "confirm" else "")["outcome"] == "confirmed"
    story.assert_new()


def test_a_reboot_is_a_rollback(story):
    story.apply()
    story.host.reboot()
    assert story.confirm() == dict(outcome="unknown")
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
            assert story.guard.undo("", "deadline")["outcome"] == "unknown", "what is in the kernel is of this boot"
            answer = story.confirm()
            assert (answer["outcome"], answer["why"]) == (
                "rolled_back",
                "the host was restarted before it was confirmed",
            )
        assert story.guard.pending() is None
        assert not story.host.staged
        story.assert_old_after_boot()


# A change of another version of this collection

RELEASED = dict(
    id="fedcba9876543210", owner="you@there", begun=0.0, boot="one", deadline=1030.0, state="applied", agent="systemd",
    module=[1, None], session=[], applied=1000.0, saves={}, changed=[], expected={}, before={},
    staged=[["/etc/iptables/.portknock-old", "/etc/iptables/rules.v4"]], gone=[], unit="", unit_was=False, directory_goes=False,
    doorman="", doorman_was={}, proof={},
)  # fmt: skip
"""A record as the first release wrote it."""


class OldProgram(FakeHost):
    """A host with the record of the first release, and its program, which ends the change if it works."""

    works = True

    def run(self, words, data=""):
        if words[-3:-1] == [PROGRAM, self.verb] and words[-1] == RELEASED["id"]:
            self.called = words[-2]
            if self.works:
                del self.files[PENDING]
            return 0, "", ""
        return super().run(words, data)


def released(verb="rollback", **more):
    host = OldProgram()
    host.verb, host.called = verb, None
    host.files[PENDING] = (json.dumps(dict(RELEASED, **more)), 0o600)
    host.staged["/etc/iptables/.portknock-old"] = ("old", 0o600)
    return host, Guard(host, FakeAgent())


def test_one_that_can_still_be_confirmed_is_waited_for():
    host, guard = released()
    host.now = 1010.0
    assert end_other_version(host) == ""
    with pytest.raises(PendingError, match="made by you@there, .* undone in 20 s") as error:
        guard.finish_earlier()
    assert error.value.pending["id"] == RELEASED["id"]
    assert host.called is None


@pytest.mark.parametrize(
    ("more", "now", "verb"),
    [
        (dict(), 1031.0, "rollback"),
        (dict(state="armed"), 1001.0, "rollback"),
        (dict(state="undoing"), 1001.0, "rollback"),
        (dict(state="confirming"), 1001.0, "confirm"),
    ],
)
def test_its_own_program_ends_it(more, now, verb):
    host, guard = released(verb, **more)
    host.now = now
    assert "made by another version, had been left unfinished; it was ended first" in end_other_version(host)
    assert host.called == verb
    assert guard.finish_earlier() == ""


def test_one_that_its_program_cannot_end_is_refused_with_advice():
    host, guard = released()
    host.now, host.works = 1031.0, False
    end_other_version(host)
    with pytest.raises(OtherVersionError, match="written by another version.*sh /run/portknock/rollback"):
        guard.finish_earlier()
    assert PENDING in host.files


def test_one_of_another_boot_is_forgotten():
    host, guard = released(boot="another")
    assert end_other_version(host) == ""
    assert guard.finish_earlier() == ""
    assert (PENDING in host.files, host.staged, host.called) == (False, {}, None)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"version": 2}', '{"version": 99, "id": "x"}'])
def test_a_record_that_nobody_understands_is_refused(text):
    host, guard = released()
    host.files[PENDING] = (text, 0o600)
    assert end_other_version(host) == ""
    for action in (guard.finish_earlier, lambda: guard.confirm(""), lambda: guard.undo("", ""), guard.pending):
        with pytest.raises(OtherVersionError):
            action()
    assert host.called is None


# What fails


def test_without_an_agent_nothing_is_changed(story):
    story.agent.error, before = HostError("no agent"), len(loads(story.host))
    with pytest.raises(HostError, match="no agent"):
        story.apply()
    story.assert_old()
    assert len(loads(story.host)) == before, "rules were loaded"
    assert story.guard.ended(IDENT)["why"] == "nothing could be armed to undo it"


def loads(host):
    return [what for what in host.done if what[0] == "restore"]


def nth_restore_fails(number, message="no such luck"):
    """Refuse the n-th load that is no test and no probe, and none after it."""
    count = [0]

    def refuse(_command, words, data):
        if "--test" in words or "PROBE" in data:
            return None
        count[0] += 1
        return (1, "", message) if count[0] == number else None

    return refuse


@pytest.mark.parametrize("number", [1, 2])
def test_a_family_that_does_not_load_rolls_all_back(story, number):
    change = plan_change(options(**story.wanted), story.host)
    changing = change.parts[0].before["changed"]
    story.host.refuse = nth_restore_fails(number)
    if number > len(changing):
        story.apply()
        return
    with pytest.raises(AppliedError, match="no such luck.*Everything is as it was before") as error:
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

    def arm_then_full(record, timeout):
        story.host.disk_full = PENDING
        return arm(record, timeout)

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
    answer = story.confirm()
    assert answer["outcome"] == "rolled_back"
    assert answer["why"].startswith("it could not be kept: {0} cannot be replaced".format(path))
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


# Whoever comes when, and whoever dies on the way

KINDS = ["confirm", "confirm", "admin", "undo", "deadline", "deadline", "run", "stale", "wrong", "wait", "foreign"]
deaths = st.one_of(st.none(), st.none(), st.integers(0, 14), st.integers(0, 30))
troubles = st.sampled_from(["", "", "", "settle", "unit", "restore", "disk", "daemon", "systemd"])
events = st.lists(st.tuples(st.sampled_from(KINDS), deaths, troubles), max_size=6)


class Play:
    """Runs a story from events, and holds what anybody was told against what came of it."""

    def __init__(self, name, module):
        self.story = Story(name, module, v4=MINE)
        self.host, self.guard = self.story.host, self.story.guard
        self.told, self.deadline = set(), self.host.now + TIMEOUT

    def do(self, action, dies_at=None, trouble=""):
        self.host.next_process(dies_at)
        self.host.settle_refuses = "/etc/iptables/rules.v6" if trouble == "settle" else None
        self.host.unit_refuses = trouble == "unit"
        self.host.disk_full = LAST if trouble == "disk" else None
        self.host.refuse = nth_restore_fails(1) if trouble == "restore" else None
        self.host.daemon_dies = trouble == "daemon"
        self.host.service_refuses = "restart" if trouble == "systemd" else None
        try:
            answer = action()
        except (Killed, HostError):
            answer = None
        if isinstance(answer, dict) and answer.get("id", IDENT) == IDENT:
            self.told.add(answer["outcome"])
        self.host.next_process()
        self.host.settle_refuses, self.host.unit_refuses = None, False
        self.host.disk_full, self.host.refuse = None, None
        self.host.daemon_dies, self.host.service_refuses = False, None

    def event(self, kind):
        """Return what an actor does, as a function without arguments."""
        return {
            "confirm": self.story.confirm,
            "admin": lambda: self.story.confirm("", ssh=OLD_SSH),
            "undo": lambda: self.guard.undo("", "an administrator asked for it"),
            "deadline": self.at_deadline,
            "run": self.next_run,
            "stale": lambda: self.story.confirm(ssh=OLD_SSH),
            "wrong": lambda: self.guard.confirm("ffff", self.host.session()),
            "wait": self.wait,
            "foreign": self.foreign,
        }[kind]

    def at_deadline(self):
        self.host.now = max(self.host.now, self.deadline)
        return self.guard.undo(IDENT, "nobody confirmed it in time")

    def next_run(self):
        self.guard.finish_earlier()

    def wait(self):
        self.host.now += 5

    def foreign(self):
        """Somebody blocks a source and lets it in again; in between, others act."""
        self.host.rules["iptables"].restore("*filter\n-I INPUT 1 -s 198.51.100.1 -j DROP\nCOMMIT\n")

    def heal(self):
        chain = self.host.rules["iptables"].tables["filter"].chains["INPUT"]
        mine = "-s 198.51.100.1 -j DROP"
        self.blocked = chain.count(mine)
        chain[:] = [text for text in chain if text != mine]


def apply_once(play):
    wanted = options(**play.story.wanted)
    play.guard.apply(plan_change(wanted, play.host), wanted)


@pytest.mark.slow
@given(name=st.sampled_from(NAMES), module=st.booleans(), dies=deaths, trouble=troubles, rest=events)
def test_all_old_or_all_new(name, module, dies, trouble, rest):
    play = Play(name, module)
    play.do(lambda: apply_once(play), dies, trouble)
    blocked = 0
    for kind, dies_at, each_trouble in rest:
        play.do(play.event(kind), dies_at, each_trouble)
        blocked += kind == "foreign" and dies_at is None
    play.do(play.at_deadline)
    play.do(play.next_run)
    assert play.guard.pending() is None, "it never ends"
    play.heal()
    state = play.story.seen()
    assert state in (play.story.old, play.story.new), "neither"
    assert not {"confirmed", "rolled_back"} <= play.told, "one was told this, another that"
    if "confirmed" in play.told:
        assert state == play.story.new
    if "rolled_back" in play.told:
        assert state == play.story.old
    last = play.guard.ended(IDENT)["outcome"]
    assert last in ("unknown", "confirmed" if state == play.story.new else "rolled_back")


@pytest.mark.slow
@given(name=st.sampled_from(NAMES), rest=events, dies=deaths)
def test_the_run_after_any_of_that_works(name, rest, dies):
    play = Play(name, False)
    play.do(lambda: apply_once(play), dies)
    for kind, dies_at, trouble in rest:
        if kind != "foreign":
            play.do(play.event(kind), dies_at, trouble)
    play.host.now = max(play.host.now, play.deadline)
    play.guard.finish_earlier()
    wanted = options(**dict(play.story.wanted, guard_id="second"))
    change = plan_change(wanted, play.host)
    record = play.guard.apply(change, wanted) if change.changed else None
    if change.loads:
        assert play.story.confirm("second")["outcome"] == "confirmed"
    elif record:
        play.guard.keep(record)
    assert play.story.seen() == play.story.new
    assert not [path for path in play.host.staged if path.startswith("/etc/")], "left over"
