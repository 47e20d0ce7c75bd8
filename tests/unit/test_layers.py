# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The layers of the code: imports go down only, the core does no I/O, and files, functions and classes stay small."""

import ast
import os
import re

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PLUGINS = os.path.join(ROOT, "plugins")
PREFIX = "ansible_collections.sesame.portknock.plugins."

LAYERS = (
    "module_utils._errors",
    "module_utils._paths",
    "module_utils._open_doors",
    "module_utils._engine",
    "module_utils._spec",
    "module_utils._netfilter",
    "module_utils._redact",
    "module_utils._names",
    "module_utils._tables",
    "module_utils._foreign",
    "module_utils._proof",
    "module_utils._boot",
    "module_utils._iptables",
    "module_utils._nftables",
    "module_utils._knockd",
    "module_utils._host",
    "module_utils._services",
    "module_utils._change",
    "module_utils._command",
    "module_utils._run",
)
"""A file imports only from layers above its own in this list, and from its own; ENGINES says one thing more."""

ENGINES = ("module_utils._iptables", "module_utils._nftables", "module_utils._knockd")
"""None of them imports from another: what two of them need is in a layer below."""

ALONE = "module_utils._client"
"""Runs on the controller and wherever a knock is sent from: imports nothing of the target's code, nor this of it."""

TOP = ("modules", "plugin_utils", "action", "connection", "filter", "lookup", "doc_fragments")
"""What Ansible loads, and what only that uses. plugin_utils is for the controller: no module imports it."""

PURE = ("module_utils._errors", "module_utils._paths", "module_utils._spec", "module_utils._netfilter", "module_utils._redact",
        "module_utils._engine", "module_utils._names", "module_utils._tables", "module_utils._foreign", "module_utils._proof",
        "module_utils._boot", "module_utils._iptables", "module_utils._nftables")  # fmt: skip
"""Layers that compute and do no I/O."""
IO_FILES = ("module_utils._tables.commands", "module_utils._tables.native")
"""Files in those layers that may run commands, through what they are given."""
IO = frozenset(
    "os io sys subprocess socket select selectors signal shutil tempfile fcntl glob pathlib pwd grp time threading "
    "multiprocessing asyncio ctypes random secrets logging syslog".split()
)

MOST_LINES, MOST_FUNCTION_LINES, MOST_METHODS = 400, 40, 20


def names_of(path):
    return os.path.relpath(path, PLUGINS)[: -len(".py")].replace(os.sep, ".")


def _files():
    return sorted(
        os.path.join(folder, name)
        for folder, _folders, names in os.walk(PLUGINS)
        for name in names
        if name.endswith(".py")
    )


def _tree(path):
    with open(path, encoding="utf-8") as stream:
        return ast.parse(stream.read())


TREES = {names_of(path): _tree(path) for path in _files()}


def _target(module, name):
    """Return the file of the collection that ``from module import name`` imports from, or None where it is in none."""
    if not (module or "").startswith(PREFIX):
        return None
    inner = module[len(PREFIX) :]
    return "{0}.{1}".format(inner, name) if "{0}.{1}".format(inner, name) in TREES else inner


def _imports(tree):
    """Return the files of the collection that a file imports from, also inside of its functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {_target(node.module, alias.name) for alias in node.names} - {None}
        elif isinstance(node, ast.Import):
            found |= {alias.name[len(PREFIX) :] for alias in node.names if alias.name.startswith(PREFIX)}
    return found


IMPORTS = {name: _imports(tree) for name, tree in TREES.items()}


def _outside(tree):
    """Return the first parts of the names of imported modules that are not the collection's; relative imports as '.'."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." if node.level else node.module.split(".")[0])
    return found


def _within(name, layer):
    return name == layer or name.startswith(layer + ".")


def _level(name):
    """Return the number of a file's layer, or None where it is in none."""
    return next((number for number, layer in enumerate(LAYERS) if _within(name, layer)), None)


def _engine(name):
    """Return the engine that a file is part of, '' for none."""
    return next((engine for engine in ENGINES if _within(name, engine)), "")


def _is_top(name):
    return name.split(".")[0] in TOP


def may_import(name, other):
    """Return whether a file may import from another."""
    if _within(name, ALONE) or _within(other, ALONE):
        return _within(other, ALONE) and (_within(name, ALONE) or _is_top(name))
    if _is_top(other):
        return other.split(".")[0] == "plugin_utils" and _is_top(name) and name.split(".")[0] != "modules"
    if _engine(name) and _engine(other) not in ("", _engine(name)):
        return False
    return _is_top(name) or _level(other) <= _level(name)


def circle(graph):
    """Return files that import each other in a circle, [] where there are none."""
    done, path = set(), []

    def visit(name):
        if name in path:
            return path[path.index(name) :] + [name]
        if name in done:
            return []
        path.append(name)
        found = next(filter(None, (visit(other) for other in sorted(graph.get(name, ())))), [])
        path.pop()
        done.add(name)
        return found

    return next(filter(None, (visit(name) for name in sorted(graph))), [])


