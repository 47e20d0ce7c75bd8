# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller tries until a change is confirmed, on a connection and a clock that are made up."""

import json

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible_collections.sesame.portknock.plugins.module_utils._change.record import MARK
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.answers import TryError, command
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.client import (
    ACCESS_SECONDS,
    OLD_WAY_SECONDS,
    Attempt,
    GuardClient,
    Outcome,
    knock_seconds,
    too_short,
)
from guard_answers import CONFIRMED, IDENT, LATE, LOCKED, NOT_RUN, PENDING, STALE, TIMED_OUT, UNHEARD, UNKNOWN, Clock
from hypothesis import given
from hypothesis import strategies as st


class FakeHost:
    """Answers from lists: a dictionary comes through, a text is ssh's error, None hangs; a pair has the seconds it takes."""

    def __init__(self, clock, fresh=(), usual=(), takes=0.2, knock_takes=0.0, knock_errors=0):
        self.clock, self.takes, self.knock_takes, self.knock_errors = clock, takes, knock_takes, knock_errors
        self.answers = {"fresh": list(fresh), "usual": list(usual)}
        self.calls, self.turns = [], []

    def knock(self, turn):
        self.calls.append("knock")
        self.turns.append(turn)
        self.clock.now += self.knock_takes
        if self.calls.count("knock") <= self.knock_errors:
            raise TryError("h has no address to knock at")

    def _say(self, kind, words, seconds):
        self.calls.append((kind, words, seconds))
        left = self.answers[kind]
        answer = left.pop(0) if len(left) > 1 else left[0]
        takes = self.takes
        if isinstance(answer, tuple):
            answer, takes = answer
        if answer is None or takes > seconds:
            self.clock.now += seconds
            raise TryError("no answer within {0:.0f} s".format(seconds))
        self.clock.now += takes
        if isinstance(answer, str):
            raise TryError(answer)
        return "noise\n" + MARK + json.dumps(answer) + "\n"

    def run_over_new(self, words, seconds, turn=0):
        assert turn == self.count("fresh")
        return self._say("fresh", words, seconds)

    def run_over_shared(self, words, seconds):
        return self._say("usual", words, seconds)

    def reset(self):
        self.calls.append("reset")

    def count(self, kind):
        return sum(1 for call in self.calls if call == kind or call[0] == kind)


def settle(attempt=None, **more):
    """Return the outcome, the connection and the clock."""
    clock = Clock()
    host = FakeHost(clock, **more)
    outcome = GuardClient(host, clock, clock.sleep).confirm(attempt or Attempt(IDENT, 30.0, "ssh", 22, "systemd"))
    return outcome, host, clock


def test_the_good_way_costs_one_connection():
    outcome, host, clock = settle(fresh=[CONFIRMED])
    assert outcome == Outcome(CONFIRMED, 1, pytest.approx(0.2), (), True)
    assert [call if isinstance(call, str) else call[0] for call in host.calls] == ["knock", "fresh"]
    assert clock.slept == [], "there is no wait for nothing"


def test_a_try_that_fails_is_tried_again():
    outcome, host, clock = settle(fresh=[TIMED_OUT, TIMED_OUT, CONFIRMED])
    assert (outcome.answer, outcome.tries, outcome.errors) == (CONFIRMED, 3, (TIMED_OUT, TIMED_OUT))
    assert host.turns == [0, 1, 2], "a knock may have got lost, and whoever knocks must know"
    assert host.count("reset") == 0, "the old connection is what we live on"
    assert clock.slept == [0.2, 0.4]


def test_a_knock_that_fails_is_tried_again_and_so_is_the_connection():
    """Where a knock cannot be sent, the connection may need none."""
    outcome, host, _clock = settle(fresh=[TIMED_OUT, TIMED_OUT, CONFIRMED], knock_errors=2)
    assert (outcome.answer, outcome.tries, host.count("fresh")) == (CONFIRMED, 3, 3)
    assert outcome.errors.count("h has no address to knock at") == 2
    assert host.count("knock") == 3


def test_a_connection_that_is_taken_for_an_old_one_is_reset():
    outcome, host, _clock = settle(fresh=[STALE, CONFIRMED])
    assert outcome.answer == CONFIRMED
    assert host.count("reset") == 1
    assert "old one" in outcome.errors[0]


def test_a_knock_that_was_not_heard_is_a_try_that_failed():
    outcome, host, _clock = settle(fresh=[UNHEARD, UNHEARD, CONFIRMED])
    assert (outcome.answer, outcome.tries, outcome.reached, outcome.unheard) == (CONFIRMED, 3, True, True)
    assert outcome.errors == (UNHEARD["why"],) * 2
    assert host.turns == [0, 1, 2]
    assert host.count("reset") == 0


