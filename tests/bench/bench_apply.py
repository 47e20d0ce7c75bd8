# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Loading 500 doors of 4 steps: the module's way (probe, test, load, read back) against one iptables-restore.

With the engine nftables the whole way from options to rules in the kernel, for both IP versions.
"""

import subprocess
import time
from collections.abc import Callable
from typing import Any

from bench_engines import Nft
from bench_lan import BACKENDS, Backend, BenchError, Lan, inside, run
from bench_ruleset import EMPTY, Core, door_options
from bench_series import Table, alternate, ratios, rounds

GOAL, TABLE_MS = 1.2, 1500
DOORS = 500


def run_seam(words: list[str], text: str) -> tuple[int, str, str]:
    """Run a command as the module's Host does."""
    done = subprocess.run(
        [str(word) for word in words], input=text or None, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


class Loads:
    """Loads the same plan in both ways and measures only that."""

    def __init__(self, core: Core, backend: Backend) -> None:
        """Plan for an empty host."""
        self._core, self._backend = core, backend
        self._spec = core.spec_from_options(door_options(DOORS))
        self._plan = core.plan_family(EMPTY, self._spec, "ipv4")
        self._iptables = core.Iptables(run_seam, backend.find, lambda _path: "")

    def _measured(self, load: Callable[[], object]) -> float:
        start = time.perf_counter()
        load()
        seconds = time.perf_counter() - start
        if self._backend.save().count("\n-A PORTKNOCK") < DOORS * 5:
            raise BenchError("the rules are not there after loading them with {0}.".format(self._backend.name))
        self._backend.restore(self._plan.undo)
        return seconds

    def _replan(self, family: str, text: str) -> Any:
        return self._core.plan_family(text, self._spec, family)

    def ours(self) -> float:
        """Measure the module's way."""
        return self._measured(lambda: self._core.apply_plans(self._iptables, [self._plan], self._replan))

    def plain(self) -> float:
        """Measure one iptables-restore of the same text."""
        return self._measured(lambda: self._backend.restore(self._plan.change))


def table_ms(core: Core) -> float:
    """Return the milliseconds from options to a table in the kernel that has none."""
    start = time.perf_counter()
    Nft("nft").restore(core.rules(core.spec_from_options(dict(door_options(DOORS), engine="nftables"))))
    taken = (time.perf_counter() - start) * 1000
    if run(["nft", "list", "table", "inet", "portknock"]).count(": accept sources that have knocked") != 2 * DOORS:
        raise BenchError("the table is not there after it was loaded.")
    run(["nft", "delete", "table", "inet", "portknock"])
    return taken


def measure(table: Table, full: bool) -> None:
    """Add the rows."""
    core = Core()
    with Lan("host") as lan, inside(lan.namespace("host")):
        taken = [table_ms(core) for _round in range(rounds(full, 9, 31))]
    table.add("plan, render and load {0} doors, both IP versions, nftables".format(DOORS), taken, TABLE_MS, unit="ms")
    for name in BACKENDS:
        with Lan("host") as lan, inside(lan.namespace("host")):
            loads = Loads(core, Backend(name))
            loads.plain()
            ours, plain = alternate(rounds(full, 9, 31), loads.ours, loads.plain)
        table.add("apply {0} doors / plain iptables-restore, {1}".format(DOORS, name), ratios(ours, plain), GOAL)
