# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each kind of finding has one severity, and code, RETURN of the module and docs/findings.md name the same kinds."""

import ast
import glob
import os
import re

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._engine import SEVERITIES, Finding, findings_result

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as stream:
        return stream.read()


def kinds_of(source):
    """The kinds that a file makes findings of; a kind must be a text there, so that it can be found."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    made = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Finding"]
    return {text for call in made for text in map(text_of, ast.walk(call.args[0])) if text}


def text_of(node):
    """The text that a part of the code is, '' where it is something else."""
    # Before Python 3.8 it was a kind of its own.
    value = node.s if type(node).__name__ == "Str" else getattr(node, "value", "")
    return value if isinstance(value, str) else ""


def made_in_code():
    paths = glob.glob(os.path.join(ROOT, "plugins", "module_utils", "**", "*.py"), recursive=True)
    return set().union(*[kinds_of(read(path)) for path in paths])


def table():
    return dict(re.findall(r"^\| `(\w+)` \| (\w+) \| [^|]+ \| [^|]+ \|$", read("docs", "findings.md"), re.M))


def documented():
    text = read("plugins", "modules", "knock_ruleset.py")
    (kinds,) = re.findall(r"^    kind:\n((?: {6,}.*\n)+)", text, re.M)
    return re.findall(r"V\((\w+)\)", kinds)


def test_every_kind_in_the_code_has_a_severity():
    assert made_in_code() == set(SEVERITIES)


def test_the_document_says_the_same():
    assert table() == SEVERITIES
    assert list(table()) == sorted(SEVERITIES)


def test_the_module_documents_the_same():
    assert documented() == sorted(SEVERITIES)


def test_an_unknown_kind_cannot_be_returned():
    with pytest.raises(KeyError):
        findings_result([Finding("of_no_kind", "", "", "")])


def test_the_worst_comes_first():
    kinds = ["lost_effect", "single_step", "unguarded", "list_size", "family_open"]
    told = findings_result([Finding(kind, "", "", kind) for kind in kinds])
    assert [(item["kind"], item["severity"]) for item in told] == [
        ("unguarded", "error"),
        ("family_open", "error"),
        ("single_step", "warning"),
        ("list_size", "warning"),
        ("lost_effect", "info"),
    ]


def test_what_is_found_in_code():
    assert kinds_of('Finding("a", x, y)\nFinding("b" if z else "c", "d")\nf("e")') == {"a", "b", "c"}