def test_a_knock_that_is_never_heard():
    outcome, _host, clock = settle(fresh=[UNHEARD], usual=[LATE])
    assert (outcome.answer, outcome.reached, outcome.unheard) == (LATE, True, True)
    assert clock.now - 5000 == pytest.approx(30, abs=1)
    assert settle(fresh=[TIMED_OUT], usual=[LATE])[0].unheard is False
    assert (
        settle(fresh=[dict(UNHEARD, why="")], usual=[LATE])[0].errors[0].endswith("did not receive the knock before it")
    )


def test_the_door_to_knock_at():
    assert [
        Attempt(IDENT, 9.0, door, 22, proof_door=proof).knock_at
        for door, proof in (("ssh", ""), ("ssh", "web"), ("", "web"), ("", ""))
    ] == ["ssh", "ssh", "web", ""]


def test_a_host_that_is_busy_is_asked_again():
    outcome, host, _clock = settle(fresh=[LOCKED, CONFIRMED])
    assert outcome.answer == CONFIRMED
    assert outcome.errors == (LOCKED["why"],)
    assert host.count("reset") == 0


@pytest.mark.parametrize("answer", [LATE, UNKNOWN, CONFIRMED])
def test_an_end_is_an_end(answer):
    outcome, host, clock = settle(fresh=[answer])
    assert (outcome.answer, outcome.tries, outcome.reached) == (answer, 1, True)
    assert host.count("usual") == 0
    assert clock.slept == []


def test_nobody_lets_us_in():
    outcome, host, clock = settle(fresh=[TIMED_OUT], usual=[LATE])
    assert (outcome.answer, outcome.reached) == (LATE, True)
    assert outcome.tries > 10
    assert outcome.errors[-1] == TIMED_OUT
    assert host.count("usual") == 1
    assert clock.now - 5000 == pytest.approx(30, abs=1)
    assert host.calls[-1][1] == command("status", IDENT)


@pytest.mark.parametrize("deadline", [30.0, 5.0])
def test_a_login_may_take_what_is_left_of_the_deadline(deadline):
    """What is not connected is ended by ssh itself; what is, is on its way in."""
    outcome, host, clock = settle(Attempt(IDENT, deadline), fresh=[TIMED_OUT, None], usual=[LATE])
    seconds = [call[2] for call in host.calls if call[0] == "fresh"]
    assert seconds == [deadline, pytest.approx(deadline - 0.4)]
    assert clock.now - 5000 < deadline + 1
    assert (outcome.tries, outcome.reached) == (2, True)


def test_a_slow_login_confirms():
    outcome, _host, clock = settle(fresh=[CONFIRMED], takes=25.0)
    assert (outcome.answer, outcome.tries) == (CONFIRMED, 1)
    assert clock.now == 5025


tries = st.lists(st.tuples(st.sampled_from([TIMED_OUT, UNHEARD, CONFIRMED]), st.floats(0, 20)), min_size=1, max_size=6)


@given(made=tries, shorter=st.floats(1, 60), more=st.floats(0, 60))
def test_a_longer_deadline_never_does_worse(made, shorter, more):
    def confirmed(deadline):
        return settle(Attempt(IDENT, deadline), fresh=made, usual=[LATE])[0].answer == CONFIRMED

    assert confirmed(shorter) <= confirmed(shorter + more)


def test_the_longest_time_from_a_knock_to_what_came_of_it():
    outcome, _host, _clock = settle(
        fresh=[(TIMED_OUT, 4.0), (TIMED_OUT, 8.04), (TIMED_OUT, 1.0), CONFIRMED], knock_takes=2
    )
    assert outcome.late == 8.0, "the knock itself does not count"
    assert settle(fresh=[CONFIRMED], takes=9)[0].late == 0


def test_the_host_is_given_time_to_roll_back():
    outcome, host, clock = settle(fresh=[TIMED_OUT], usual=[PENDING, PENDING, LATE])
    assert (outcome.answer, outcome.reached) == (LATE, True)
    assert clock.slept[-2:] == [0.5, 0.5]
    assert host.count("reset") == 0


def test_the_old_way_may_be_cut_off_too():
    outcome, host, _clock = settle(fresh=[TIMED_OUT], usual=["mux: dead", "timed out", LATE])
    assert (outcome.answer, outcome.reached) == (LATE, True)
    assert host.count("reset") == 2, "a master that is dead must not be asked for ever"
    after = host.calls[max(n for n, call in enumerate(host.calls) if call[0] == "fresh") + 1 :]
    assert "knock" in after, "the way before may have led through a door as well"


