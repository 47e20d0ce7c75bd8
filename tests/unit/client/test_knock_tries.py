# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The knocks that follow one that did not get in."""

import random
from itertools import product

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import ENGINES, steps_of_turn
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import KNOCKD, Step
from knockd_attempts import Knockd


def opens(daemon, door, steps):
    """Send steps, and tell whether the door opened."""
    daemon.opened.clear()
    for step in steps:
        daemon.hear(step)
    return door in daemon.opened


SETS = [
    ("two steps", ["ab"], 1),
    ("three", ["abc"], 1),
    ("eight", ["abcdefgh"], 1),
    ("doors that share nothing", ["abc", "xyz"], 1),
    ("a step between begins another", ["abc", "bxy"], 1),
    # What is left is another's then, begun by our own last step.
    ("shut by the same steps backwards", ["abc", "cba"], 2),
    ("the last step begins another", ["abc", "cxy"], 2),
    ("the last step is the first", ["aba"], 2),
    ("the last step is another's first and second", ["abc", "cdc"], 2),
]


@pytest.mark.parametrize(("doors", "tries"), [each[1:] for each in SETS], ids=[each[0] for each in SETS])
def test_behind_whatever_got_lost_knockd_opens_to_the_next_tries(doors, tries):
    """Every packet of one knock and of the one behind it may have got lost, or have arrived twice."""
    door = doors[0]
    for first, second in product(product((0, 1, 2), repeat=min(len(door), 4)), repeat=2):
        daemon = Knockd(*doors)
        for arrivals in (first, second):
            opens(daemon, door, [step for step, count in zip(door[-4:], arrivals) for _each in range(count)])
        took = next((turn for turn in range(1, 9) if opens(daemon, door, steps_of_turn(door, turn, KNOCKD))), 9)
        assert took <= tries, (first, second)


def test_the_model_of_knockd_is_as_forgetful_as_knockd():
    daemon = Knockd("abc")
    assert opens(daemon, "abc", "abc") and opens(daemon, "abc", "abc"), "one knock after the other"
    assert not opens(daemon, "abc", "aabc"), "a step that arrives twice breaks it, and the rest belongs to no knock"
    assert opens(daemon, "abc", "a?b?c"), "ports of no door are not seen"
    assert not opens(daemon, "abc", "ab")
    assert not opens(daemon, "abc", "abc"), "the restart after a break fails"
    assert opens(daemon, "abc", "abc")
    alike = Knockd("abc", "axy")
    assert opens(alike, "abc", "abc") and not opens(alike, "axy", "axy"), "which is why the two are refused"


def test_over_a_bad_path_every_knocker_gets_in():
    """One packet of fifty is lost, one arrives twice, and one changes places with the one behind it."""
    dice = random.Random(5)
    tries = [first_success(dice, turns=5) for _knocker in range(20000)]
    assert max(tries) <= 5
    assert sum(turn > 3 for turn in tries) < 20000 / 200


@pytest.mark.parametrize("lost", [(0, 1, 1), (1, 1, 0)])
def test_the_same_knock_again_would_be_for_nothing(lost):
    """What the steps of a further try are good for: a close knock that is the knock backwards."""
    daemon = Knockd("abc", "cba")
    opens(daemon, "abc", [step for step, count in zip("abc", lost) if count])
    assert not any(opens(daemon, "abc", "abc") for _turn in range(20))
    assert any(opens(daemon, "abc", steps_of_turn("abc", turn, KNOCKD)) for turn in (1, 2))


def first_success(dice, turns):
    daemon = Knockd("abc", "xyz")
    for turn in range(turns):
        if opens(daemon, "abc", disturbed(dice, steps_of_turn("abc", turn, KNOCKD))):
            return turn + 1
    return turns + 1


def disturbed(dice, steps):
    steps = list(steps)
    for place in range(len(steps) - 1):
        if dice.random() < 1 / 50:
            steps[place : place + 2] = steps[place + 1], steps[place]
    return [step for step in steps for _each in range(dice.choices((0, 1, 2), (1, 48, 1))[0])]


@pytest.mark.parametrize("engine", [name for name in sorted(ENGINES) if not ENGINES[name].keeps_broken_knocks])
def test_the_kernel_needs_no_other_steps(engine):
    steps = (Step(7005, "tcp"), Step(9100, "udp"))
    assert [steps_of_turn(steps, turn, engine) for turn in (0, 1, 2)] == [steps] * 3


def test_a_single_step_is_sent_once():
    assert steps_of_turn([(7005, "tcp")], 3, KNOCKD) == ((7005, "tcp"),)
    assert steps_of_turn([(7005, "tcp"), (9100, "udp")], 0, KNOCKD) == ((7005, "tcp"), (9100, "udp"))
    assert steps_of_turn([(7005, "tcp"), (9100, "udp")], 4, KNOCKD) == ((7005, "tcp"), (9100, "udp"))
