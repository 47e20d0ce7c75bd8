# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A malformed wish, whatever its shape: no message and no invocation shows a step in it."""

import json

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._redact import hidden_options, without_numbers
from ansible_collections.sesame.portknock.plugins.module_utils._spec.argument_spec import argument_spec
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from hypothesis import given
from hypothesis import strategies as st
from wishes import DOOR, SHAPES, STEP, holds_step, shaped

KEYS = ("name", "knock", "opens", "window", "step_timeout", "sources", "close", "once")
HOLDERS = st.recursive(
    st.sampled_from([STEP, str(STEP), f"{STEP}/udp", float(STEP), f"{STEP},{STEP + 7}", f"ssh {STEP}", f"{STEP}\n"]),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3),
        st.dictionaries(st.sampled_from(["port", str(STEP), "knock"]), inner, min_size=1, max_size=2),
    ),
    max_leaves=4,
)
OPTIONS = st.one_of(
    HOLDERS.map(lambda value: {"doors": value}),
    HOLDERS.map(lambda value: {"doors": [value]}),
    HOLDERS.map(lambda value: {"doors": [DOOR, value]}),
    HOLDERS.map(lambda value: {"allow": value}),
    HOLDERS.map(lambda value: {"allow": [value]}),
    st.tuples(st.sampled_from(KEYS), HOLDERS).map(lambda item: {"doors": [dict(DOOR, **{item[0]: item[1]})]}),
    st.tuples(st.sampled_from(["port", "protocol", "sources", "comment"]), HOLDERS).map(
        lambda item: {"allow": [dict({"port": 443}, **{item[0]: item[1]})]}
    ),
    HOLDERS.map(lambda value: {"doors": [{STEP: value}]}),
    HOLDERS.map(lambda value: {"doors": [dict(DOOR, **{str(STEP): value})]}),
    st.tuples(
        st.sampled_from(
            ["policy", "reject_with", "trusted_sources", "ip_versions", "engine", "list_size", "icmp", "state"]
        ),
        HOLDERS,
    ).map(lambda item: {item[0]: item[1]}),
)


def refusal(options):
    """Return why the options are refused, '' where they are not."""
    try:
        spec_from_options(options)
    except SpecError as error:
        return str(error)
    return ""


@given(OPTIONS)
def test_no_message_shows_a_step(options):
    assert not holds_step(refusal(options))


@given(OPTIONS)
def test_no_invocation_shows_a_step_of_doors_and_allowed_ports(options):
    if set(options) & {"doors", "allow"}:
        assert not holds_step(json.dumps(hidden_options(options, argument_spec()), default=str))


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_each_shape_is_refused(name):
    assert refusal(shaped(name)) != ""
    assert not holds_step(refusal(shaped(name)))
    assert not holds_step(json.dumps(hidden_options(shaped(name), argument_spec()), default=str))


def test_other_names_and_lists_are_hidden_whole():
    options = {"policy": "reject", "dors": [STEP], str(STEP): 1, "trusted_sources": [STEP], "icmp": True, "allow": []}
    shown = hidden_options(options, argument_spec())
    assert (shown["policy"], shown["icmp"], shown["allow"]) == ("reject", True, [])
    assert shown["dors"] == shown["trusted_sources"] == "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("missing required arguments: host", "missing required arguments: host"),
        (
            "value of engine must be one of: iptables, knockd, nftables, got: ipset",
            "value of engine must be one of: iptables, knockd, nftables, got: ipset",
        ),
        (
            f"argument 'list_size' is of type list and we were unable to convert to int: \"[{STEP}]\" cannot be converted to an int",
            "list_size: is not valid; see ansible-doc. (The value is not shown, it may be a step.)",
        ),
        (
            f"Unsupported parameters for (m) module: {STEP}.",
            "an option: is not valid; see ansible-doc. (The value is not shown, it may be a step.)",
        ),
    ],
)
def test_what_core_says_shows_no_number(message, shown):
    assert without_numbers(message, argument_spec()) == shown


@given(
    st.text(max_size=20).map(lambda text: text + "\n-A INPUT -j ACCEPT"),
    st.sampled_from(["name", "comment", "interface", "knockd_interface", "source"]),
)
def test_nothing_that_ends_a_line_gets_into_a_rule(text, where):
    """Rules, knockd's configuration and comments hold what is checked here."""
    options = {
        "name": {"doors": [dict(DOOR, name=text)]},
        "comment": {"allow": [{"port": 443, "comment": text}]},
        "interface": {"trusted_interfaces": [text]},
        "knockd_interface": {"doors": [DOOR], "engine": "knockd", "knockd_interface": text},
        "source": {"trusted_sources": [text]},
    }[where]
    assert refusal(options) != ""
