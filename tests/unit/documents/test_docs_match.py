# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written down in more than one place must say the same everywhere.

The module's options (its documentation; `ansible-test sanity` compares that with its code), the
role's argument specs, the role's defaults and the documents; the version in galaxy.yml and the
changelog. Reads files only, so that it runs without Ansible.
"""

import ast
import glob
import os
import re

import pytest
import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
PREFIX = "portknock_"
SET_BY_THE_ACTION = {"guard_id", "guard_owner"}
ROLE_ONLY = {"portknock_verify", "portknock_verify_wait"}
COMPARED = ("type", "elements", "choices", "default", "required")


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as stream:
        return stream.read()


def module_options(name):
    """The options in a module's DOCUMENTATION and in the fragments that it names, without importing any."""
    found = documentation("modules", name)
    options = dict(found["options"])
    for fragment in found.get("extends_documentation_fragment", []):
        # A fragment of several parts is named NAMESPACE.COLLECTION.FRAGMENT.PART.
        options.update(documentation("doc_fragments", fragment.split(".")[2]).get("options", {}))
    return options


def documentation(folder, name):
    tree = ast.parse(read("plugins", folder, name + ".py"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and node.targets[0].id == "DOCUMENTATION":
            return yaml.safe_load(ast.literal_eval(node.value))
    raise AssertionError(name + " has no DOCUMENTATION")


def entry_point(name):
    specs = yaml.safe_load(read("roles", "portknock", "meta", "argument_specs.yml"))
    return specs["argument_specs"][name]["options"]


def defaults():
    return yaml.safe_load(read("roles", "portknock", "defaults", "main.yml"))


def facts_of(option):
    """What must agree, with Ansible's own default for what is left out."""
    facts = {key: option.get(key) for key in COMPARED}
    facts["type"] = facts["type"] or "str"
    facts["required"] = bool(facts["required"])
    return facts


def suboptions(option):
    """A module's documentation and a role's argument specs have different words for them."""
    return option.get("suboptions") or option.get("options") or {}


def differences(left, right, path=""):
    """Compare two option tables with the same names, down into suboptions."""
    for name in sorted(set(left) | set(right)):
        here = path + name
        if name not in left or name not in right:
            yield "{0}: only in the {1}".format(here, "role" if name in right else "module")
            continue
        one, other = facts_of(left[name]), facts_of(right[name])
        for key in COMPARED:
            if one[key] != other[key]:
                yield "{0}: {1} is {2!r} in the module, {3!r} in the role".format(here, key, one[key], other[key])
        below = [suboptions(side[name]) for side in (left, right)]
        yield from differences(below[0], below[1], here + ".")


def in_words(option):
    """The sentence in which the role says what core must not check: it would answer a wrong value with the whole file."""
    choices = ", ".join("V({0})".format(choice) for choice in option.get("choices", ()))
    if option["type"] == "list":
        return "A list of {0}.".format(choices or "texts")
    return {
        "bool": "V(true) or V(false).",
        "int": "A whole number.",
        "str": "One of " + choices + "." if choices else "A text.",
    }[option["type"]]


def as_in_the_role(options):
    """The options of a module as the role has them: of no type that core checks."""
    return {
        PREFIX + name: dict(option, type="raw", elements=None, choices=None, required=False)
        for name, option in options.items()
    }


def module_options_of_the_role():
    return {name: option for name, option in module_options("knock_ruleset").items() if name not in SET_BY_THE_ACTION}


def test_role_and_module_have_the_same_options():
    role = {name: facts for name, facts in entry_point("main").items() if name not in ROLE_ONLY}
    assert list(differences(as_in_the_role(module_options_of_the_role()), role)) == []


def test_core_checks_no_value_of_the_role():
    assert {facts["type"] for name in ("main", "remove", "verify") for facts in entry_point(name).values()} == {"raw"}
    assert not [facts for facts in entry_point("main").values() if {"choices", "elements", "required"} & set(facts)]


def test_the_role_says_in_words_what_the_module_says_in_types():
    role = entry_point("main")
    typed = {name: option for name, option in module_options_of_the_role().items() if option["type"] != "raw"}
    assert len(typed) > 10
    assert [name for name, option in typed.items() if in_words(option) not in role[PREFIX + name]["description"]] == []


@pytest.mark.parametrize("name", ["doors", "allow"])
def test_lists_of_dictionaries_are_said_to_be_that(name):
    for option in (module_options("knock_ruleset")[name], entry_point("main")[PREFIX + name]):
        assert (
            "A list of dictionaries. C(raw) because ansible-core would print a value that is not one."
            in option["description"]
        )


@pytest.mark.parametrize("name", ["knock", "knock_verify"])
def test_who_recognises_a_knock_is_the_same_question_everywhere(name):
    one, other = (module_options(each)["engine"] for each in ("knock_ruleset", name))
    assert facts_of(one) == facts_of(other)


def test_the_connection_takes_the_engines_of_the_module():
    knock_engine = documentation("connection", "knock_ssh")["options"]["knock_engine"]
    assert facts_of(knock_engine) == facts_of(module_options("knock_ruleset")["engine"])


def test_what_is_decided_of_a_host_takes_the_options_of_the_role():
    role, module = module_options("knock_ruleset"), module_options("portknock_host")
    assert list(differences(module, {name: role.get(name, {}) for name in module})) == []


def test_role_only_options_are_in_the_role():
    assert set(entry_point("main")) >= ROLE_ONLY


def test_argument_specs_and_defaults_have_the_same_values():
    documented = {name: facts.get("default") for name, facts in entry_point("main").items()}
    assert documented == defaults()


def test_options_of_remove_are_those_of_main():
    main, remove = entry_point("main"), entry_point("remove") or {}
    assert {name: facts_of(main[name]) for name in remove if name in main} == {
        name: facts_of(facts) for name, facts in remove.items()
    }


DOCUMENTS = ["README.md", "roles/portknock/README.md"]
DOCUMENTS += sorted("docs/" + os.path.basename(path) for path in glob.glob(os.path.join(ROOT, "docs", "*.md")))


@pytest.mark.parametrize("path", DOCUMENTS)
def test_documents_name_no_variable_that_does_not_exist(path):
    known = set(entry_point("main"))
    # Tags and playbook variables have the prefix as well.
    others = {"portknock_install", "portknock_ruleset"}
    for playbook in glob.glob(os.path.join(ROOT, "playbooks", "*.yml")):
        others |= set(re.findall(r"\bportknock_[a-z_]*[a-z]", read(playbook)))
    assert set(re.findall(r"\bportknock_[a-z0-9_]*[a-z0-9]", read(path))) - others <= known


def test_the_documents_explain_every_variable():
    page = read("docs", "variables.md")
    assert [name for name in sorted(entry_point("main")) if "\n## " + name + "\n" not in page] == []
    doors = entry_point("main")["portknock_doors"]["options"]
    assert [name for name in sorted(doors) if "\n| `" + name + "` | " not in page] == []


def test_changelog_has_the_version_of_the_collection():
    version = yaml.safe_load(read("galaxy.yml"))["version"]
    assert version in yaml.safe_load(read("changelogs", "changelog.yaml"))["releases"]
    assert "v" + version in read("CHANGELOG.rst")


# The map in CONTRIBUTING

BELOW = ("", "plugins/module_utils", "plugins/plugin_utils", "tests", "tests/unit", "tests/wire", "roles/portknock",
         "tests/unit/host", "tests/unit/iptables", "playbooks", "bin")  # fmt: skip
"""Where a path that is named in CONTRIBUTING may begin."""
NOT_IN_THE_TREE = (".cache", "/")
PLACEHOLDER = re.compile("[A-Z]{4}")


def named_paths():
    words = re.findall(r"`([\w./*-]+)`", read("CONTRIBUTING.md"))
    paths = [word for word in words if "/" in word or re.search(r"\.(py|yml|toml)$", word)]
    return sorted({path for path in paths if not path.startswith(NOT_IN_THE_TREE) and not PLACEHOLDER.search(path)})


def is_there(path):
    """Return whether a path is there, below one of the folders or, where it is a name alone, anywhere in them."""
    tops = [os.path.join(ROOT, top, path) for top in BELOW]
    if "/" not in path:
        tops += [os.path.join(ROOT, top, "**", path) for top in ("plugins", "tests", "roles")]
    return any(glob.glob(top, recursive=True) for top in tops)


def test_every_path_in_contributing_is_there():
    paths = named_paths()
    assert len(paths) > 50
    assert [path for path in paths if not is_there(path)] == []


@pytest.mark.parametrize("folder", ["module_utils", "plugin_utils"])
def test_every_file_is_in_the_map(folder):
    top = os.path.join(ROOT, "plugins", folder)
    text = read("CONTRIBUTING.md")
    the_map = text[text.index("## The map") : text.index("## How a change is made")]
    words = set(re.findall(r"`([\w./]+)`", the_map))
    names = {os.path.basename(path)[:-3] for path in glob.glob(os.path.join(top, "**", "*.py"), recursive=True)}
    packages = {os.path.basename(os.path.dirname(path)) + "/" for path in glob.glob(os.path.join(top, "_*", "*.py"))}
    assert len(names) > 10
    assert {name for name in names if name not in words and name + ".py" not in words} == set()
    assert packages <= words
