# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is carried over from the inventory and from the user's own ssh configuration, by ssh's own answers (ssh -G)."""

import re
import stat
from pathlib import Path

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible.errors import AnsibleError
from ansible_collections.sesame.portknock.plugins.plugin_utils._people import ask_ssh, gather, run
from ansible_collections.sesame.portknock.plugins.plugin_utils._people.ask_ssh import (
    login_of,
    missing_options,
    own_config,
    without_include,
)
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import path_of_dump
from shown_steps import steps_in

KNOCK = ["17005", "19100/udp"]


class Person:
    """Someone who runs the playbook, with a home."""

    def __init__(self, home):
        self.home, self.directory, self.config = home, home / "port knock", home / "config"

    def write(self, dry=False, program="auto", **hosts):
        """Write the configuration for hosts, given by their variables; return the result."""
        known = {name: dict(variables, ansible_knock=KNOCK) for name, variables in hosts.items()}
        options = {
            "hosts": list(known), "directory": str(self.directory), "program": program, "ssh_config": str(self.config),
        }  # fmt: skip
        result = run.write_for_user(options, known, dry)
        assert steps_in(["17005", "19100"], str(result)) == []
        return result

    @property
    def text(self):
        return (self.directory / "config").read_text()

    def ssh(self, name):
        """Return what ssh says of a name."""
        main = self.home / "main"
        main.write_text(f'Include "{self.directory}/config"\n{run.write_files.read_text(self.config) or ""}')
        ssh = ask_ssh.Ssh(self.config, Path("/none/of/it"), self.home)
        return ask_ssh.read_dump(ssh._dump(["-F", str(main)], name, name))


@pytest.fixture
def person(tmp_path, monkeypatch):
    monkeypatch.setattr(gather.socket, "getaddrinfo", lambda *_words: [])
    return Person(tmp_path)


def test_the_inventorys_way_to_a_host_is_carried_over(person):
    result = person.write(
        web1={
            "ansible_host": "192.0.2.7", "ansible_port": "2222", "ansible_user": "deploy",
            "ansible_ssh_private_key_file": str(person.home / "my key"),
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=accept-new -o 'UserKnownHostsFile /k1 /k2' -6",
            "ansible_ssh_extra_args": "-oServerAliveInterval=7 -o ControlMaster=auto -o BatchMode=yes -L 1:h:2",
        }
    )  # fmt: skip
    assert result["hosts"] == ["web1"] and result["left_out"] == {}
    said = person.ssh("web1")
    shown = {key: " ".join(said[key]) for key in ("hostname", "port", "user", "identityfile", "serveraliveinterval")}
    assert shown == {
        "hostname": "192.0.2.7", "port": "2222", "user": "deploy", "identityfile": str(person.home / "my key"),
        "serveraliveinterval": "7",
    }  # fmt: skip
    assert (said["stricthostkeychecking"], said["userknownhostsfile"]) == (["accept-new"], ["/k1 /k2"])
    assert (said["addressfamily"], said["controlmaster"], said["batchmode"]) == (["inet6"], ["false"], ["no"])
    assert "localforward" not in said
    assert person.ssh("192.0.2.7")["identityfile"] == [str(person.home / "my key")]


def test_nothing_is_written_that_a_person_has_anyway(person):
    person.config.write_text("Host *\n    IdentityFile ~/.ssh/own\n    ServerAliveInterval 9\n")
    person.write(web1={})
    assert [line.split()[0] for line in person.text.splitlines() if line.startswith("  ")] == [
        "Port", "ProxyCommand", "ProxyUseFdpass",
    ]  # fmt: skip


def test_what_the_own_configuration_says_of_the_address_counts_for_the_name(person):
    """Ansible calls ssh with the address, a person with the name."""
    person.config.write_text("Host 192.0.2.*\n    IdentityFile /k\n    User deploy\n    ProxyJump bastion\n")
    person.write(web1={"ansible_host": "192.0.2.7"})
    said = person.ssh("web1")
    assert (said["user"], said["identityfile"]) == (["deploy"], ["/k"])
    assert said["proxycommand"][0].endswith(f"portknock-jump.sh web1 %h %p -F {person.config} -- bastion")


