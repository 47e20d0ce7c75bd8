# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""_client stands alone: its files also run where nothing of the collection is, on jump hosts and beside ssh."""

import ast
import os
import re
import shutil
import subprocess
import sys

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._client import knock as _knock
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import ENGINES

FOLDER = os.path.dirname(os.path.abspath(_knock.__file__))
FILES = sorted(name for name in os.listdir(FOLDER) if name.endswith(".py"))
BASH = os.path.join(FOLDER, "..", "..", "..", "playbooks", "files", "portknock-connect.sh")


def imports_of(text):
    """Return the first part of the name of every module that is imported anywhere, also in functions; '' for relative ones."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for each in node.names:
                yield each.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            yield "" if node.level else node.module.split(".")[0]


def test_there_are_such_files():
    assert {"connect.py", "knock.py", "probe.py"} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_nothing_but_the_standard_library_is_imported(name):
    with open(os.path.join(FOLDER, name), encoding="utf-8") as stream:
        found = set(imports_of(stream.read()))
    assert found
    assert [each for each in found if each.startswith("ansible") or each in ("", "yaml")] == []


def test_an_import_in_a_function_is_found():
    assert list(imports_of("def f():\n    from ansible.errors import X\n    from . import y\n")) == ["ansible", ""]


@pytest.mark.parametrize("name", FILES)
def test_each_file_runs_alone(name, tmp_path):
    shutil.copy(os.path.join(FOLDER, name), str(tmp_path))
    done = subprocess.run([sys.executable, "-IS", name], cwd=str(tmp_path), stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_bash_program_knows_the_same_engines():
    """It cannot read the table, so it has one of its own."""
    with open(BASH, encoding="utf-8") as stream:
        rows = re.findall(r"^ +(\w+)\) SETTLE=(\S+) KEEPS_BROKEN_KNOCKS=(\w*) ;;$", stream.read(), re.M)
    different = {name: traits for name, traits in ENGINES.items() if traits.settle or traits.keeps_broken_knocks}
    assert {name: (float(settle), bool(keeps)) for name, settle, keeps in rows} == {
        name: (traits.settle, traits.keeps_broken_knocks) for name, traits in different.items()
    }
