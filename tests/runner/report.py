# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What became of the checks: a line as each ends, and one summary."""

import re
import time
from pathlib import Path
from typing import NamedTuple

from .checks import Check
from .tree import ROOT

LOGS = ROOT / ".cache" / "logs"
# Test runners close with a line that counts; it says more than "passed".
_COUNTS = re.compile(r"[0-9]+ (?:passed|failed)[^=\n\t]*")
_LAST_LINES = 40
# How long each test took says nothing of why one failed, and fills the last lines.
_DURATION = re.compile(r"[0-9.]+s (?:call|setup|teardown) ")


class Result(NamedTuple):
    """A check that has ended."""

    check: Check
    passed: bool
    seconds: int
    note: str


def log_of(check: Check) -> Path:
    """Return the path of a check's log."""
    return LOGS / (re.sub(r"[^A-Za-z0-9._-]+", "-", f"{check.stage}-{check.name}") + ".log")


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def began(check: Check) -> None:
    """Tell that a check begins."""
    say(f"  ...     {check.stage}: {check.name}")


def ended(check: Check, code: int, since: float, hung: bool) -> Result:
    """Tell how a check ended; the last lines of one that failed are shown."""
    seconds, log = round(time.monotonic() - since), log_of(check)
    text = log.read_text(encoding="utf-8", errors="replace")
    if not code:
        counts = _COUNTS.findall(text)
        say(f"  ok      {check.stage}: {check.name} ({seconds} s)")
        return Result(check, True, seconds, counts[-1].strip()[:60] if counts else "")
    say(f"  FAILED  {check.stage}: {check.name} ({seconds} s)")
    shown = log.relative_to(ROOT)
    say(f"--- {check.stage}: {check.name}: the last lines of {shown}")
    for line in [each for each in text.splitlines() if not _DURATION.match(each)][-_LAST_LINES:]:
        # The bar keeps a test runner's closing line in here from being read as this program's.
        say(f"    | {line}")
    say(f"--- end of {check.stage}: {check.name}")
    why = f"ended after {check.limit} s" if hung else f"exit code {code}"
    return Result(check, False, seconds, f"{why}, see {shown}")


def processor_times() -> tuple[int, int]:
    """Return for how many ticks the machine's processors have been at work since it was booted, and how many there were."""
    with open("/proc/stat", encoding="ascii") as handle:
        # user, nice, system, idle, iowait, irq, softirq, steal (proc(5)).
        ticks = [int(word) for word in handle.readline().split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def summary(
    checks: list[Check], results: list[Result], notes: list[str], seconds: float, since: tuple[int, int]
) -> bool:
    """Print the summary; return whether every check was run and passed.

    :param since: the processor_times() of the beginning.
    """
    say(f"\nSummary (logs in {LOGS.relative_to(ROOT)})")
    say(f"  {'stage':<10} {'check':<34} {'result':<7} {'seconds':>7}  note")
    for result in sorted(results, key=lambda result: checks.index(result.check)):
        word = "passed" if result.passed else "failed"
        check = result.check
        say(f"  {check.stage:<10} {check.name:<34} {word:<7} {result.seconds:>7}  {result.note}".rstrip())
    for note in notes:
        say(f"  !!! NOT RUN: {note}")
    busy, ticks = (now - then for now, then in zip(processor_times(), since, strict=True))
    say(f"  All of it took {round(seconds)} s; the processors were busy for {100 * busy // max(1, ticks)} % of that.")
    # Every check that was wanted is counted: a lost result is a failure.
    passed = sum(result.passed for result in results)
    say(f"\n{passed} passed, {len(checks) - passed} failed")
    return passed == len(checks) > 0
