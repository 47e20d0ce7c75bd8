# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bounds in time with the real alarm clock."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible_collections.sesame.portknock.plugins.plugin_utils._guard import confirm_connection
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.answers import TryError
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.confirm_connection import bounded

pytestmark = pytest.mark.usefixtures("alarm")


class OuterAlarm(BaseException):
    """What core raises for a task's own timeout."""


def outer(seconds):
    """Set an alarm as core does; return its handler."""

    def ring(_number, _frame):
        raise OuterAlarm

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    return ring


def no_more_alarm():
    """Take the outer alarm away; return the seconds that were left of it."""
    left = signal.setitimer(signal.ITIMER_REAL, 0)[0]
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return left


def test_what_takes_too_long_is_ended():
    began = time.monotonic()
    with pytest.raises(TryError, match="no answer within 0 s"), bounded(0.3):
        time.sleep(30)
    assert 0.2 < time.monotonic() - began < 25


def test_what_is_quick_is_left_alone():
    with bounded(30):
        done = 1
    assert done == 1


def test_an_error_within_passes():
    with pytest.raises(KeyError), bounded(30):
        raise KeyError


def test_retries_within_do_not_catch_it():
    """Core's ssh plugin tries again on any Exception."""
    with pytest.raises(TryError), bounded(0.3), contextlib.suppress(Exception):
        time.sleep(30)


def test_an_outer_alarm_goes_on_behind_it():
    ring = outer(200)
    with bounded(50):
        time.sleep(0.3)
    assert signal.getsignal(signal.SIGALRM) is ring
    assert 180 < no_more_alarm() < 199.8, "the time within counts"


def test_an_outer_alarm_goes_on_behind_one_that_rang():
    ring = outer(200)
    with pytest.raises(TryError), bounded(0.3):
        time.sleep(30)
    assert signal.getsignal(signal.SIGALRM) is ring
    assert 180 < no_more_alarm() < 199.8


def test_an_outer_alarm_that_is_sooner_wins():
    outer(0.3)
    began = time.monotonic()
    with pytest.raises(OuterAlarm), bounded(20):
        time.sleep(30)
    assert time.monotonic() - began < 19
    assert no_more_alarm() == 0


def test_an_outer_alarm_that_is_sooner_goes_on():
    ring = outer(50)
    with bounded(200):
        time.sleep(0.2)
    assert signal.getsignal(signal.SIGALRM) is ring
    assert 40 < no_more_alarm() < 49.9


def test_an_outer_alarm_that_was_due_meanwhile_rings_at_once():
    """The block holds it up for no longer than it takes."""
    outer(1)
    with pytest.raises(OuterAlarm):  # noqa: PT012
        with bounded(0.9):
            # Its own alarm does not ring, in no thread: pytest-xdist has more than this one.
            signal.setitimer(signal.ITIMER_REAL, 0)
            time.sleep(1.2)
        time.sleep(5)
    no_more_alarm()


@pytest.mark.parametrize(("outside", "inside"), [(0.3, 20), (20, 0.3)])
def test_one_in_another(outside, inside):
    """The sooner one rings, and says its own time; the other is over with it, or goes on."""
    rang = []
    try:
        with bounded(outside):
            rang += _rings(inside)
            time.sleep(0)
    except TryError as error:
        rang.append(str(error))
    assert rang == (["no answer within 0 s"] if outside < inside else ["inside: no answer within 0 s"])


def _rings(seconds):
    try:
        with bounded(seconds):
            time.sleep(30)
    except TryError as error:
        return ["inside: {0}".format(error)]
    return ["it did not ring"]


def test_children_made_within_are_ended():
    others = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    made = []
    try:
        with pytest.raises(TryError), bounded(0.5):
            _start_and_wait(made)
        assert made[0].wait(100) == -signal.SIGTERM
        assert others.poll() is None, "a child from before was ended"
    finally:
        for child in [others, *made]:
            child.kill()
            child.wait()


def _start_and_wait(made):
    made.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"]))
    made[0].wait()


def test_children_that_are_done_in_time_live_on():
    with bounded(20):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def test_children_without_proc(monkeypatch):
    def no_proc(*_args, **_more):
        raise OSError

    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        monkeypatch.setattr("builtins.open", no_proc)
        assert child.pid in confirm_connection._children()
        assert os.getpid() not in confirm_connection._children()
    finally:
        monkeypatch.undo()
        child.kill()
        child.wait()


def test_a_thread_has_no_alarm():
    seen = []

    def work():
        with bounded(0.1):
            time.sleep(0.4)
            seen.append("done")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert seen == ["done"]
