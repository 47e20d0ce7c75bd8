#!/usr/bin/env python3
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Draw docs/demo.svg, a still picture of a terminal, from what `bin/demo --record` wrote: bin/lib/site/demo.txt."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
TEXT = HERE / "demo.txt"
PICTURE = HERE.parents[2] / "docs" / "demo.svg"

COLUMNS = 84
"""What is longer is cut."""
_CHARACTER, _LINE, _SIZE, _EDGE, _TOP = 8.4, 19, 14, 20, 28
_RIGHT = "as it should be"
_INDENT = 2
_EVENT = re.compile(r"  \d\d:\d\d  ")
_HEAD = """<!--
Copyright: (c) 2026, sesame.portknock contributors
GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
SPDX-License-Identifier: GPL-3.0-or-later
-->
<!-- Made by bin/lib/site/recording.py. Changes to this file are lost. -->
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"
    aria-labelledby="title desc">
  <title id="title">A recording of bin/demo</title>
  <desc id="desc">{said}</desc>
  <style>
    text {{ fill: #1f2328; font-family: Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: {size}px; white-space: pre; }}
    .head {{ font-weight: bold; }} .soft {{ fill: #59636e; }} .good {{ fill: #116329; }}
    .paper {{ fill: #f6f8fa; stroke: #8c959f; }}
    @media (prefers-color-scheme: dark) {{
      text {{ fill: #e6edf3; }} .soft {{ fill: #aab2bb; }} .good {{ fill: #56d364; }}
      .paper {{ fill: #0d1117; stroke: #6e7681; }}
    }}
  </style>
  <rect class="paper" x="0.5" y="0.5" width="{paper_width}" height="{paper_height}" rx="8"/>
"""


def draw(text: str) -> str:
    """Return the picture of a text.

    :raises ValueError: where the text is of a run in which not all was as it should be.
    """
    if "WRONG" in text or _RIGHT not in text:
        raise ValueError("this is no recording of a run in which all was as it should be")
    lines = [_cut(line) for line in text.strip("\n").splitlines()]
    width, height = round(COLUMNS * _CHARACTER) + 2 * _EDGE, _TOP + len(lines) * _LINE
    head = _HEAD.format(
        width=width, height=height, paper_width=width - 1, paper_height=height - 1, size=_SIZE, said=escape(_said(text))
    )
    drawn = [_drawn(line, _TOP + number * _LINE) for number, line in enumerate(lines) if line.strip()]
    return head + "".join(drawn) + "</svg>\n"


def _cut(line: str) -> str:
    line = line.rstrip()
    return line if len(line) <= COLUMNS else line[: COLUMNS - 1].rstrip() + "…"


def _said(text: str) -> str:
    """Return the lines of the timeline for those who hear the picture."""
    return " ".join(re.sub(r"\s+", " ", line).strip() + "." for line in text.splitlines() if _EVENT.match(line))


def _drawn(line: str, y: int) -> str:
    """Return a line. Each run of words has its place and width, so that columns stand below each other in any font."""
    return "".join(
        f'  <text class="{_kind(line, found)}" x="{_EDGE + found.start() * _CHARACTER:.1f}" y="{y}" '
        f'textLength="{len(found[0]) * _CHARACTER:.1f}" lengthAdjust="spacingAndGlyphs">{escape(found[0])}</text>\n'
        for found in re.finditer(r"\S+(?: \S+)*", line)
    )


def _kind(line: str, words: re.Match[str]) -> str:
    """Return the class of a run of words."""
    if words[0] == _RIGHT:
        return "good"
    if not line.startswith(" "):
        return "head"
    return "plain" if line.endswith(_RIGHT) and words.start() > _INDENT else "soft"


if __name__ == "__main__":
    PICTURE.write_text(draw(TEXT.read_text(encoding="utf-8")), encoding="utf-8")