def test_a_configuration_of_the_inventorys_own(person):
    own = person.home / "own"
    own.write_text(f"Include {person.directory}/config\nHost 192.0.2.7\n    Port 2222\n    ProxyJump gate\n")
    person.config.write_text("Host *\n    ProxyJump elsewhere\n")
    for _turn in range(2):
        person.write(web1={"ansible_host": "192.0.2.7", "ansible_ssh_args": f"-F {own} -C"})
        said = person.ssh("web1")
        assert (said["port"], said["compression"]) == (["2222"], ["yes"])
        assert said["proxycommand"][0].endswith(f"-F {own} -- gate")


def test_written_again_it_is_the_same_and_what_goes_goes(person):
    person.config.write_text(f'Include "{person.directory}/config" conf.d/*\nHost far\n    ProxyJump bastion\n')
    assert person.write(dry=True, near={}, far={})["changed"] is True
    assert not person.directory.exists()
    assert person.write(near={}, far={})["changed"] is True
    assert person.write(near={}, far={})["changed"] is False
    files = {str(path.relative_to(person.directory)): path for path in person.directory.rglob("*")}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values() if path.is_file()} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in [person.directory, files["jumps"]]} == {0o700}
    assert {name for name, path in files.items() if path.is_file() and "17005" in path.read_text()} == {
        "knocks", "jumps/far",
    }  # fmt: skip
    (person.directory / "knocks").chmod(0o644)
    assert person.write(near={}, far={})["changed"] is True
    # Without a host nothing of a knock is left.
    result = person.write()
    assert result["hosts"] == []
    assert result["messages"] == [
        "No host has a door that ssh could open: the configuration is empty, and no knock is kept.",
        "No longer in it: far, near",
    ]
    assert (person.directory / "knocks").read_text() == ""
    assert list((person.directory / "jumps").iterdir()) == []
    assert "Host" not in [word for line in person.text.splitlines() for word in line.split()[:1]]


def test_the_programs_have_all_that_they_import():
    files = run.programs(windows=True)
    imported = {name for text in files.values() for name in re.findall(r"^\s*from (_\w+) import", text, re.M)} - {
        "__future__"
    }
    assert {"_connect", "_knock"} <= imported
    assert {f"{name}.py" for name in imported} - set(files) == set()


def test_the_program_in_bash(person):
    person.write(program="bash", web1={})
    said = person.ssh("web1")
    assert said["proxyusefdpass"] == ["no"]
    assert said["proxycommand"] == [f"bash '{person.directory}'/portknock-connect.sh web1 %h %p"]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ansible_ssh_common_args": "-o Nonsense=1"}, "web1: ssh does not take what it is given: "),
        ({"ansible_ssh_extra_args": "'"}, "web1: ansible_ssh_extra_args cannot be read: No closing quotation."),
        ({"ansible_port": "ssh"}, "web1: ansible_port must be a number."),
    ],
)
def test_arguments_that_ssh_does_not_take(person, variables, message):
    person.write(web1={})
    before = person.text
    with pytest.raises(AnsibleError) as caught:
        person.write(web1=variables, web2={})
    assert str(caught.value).startswith(message)
    assert person.text == before, "the old one stays"


class Unresolved(dict):
    """Variables of a host as newer releases of ansible-core give them."""

    def __getitem__(self, name):
        raise AnsibleError("'nosuch' is undefined\n\nOrigin: here")


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"ansible_user": "{{ nosuch }}", "ansible_knock": KNOCK}, "a variable in its template is undefined"),
        (Unresolved(ansible_user=""), "'nosuch' is undefined"),
    ],
)
def test_a_template_that_cannot_be_resolved(variables, reason):
    with pytest.raises(AnsibleError) as caught:
        gather.hosts_with_knocks(["web1"], {"web1": variables})
    assert str(caught.value) == f"web1: ansible_user cannot be resolved: {reason}."


def test_the_users_own_configuration_is_broken(person):
    person.config.write_text("Nonsense yes\n")
    with pytest.raises(AnsibleError, match=f"given: {person.config}: line 1: Bad configuration option: nonsense. No"):
        person.write(web1={})


