# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin that checks the role's variables, and that the role and the module give the same verdict."""

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.sesame.portknock.plugins.action import knock_ruleset, portknock_variables
from ansible_collections.sesame.portknock.plugins.module_utils._spec.argument_spec import argument_spec
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import DEFAULTS
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.module_utils._spec.variables import PREFIX, ROLE_ONLY
from hypothesis import given, settings
from hypothesis import strategies as st
from mistakes import MISTAKES
from shown_steps import steps_in
from wishes import SHAPES

DOOR = {"name": "ssh", "knock": ["17005", "9100"], "opens": ["22"]}

CONNECTION = SimpleNamespace(transport="local", tmpdir="/none", _shell=SimpleNamespace(tmpdir="/none"))


def task_of(args, made=()):
    """A task of a play in which other tasks have made some variables."""
    manager = SimpleNamespace(_nonpersistent_fact_cache={"h": dict.fromkeys(made, 1)})
    return SimpleNamespace(
        args=args, async_val=0, check_mode=True, diff=False, action="x", get_variable_manager=lambda: manager
    )


def by_role(variables, made=(), **args):
    """Return the result of the role's first task."""
    templar = SimpleNamespace(template=lambda value: value)
    action = portknock_variables.ActionModule(task_of(args, made), CONNECTION, None, None, templar, None)
    return action.run(task_vars=dict(variables, inventory_hostname="h"))


def by_module(options):
    """Return (result, what the module is given on the host, None where it does not come to that)."""
    sent = []
    action = knock_ruleset.ActionModule(task_of(options), CONNECTION, SimpleNamespace(), None, None, None)
    action._execute_module = lambda module_args, **_more: sent.append(module_args) or {}
    return action.run(task_vars={}), sent[0] if sent else None


def prefixed(options):
    return {PREFIX + name: value for name, value in options.items()}


# Names


def test_it_knows_what_the_argument_specs_name():
    assert by_role(prefixed(DEFAULTS)) == {"changed": False}
    assert by_role(prefixed({"polcy": "reject"})) == {
        "changed": False,
        "failed": True,
        "msg": "portknock_polcy: there is no such variable. Did you mean portknock_policy?",
    }


def test_every_variable_of_the_role_is_checked():
    """A new one is an option of the module, or is checked by ROLE_ONLY."""
    options = portknock_variables.argument_specs()["main"]["options"]
    assert set(options) == {PREFIX + name for name in [*DEFAULTS, *ROLE_ONLY]}


def test_variables_of_the_playbooks_are_known():
    named = portknock_variables.of_playbooks()
    assert {"portknock_hosts", "portknock_client_directory", "portknock_client_program"} <= named
    assert by_role(dict.fromkeys(named, "x"))["changed"] is False


def test_what_other_tasks_made_is_let_be():
    colour = {"portknock_colour": "red"}
    assert by_role(colour, made=colour) == {"changed": False}
    assert by_role(colour)["failed"] is True
    assert by_role(dict(colour, ansible_facts=colour)) == {"changed": False}, "an earlier run, whose facts are cached"
    assert by_role({"portknock_door": []}, made=["portknock_door"])["msg"].endswith("Did you mean portknock_doors?")


def test_a_release_of_core_that_does_not_say_what_was_made():
    """Only what is near one of ours is refused then."""
    task = task_of({})
    task.get_variable_manager = lambda: None
    action = portknock_variables.ActionModule(task, CONNECTION, None, None, SimpleNamespace(template=lambda x: x), None)
    assert action.run(task_vars={"portknock_colour": "red"}) == {"changed": False}
    assert action.run(task_vars={"portknock_polcy": "red"})["failed"] is True


def test_a_removal_looks_at_the_guard_alone():
    wrong = prefixed({"doors": 5, "guard_timeout": 3})
    assert (
        by_role(wrong, entry_point="remove")["msg"] == "portknock_guard_timeout: must be a whole number from 5 to 600."
    )
    assert by_role({"portknock_doors": 5}, entry_point="remove") == {"changed": False}


class Encrypted:
    """A text from a vault, which is no str in ansible-core 2.16."""

    def __str__(self):
        return "17005, 9100"


def test_encrypted_texts_are_texts():
    doors = [dict(DOOR, knock=Encrypted())]
    assert by_role({"portknock_doors": doors}) == {"changed": False}
    _result, sent = by_module({"doors": doors})
    assert sent["doors"][0]["knock"] == "17005, 9100"


