# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts of an inventory ssh can knock at by itself, and how."""

import os
import re
import shlex

import pytest

pytest.importorskip("ansible", reason="the filter runs on controllers, and this Python has no ansible-core")

import jinja2
from ansible.errors import AnsibleFilterError
from ansible_collections.sesame.portknock.plugins.filter.client_hosts import FilterModule
from hypothesis import given
from hypothesis import strategies as st
from shown_steps import steps_in

KNOCK = ["17005", "19100/udp"]
DOORS = [
    {"name": "web", "knock": ["18001"], "opens": [443]},
    {"name": "ssh", "knock": KNOCK, "opens": ["22", "2200-2299"]},
]


def clients(hosts, jumps=()):
    return FilterModule().filters()["client_hosts"](list(hosts), hosts, jumps)


def client(name="web1", jumps=(), **variables):
    found = clients({name: variables}, jumps)
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"portknock_doors": []},
        {"portknock_doors": DOORS[:1]},
        {"portknock_doors": DOORS[:1], "ansible_port": 2300},
        {"portknock_doors": DOORS, "ansible_knock": []},
        {"portknock_doors": DOORS, "ansible_connection": "local"},
    ],
)
def test_hosts_without_a_door_before_ssh_are_not_in_it(variables):
    assert clients({"web1": variables}) == []


def test_a_host_as_plain_as_can_be():
    assert client(portknock_doors=DOORS) == {
        "name": "web1",
        "shown": "web1",
        "names": ["web1"],
        "aliases": ["web1"],
        "address": "",
        "port": 22,
        "user": "",
        "left_out": "",
        "knock": "web1 iptables 0.1 - 17005/tcp 19100/udp",
    }


def test_a_host_with_everything():
    found = client(
        ansible_host="192.0.2.7", ansible_port="2222", ansible_user="me", ansible_connection="sesame.portknock.knock_ssh",
        ansible_knock="18001, 19100/udp", ansible_knock_pause="0.25", ansible_knock_host="192.0.2.99",
        portknock_doors=DOORS,
    )  # fmt: skip
    assert found == {
        "name": "web1",
        "shown": "web1",
        "names": ["web1"],
        "aliases": ["web1", "192.0.2.7"],
        "address": "192.0.2.7",
        "port": 2222,
        "user": "me",
        "left_out": "",
        "knock": "web1 iptables 0.25 192.0.2.99 18001/tcp 19100/udp",
    }


@pytest.mark.parametrize(
    ("variables", "engine"),
    [
        ({}, "iptables"),
        ({"portknock_engine": "knockd"}, "knockd"),
        ({"portknock_engine": "knockd", "ansible_knock_engine": "iptables"}, "iptables"),
        ({"portknock_engine": "iptables", "ansible_knock_engine": "knockd"}, "knockd"),
        ({"portknock_engine": "knockd", "ansible_knock_engine": ""}, "knockd"),
    ],
)
def test_who_recognises_the_knock(variables, engine):
    assert client(portknock_doors=DOORS, **variables)["knock"].split()[:2] == ["web1", engine]


def test_an_address_is_an_alias_only_where_it_leads_to_one_host():
    found = clients({
        "a": {"ansible_knock": KNOCK, "ansible_host": "192.0.2.7", "ansible_port": 2201},
        "b": {"ansible_knock": KNOCK, "ansible_host": "192.0.2.7", "ansible_port": 2202},
        "c": {"ansible_knock": KNOCK, "ansible_host": "d"},
        "d": {"ansible_knock": KNOCK},
    })  # fmt: skip
    assert [host["aliases"] for host in found] == [["a"], ["b"], ["c"], ["d"]]


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"ansible_knock_via": "none"}, "ansible_knock_via is none."),
        ({"ansible_knock_via": "jump"}, "jump host"),
        ({"ansible_ssh_common_args": "-J bastion"}, "jump host"),
        ({"ansible_ssh_extra_args": "-o ProxyJump=bastion"}, "jump host"),
        ({"ansible_ssh_args": "-oproxycommand='ssh -W %h:%p bastion'"}, "jump host"),
        ({"ansible_host": "192.0.2.9"}, "jump host"),
        ({"ansible_host": "two words"}, "character"),
        ({"ansible_knock_host": "two words"}, "character"),
        ({"ansible_user": "my self"}, "character"),
        ({"ansible_user": "%h"}, "character"),
    ],
)
def test_what_ssh_cannot_do_is_left_out_and_said(variables, reason):
    assert reason in client(jumps=["192.0.2.9"], ansible_knock=KNOCK, **variables)["left_out"]