def test_what_kept_the_tries_out_is_not_what_came_after_them():
    outcome, _host, _clock = settle(fresh=["refused"], usual=["mux: dead", LATE])
    assert set(outcome.errors) == {"refused"}
    outcome, _host, _clock = settle(fresh=["refused"], usual=["mux: dead"])
    assert (outcome.reached, outcome.errors[-1]) == (False, "mux: dead")


def test_an_error_is_no_end():
    outcome, _host, _clock = settle(fresh=[TIMED_OUT], usual=[LOCKED, LATE])
    assert outcome.answer == LATE


def test_a_host_that_is_gone():
    outcome, _host, clock = settle(fresh=[TIMED_OUT], usual=[TIMED_OUT])
    assert (outcome.answer, outcome.reached) == ({}, False)
    assert ACCESS_SECONDS <= clock.now - 5030 <= ACCESS_SECONDS + OLD_WAY_SECONDS + 2


@pytest.mark.parametrize("said", [NOT_RUN, PENDING, LOCKED])
def test_a_host_that_does_not_say_how_it_ended_is_reached_all_the_same(said):
    outcome, _host, _clock = settle(fresh=[said], usual=["mux: dead", said])
    assert (outcome.answer, outcome.reached) == (said, True)
    outcome, _host, _clock = settle(fresh=[said], usual=[said, "mux: dead"])
    assert (outcome.answer, outcome.reached) == ({}, False)


def test_a_host_that_answers_nothing_is_reached_all_the_same():
    outcome, host, _clock = settle(fresh=[{}], usual=[{}])
    assert (outcome.answer["outcome"], outcome.reached) == ("no answer", True)
    assert outcome.errors[-1] == "the host did not answer the confirmation"
    assert host.count("reset") > 1, "another connection may answer"


def test_the_last_way_where_no_program_can_be_run():
    outcome, _host, _clock = settle(fresh=[NOT_RUN], usual=[NOT_RUN, LATE])
    assert outcome.answer == LATE
    assert set(outcome.errors) == {NOT_RUN["why"]}


def test_it_was_confirmed_after_all():
    """The answer got lost, or an administrator did it."""
    outcome, _host, _clock = settle(fresh=[TIMED_OUT], usual=[CONFIRMED])
    assert (outcome.answer, outcome.reached) == (CONFIRMED, True)


replies = st.sampled_from([TIMED_OUT, STALE, UNHEARD, LOCKED, None, "", CONFIRMED, LATE, UNKNOWN])


@given(
    fresh=st.lists(replies, min_size=1, max_size=8),
    usual=st.lists(st.sampled_from([TIMED_OUT, PENDING, None, LATE, CONFIRMED]), min_size=1, max_size=8),
    left=st.floats(0, 60),
    takes=st.floats(0, 3),
    knock_takes=st.floats(0, 2),
)
def test_it_always_ends_in_time(fresh, usual, left, takes, knock_takes):
    attempt = Attempt(IDENT, left, "ssh", 22)
    outcome, host, clock = settle(attempt, fresh=fresh, usual=usual, takes=takes, knock_takes=knock_takes)
    one_try = knock_takes + OLD_WAY_SECONDS + 1
    assert clock.now - 5000 <= left + ACCESS_SECONDS + 2 * one_try
    assert outcome.tries >= 1
    assert outcome.tries == host.count("knock") - (host.calls[::-1].count("knock") - outcome.tries)
    assert outcome.reached is bool(outcome.answer)
    last = max(n for n, call in enumerate(host.calls) if call[0] == "fresh")
    assert all(call[0] != "usual" for call in host.calls[:last]), "two ways at once"
    if outcome.reached:
        assert outcome.answer["outcome"] in ("confirmed", "rolled_back", "unknown", "pending", "no answer")


@pytest.mark.parametrize(
    ("timeout", "steps", "pause", "settle", "needed"),
    [(30, 3, 0.5, 0, 0), (5, 3, 1.0, 0, 0), (5, 4, 1.0, 0, 6.0), (5, 0, 9.0, 0, 0), (600, 5, 200.0, 0, 1002.0),
     (5, 12, 0.5, 0, 8.0), (5, 3, 1.0, 0.25, 5.25), (5, 0, 9.0, 0.25, 0)],
)  # fmt: skip
def test_a_deadline_too_short_for_the_knock(timeout, steps, pause, settle, needed):
    assert too_short(timeout, steps, pause, settle) == needed
    assert knock_seconds(steps, pause, settle) == steps * pause + (settle if steps else 0)