def test_every_file_is_in_a_layer():
    assert len(TREES) > 30
    lost = {name for name in TREES if _level(name) is None and not _within(name, ALONE) and not _is_top(name)}
    assert lost == set()


def test_imports_go_down():
    wrong = {(name, other) for name, others in IMPORTS.items() for other in others if not may_import(name, other)}
    assert wrong == set()


def test_every_import_of_ours_is_there():
    assert {(name, other) for name, others in IMPORTS.items() for other in others if other not in TREES} == set()


def test_no_circle():
    assert circle(IMPORTS) == []


def test_no_relative_import():
    assert [name for name, tree in TREES.items() if "." in _outside(tree)] == []


@pytest.mark.parametrize("name", sorted(name for name in TREES if any(_within(name, layer) for layer in PURE)))
def test_the_core_does_no_io(name):
    if name in IO_FILES:
        assert _outside(TREES[name]) & IO <= {"os"}
    else:
        assert _outside(TREES[name]) & IO == set()


def _length(node):
    # Python 3.6 and 3.7 know where a node begins alone: there a function ends where its last part begins.
    end = getattr(node, "end_lineno", 0) or max(getattr(each, "lineno", 0) for each in ast.walk(node))
    return end - min([node.lineno] + [each.lineno for each in node.decorator_list]) + 1


def long_functions(tree):
    functions = (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
    return [node.name for node in functions if _length(node) > MOST_FUNCTION_LINES]


def large_classes(tree):
    classes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    return [
        node.name
        for node in classes
        if sum(isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)) for each in node.body) > MOST_METHODS
    ]


def _python_files(*places):
    """Return the collection's Python files in folders, by their paths from the root."""
    found = {"noxfile.py"}
    for place in places:
        for folder, _folders, names in os.walk(os.path.join(ROOT, place)):
            found |= {os.path.relpath(os.path.join(folder, name), ROOT) for name in names if name.endswith(".py")}
    return sorted(found)


def _path(name):
    return os.path.join("plugins", *name.split(".")) + ".py"


def _lines(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as stream:
        return sum(1 for _line in stream)


def test_no_file_is_too_long():
    files = _python_files("bin", "molecule", "playbooks", "plugins", "tests")
    assert {"noxfile.py", "plugins/modules/knock.py", "tests/wire/conftest.py", "tests/unit/test_layers.py"} <= set(
        files
    )
    assert {path: _lines(path) for path in files if _lines(path) > MOST_LINES} == {}


def _tests_imported(path):
    """Return the files of tests that a file imports from; by its text, as this Python may be too old to parse it."""
    with open(os.path.join(ROOT, path), encoding="utf-8") as stream:
        return re.findall(r"^\s*(?:from|import) +(test_\w+)", stream.read(), re.M)


def test_no_test_imports_from_another():
    """What several of them need is in support/ or rig/."""
    assert {path: _tests_imported(path) for path in _python_files("tests") if _tests_imported(path)} == {}


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ("file", lambda name: _lines(_path(name)) > MOST_LINES),
        ("function", lambda name: long_functions(TREES[name])),
        ("class", lambda name: large_classes(TREES[name])),
    ],
)
def test_nothing_is_too_large(rule, found):
    assert {name: found(name) for name in TREES if found(name)} == {}, rule


# The test of the test


@pytest.mark.parametrize(
    ("name", "other", "allowed"),
    [
        ("module_utils._iptables.plan", "module_utils._spec.model", True),
        ("module_utils._iptables.plan", "module_utils._iptables.build", True),
        ("module_utils._nftables.build", "module_utils._names.comments", True),
        ("module_utils._nftables.build", "module_utils._iptables.build", False),
        ("module_utils._iptables.build", "module_utils._nftables.names", False),
        ("module_utils._knockd.plan", "module_utils._iptables.plan", False),
        ("module_utils._change.engines", "module_utils._knockd.daemon", True),
        ("module_utils._tables.commands", "module_utils._iptables.build", False),
        ("module_utils._spec.options", "module_utils._iptables.build", False),
        ("module_utils._redact", "module_utils._iptables.build", False),
        ("module_utils._client.knock", "module_utils._spec.values", False),
        ("module_utils._change.plan", "module_utils._client.knock", False),
        ("modules.knock", "module_utils._client.knock", True),
        ("module_utils._change.plan", "modules.knock", False),
        ("modules.knock", "plugin_utils.send_knock", False),
        ("action.knock_ruleset", "plugin_utils.send_knock", True),
    ],
)
def test_what_an_import_may_do(name, other, allowed):
    assert may_import(name, other) is allowed


def test_what_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []
    assert long_functions(ast.parse("def f():\n" + "    pass\n" * 40)) == ["f"]
    assert long_functions(ast.parse("def f():\n" + "    pass\n" * 39)) == []
    assert large_classes(ast.parse("class C:\n" + "    def f(self): pass\n" * 21)) == ["C"]
    assert _imports(ast.parse("def f():\n    from {0}module_utils._spec import model\n".format(PREFIX))) == {
        "module_utils._spec.model"
    }
