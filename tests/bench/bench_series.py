# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Series of alternating runs, and the table of what came out."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def rounds(full: bool, few: int, many: int) -> int:
    """Return how many runs to make; never fewer than seven."""
    return max(7, many if full else few)


def alternate(count: int, *measures: Callable[[], Any]) -> list[list[Any]]:
    """Call all measures once per round, each round in another order; return one list of results a measure.

    What the machine does meanwhile then falls on all of them alike.
    """
    results: list[list[Any]] = [[] for _measure in measures]
    for number in range(count):
        for step in range(len(measures)):
            index = (number + step) % len(measures)
            results[index].append(measures[index]())
    return results


def costs_in_turns(acts: Mapping[str, Sequence[Callable[[], float]]], turns: int) -> dict[str, list[float]]:
    """Call all acts of each name, turn by turn and in each turn in another order of the names; return the low quartile of each act."""
    names = list(acts)
    costs: dict[str, list[list[float]]] = {name: [[] for _act in acts[name]] for name in names}
    for turn in range(turns):
        for number in range(len(names)):
            name = names[(turn + number) % len(names)]
            for values, act in zip(costs[name], acts[name], strict=True):
                values.append(act())
    return {name: [low_quartile(values) for values in lists] for name, lists in costs.items()}


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return the ratio of every round."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def low_quartile(values: Sequence[float]) -> float:
    """Return a cost that interruptions by other work do not reach."""
    return statistics.quantiles(values, n=4)[0]


class Table:
    """Collects figures and prints them beside their goals."""

    _HEADER = ("what", "figure", "goal", "", "runs", "middle half")

    def __init__(self) -> None:
        """Begin empty."""
        self._rows: list[tuple[str, ...]] = []

    def add(
        self,
        what: str,
        values: Sequence[float],
        goal: float | None = None,
        least: bool = False,
        unit: str = "",
        note: str = "",
    ) -> None:
        """Add a row: the median of the values; the goal is the most that is wanted, or the least."""
        figure = statistics.median(values)
        met = goal is None or (figure >= goal if least else figure <= goal)
        low, _middle, high = statistics.quantiles(values, n=4)
        self._rows.append(
            (
                what,
                _number(figure, unit) + note,
                "" if goal is None else "{0} {1}".format(">=" if least else "<=", _number(goal, unit)),
                "" if goal is None else "met" if met else "MISSED",
                str(len(values)),
                "{0} - {1}".format(_number(low, unit).split()[0], _number(high, unit)),
            )
        )

    def text(self) -> str:
        """Return the table for a person."""
        lines = [self._HEADER, *self._rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self._HEADER))]
        shown = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        return "\n".join([shown[0], "-" * len(shown[0]), *shown[1:]])


def _number(value: float, unit: str) -> str:
    if unit:
        return "{0:.0f} {1}".format(value, unit)
    return "{0:.0f}".format(value) if value >= 100 else "{0:.3f}".format(value)