def test_a_result_that_ssh_does_not_take_is_not_written(person, monkeypatch):
    person.write(web1={})
    before = person.text
    monkeypatch.setattr(gather, "missing_options", lambda *_words: ("Nonsense yes",))
    with pytest.raises(
        AnsibleError, match="given: the new configuration: line 9: Bad configuration option: nonsense. No"
    ):
        person.write(web1={"ansible_user": "deploy"})
    monkeypatch.setattr(gather, "missing_options", lambda *_words: ())
    monkeypatch.setattr(run, "config_text", lambda *_words: "Host other\n")
    with pytest.raises(
        AnsibleError, match="web1: with the new configuration ssh would not knock. Nothing was written."
    ):
        person.write(web1={"ansible_user": "deploy"})
    assert person.text == before


def test_a_name_has_the_addresses_that_it_is_looked_up_to(person, monkeypatch):
    answers = {"web1": ["192.0.2.7", "2001:db8::7"], "x.example": ["127.0.0.1"]}
    monkeypatch.setattr(
        gather.socket, "getaddrinfo", lambda host, *_words: [(0, 0, 0, "", (each, 0)) for each in answers[host]]
    )
    person.write(web1={}, web2={"ansible_host": "x.example"})
    assert "\nHost web1 192.0.2.7 2001:db8::7\n" in person.text
    assert "\nHost web2 x.example\n" in person.text


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, ()),
        ({"ansible_ssh_host_key_checking": False}, ("-o", "StrictHostKeyChecking=no")),
        ({"ansible_host_key_checking": "no"}, ("-o", "StrictHostKeyChecking=no")),
        ({"ansible_host_key_checking": True}, ()),
        (
            {"ansible_ssh_args": "-C", "ansible_user": "me", "ansible_ssh_port": 1, "ansible_ssh_extra_args": "-4"},
            ("-C", "-p", "1", "-l", "me", "-4"),
        ),
        ({"ansible_private_key_file": "/k"}, ("-o", 'IdentityFile="/k"')),
    ],
)
def test_how_ansible_calls_ssh(variables, words):
    assert login_of("web1", "web1", variables).words == words


def test_a_key_that_is_not_there_is_said(person):
    (person.home / "k").touch()
    keys = {"a": "k", "b": "nosuch"}
    result = person.write(**{name: {"ansible_private_key_file": str(person.home / key)} for name, key in keys.items()})
    assert result["messages"][1:] == [f"b: its key {person.home}/nosuch is not there."]


def test_many_that_went_are_not_all_named(person):
    person.write(**{f"h{number}": {} for number in range(12)})
    assert person.write()["messages"][1] == "No longer in it: h0, h1, h10, h11, h2, h3, h4, h5, h6, h7 and 2 more"


def test_the_last_configuration_counts():
    assert own_config(["-F", "/a", "-oPort=1", "-F/b"]) == "/b"
    assert own_config(["-C"]) == ""
    assert own_config(["-F", "none"]) == "none"


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("Include portknock/config", ""),
        ('include "~/.ssh/portknock/config" other', "include other\n"),
        ("Include=portknock/config", ""),
        ("Include other/config", "Include other/config\n"),
        ("# Include portknock/config", "# Include portknock/config\n"),
    ],
)
def test_our_own_configuration_is_not_asked(line, kept):
    assert without_include(line, Path("/home/me/.ssh/portknock/config")) == kept


def test_paths_from_here_are_written_in_full(monkeypatch):
    monkeypatch.chdir("/tmp")
    wanted = {"identityfile": ["k", "~/k", "/a b"], "identityagent": ["SSH_AUTH_SOCK"], "user": ["me"]}
    assert missing_options(wanted, {"identityfile": ["~/k"]}) == (
        "identityagent SSH_AUTH_SOCK", "identityfile /tmp/k", 'identityfile "/a b"',
    )  # fmt: skip
    assert missing_options(wanted, {}, ask_ssh.LOCAL) == ()
    with pytest.raises(ValueError, match="identityfile has a quotation mark in it"):
        missing_options({"identityfile": ['a"b']}, {})


def test_the_connection_plugin_sees_that_our_program_connects_directly():
    dump = "hostname h\nport 22\nproxycommand /usr/bin/python3 -ISB /p/portknock-connect.py web1 %h %p"
    assert path_of_dump(dump).jumps is False
