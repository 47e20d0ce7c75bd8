# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts of an inventory a person's ssh can knock at by itself, how, and what its configuration says of them."""

import re

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible.errors import AnsibleError
from ansible_collections.sesame.portknock.plugins.plugin_utils._people.clients import (
    client_of,
    read_wish,
    unwritable,
    with_aliases,
)
from ansible_collections.sesame.portknock.plugins.plugin_utils._people.config_text import (
    commands_in,
    config_text,
    jump_scripts,
    knocks_text,
)
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import SshPath, path_of_dump
from hypothesis import given
from hypothesis import strategies as st
from shown_steps import steps_in

KNOCK = ["17005", "19100/udp"]
DOORS = [
    {"name": "web", "knock": ["18001"], "opens": [443]},
    {"name": "ssh", "knock": KNOCK, "opens": ["22", "2200-2299"]},
]
COMMANDS = commands_in("'/home/me/.ssh/portknock'", "/usr/bin/python3")


def clients(hosts, config="", **path):
    """Return what is known of hosts, given by their variables, on the path that ssh says it takes."""
    found = []
    for name, variables in hosts.items():
        wish = read_wish(name, variables)
        if wish:
            port, user = int(variables.get("ansible_port", 22)), variables.get("ansible_user", "")
            found.append((wish, client_of(wish, SshPath(wish.address, port, "any", user)._replace(**path), config)))
    known = {wish.name: wish.known for wish, client in found if client}
    return with_aliases([client for _wish, client in found if client], known)


def client(name="web1", config="", path=(), **variables):
    found = clients({name: variables}, config, **dict(path))
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
    found = client(portknock_doors=DOORS)
    assert (found.names, found.aliases, found.address, found.port) == (("web1",), ("web1",), "", 22)
    assert (found.user, found.jump, found.left_out) == ("", "", "")
    assert found.knock == "web1 iptables 0.1 - 17005/tcp 19100/udp"


def test_a_host_with_everything():
    found = client(
        ansible_host="192.0.2.7", ansible_port="2222", ansible_user="me", ansible_connection="sesame.portknock.knock_ssh",
        ansible_knock="18001, 19100/udp", ansible_knock_pause="0.25", ansible_knock_host="192.0.2.99",
        portknock_doors=DOORS,
    )  # fmt: skip
    assert found.aliases == ("web1", "192.0.2.7")
    assert (found.address, found.port, found.user) == ("192.0.2.7", 2222, "me")
    assert found.knock == "web1 iptables 0.25 192.0.2.99 18001/tcp 19100/udp"


def test_all_addresses_lead_to_the_host():
    facts = {"default_ipv4": {"address": "192.0.2.7"}, "default_ipv6": {"address": "2001:db8::7"}}
    found = client(ansible_knock=KNOCK, ansible_host="192.0.2.7", ansible_facts=facts)
    assert found.aliases == ("web1", "192.0.2.7", "2001:db8::7")
    found = client(ansible_knock=KNOCK, ansible_host="192.0.2.7", ansible_default_ipv6={"address": "2001:db8::7"})
    assert found.aliases == ("web1", "192.0.2.7", "2001:db8::7")
    found = client(ansible_knock=KNOCK, ansible_facts="none", ansible_default_ipv6={})
    assert found.aliases == ("web1",)


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
    assert client(portknock_doors=DOORS, **variables).knock.split()[:2] == ["web1", engine]


def test_an_address_is_an_alias_only_where_it_leads_to_one_host():
    found = clients({
        "a": {"ansible_knock": KNOCK, "ansible_host": "192.0.2.7", "ansible_port": 2201},
        "b": {"ansible_knock": KNOCK, "ansible_host": "192.0.2.7", "ansible_port": 2202},
        "c": {"ansible_knock": KNOCK, "ansible_host": "d"},
        "d": {"ansible_knock": KNOCK},
    })  # fmt: skip
    assert [host.aliases for host in found] == [("a",), ("b",), ("c",), ("d",)]


@pytest.mark.parametrize(
    ("path", "config", "jump"),
    [
        ({"jump": "bastion"}, "", "-- bastion"),
        ({"jump": "me@bastion:2200"}, "", "-l me -p 2200 -- bastion"),
        ({"jump": "one,[fd00::2]:22"}, "/my ssh", "-F '/my ssh' -p 22 -J one -- fd00::2"),
        ({"proxy_command": "ssh -W %h:%p -q -l %r bastion"}, "", "-q -l %r bastion"),
        ({"proxy_command": "exec ssh bastion -W '[%h]:%p'"}, "", "bastion"),
    ],
)
def test_a_host_behind_a_jump_host(path, config, jump):
    found = client(config=config, path=path, ansible_knock=KNOCK, ansible_host="192.0.2.9")
    assert (found.jump, found.left_out) == (jump, "")
    lines = config_text([found], "portknock/config", COMMANDS).splitlines()
    command = f"sh '/home/me/.ssh/portknock'/portknock-jump.sh web1 %h %p {jump}"
    assert lines[-2:] == [f"    ProxyCommand {command}", "    ProxyUseFdpass no"]
    # The jump host has its knock, and not the program that knocks from here.
    assert knocks_text([found]) == ""
    scripts = jump_scripts([found])
    assert list(scripts) == ["jumps/web1"]
    assert "send_knock(resolve('192.0.2.9'), ((17005, 'tcp'), (19100, 'udp'))" in scripts["jumps/web1"]
    # For our connection plugin it is a way through a jump host.
    dump = f"hostname 192.0.2.9\nport 22\nproxycommand {command}"
    assert path_of_dump(dump).proxy_command == f"ssh -W %h:%p {jump}"


