# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller tries until a change is confirmed, on a connection and a clock that are made up."""

import contextlib
import json
import shlex
import subprocess

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible_collections.sesame.portknock.plugins.module_utils._change import record as _transaction
from ansible_collections.sesame.portknock.plugins.module_utils._change.record import MARK
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard import client as guard_client
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.client import (
    ACCESS_SECONDS,
    TRY_SECONDS,
    Attempt,
    GuardClient,
    Outcome,
    TryError,
    command,
    explain,
    knock_seconds,
    read_answer,
    too_short,
)
from guard_answers import CONFIRMED, IDENT, LATE, LOCKED, PENDING, STALE, TIMED_OUT, UNHEARD, UNKNOWN, Clock
from hypothesis import given
from hypothesis import strategies as st


class FakeHost:
    """Answers from lists: a dictionary comes through, a text is ssh's error, a number is a try that hangs."""

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
        if answer is None:
            self.clock.now += seconds
            raise TryError("no answer within {0:.0f} s".format(seconds))
        self.clock.now += min(self.takes, seconds)
        if isinstance(answer, str):
            raise TryError(answer)
        return "noise\n" + MARK + json.dumps(answer) + "\n"

    def run_over_new(self, words, seconds):
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


def test_tries_that_hang_leave_time_for_another():
    outcome, host, clock = settle(fresh=[None], usual=[LATE])
    seconds = [call[2] for call in host.calls if call[0] == "fresh"]
    assert seconds[0] == TRY_SECONDS
    assert len(seconds) >= 4
    assert all(1.0 <= each <= TRY_SECONDS for each in seconds)
    assert clock.now - 5000 < 30 + TRY_SECONDS
    assert outcome.reached


def test_a_short_deadline_has_two_tries():
    outcome, _host, clock = settle(Attempt(IDENT, 5.0), fresh=[None], usual=[LATE])
    assert outcome.tries >= 2
    assert clock.now - 5000 < 8


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


def test_an_error_is_no_end():
    outcome, _host, _clock = settle(fresh=[TIMED_OUT], usual=[LOCKED, LATE])
    assert outcome.answer == LATE


def test_a_host_that_is_gone():
    outcome, _host, clock = settle(fresh=[TIMED_OUT], usual=[TIMED_OUT])
    assert (outcome.answer, outcome.reached) == ({}, False)
    assert ACCESS_SECONDS <= clock.now - 5030 <= ACCESS_SECONDS + TRY_SECONDS + 2


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
    one_try = knock_takes + TRY_SECONDS + 1
    assert clock.now - 5000 <= left + ACCESS_SECONDS + 2 * one_try
    assert outcome.tries >= 1
    assert outcome.tries == host.count("knock") - (host.calls[::-1].count("knock") - outcome.tries)
    assert outcome.reached is bool(outcome.answer)
    last = max(n for n, call in enumerate(host.calls) if call[0] == "fresh")
    assert all(call[0] != "usual" for call in host.calls[:last]), "two ways at once"
    if outcome.reached:
        assert outcome.answer["outcome"] in ("confirmed", "rolled_back", "unknown")


# The words


def test_both_halves_speak_of_the_same():
    assert guard_client.MARK == MARK
    assert guard_client.RUN == _transaction.RUN
    assert guard_client.CONFIRMED == _transaction.CONFIRMED
    assert guard_client.ROLLED_BACK == _transaction.ROLLED_BACK


LECTURE = "We trust you have received the usual lecture.\n  #1) Respect the privacy of others.\n"
TEXTS = [
    ("alone", MARK + json.dumps(LATE) + "\n", LATE),
    ("a lecture before", LECTURE + MARK + json.dumps(LATE), LATE),
    ("a farewell behind", MARK + json.dumps(LATE) + "\nBye.\n", LATE),
    ("no newline before", "motd without an end " + MARK + json.dumps(LATE) + "\n", LATE),
    ("a terminal", "hello\r\n" + MARK + json.dumps(LATE) + "\r\n", LATE),
    ("the shell echoes", command("confirm", IDENT) + "\n" + MARK + json.dumps(LATE) + "\n", LATE),
    ("nothing", "", None),
    ("noise alone", LECTURE, None),
    ("cut off", MARK + json.dumps(LATE)[:20], None),
    ("the echo alone", command("confirm", IDENT) + "\n", None),
    ("no object", MARK + "[1]\n", None),
    ("no outcome", MARK + "{}\n", None),
]


@pytest.mark.parametrize(("text", "answer"), [item[1:] for item in TEXTS], ids=[item[0] for item in TEXTS])
def test_the_answer_is_found(text, answer):
    if answer is None:
        with pytest.raises(TryError, match="did not answer"):
            read_answer(text)
    else:
        assert read_answer(text) == answer


@pytest.mark.slow
@given(st.text(max_size=40), st.text(max_size=40), st.integers(0, 80))
def test_whatever_comes_it_is_an_answer_or_a_failed_try(before, behind, cut):
    text = before + "\n" + (MARK + json.dumps(LATE))[:cut] + "\n" + behind
    with contextlib.suppress(TryError):
        assert "outcome" in read_answer(text)


