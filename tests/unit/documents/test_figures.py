# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmark draws gets into the documents, and nowhere else."""

import os
import re

import pytest

pytest.importorskip("ansible", reason="the documents are made on Pythons of a controller alone")

import figures

PAGE = "# A\n<!-- figures: costs -->\n| old |\n<!-- end of figures -->\nText.\n<!-- figures: floods -->\n<!-- end of figures -->\n"


def test_a_table_takes_the_place_of_the_one_before(tmp_path):
    docs, drawn = tmp_path / "docs", tmp_path / "drawn"
    for folder in (docs, drawn):
        folder.mkdir()
    (docs / "a.md").write_text(PAGE)
    (docs / "b.md").write_text("# B\n")
    (drawn / "costs.md").write_text("| new |\n")
    (drawn / "costs.svg").write_text("<svg/>")
    assert figures.put(drawn, docs) == ["a.md", "costs.svg"]
    assert (docs / "a.md").read_text() == PAGE.replace("old", "new")
    assert (docs / "costs.svg").read_text() == "<svg/>"
    assert figures.put(drawn, docs) == ["costs.svg"]


def test_a_table_without_a_place_is_an_error(tmp_path):
    (tmp_path / "costs.md").write_text("| new |\n")
    with pytest.raises(ValueError, match="has a place for: costs"):
        figures.put(tmp_path, tmp_path)


def test_every_place_has_its_table_and_every_chart_is_shown():
    docs = str(figures.ROOT / "docs")
    pages = {name: (figures.ROOT / "docs" / name).read_text() for name in os.listdir(docs) if name.endswith(".md")}
    bench = "".join(path.read_text() for path in sorted((figures.ROOT / "tests" / "bench").glob("bench_*.py")))
    places = [name for text in pages.values() for name in figures.names_in(text)]
    assert sorted(places) == sorted(re.findall(r'^    write_table\(\s*"([\w-]+)"', bench, re.M)) != []
    charts = re.findall(r'^    draw\(\s*"([\w.-]+)"', bench, re.M)
    assert charts and [name for name in charts if "]({0})".format(name) not in "".join(pages.values())] == []
