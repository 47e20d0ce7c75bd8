# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing on the controller names an engine: what differs is a row of one table, and a new engine is one row more."""

import ast
import os

import pytest

pytest.importorskip("ansible", reason="what runs on controllers has the syntax of their Python")

import yaml
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import ENGINES

PLUGINS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "plugins")
FOLDERS = ("action", "connection", "filter", "plugin_utils", os.path.join("module_utils", "_client"))
TABLE = os.path.join(PLUGINS, "module_utils", "_client", "knock.py")


def tree_of(path):
    with open(path, encoding="utf-8") as stream:
        return ast.parse(stream.read())


def files():
    for folder in FOLDERS:
        for where, _folders, names in os.walk(os.path.join(PLUGINS, folder)):
            yield from (os.path.join(where, name) for name in sorted(names) if name.endswith(".py"))
    yield os.path.join(PLUGINS, "modules", "knock.py")


def named_in(tree):
    """Return the lines that name an engine as a value; a longer text is for people."""
    values = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [node.lineno for node in values if node.value in ENGINES]


def test_no_code_names_an_engine_but_the_table():
    found = {os.path.relpath(path, PLUGINS): named_in(tree_of(path)) for path in files()}
    assert len(found) > 20
    naming = {path for path, lines in found.items() if lines}
    assert naming == {os.path.relpath(TABLE, PLUGINS)}


def test_one_that_is_named_is_found():
    assert named_in(ast.parse('if engine == "knockd":\n    pass\nx = f"{engine} of knockd"\n')) == [1]


@pytest.mark.parametrize(
    ("path", "option"),
    [
        ("modules/knock.py", "engine"),
        ("doc_fragments/ruleset.py", "engine"),
        ("connection/knock_ssh.py", "knock_engine"),
    ],
)
def test_the_documents_offer_the_engines_of_the_table(path, option):
    (text,) = (
        node.value.value
        for node in ast.walk(tree_of(os.path.join(PLUGINS, path)))
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DOCUMENTATION"
    )
    assert yaml.safe_load(text)["options"][option]["choices"] == list(ENGINES)
