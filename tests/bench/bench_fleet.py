# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Many hosts at once: what closing them and looking at them again costs."""

import time
from collections.abc import Callable

from bench_ansible import MODULE, Target, Timed, check_changed, guarded_task, reset_task, task
from bench_guard import behind_door, confirmed, longest
from bench_lan import BenchError
from bench_series import Table, alternate, ratios, rounds

HOSTS, FORKS = 20, 20
GOAL_CLOSED, GOAL_NOOP = 3.5, 1.5
SITE = "sesame.portknock.site"
WORDS = ("-e", "portknock_serial=100%", "--tags", "portknock_ruleset")
"""All hosts at once; nothing is installed, since the hosts have the programs of this machine."""


def measure_noop(table: Table, target: Target, count: int) -> None:
    """Measure a task that changes nothing against a ping: until the slowest host is done."""
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


def measure(table: Table, full: bool) -> None:
    """Add the rows."""
    with Target(HOSTS, FORKS) as target:
        values = confirmed(target, behind_door, rounds(full, 7, 15))
        table.add(f"guarded apply through a door / ping, new connections, {HOSTS} hosts at once", values, GOAL_CLOSED)
        measure_noop(table, target, rounds(full, 7, 21))
        measure_site(table, target, rounds(full, 7, 9))
