# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guard: a change until a new connection has confirmed it, and the way back where none could."""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from bench_ansible import (
    MODULE,
    Target,
    Task,
    Timed,
    check_changed,
    connects,
    guarded_task,
    knock_task,
    reset_task,
    task,
)
from bench_lan import BenchError, inside, run
from bench_series import Table, ratios, rounds

GOAL_DOOR, GOAL_ONE, GOAL_BACK = 2.0, 3.0, 2.0
TIMEOUT = 5
PENDING, LAST = "/run/portknock/pending.json", "/run/portknock.d/last.json"
_TRY = 0.05
"""Seconds that a try to connect may take: on this wire an open port answers in less than one millisecond."""

KNOCKS = (["1000", "2000", "3000"], ["4000", "5000", "6000"])
"""The steps take turns, so every apply changes the ruleset and must be confirmed by a knock with the new ones."""


def door(steps: Sequence[str]) -> dict[str, Any]:
    """Return options for a door before sshd; it stays open for long, because the ping comes through it unknocked."""
    return {"doors": [{"name": "ssh", "knock": steps, "opens": ["22"], "window": 3600}]}


def behind_door(number: int) -> dict[str, Any]:
    """Return options under which a new connection must knock."""
    return door(KNOCKS[number % 2])


def behind_silent_door(number: int) -> dict[str, Any]:
    """Return the same with steps that no host answers: the knock then takes its pauses to the full."""
    return door([step + "/udp" for step in KNOCKS[number % 2]])


def allowed(number: int) -> dict[str, Any]:
    """Return options under which everybody gets in to sshd, so that the guard has no reason to knock."""
    doors = [{"name": "web", "knock": KNOCKS[number % 2], "opens": ["8080"]}]
    return {"doors": doors, "allow": [{"port": "22"}]}


def ping_tasks(label: str) -> list[Task]:
    """Return a ping whose time has a connect in it."""
    return [{"ansible.builtin.meta": "reset_connection"}, task(label, "ansible.builtin.ping", {})]


def confirmed_tasks(options: Callable[[int], dict[str, Any]], count: int) -> list[Task]:
    """Return the tasks: a guarded apply and a ping over a new connection, in turns."""
    tasks = [reset_task(), guarded_task("warm up", **options(1)), *ping_tasks("warm up")]
    for number in range(count):
        apply = [guarded_task("module {0}".format(number), **options(number))]
        ping = ping_tasks("ping {0}".format(number))
        tasks += apply + ping if number % 2 else ping + apply
    return tasks


def longest(times: Iterable[Timed], label: str, count: int, hosts: int) -> list[float]:
    """Return how long the slowest host took for a label, by round."""
    found: list[list[float]] = [[] for _round in range(count)]
    for name, seconds, _changed in times:
        if name.startswith(label + " "):
            found[int(name.split()[-1])].append(seconds)
    if any(len(seconds) != hosts for seconds in found):
        raise BenchError("{0}: not every host was timed in every round.".format(label))
    return [max(seconds) for seconds in found]


def confirmed(target: Target, options: Callable[[int], dict[str, Any]], count: int) -> list[float]:
    """Return the ratios of guarded applies to pings over new connections."""
    before = [cell.logins() for cell in target.cells]
    times = target.play(confirmed_tasks(options, count))
    check_changed(times, "module", True)
    for cell, logins in zip(target.cells, before, strict=True):
        # One login confirms, and one is the ping's.
        if cell.logins() - logins < 2 * count:
            raise BenchError("there were too few new connections: this did not measure what it says.")
    hosts = len(target.cells)
    return ratios(longest(times, "module", count, hosts), longest(times, "ping", count, hosts))


def measure_one(table: Table, target: Target, count: int) -> None:
    """Measure a confirmed apply on one host."""
    for text, options, goal in (
        ("through a door of 3 steps", behind_door, GOAL_DOOR),
        ("through a door of 3 UDP steps", behind_silent_door, GOAL_ONE),
        ("on an allowed port", allowed, GOAL_ONE),
    ):
        values = confirmed(target, options, count)
        table.add("guarded apply {0} / ping, new connections".format(text), values, goal)


@contextlib.contextmanager
def knock_blocked(target: Target, steps: Sequence[str]) -> Iterator[None]:
    """Within the block no step of a knock arrives."""
    rules = [["OUTPUT", "-p", "tcp", "--dport", step, "-j", "DROP"] for step in steps]
    with inside(target.client):
        for rule in rules:
            run(["iptables", "-w", "-A", *rule])
    try:
        yield
    finally:
        with inside(target.client):
            for rule in rules:
                run(["iptables", "-w", "-D", *rule])


def undone_task() -> Task:
    """Return a guarded task that fails unless its change was rolled back."""
    options = dict(door(KNOCKS[0]), guard_timeout=TIMEOUT)
    rolled_back = "not (undone.rolled_back | default(false))"
    return task("undone", MODULE, options, register="undone", failed_when=rolled_back)


def seconds_to_access(target: Target) -> float:
    """Apply what cannot be confirmed; return the seconds from its deadline until sshd can be reached again."""
    cell = target.cells[0]
    process = target.start([reset_task(), undone_task()])
    try:
        deadline = _deadline(target, process)
        if connects(target.client, cell.address, _TRY):
            raise BenchError("the change did not cut the controller off: this did not measure what it says.")
        back = _back(target, deadline + 60)
    finally:
        target.finish(process)
    if json.loads(cell.read(LAST))["outcome"] != "rolled_back":
        raise BenchError("the change was not rolled back.")
    if back < deadline:
        raise BenchError("sshd could be reached before the deadline: this did not measure what it says.")
    return back - deadline


def _deadline(target: Target, process: subprocess.Popen[bytes]) -> float:
    """Wait until the change is in force; return its deadline."""
    while process.poll() is None:
        text = target.cells[0].read(PENDING)
        record = json.loads(text) if text else {}
        if record.get("state") == "applied":
            changed = record["parts"]["ruleset"]["before"]["backends"][0]["families"]
            if set(changed) != {"ipv4", "ipv6"}:
                raise BenchError("not both families were changed: {0}.".format(sorted(changed)))
            return record["deadline"]
        time.sleep(0.02)
    raise BenchError("nothing was applied: {0}".format(target.output()[-3000:]))


def _back(target: Target, end: float) -> float:
    """Return when a new connection came about again, on the clock of all processes of this machine."""
    while time.monotonic() < end:
        if connects(target.client, target.cells[0].address, _TRY):
            return time.monotonic()
        time.sleep(0.01)
    raise BenchError("sshd could not be reached any more.")


def measure_back(table: Table, target: Target, count: int) -> None:
    """Measure how soon after the deadline a host that was cut off is back."""
    target.play([reset_task(), knock_task("warm up"), reset_task()])
    with knock_blocked(target, KNOCKS[0]):
        values = [seconds_to_access(target) for _round in range(count)]
    table.add("seconds from the deadline to access, IPv4 and IPv6", values, GOAL_BACK)


def measure(table: Table, full: bool) -> None:
    """Add the rows."""
    with Target() as target:
        measure_one(table, target, rounds(full, 11, 41))
        measure_back(table, target, rounds(full, 7, 21))
