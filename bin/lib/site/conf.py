# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How Sphinx makes the site of the pages in docs/ and what antsibull-docs writes of the plugins."""

from pathlib import Path

import yaml

# Beside this file where the sources were gathered, see the session docs of noxfile.py.
_GALAXY = yaml.safe_load((Path(__file__).parent / "galaxy.yml").read_text(encoding="utf-8"))

project = f"{_GALAXY['namespace']}.{_GALAXY['name']}"
author = _GALAXY["authors"][0]
copyright = f"2026, {author}"  # noqa: A001
version = release = str(_GALAXY["version"])
language = "en"

extensions = ["myst_parser", "sphinx_antsibull_ext"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4
# References of the plugins' pages to other collections and to Python lead to sites that nobody may need to reach for a build.
nitpicky = False
suppress_warnings = ["ref.ref"]

html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
pygments_style = "ansible"
pygments_dark_style = "monokai"
