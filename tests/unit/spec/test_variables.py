# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role's variables: which names are refused, with which words, and whose values are checked."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import DEFAULTS
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import READERS
from ansible_collections.sesame.portknock.plugins.module_utils._spec.variables import (
    ROLE_ONLY,
    unknown_names,
    variables_problem,
)

KNOWN = ["portknock_" + name for name in sorted([*DEFAULTS, *ROLE_ONLY])]
PLAYBOOKS = ["portknock_hosts", "portknock_client_directory", "portknock_client_program"]
DOOR = {"name": "ssh", "knock": ["7005", "9100"], "opens": ["22"]}
RESULT = {"changed": False, "msg": "done"}


def problem(variables, made=(), values=None):
    return variables_problem(
        variables, lambda: values or {name[10:]: value for name, value in variables.items()}, KNOWN, PLAYBOOKS, made
    )


NEAR = [
    ("polcy", "policy"),
    ("door", "doors"),
    ("trusted_source", "trusted_sources"),
    ("trusted_interface", "trusted_interfaces"),
    ("gaurd", "guard"),
    ("gaurd_timeout", "guard_timeout"),
    ("guard_time_out", "guard_timeout"),
    ("Doors", "doors"),
    ("allowed", "allow"),
    ("ipversions", "ip_versions"),
    ("ip_version", "ip_versions"),
    ("reject_width", "reject_with"),
    ("conflicting_firewalls", "conflicting_firewall"),
    ("engin", "engine"),
    ("host", "hosts"),
    ("client_dir", "client_directory"),
    ("verfy", "verify"),
    ("listsize", "list_size"),
]


@pytest.mark.parametrize(("wrong", "right"), NEAR)
@pytest.mark.parametrize("made", [False, True])
def test_the_nearest_name_is_named(wrong, right, made):
    name = "portknock_" + wrong
    assert problem({name: []}, made=[name] if made else []) == (
        f"{name}: there is no such variable. Did you mean portknock_{right}?"
    )


@pytest.mark.parametrize(
    "prefix", ["portnock", "portknok", "port_knock", "Portknock", "PORTKNOCK", "portknocks", "potknock", "portkonck"]
)
def test_a_prefix_that_is_mistyped(prefix):
    """Alone it would be a variable of somebody else, and the door would not have what was meant."""
    assert problem({prefix + "_trusted_sources": []}) == (
        f"{prefix}_trusted_sources: there is no such variable. Did you mean portknock_trusted_sources?"
    )
    assert unknown_names({prefix + "_trusted_sources": RESULT}, KNOWN, PLAYBOOKS, []) == []


def test_a_name_that_is_near_none():
    assert problem({"portknock_colour": "red"}) == (
        "portknock_colour: there is no such variable. Names that begin with portknock_ are this role's: "
        "give a variable of your own another one."
    )


def test_all_of_them_are_named_in_one_message():
    wrong = problem({"portknock_polcy": "reject", "portknock_door": [], "portknock_doors": [DOOR]})
    assert wrong == (
        "portknock_door: there is no such variable. Did you mean portknock_doors? "
        "portknock_polcy: there is no such variable. Did you mean portknock_policy?"
    )


@pytest.mark.parametrize(
    ("name", "value", "made"),
    [
        ("portknock_client_program", "bash", False),
        ("portknock_hosts", "all", False),
        ("portknock_colour", "red", True),
        ("portknock_colour", RESULT, True),
        ("portknock_door", RESULT, True),
        ("portknock_door", {"results": [], "changed": True, "msg": ""}, True),
        ("portknock_door", {"failed": False}, False),
        ("portknockdoors", [], False),
        ("portlock_state", "open", False),
        ("postgres_doors", [], False),
        ("p_doors", [], False),
        ("__portknock_result", 5, False),
        ("ansible_knock", [], False),
        ("portknock", 5, False),
    ],
)
def test_let_be(name, value, made):
    assert unknown_names({name: value}, KNOWN, PLAYBOOKS, [name] if made else []) == []


def test_names_come_before_values_and_no_value_is_asked_for():
    """A value may be a template of something that is not there."""

    def values():
        raise AssertionError

    assert variables_problem({"portknock_polcy": 1}, values, KNOWN).startswith("portknock_polcy: ")


VALUES = [
    ({"doors": [DOOR], "verify": True, "verify_wait": "60"}, ""),
    ({"doors": [DOOR], "verify": "perhaps"}, "portknock_verify: must be true or false."),
    ({"doors": [DOOR], "verify_wait": -1}, "portknock_verify_wait: must be a whole number from 0 to 86400."),
    ({"verify_wait": None}, "portknock_verify_wait: is empty (null). Give it a value, or remove the line."),
    ({"doors": [dict(DOOR, window=0)]}, "portknock_doors[0].window: must be a whole number from 1 to 86400."),
    ({"state": "Present"}, "portknock_state: is 'Present', but must be one of present, absent."),
    ({"state": None}, "portknock_state: is empty (null). Give it a value, or remove the line."),
    ({"state": "absent", "doors": 5, "verify": 7}, ""),
    ({"state": "absent", "guard": "perhaps"}, "portknock_guard: must be true or false."),
    ({"guard_timeout": 700}, "portknock_guard_timeout: must be a whole number from 5 to 600."),
]


@pytest.mark.parametrize(("values", "message"), VALUES)
def test_values(values, message):
    """A removal looks at what it uses alone."""
    assert problem({}, values=values) == message


def test_every_option_is_read():
    assert set(READERS) == set(DEFAULTS)
