# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Many hosts at once: what closing them and looking at them again costs, and what is left of a controller that is killed midway."""

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench_ansible import MODULE, Cell, Target, Task, Timed, check_changed, connects, guarded_task, reset_task, task
from bench_guard import KNOCKS, LAST, PENDING, behind_door, confirmed, longest
from bench_lan import BenchError, inside, run
from bench_plot import figure, write_table
from bench_series import Table, alternate, ratios, rounds

HOSTS, MOST_HOSTS = 20, 200
FORKS = 20
GOAL_CLOSED, GOAL_NOOP = 3.5, 1.5
GOAL_MEMORY = 1500
"""Megabytes of the controller and its forks together."""
TIMEOUT = 60
"""Seconds until an unconfirmed change is undone: two processors are slow with so many hosts."""
SITE = "sesame.portknock.site"
WORDS = ("-e", "portknock_serial=100%", "--tags", "portknock_ruleset")
"""All hosts at once; nothing is installed, since the hosts have the programs of this machine."""
UNREACHABLE = 4
"""The exit code of ansible-playbook for hosts that are down."""
_KILL_AT = 0.4
"""The share of hosts that are done when the controller is killed."""


def measure_noop(table: Table, target: Target, count: int) -> list[float]:
    """Return the ratios of a task that changes nothing to a ping: until the slowest host is done."""
    tasks = [reset_task(), guarded_task("warm up", **behind_door(0)), task("warm up", "ansible.builtin.ping", {})]
    for number in range(count):
        pair = [
            task(f"module {number}", MODULE, behind_door(0)),
            task(f"ping {number}", "ansible.builtin.ping", {}),
        ]
        tasks += pair if number % 2 else pair[::-1]
    times = target.play(tasks)
    check_changed(times, "module", False)
    values = ratios(longest(times, "module", count, HOSTS), longest(times, "ping", count, HOSTS))
    table.add(f"task without a change / ping, {HOSTS} hosts at once", values, GOAL_NOOP)
    return values


def measure_site(table: Table, target: Target, count: int) -> None:
    """Measure whole runs: the playbook site that changes nothing against a playbook of one ping."""
    options = {f"portknock_{key}": value for key, value in behind_door(0).items()}

    def site() -> float:
        return _seconds(lambda: seen.extend(target.finish(target.start_playbook(SITE, options, *WORDS))))

    def ping() -> float:
        return _seconds(lambda: target.play([task("ping", "ansible.builtin.ping", {})]))

    seen: list[Timed] = []
    site()
    seen.clear()
    ours, theirs = alternate(count, site, ping)
    if any(changed for _name, _seconds, changed in seen):
        raise BenchError("the playbook changed something: this did not measure what it says.")
    what = f"playbook site without a change / playbook of one ping, {HOSTS} hosts at once"
    table.add(what, ratios(ours, theirs))


def _seconds(act: Callable[[], object]) -> float:
    begun = time.monotonic()
    act()
    return time.monotonic() - begun


class Closing(NamedTuple):
    """What closing all hosts took."""

    seconds: float
    megabytes: float
    """The most that the controller had at once, with its forks, what they share counted once."""


def close_all(target: Target) -> Closing:
    """Close the hosts from nothing; watch the memory of the controller."""
    process = target.start(_closing())
    begun, most = time.monotonic(), 0.0
    try:
        while process.poll() is None:
            most = max(most, _megabytes(process.pid))
            time.sleep(1)
    finally:
        target.finish(process)
    return Closing(time.monotonic() - begun, most)


def _closing() -> list[Task]:
    return [guarded_task("close", **behind_door(0), guard_timeout=TIMEOUT)]


