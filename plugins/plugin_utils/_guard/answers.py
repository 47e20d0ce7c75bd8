# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is asked of the host about a change, as commands for any shell, and how its answers are read. Pure.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

from ansible_collections.sesame.portknock.plugins.module_utils._change.record import CONFIRMED, MARK, ROLLED_BACK
from ansible_collections.sesame.portknock.plugins.module_utils._paths import LAST, PROGRAM, SPARE_PROGRAM
from ansible_collections.sesame.portknock.plugins.plugin_utils.any_shell import for_any_shell

UNKNOWN, PENDING, STALE, UNHEARD = "unknown", "pending", "stale", "unheard"
NOT_RUN, NO_ANSWER = "not run", "no answer"
"""The host was reached, and the program that confirms and undoes could not be run there; or it printed no answer."""
PROGRAM_NOT_RUN = "ssh gets in, but the program that confirms and undoes the change cannot be run there"
ENDED = (CONFIRMED, ROLLED_BACK, UNKNOWN)

AGE_COMMAND = "cat /proc/uptime /proc/1/stat"
"""Prints from what age_of_host() computes."""

_MOST_SHOWN = 200
"""Characters of what sh and Python say where the program cannot be run: the end says why."""

_TICKS = 100
"""Clock ticks a second in /proc/PID/stat, on every architecture (proc(5), USER_HZ)."""

# A host without the program still tells which boot it is of: the boot's id, and when its first process was started. How the
# last change ended outlives the program.
_BOOT = '$(cat /proc/sys/kernel/random/boot_id) $(sed "s/.*)//" /proc/1/stat | cut -d" " -f21)'
_NOTHING_KNOWN = re.compile(rf"{UNKNOWN}(?: ([0-9a-f-]{{36}}) (\d+))?\s*\Z")
_NOT_RUN = re.compile(rf"{NOT_RUN}: ?([^$]*)\Z")


class TryError(Exception):
    """A try that did not come through; its text is ssh's last message."""


class NoAnswerError(TryError):
    """ssh came through, and what it printed is no answer."""


def command(verb: str, ident: str) -> str:
    """Return the one command that is run on the host."""
    mark = MARK.strip()
    # What a program prints is kept back until it is known to be an answer: where Python is gone, sh says so. Release 1.0.0 has left
    # a script for each verb beside its program, which does not say by what Python it is run.
    return for_any_shell(
        f"for program in {PROGRAM} {SPARE_PROGRAM}; do "
        f"if test -e $program; then former=${{program%/*}}/{verb}; read -r python <$program; "
        f"said=$(if test -e $former; then sh $former --json {ident}; else ${{python#??}} $program {verb} --json {ident}; fi 2>&1); "
        f'case $said in *"{MARK}"*) printf "%s" "$said"; echo; exit;; esac; '
        f"tried=$program; fi; done; "
        f'if test "$tried"; then printf "%s" "{MARK}{NOT_RUN}: $said" | tr "[:cntrl:]" " "; echo; '
        f"else echo {mark} {UNKNOWN} {_BOOT}; fi; "
        f'if test -e {LAST}; then printf "%s " {mark}; cat {LAST}; echo; fi'
    )


def read_answer(text: str, ident: str) -> dict[str, Any]:
    """Find the answer among whatever else a login prints.

    :param ident: the change's id; how another one ended is no answer.
    :raises NoAnswerError: if there is none.
    """
    for line in reversed(text.splitlines()):
        # A shell that echoes what it runs shows the mark too, and a connection may break within the line.
        answer = _answer_in(line.rpartition(MARK)[2]) if MARK in line else None
        if answer and answer.get("id", ident) == ident:
            return answer
    raise NoAnswerError("the host did not answer the confirmation")


def _answer_in(text: str) -> dict[str, Any] | None:
    nothing = _NOTHING_KNOWN.match(text)
    if nothing:
        boot = f"{nothing[1]} {int(nothing[2]) / _TICKS}" if nothing[1] else ""
        return {"outcome": UNKNOWN, "boot": boot}
    not_run = _NOT_RUN.match(text)
    if not_run:
        said = " ".join(not_run[1].split())[-_MOST_SHOWN:].rstrip(".")
        return {"outcome": NOT_RUN, "why": f"{PROGRAM_NOT_RUN}{f' ({said})' if said else ''}"}
    with contextlib.suppress(ValueError):
        answer = json.loads(text)
        if isinstance(answer, dict) and "outcome" in answer:
            return answer
    return None


def age_of_host(text: str) -> float | None:
    """Return the seconds since a host, or a container, was started, None where that cannot be read.

    :param text: what AGE_COMMAND prints.
    """
    try:
        uptime, first_process = text.split("\n", 1)
        # The process's name is in parentheses and may hold anything.
        started = int(first_process.rpartition(")")[2].split()[19]) / _TICKS
        return float(uptime.split()[0]) - started
    except (IndexError, ValueError):
        return None
