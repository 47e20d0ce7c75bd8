# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard on a host in memory: whoever comes when, and whoever dies on the way."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import plan_change
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import LAST
from fake_host import Killed
from hypothesis import given
from hypothesis import strategies as st
from story import IDENT, MINE, NAMES, OLD_SSH, TIMEOUT, Story, nth_restore_fails, options

# Whoever comes when, and whoever dies on the way

KINDS = ["confirm", "confirm", "admin", "undo", "deadline", "deadline", "run", "stale", "wrong", "wait", "foreign"]
deaths = st.one_of(st.none(), st.none(), st.integers(0, 14), st.integers(0, 30))
troubles = st.sampled_from(["", "", "", "settle", "unit", "restore", "disk", "daemon", "systemd"])
events = st.lists(st.tuples(st.sampled_from(KINDS), deaths, troubles), max_size=6)


class Play:
    """Runs a story from events, and compares each answer with what came of it."""

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
        return self.guard.undo(IDENT, "it was not confirmed in time")

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
    assert not {"confirmed", "rolled_back"} <= play.told, "two answers that exclude each other"
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
