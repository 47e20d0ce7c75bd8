# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Planning and rendering: options to Spec to rules to the text for iptables-restore, one family."""

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

from bench_lan import Backend, Lan, inside
from bench_ruleset import EMPTY, Core, door_options
from bench_series import Table, alternate, ratios, rounds

LIMIT_MS, LINEAR = 150, 2.2


def reference_loop() -> int:
    """Do a fixed piece of plain Python work, so that a time can be compared between machines."""
    texts = {}
    for number in range(40000):
        text = "rule {0} of {1}".format(number, number % 97)
        texts[text] = len(text.split(" "))
    return sum(texts.values())


def processor_ms(work: Callable[[], object]) -> float:
    """Return the processor time that one call takes, in milliseconds."""
    gc.collect()
    start = time.process_time()
    work()
    return (time.process_time() - start) * 1000


def applied_save(core: Core, options: dict[str, Any]) -> str:
    """Return what iptables-save prints after the options were applied to an empty ruleset."""
    backend = Backend("nft")
    with Lan("host") as lan, inside(lan.namespace("host")):
        backend.restore(core.plan_family(EMPTY, core.spec_from_options(options), "ipv4").change)
        return backend.save()


def planner(core: Core, options: dict[str, Any], save: str) -> Callable[[], float]:
    """Return a function that measures one whole way from options to text."""

    def measure() -> float:
        return processor_ms(lambda: core.plan_family(save, core.spec_from_options(options), "ipv4"))

    return measure


def measure(table: Table, full: bool) -> None:
    """Add the rows."""
    core = Core()
    few, many = door_options(500), door_options(1000)
    saves = (("an empty ruleset", EMPTY, EMPTY), ("an applied one", applied_save(core, few), applied_save(core, many)))
    count = rounds(full, 11, 41)
    for what, save_few, save_many in saves:
        small, large, loop = alternate(
            count, planner(core, few, save_few), planner(core, many, save_many), lambda: processor_ms(reference_loop)
        )
        note = " ({0:.1f} reference loops)".format(statistics.median(ratios(small, loop)))
        table.add("plan 500 doors of 4 steps on " + what, small, LIMIT_MS, unit="ms", note=note)
        table.add("plan 1,000 doors / 500, on " + what, ratios(large, small), LINEAR)