NOT_W = "ssh reaches web1 by a ProxyCommand that is not of the form `ssh -W %h:%p JUMP_HOST`, so there is no host that could knock."


@pytest.mark.parametrize(
    ("variables", "path", "reason"),
    [
        ({"ansible_knock_via": "none"}, {}, "ansible_knock_via is none."),
        ({"ansible_knock_via": "jump"}, {}, "ansible_knock_via is jump, but ssh reaches it through no jump host."),
        ({"ansible_knock_via": "direct"}, {"jump": "bastion"}, "ssh reaches it through a jump host, but it is to be"),
        ({"ansible_knock_host": "192.0.2.1"}, {"jump": "bastion"}, "ssh reaches it through a jump host, but it is to"),
        ({}, {"proxy_command": "corkscrew proxy 80 %h %p"}, NOT_W),
        ({"ansible_host": "two words"}, {}, "its name or address has a character"),
        ({"ansible_knock_host": "two words"}, {}, "its name or address has a character"),
        ({"ansible_user": "my self"}, {}, "its user has a character"),
        ({"ansible_user": "%h"}, {}, "its user has a character"),
    ],
)
def test_what_ssh_cannot_do_is_left_out_and_said(variables, path, reason):
    found = client(path=path, ansible_knock=KNOCK, **variables)
    assert found.left_out.startswith(reason)
    assert f"# web1 is left out: {reason}" in config_text([found], "portknock/config", COMMANDS)
    assert knocks_text([found]) == "" and jump_scripts([found]) == {}


@pytest.mark.parametrize("name", ["web 1", "web*", "!web", "web,1", 'we"b', "web'1", "-web", "a\nb", "web1\n", "w/b"])
def test_a_name_that_would_say_something_else_to_ssh(name):
    assert "character" in client(name, ansible_knock=KNOCK).left_out
    assert unwritable(read_wish(name, {"ansible_knock": KNOCK}), "") != ""


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ansible_knock": ["17005", "117006"]}, "web1: ansible_knock[1]: "),
        ({"portknock_doors": [dict(DOORS[1], knock=["117006"])]}, "web1: portknock_doors[0].knock[0]: "),
        ({"ansible_knock": KNOCK, "portknock_engine": "knocked"}, "web1: portknock_engine must be one of iptables, knockd, nftables."),
        ({"ansible_knock": KNOCK, "ansible_knock_via": "x"}, "web1: ansible_knock_via must be one of auto, direct, jump, none."),
        ({"ansible_knock": KNOCK, "ansible_knock_pause": "long"}, "web1: ansible_knock_pause must be a number."),
        ({"ansible_knock": KNOCK, "ansible_knock_pause": "nan"}, "web1: ansible_knock_pause must be a number of seconds"),
        ({"ansible_knock": KNOCK, "ansible_knock_pause": -1}, "web1: ansible_knock_pause must be a number of seconds"),
    ],
)  # fmt: skip
def test_a_wrong_wish_is_named_and_no_step_shown(variables, message):
    with pytest.raises(AnsibleError) as caught:
        clients({"web1": variables})
    assert str(caught.value).startswith(message)
    assert steps_in(["117006", "17006"], str(caught.value)) == []


def test_a_name_is_found_in_small_letters_too():
    """ssh compares Host lines with what is typed, letter by letter, and prints the name that it connects to in small ones."""
    assert client("Gate", ansible_knock=KNOCK, path={"host": "gate"}).aliases == ("Gate", "gate")
    found = client("Gate", ansible_knock=KNOCK, ansible_host="gate")
    assert (found.aliases, found.address) == (("Gate", "gate"), "")
    found = clients({name: {"ansible_knock": KNOCK} for name in ("Gate", "gate", "DB", "Db")})
    assert [host.aliases for host in found] == [("Gate",), ("gate",), ("DB",), ("Db",)], "they are hosts of their own"


LINE = re.compile(
    r"|#.*|Host [^\s\"'#]+( [^\s\"'#]+)*|    (HostName|User) \S+|    Port \d+|    ProxyUseFdpass (yes|no)"
    r"|    ProxyCommand /usr/bin/python3 -ISB '/home/me/.ssh/portknock'/portknock-connect.py \S+ %h %p"
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
    lines = config_text(found, "/home/me/.ssh/portknock/config", COMMANDS).splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    kept = [host for host in found if not host.left_out]
    assert sum(line.startswith("    ProxyCommand") for line in lines) == len(kept)
    assert sum("is left out" in line for line in lines) == len(found) - len(kept)
    assert knocks_text(found).count("\n") == len(kept)
