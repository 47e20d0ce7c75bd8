# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Line charts as SVG, readable in light and dark, and tables; `nox -s figures` puts what a group has left into docs/."""

import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from bench_ruleset import ROOT

FOLDER = os.path.join(ROOT, ".cache", "figures")
"""Where the groups leave their charts, named as in docs/."""
_WIDTHS = {1: 520, 2: 400, 3: 260}
"""Columns to the width of a chart."""
_HEIGHT, _LEFT, _GAP, _TOP = 180, 55, 70, 40
_LIGHT = ("#0b6e4f", "#c8553d", "#3d5a80", "#8d6a9f")
_DARK = ("#4fd1a5", "#ff9b85", "#8fb8f0", "#d2a8ff")
_HEAD = """<!--
Copyright: (c) 2026, sesame.portknock contributors
GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
SPDX-License-Identifier: GPL-3.0-or-later
-->
<!-- Made by nox -s figures. Changes to this file are lost. -->
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"
    aria-labelledby="title desc">
<title id="title">{title}</title>
<desc id="desc">{said}</desc>
<style>
text{{font:13px "DejaVu Sans",Arial,sans-serif;fill:#1f2328}}
polyline,path{{fill:none;stroke-width:2.5}} .grid{{stroke:#d8dee4;stroke-width:1}}
.paper{{fill:#fff}} {light}
@media (prefers-color-scheme: dark){{text{{fill:#e6edf3}} .grid{{stroke:#3d444d}} .paper{{fill:#0d1117}} {dark}}}
</style>
<rect class="paper" width="{width}" height="{height}" rx="8"/>
"""


class Panel(NamedTuple):
    """One chart. The axis of x is logarithmic."""

    title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    """Name of a line to its points, in the order of x."""
    x_marks: Sequence[float]
    y_marks: Sequence[float]
    """The lowest and the highest one are the ends of the axis."""
    linear: bool = False
    """Whether the axis of y is linear; else it is logarithmic, too."""


def log_marks(values: Sequence[float], least: float) -> list[float]:
    """Return marks for a logarithmic axis that has all values on it.

    :param least: the lowest mark, and what is lower is drawn there.
    """
    marks = [least]
    while marks[-1] < max(values):
        tens = 10 ** math.floor(math.log10(marks[-1]) + 1e-9)
        marks.append(next(each * tens for each in (2, 5, 10) if each * tens > marks[-1] * 1.001))
    return marks if len(marks) > 1 else [*marks, 2 * least]


def draw(name: str, title: str, said: str, panels: Sequence[Panel]) -> None:
    """Write a figure of some panels with the same lines.

    :param name: that of the file.
    :param said: what those read who cannot see it.
    """
    os.makedirs(FOLDER, exist_ok=True)
    path = os.path.join(FOLDER, name)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(svg(title, said, panels))
    print(f"figure: {path}", flush=True)


def write_table(name: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table, which takes the place of the one of that name in docs/."""
    os.makedirs(FOLDER, exist_ok=True)
    lines = ["", *("| " + " | ".join(row) + " |" for row in (head, *rows)), ""]
    lines.insert(2, "|" + "---|" * len(head))
    with open(os.path.join(FOLDER, name + ".md"), "w", encoding="utf-8") as stream:
        stream.write("\n".join(lines) + "\n")


def figure(value: float) -> str:
    """Return a number with two digits that count."""
    return f"{value:.2f}" if value < 3 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def svg(title: str, said: str, panels: Sequence[Panel]) -> str:
    """Return a figure as SVG."""
    columns = min(max(_WIDTHS), len(panels))
    body = [line for number, panel in enumerate(panels) for line in _panel(number, columns, panel)]
    legend = list(panels[0].lines)
    free = len(panels) % columns
    rows = -(-len(panels) // columns)
    # In the place that a row has left, or below all.
    x, y = _place(len(panels), columns) if free else (_LEFT, _TOP + rows * (_HEIGHT + _GAP) - 10)
    for number, line in enumerate(legend):
        down = y + 20 + 24 * number
        body.append(
            f'<path class="c{number}" d="M{x} {down}h24"/><text x="{x + 32}" y="{down + 5}">{escape(line)}</text>'
        )
    height = _TOP + rows * (_HEIGHT + _GAP) + (0 if free else 24 * len(legend) + 10)
    colours = [
        "".join(f".c{number}{{stroke:{colour}}} " for number, colour in enumerate(each)).strip()
        for each in (_LIGHT, _DARK)
    ]
    head = _HEAD.format(
        width=columns * (_WIDTHS[columns] + _GAP) + 20,
        height=height,
        title=escape(title),
        said=escape(said),
        light=colours[0],
        dark=colours[1],
    )
    return "\n".join([head + body[0], *body[1:], "</svg>", ""])


def _place(number: int, columns: int) -> tuple[int, int]:
    return _LEFT + number % columns * (_WIDTHS[columns] + _GAP), _TOP + number // columns * (_HEIGHT + _GAP)


def _share(value: float, low: float, high: float, linear: bool) -> float:
    """Return how far up its axis a value stands, from 0 to 1."""
    value = min(max(value, low), high)
    return (value - low) / (high - low) if linear else math.log(value / low) / math.log(high / low)


def _panel(number: int, columns: int, panel: Panel) -> list[str]:
    (left, top), width = _place(number, columns), _WIDTHS[columns]

    def x(value: float) -> float:
        return left + width * _share(value, panel.x_marks[0], panel.x_marks[-1], linear=False)

    def y(value: float) -> float:
        return top + _HEIGHT * (1 - _share(value, panel.y_marks[0], panel.y_marks[-1], panel.linear))

    drawn = [f'<text x="{left}" y="{top - 12}">{escape(panel.title)}</text>']
    for mark in panel.y_marks:
        drawn.append(
            f'<path class="grid" d="M{left} {y(mark):.0f}h{width}"/>'
            f'<text x="{left - 8}" y="{y(mark) + 4:.0f}" text-anchor="end">{mark:,g}</text>'
        )
    for mark in panel.x_marks:
        drawn.append(f'<text x="{x(mark):.0f}" y="{top + _HEIGHT + 18}" text-anchor="middle">{mark:,g}</text>')
    for index, points in enumerate(panel.lines.values()):
        places = " ".join(f"{x(at):.0f},{y(value):.0f}" for at, value in points)
        drawn.append(f'<polyline class="c{index}" points="{places}"/>')
    return drawn