def test_the_command_on_a_host_that_was_restarted():
    words = command("confirm", IDENT)
    assert shlex.split(words)[:3] == ["if", "test", "-e"]
    text = words.replace(guard_client.RUN, "/nonexistent/portknock")
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True)
    assert read_answer(done.stdout) == UNKNOWN


def test_the_command_calls_the_script(tmp_path):
    (tmp_path / "confirm").write_text('echo "$@"\n')
    text = command("confirm", IDENT).replace(guard_client.RUN, str(tmp_path))
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == f"--json {IDENT}\n"


@pytest.mark.parametrize(
    ("timeout", "steps", "pause", "settle", "needed"),
    [(30, 3, 0.5, 0, 0), (5, 3, 1.0, 0, 0), (5, 4, 1.0, 0, 6.0), (5, 0, 9.0, 0, 0), (600, 5, 200.0, 0, 1002.0),
     (5, 12, 0.5, 0, 8.0), (5, 3, 1.0, 0.25, 5.25), (5, 0, 9.0, 0.25, 0)],
)  # fmt: skip
def test_a_deadline_too_short_for_the_knock(timeout, steps, pause, settle, needed):
    assert too_short(timeout, steps, pause, settle) == needed
    assert knock_seconds(steps, pause, settle) == steps * pause + (settle if steps else 0)


def outcome_of(answer, *errors, reached=True, tries=14, unheard=False):
    return Outcome(answer, tries, 31.0, errors, reached, unheard)


AT_DOOR, NO_DOOR = Attempt(IDENT, 30.0, "ssh", 2222), Attempt(IDENT, 30.0, "", 2222)
AT_KNOCKD = AT_DOOR._replace(engine="knockd")
FOR_PROOF = NO_DOOR._replace(engine="knockd", proof_door="web")
SAID = [
    ("behind a door", outcome_of(LATE, TIMED_OUT), AT_DOOR,
     ["Rolled back: the change would have cut this controller off", "No new connection to h came through within 30 s (14 tries)",
      "Door ssh was knocked at", "firewall between", "Everything is as it was before", f"The last try: {TIMED_OUT}."]),
    ("no door", outcome_of(LATE, TIMED_OUT), NO_DOOR, ["No door opens port 2222", "check allow and trusted_sources"]),
    ("behind knockd", outcome_of(LATE, TIMED_OUT), AT_KNOCKD,
     ["would have cut this controller off", "Door ssh was knocked at", "knockd_interface", "over ipv4 or ipv6",
      "systemctl status knockd", "Everything is as it was before"]),
    ("knockd is deaf", outcome_of(LATE, UNHEARD["why"], unheard=True), FOR_PROOF,
     ["Rolled back: knockd receives no knock from this controller", "A new connection to h came through", "at door web",
      "knockd_interface", f"The last try: {UNHEARD['why']}.", "Everything is as it was before"]),
    ("no door and knockd", outcome_of(LATE), NO_DOOR._replace(engine="knockd"), ["No door opens port 2222"]),
    ("the port is not known", outcome_of(LATE), Attempt(IDENT, 30.0), ["No door opens the connection's port"]),
    ("the whole table", outcome_of(dict(LATE, undo="snapshot")), NO_DOOR, ["the whole filter table was put back", "is lost"]),
    ("restarted", outcome_of(UNKNOWN), NO_DOOR, ["it was restarted, which undoes it too"]),
    ("not cut off", outcome_of(dict(LATE, why="it could not be kept: no space.")), AT_DOOR,
     ["Rolled back: it could not be kept: no space. Everything is as it was before."]),
    ("gone", outcome_of({}, TIMED_OUT, reached=False), AT_DOOR,
     ["not confirmed within guard_timeout (30 s)", "h cannot be reached since", TIMED_OUT, "undoes the change by itself",
      "run 'sh /run/portknock/status' there."]),
]  # fmt: skip


@pytest.mark.parametrize(("outcome", "attempt", "parts"), [item[1:] for item in SAID], ids=[item[0] for item in SAID])
def test_what_the_operator_is_told(outcome, attempt, parts):
    text = explain(outcome, attempt, "h", 30)
    for part in parts:
        assert part in text, text
    assert text.endswith(".")
    assert ".." not in text
    assert "  " not in text


def test_nothing_of_a_cut_off_where_there_was_none():
    text = explain(outcome_of(dict(LATE, why="somebody on the host asked for it")), AT_DOOR, "h", 30)
    assert "cut this controller off" not in text
    assert "Door" not in text


def test_of_knockd_only_where_it_is_the_engine():
    for outcome in (outcome_of(LATE, TIMED_OUT), outcome_of({}, reached=False)):
        assert "knockd" not in explain(outcome, AT_DOOR, "h", 30)
    assert "cut this controller off" not in explain(outcome_of(LATE, unheard=True), FOR_PROOF, "h", 30)
