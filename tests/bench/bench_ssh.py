# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The connection knock_ssh against core's ssh: over a living master, and for a new connection through a door."""

import subprocess
from collections.abc import Callable
from typing import Any

from bench_ansible import Target, Task, connects, knock_task, reset_task, sums, task
from bench_lan import BenchError, inside
from bench_series import Table, ratios, rounds

GOAL_LIVE, GOAL_COLD = 1.03, 0.25
OPEN_PORT = 2222
STEPS = ["1000", "3000", "2000"]
DOORS = {"doors": [{"name": "ssh", "knock": STEPS, "opens": ["22"], "window": 2}], "allow": [{"port": str(OPEN_PORT)}]}
KNOCKING = {"ansible_connection": "sesame.portknock.knock_ssh", "ansible_knock": STEPS}
PLAIN = {"ansible_connection": "ansible.builtin.ssh"}
DELAY = "0.5ms"
"""Each way, where the kernel can do that."""


def ping(label: str, variables: dict[str, Any]) -> Task:
    """Return a ping over one of the connections."""
    return task(label, "ansible.builtin.ping", {}, vars=variables)


def reset(variables: dict[str, Any]) -> Task:
    """Return a task that ends the connection, so that the next one is new."""
    return {"ansible.builtin.meta": "reset_connection", "vars": variables}


def alternating(count: int, ours: Callable[[int], list[Task]], theirs: Callable[[int], list[Task]]) -> list[Task]:
    """Return the tasks of both, the order changing from round to round."""
    tasks = []
    for number in range(count):
        tasks += ours(number) + theirs(number) if number % 2 else theirs(number) + ours(number)
    return tasks


def measure_live(table: Table, target: Target, count: int) -> None:
    """Measure tasks over the same living master, which both connections share."""
    tasks = alternating(
        count,
        lambda number: [ping("ours {0}".format(number), KNOCKING)],
        lambda number: [ping("theirs {0}".format(number), PLAIN)],
    )
    times = target.play([ping("warm up", PLAIN), ping("warm up", KNOCKING), *tasks])
    values = ratios(sums(times, "ours", count), sums(times, "theirs", count))
    table.add("task over a live master, knock_ssh / ssh", values, GOAL_LIVE)


def measure_cold(table: Table, target: Target, count: int) -> None:
    """Measure new connections: a knock of three steps and the door's port against a port that is open."""
    delayed = delay(target)
    if not connects(target.client, target.cells[0].address, 1, OPEN_PORT):
        raise BenchError("the open port is not open.")
    if connects(target.client, target.cells[0].address, 1):
        raise BenchError("the door is not shut.")
    port = dict(PLAIN, ansible_port=OPEN_PORT)
    tasks = alternating(
        count,
        lambda number: [reset(KNOCKING), ping("ours {0}".format(number), KNOCKING)],
        lambda number: [reset(port), ping("theirs {0}".format(number), port)],
    )
    times = target.play([ping("warm up", port), *tasks])
    pairs = zip(sums(times, "ours", count), sums(times, "theirs", count), strict=True)
    text = "seconds that a knock of three adds to a new connection, {0}".format(
        "1 ms of round trip" if delayed else "no delay: this kernel has no netem"
    )
    table.add(text, [ours - theirs for ours, theirs in pairs], GOAL_COLD)


def delay(target: Target) -> bool:
    """Put a delay on the path, both ways; return whether this kernel can."""
    for namespace, device in target.links():
        with inside(namespace):
            words = ["tc", "qdisc", "replace", "dev", device, "root", "netem", "delay", DELAY]
            if subprocess.run(words, capture_output=True, check=False).returncode:
                return False
    return True


def measure(table: Table, full: bool) -> None:
    """Add the rows."""
    with Target() as target:
        target.play([reset_task(), knock_task("set up", **DOORS)])
        measure_live(table, target, rounds(full, 21, 81))
        target.end_masters()
        measure_cold(table, target, rounds(full, 15, 51))