@pytest.mark.parametrize("name", ["web 1", "web*", "!web", "web,1", 'we"b', "web'1", "-web", "a\nb", "web1\n"])
def test_a_name_that_would_say_something_else_to_ssh(name):
    assert "character" in client(name, ansible_knock=KNOCK)["left_out"]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ansible_knock": ["17005", "117006"]}, "web1: ansible_knock[1]: "),
        ({"portknock_doors": [dict(DOORS[1], knock=["117006"])]}, "web1: portknock_doors[0].knock[0]: "),
        ({"ansible_knock": KNOCK, "ansible_port": "ssh"}, "web1: ansible_port must be a number."),
        ({"ansible_knock": KNOCK, "portknock_engine": "knocked"}, "web1: portknock_engine must be iptables or knockd."),
        ({"ansible_knock": KNOCK, "ansible_knock_pause": "long"}, "web1: ansible_knock_pause must be a number."),
        (
            {"ansible_knock": KNOCK, "ansible_knock_pause": "nan"},
            "web1: ansible_knock_pause must be a number of seconds",
        ),
        ({"ansible_knock": KNOCK, "ansible_knock_pause": -1}, "web1: ansible_knock_pause must be a number of seconds"),
    ],
)
def test_a_wrong_wish_is_named_and_no_step_shown(variables, message):
    with pytest.raises(AnsibleFilterError) as caught:
        clients({"web1": variables})
    assert str(caught.value).startswith(message)
    assert steps_in(["117006", "17006"], str(caught.value)) == []


@pytest.mark.parametrize(
    "arguments",
    [
        "-o StrictHostKeyChecking=no",
        "-o ProxyCommand=none",
        "-oProxyJump=none -C",
        "-o 'ProxyCommand none'",
        "-o proxycommand='none'",
        "-J none",
    ],
)
def test_an_ssh_argument_that_leads_through_nothing(arguments):
    assert client(ansible_knock=KNOCK, ansible_ssh_common_args=arguments)["left_out"] == ""


@pytest.mark.parametrize("arguments", ["-o ProxyCommand=nonesuch", "-Jnone.example", "-o ProxyCommand=none -J bastion"])
def test_an_ssh_argument_that_only_begins_like_nothing(arguments):
    assert "jump host" in client(ansible_knock=KNOCK, ansible_ssh_common_args=arguments)["left_out"]


def test_a_name_is_found_in_small_letters_too():
    """ssh compares Host lines with what is typed, letter by letter."""
    assert client("Gate", ansible_knock=KNOCK)["aliases"] == ["Gate", "gate"]
    assert client("Gate", ansible_knock=KNOCK, ansible_host="gate")["aliases"] == ["Gate", "gate"]
    found = clients({name: {"ansible_knock": KNOCK} for name in ("Gate", "gate", "DB", "Db")})
    assert [host["aliases"] for host in found] == [["Gate"], ["gate"], ["DB"], ["Db"]], "they are hosts of their own"


TEMPLATE = os.path.join(os.path.dirname(__file__), "..", "..", "..", "playbooks", "templates", "client_config.j2")
LINE = re.compile(
    r"|#.*|Host [^\s\"'#]+( [^\s\"'#]+)*|    (HostName|User) \S+|    Port \d+|    ProxyCommand connect \S+ %h %p|    ProxyUseFdpass yes"
)


@given(
    st.dictionaries(
        st.text(max_size=12) | st.sampled_from(["a\nMatch exec x", "b\r\nHost *", "c\x85d", "e\u2028f", "g", "G"]),
        st.fixed_dictionaries(
            {"ansible_knock": st.just(KNOCK)},
            optional={name: st.text(max_size=8) for name in ("ansible_host", "ansible_user", "ansible_knock_host")},
        ),
        max_size=4,
    )
)
def test_whatever_the_inventory_holds_no_line_is_broken_out_of(hosts):
    found = clients(hosts)
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True)
    environment.filters["quote"] = shlex.quote
    with open(TEMPLATE, encoding="utf-8") as stream:
        template = environment.from_string(stream.read())
    text = template.render(clients=found, directory="/home/me/.ssh/portknock", command="connect", hands_over=True)
    lines = text.splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    kept = [host for host in found if not host["left_out"]]
    assert sum(line.startswith("    ProxyCommand") for line in lines) == len(kept)
    assert sum("is left out" in line for line in lines) == len(found) - len(kept)
    assert all(len(host["knock"].splitlines()) == 1 for host in kept)
