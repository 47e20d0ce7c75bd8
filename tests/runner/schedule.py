# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run checks beside each other as far as the machine allows, and end them with all that they started."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from . import report
from .checks import Check, in_order
from .tree import ROOT

# Seconds that a check which is ended has to take down what it made.
GRACE = 60
PAUSE = 0.1
# What a check keeps busy is an estimate. Where the processors are seen to have little to do, half as much again may run.
WATCHED = 20
IDLE = 0.7
MORE = 1.5


class Running(NamedTuple):
    """A check that runs."""

    check: Check
    process: subprocess.Popen[bytes]
    since: float


class Processors:
    """How busy the machine's processors are."""

    def __init__(self) -> None:
        """Begin to watch them."""
        self.count = len(os.sched_getaffinity(0))
        self.forget()

    def forget(self) -> None:
        """Begin anew, since other checks run now."""
        self._since, self._times = time.monotonic(), report.processor_times()

    def are_idle(self) -> bool:
        """Return whether they have been seen long enough, and had little to do."""
        if time.monotonic() - self._since < WATCHED:
            return False
        busy, all_of_it = (now - then for now, then in zip(report.processor_times(), self._times, strict=True))
        self.forget()
        return busy < IDLE * all_of_it


def fits(check: Check, beside: list[Check], load: float) -> bool:
    """Return whether a check can begin beside others.

    :param load: percent of one processor that all of them together may keep busy.
    """
    if not beside:
        return True
    if check.alone != beside[0].alone:
        return False
    return check.load + sum(other.load for other in beside) <= load


def start(nox: Path, check: Check, arguments: tuple[str, ...] = ()) -> Running:
    """Start the session of a check; its output is the log."""
    report.began(check)
    words: list[str | Path] = [
        nox,
        "-f",
        ROOT / "noxfile.py",
        "-s",
        check.session,
        "--",
        *(arguments or check.arguments),
    ]
    with report.log_of(check).open("ab") as log:
        # In a session of its own: Ctrl-C reaches the runner alone, which then ends the checks.
        process = subprocess.Popen(
            words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    return Running(check, process, time.monotonic())


def run_all(nox: Path, checks: list[Check]) -> Iterator[report.Result]:
    """Run checks, each as soon as it fits, the longest first; yield how each ended."""
    waiting = in_order(checks)
    running: list[Running] = []
    processors = Processors()
    try:
        while waiting or running:
            load = 100 * processors.count * (MORE if processors.are_idle() else 1)
            for check in list(waiting):
                if fits(check, [other.check for other in running], load):
                    waiting.remove(check)
                    running.append(start(nox, check))
                    # One more, and what it does is seen before there is another.
                    load = 100 * processors.count
                    processors.forget()
            for one in list(running):
                hung = time.monotonic() - one.since > one.check.limit
                if hung:
                    end([one])
                if one.process.poll() is not None:
                    running.remove(one)
                    processors.forget()
                    yield report.ended(one.check, one.process.returncode, one.since, hung)
            time.sleep(PAUSE)
    finally:
        end(running)
        for one in running:
            if one.check.after:
                start(nox, one.check, one.check.after).process.wait(10 * GRACE)


def _descendants(pid: int) -> list[int]:
    """Return a process and all below it: what is in sessions of its own is not reached by a signal to the group."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(word) for word in task.read_text(encoding="ascii").split()]
    return found


def _is_alive(pid: int) -> bool:
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()[0] != "Z"
        )
    except (OSError, IndexError):
        return False


def end(running: list[Running]) -> None:
    """End checks and all that they started: what does not go by itself within a minute is killed."""
    pids = [pid for one in running for pid in _descendants(one.process.pid)]
    for number in (signal.SIGTERM, signal.SIGKILL):
        # The deepest first: a parent that ends before its child leaves it running.
        for pid in reversed(pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + GRACE
        while any(_is_alive(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(PAUSE)
    for one in running:
        one.process.wait()
