# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages that are made from the code are what it says; links of documents lead somewhere; commands ask for the vault."""

import os
import re

import pytest

pytest.importorskip("ansible", reason="the pages are made on Pythons of a controller alone")

import code_messages
import pages
import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

FOLDERS = ("", "docs", "examples", "roles/portknock", ".github")
FENCE = re.compile(r"^ *```.*?^ *```", re.M | re.S)


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as stream:
        return stream.read()


def documents():
    names = [os.path.join(folder, name) for folder in FOLDERS for name in os.listdir(os.path.join(ROOT, folder))]
    return sorted(name for name in names if name.endswith(".md"))


def anchors(text):
    """Return the names that the headings of a page have on git hosts, and with MyST."""
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.M)
    }


def broken_links(path, text):
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
        file, _sign, anchor = target.partition("#")
        if "://" in target:
            continue
        other = os.path.normpath(os.path.join(os.path.dirname(path), file)) if file else path
        if not os.path.exists(os.path.join(ROOT, other)) or (anchor and anchor not in anchors(read(other))):
            yield target


@pytest.mark.parametrize("name", sorted(pages.PAGES))
def test_a_page_is_what_the_code_says(name):
    assert read("docs/" + name) == pages.PAGES[name](), "run bin/lib/site/pages.py"


def test_a_message_that_the_code_does_not_have_is_an_error():
    path = "plugins/module_utils/_client/answers.py"
    assert code_messages.whole_message(path, "no host answers").startswith("no host answers at this address")
    for words in ("no host whatsoever", "perhaps"):
        with pytest.raises(ValueError, match="messages have the words"):
            code_messages.whole_message(path, words)


def test_messages_of_a_file():
    source = '"""Docs."""\nx = f"a {y} b"\nraise E("c" "d {0}".format(z))\n'
    assert code_messages.messages(source) == ["a … b", "cd …"]


def test_what_a_reader_sees_of_references():
    text = "With O(portknock_engine=knockd), V(a) or P(b.c.d#role); M(e.f.g) and O(a.b#role:main:portknock_log)."
    shown = "With `portknock_engine: knockd`, `a` or `b.c.d`; `e.f.g` and `portknock_log`."
    assert pages.in_markdown(text) == shown


@pytest.mark.parametrize("path", documents())
def test_links_lead_somewhere(path):
    assert list(broken_links(path, read(path))) == []


def test_broken_links_are_found():
    text = "[a](none.md) [b](guard.md#none) [c](guard.md) [d](#none) ![e](guard.svg) [f](https://example.org)"
    assert list(broken_links("docs/faq.md", text)) == ["none.md", "guard.md#none", "#none"]


@pytest.mark.parametrize("path", ["README.md", "docs/quick-start.md", "docs/operations.md", "docs/clients.md"])
def test_every_command_that_reads_the_doors_asks_for_the_password_of_the_vault(path):
    commands = re.findall(r"^ *\$ (ansible-playbook .*)$", read(path), re.M)
    assert commands
    assert [command for command in commands if " -J " not in command] == []


def test_the_way_in_is_said_before_anything_is_closed():
    for path in ("README.md", "docs/quick-start.md", "docs/docsite/rst/guide.rst"):
        text = read(path)
        assert text.index("ansible_connection: sesame.portknock.knock_ssh") < text.index("sesame.portknock.site")


def lines_of(text, languages):
    """Return the lines of a page's blocks in some languages, without remarks and indentation, in their order."""
    blocks = re.findall(r"^( *)```(?:" + languages + r")\n(.*?)^ *```", text, re.M | re.S)
    lines = [re.sub(r"(^|\s)# .*$", "", line).strip() for _indentation, block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def test_the_steps_of_the_readme_are_those_of_the_quick_start():
    """Those are run, command by command, by tests/wire/clients/test_walk.py."""
    readme, quick = (
        read(path).partition("## Use it")[2] or read(path) for path in ("README.md", "docs/quick-start.md")
    )
    for languages in ("console", "yaml|ini"):
        here, there = lines_of(readme, languages), lines_of(quick, languages)
        assert len(here) > 4
        assert [line for line in here if line not in there] == []
        assert here == [line for line in there if line in here]


def test_the_readme_fits_on_a_few_screens():
    assert len(read("README.md").splitlines()) <= 150


def test_there_is_one_address_and_galaxy_yml_has_it():
    address = yaml.safe_load(read("galaxy.yml"))["repository"]
    names = [
        *documents(),
        "galaxy.yml",
        "docs/docsite/links.yml",
        "bin/lib/site/troubleshooting.yml",
        ".github/ISSUE_TEMPLATE/config.yml",
    ]
    for name in names:
        assert [url for url in re.findall(r"https://example\.org/\S*", read(name)) if not url.startswith(address)] == []