def _family(pid: int) -> Iterator[int]:
    """Return a process and all below it."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                yield from _family(int(child))


def _megabytes(pid: int) -> float:
    kilobytes = 0
    for each in _family(pid):
        with contextlib.suppress(OSError):
            found = re.search(r"^Pss: +(\d+)", Path(f"/proc/{each}/smaps_rollup").read_text(), re.M)
            kilobytes += int(found[1]) if found else 0
    return kilobytes / 1024


def kill_midway(target: Target, wanted: int) -> int:
    """Begin to close the hosts, and kill the controller with all of its forks once so many are closed, and others about to be.

    Return how many changes were pending then. Their guards have ended them.
    """
    process = target.start(_closing())
    try:
        while sum("confirmed" in cell.read(LAST) for cell in target.cells) < wanted or not _pending(target):
            if process.poll() is not None:
                raise BenchError(f"the play ended before it was killed: {target.output()[-3000:]}")
            time.sleep(0.2)
    finally:
        for pid in list(_family(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
    pending = _pending(target)
    _wait_for_deadlines(target)
    return pending


def _pending(target: Target) -> int:
    return sum(bool(cell.read(PENDING)) for cell in target.cells)


def _wait_for_deadlines(target: Target) -> None:
    """Wait until no change is pending, for longer than the guard may take."""
    end = time.monotonic() + 3 * TIMEOUT
    while _pending(target):
        if time.monotonic() > end:
            return
        time.sleep(1)


def state_of(cell: Cell) -> str:
    """Return in which state a host is: ``old``, ``new``, or what is wrong with it."""
    with inside(cell.namespace):
        live = ["PORTKNOCK" in text for text in _saved()]
    kept = [bool(cell.read(f"/etc/iptables/rules.{version}")) for version in ("v4", "v6")]
    found = {*live, *kept}
    if cell.read(PENDING) or len(found) > 1:
        return f"pending: {bool(cell.read(PENDING))}, rules: {live}, kept for a boot: {kept}"
    return "new" if found == {True} else "old"


def _saved() -> list[str]:
    return [run([command]) for command in ("iptables-save", "ip6tables-save")]


def measure_killed(table: Table, target: Target) -> str:
    """Kill the controller midway; then close the others. Return how many hosts were in which state, for the documents."""
    count = len(target.cells)
    pending = kill_midway(target, int(count * _KILL_AT))
    states = [state_of(cell) for cell in target.cells]
    neither = sorted({state for state in states if state not in ("old", "new")})
    print(
        f"killed midway, with {pending} changes pending: {states.count('new')} of {count} hosts are closed, "
        f"{states.count('old')} are as they were",
        flush=True,
    )
    if neither or not (states.count("new") and states.count("old")):
        raise BenchError(f"hosts that a killed controller left: {neither or states[:3]}")
    # The next run closes the others, and leaves alone those that are closed.
    times = target.play(_again())
    if sum(changed for _name, _seconds, changed in times) != states.count("old"):
        raise BenchError("the run after it did not change the hosts that were left as they were, and those alone.")
    table.add(f"hosts in neither state, controller killed midway, {count} hosts", [len(neither)] * 2, 0)
    said = f"{states.count('new')} closed, {states.count('old')} as they were, {len(neither)} in neither state"
    return f"{said} (changes that were pending: {pending})"


def _again() -> list[Task]:
    return [dict(guarded_task("again", **behind_door(0), guard_timeout=TIMEOUT), failed_when="guarded is failed")]


def _knocking(number: int) -> dict[str, object]:
    """Return the variables of hosts whose door a new connection must knock at."""
    doors = [{"name": "ssh", "knock": KNOCKS[number], "opens": ["22"], "window": 2}]
    return {"ansible_connection": "sesame.portknock.knock_ssh", "portknock_doors": doors}


def change_while_some_are_down(target: Target) -> None:
    """Change the knock of all hosts while a third of them is down; then do what docs/fleet.md says to do."""
    target.play([reset_task()])
    target.finish(target.start_playbook(SITE, _knocking(0), *WORDS))
    target.end_masters()
    down = target.names[: len(target.names) // 3]
    target.set_links(down, "down")
    # The hosts are entered by the knock that they have.
    words = [*WORDS, "-e", json.dumps({"ansible_knock": KNOCKS[0]})]
    target.finish(target.start_playbook(SITE, _knocking(1), *words), UNREACHABLE)
    if (
        f"{len(target.names) - len(down)} changed" not in target.output()
        or f"{len(down)} not reached" not in target.output()
    ):
        raise BenchError(f"not every host that is up was changed: {target.output()[-3000:]}")
    target.set_links(down, "up")
    target.finish(target.start_playbook(SITE, _knocking(1), *words, "--limit", ",".join(down)))
    target.end_masters()
    time.sleep(3)
    if any(connects(target.client, cell.address, 1) for cell in target.cells):
        raise BenchError("a door has not closed: this does not show that the new knock opens all.")
    # All of them have the new knock, and none has to be changed again.
    times = target.finish(target.start_playbook(SITE, _knocking(1), *WORDS))
    if any(changed for _name, _seconds, changed in times):
        raise BenchError("hosts that were down had not been changed like the others.")


def measure_most(table: Table) -> None:
    """Measure as many hosts as the machine can hold in namespaces."""
    with Target(MOST_HOSTS, FORKS) as target:
        target.play([reset_task()])
        ping = _seconds(lambda: target.play([task("ping", "ansible.builtin.ping", {})]))
        killed = measure_killed(table, target)
        target.play([reset_task()])
        done = close_all(target)
    table.add(f"close {MOST_HOSTS} hosts with {FORKS} forks / ping them", [done.seconds / ping] * 2, GOAL_CLOSED)
    table.add(f"seconds to close {MOST_HOSTS} hosts", [done.seconds] * 2)
    table.add("memory of the controller meanwhile", [done.megabytes] * 2, GOAL_MEMORY, unit="MB")
    rows = (
        ("all closed, guard and confirmation included, in times a ping of all", figure(done.seconds / ping)),
        ("the same in seconds, where controller and hosts are one machine", figure(done.seconds)),
        ("memory of the controller with all forks, at the most, in MB", figure(done.megabytes)),
        ("the controller killed midway: what is left once the guard's time is over", killed),
    )
    write_table("fleet-most", [f"{MOST_HOSTS} hosts, {FORKS} forks", "measured"], rows)


def measure(table: Table, full: bool) -> None:
    """Add the rows; those of most hosts in the long series alone."""
    with Target(HOSTS, FORKS) as target:
        values = confirmed(target, behind_door, rounds(full, 7, 15))
        table.add(f"guarded apply through a door / ping, new connections, {HOSTS} hosts at once", values, GOAL_CLOSED)
        unchanged = measure_noop(table, target, rounds(full, 7, 21))
        measure_site(table, target, rounds(full, 7, 9))
        change_while_some_are_down(target)
    rows = (("closing, guard and confirmation included", values), ("a task that changes nothing", unchanged))
    write_table(
        "fleet",
        [f"{HOSTS} hosts, {FORKS} forks", "times a ping"],
        [[what, figure(median(each))] for what, each in rows],
    )
    if full:
        measure_most(table)