# Mistakes


def test_there_are_enough_mistakes():
    assert len(MISTAKES) > 50


@pytest.mark.parametrize(("variables", "message"), MISTAKES)
def test_the_message_as_a_whole(variables, message):
    assert by_role(variables) == {"changed": False, "failed": True, "msg": message}
    assert steps_in(["40001", "30002"], message) == []


# Role and module

PORT = st.one_of(
    st.integers(0, 66000), st.integers(1, 65535).map(str),
    st.sampled_from(["22/udp", "7144:tcp", "0777", "0o17", "a", "22-30", True, None, 1.5, [1]]),
)  # fmt: skip
PORTS = st.one_of(
    PORT, st.lists(PORT, max_size=4), st.sampled_from(["7144,2791/udp", "7144, 2791/udp", "22 23", {"a": 1}])
)
ODD = st.sampled_from([None, "", "x", 5, -1, 1.5, True, [], [None], ["x"], {}, {"a": "b"}, "yes", "no", " 30 ", "30"])
NETWORKS = st.one_of(
    ODD,
    st.lists(st.sampled_from(["192.0.2.1", "192.0.2.0/24", "192.0.2.1/24", "::1", "0.0.0.0/0", 5, None]), max_size=2),
)
WINDOW = st.one_of(st.integers(-1, 90000), ODD)
DOORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.one_of(st.sampled_from(["ssh", "web", "ssh", "1st", True]), ODD), "knock": PORTS, "opens": PORTS, "window": WINDOW,
        "step_timeout": WINDOW, "sources": NETWORKS, "close": PORTS, "once": ODD, "kncok": PORTS,
    },
)  # fmt: skip
VALID = st.builds(
    lambda name, knock, opens: {"name": name, "knock": knock, "opens": opens},
    st.sampled_from(["ssh", "web"]),
    st.lists(st.integers(20000, 60000), min_size=1, max_size=3),
    st.one_of(st.integers(1, 1000), st.just("22, 80-90")),
)
ALLOW = st.fixed_dictionaries(
    {}, optional={"port": PORT, "protocol": st.one_of(st.sampled_from(["tcp", "udp"]), ODD), "sources": NETWORKS,
                  "comment": st.one_of(ODD, st.just("B\u00fcro"))}
)  # fmt: skip
OPTION = {
    "doors": st.one_of(ODD, st.lists(st.one_of(VALID, VALID, DOORS), min_size=1, max_size=2), VALID),
    "allow": st.one_of(ODD, st.lists(ALLOW, max_size=2)),
    "trusted_sources": NETWORKS,
    "ip_versions": st.one_of(ODD, st.sampled_from(["ipv4", "ipv4, ipv6", ["ipv4"], ["ipv6", "ipv4"], ["ipv5"]])),
    "policy": st.one_of(ODD, st.sampled_from(["accept", "Reject"])),
    "engine": st.one_of(ODD, st.sampled_from(["knockd", "knocked"])),
    "state": st.one_of(st.just("present"), ODD),
}
OPTION.update({name: ODD for name in DEFAULTS if name not in OPTION})
WISHES = st.one_of(
    st.fixed_dictionaries(
        {"doors": st.lists(VALID, min_size=1, max_size=2)},
        optional={name: values for name, values in OPTION.items() if name != "doors"},
    ),
    st.sampled_from(sorted(OPTION)).flatmap(
        lambda name: OPTION[name].map(lambda value: {"doors": [DOOR], name: value})
    ),
    st.sampled_from(sorted(SHAPES)).map(SHAPES.get),
)


@settings(max_examples=200)
@given(WISHES)
def test_role_and_module_give_the_same_verdict(wish):
    role = by_role(prefixed(wish)).get("msg", "")
    result, sent = by_module(dict(wish, guard=False) if "guard" not in wish else wish)
    assert role.replace(PREFIX, "") == result.get("msg", "").replace(PREFIX, "")
    assert role == "" or role.startswith(PREFIX)
    assert (sent is None) == bool(role)
    if sent:
        # What is taken here, core takes on the host, and it means the same there.
        validated = ArgumentSpecValidator(argument_spec()).validate(json.loads(json.dumps(sent)))
        assert validated.error_messages == []
        assert spec_from_options(validated.validated_parameters) == spec_from_options(wish)
