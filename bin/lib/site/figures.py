#!/usr/bin/env python3
# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put what the benchmark has drawn (.cache/figures) into docs/: charts, and tables between their marks. `nox -s figures` calls it.

A table NAME.md goes where the pages have `<!-- figures: NAME -->`, up to `<!-- end of figures -->`.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
_BLOCK = re.compile(r"(<!-- figures: ([\w-]+) -->\n).*?(<!-- end of figures -->)", re.S)


def names_in(text: str) -> list[str]:
    """Return the names of the tables that a page has."""
    return [found[2] for found in _BLOCK.finditer(text)]


def with_tables(text: str, tables: dict[str, str]) -> str:
    """Return a page with new tables; those that are not given stay as they are."""
    return _BLOCK.sub(
        lambda found: found[0] if found[2] not in tables else found[1] + tables[found[2]] + found[3], text
    )


def put(drawn: Path, docs: Path) -> list[str]:
    """Put everything into docs/; return the names of the files that are new.

    :raises ValueError: for a table that no page, or more than one, has a place for.
    """
    tables = {path.stem: path.read_text(encoding="utf-8") for path in sorted(drawn.glob("*.md"))}
    pages = {path: path.read_text(encoding="utf-8") for path in sorted(docs.glob("*.md"))}
    places = [name for text in pages.values() for name in names_in(text)]
    lost = sorted(name for name in tables if places.count(name) != 1)
    if lost:
        raise ValueError(f"not exactly one page of docs/ has a place for: {', '.join(lost)}")
    changed = {path: with_tables(text, tables) for path, text in pages.items()}
    for path, text in changed.items():
        if text != pages[path]:
            path.write_text(text, encoding="utf-8")
    charts = sorted(drawn.glob("*.svg"))
    for chart in charts:
        shutil.copy2(chart, docs)
    return [path.name for path, text in changed.items() if text != pages[path]] + [chart.name for chart in charts]


if __name__ == "__main__":
    print("new in docs/:", ", ".join(put(ROOT / ".cache" / "figures", ROOT / "docs")) or "nothing", file=sys.stderr)
