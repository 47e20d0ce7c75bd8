# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What knock_ssh says of a connection that could not be made: the whole message, as the operator reads it."""

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible.errors import AnsibleConnectionFailure, AnsibleOptionsError
from ansible_collections.sesame.portknock.plugins.module_utils._client.answers import MEANINGS
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import ENGINES
from ansible_collections.sesame.portknock.plugins.plugin_utils import send_knock
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh import explain
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import SshPath
from knock_way import run
from shown_steps import steps_in

STEPS = ["17005", "19100/udp", "13100"]
DOOR = {"name": "ssh", "knock": STEPS, "opens": [22]}
REFUSED = "ssh: connect to host 192.0.2.7 port 22: Connection refused"
TIMED_OUT = "ssh: connect to host 192.0.2.7 port 22: Connection timed out"
PATH = SshPath("192.0.2.7", 22, "any", "me")
KNOCKED = "knock_ssh knocked 3 times at the door ssh of 192.0.2.7, directly, from 192.0.2.2. Port 22 of 192.0.2.7: "
OLD = " (where they are to be changed, give the old ones once, as ansible_knock)"
CHECK = (
    f" Check that portknock_doors[0].knock has the steps that the host has now{OLD}, and that the knock reaches the host from "
    "192.0.2.2: NAT or a second uplink may change the address, and the door's sources may leave it out."
)
CHECK_OWN = CHECK.replace(OLD, "").replace("portknock_doors[0].knock", "ansible_knock")


class Plugin:
    """The options of a connection."""

    def __init__(self, **options):
        self._options = {"knock_via": "auto", "knock_engine": "iptables", **options}

    def get_option(self, name):
        return self._options.get(name)


@pytest.fixture(autouse=True)
def seen(monkeypatch):
    """What the port and a closed port answer, and the address that this machine sends from."""
    answers = {"port": "icmp 3/3", "closed": "icmp 3/3", "from": "192.0.2.2", "asked": []}

    def compare(*words):
        answers["asked"].append(words)
        return answers["port"], answers["closed"]

    monkeypatch.setattr(explain, "compare", compare)
    monkeypatch.setattr(explain, "local_address", lambda _address: answers["from"])
    return answers


def said(text=REFUSED, path=PATH, knocks=3, **options):
    words = explain.explain(Plugin(**options), text, path, knocks)
    assert steps_in(STEPS, words) == []
    return words


@pytest.mark.parametrize(
    ("port", "closed", "verdict", "check"),
    [
        ("icmp 3/3", "icmp 3/3", "closed", CHECK),
        ("reset", "icmp 3/3", "no_listener", ""),
        ("reset", "reset", "reset", CHECK),
        ("icmp 3/13 by 198.51.100.1", "silent", "on_the_way", ""),
        ("open", "icmp 3/3", "late", ""),
        ("refused", "", "perhaps", CHECK),
    ],
)
def test_what_refused_means(port, closed, verdict, check, seen):
    seen.update(port=port, closed=closed)
    assert said(knock_doors=[DOOR]) == f"{KNOCKED}{MEANINGS[verdict]}.{check}"


def test_silence_is_not_asked_again(seen):
    """ssh has waited for it, and a play that waits for a host to come back must not wait longer."""
    assert said(TIMED_OUT, knock_doors=[DOOR]) == f"{KNOCKED}{MEANINGS['unknown']}.{CHECK}"
    assert seen["asked"] == []


def test_no_way_to_the_host(seen):
    seen.update(port="unreachable")
    text = "ssh: connect to host 192.0.2.7 port 22: No route to host"
    assert said(text, knock_doors=[DOOR]) == f"{KNOCKED}{MEANINGS['down']}."
    seen["from"] = ""
    assert f"Port 22 of 192.0.2.7: {MEANINGS['no_route']}." in said(text, knock_doors=[DOOR])


def test_an_ssh_server_that_says_nothing():
    assert said("Connection timed out during banner exchange", knock_doors=[DOOR]) == f"{KNOCKED}{MEANINGS['mute']}."


def test_a_jump_host_that_still_tries(seen):
    text = "Connection timed out during banner exchange\r\nConnection to UNKNOWN port 65535 timed out"
    words = said(text, PATH._replace(jump="me@bastion"), knock_doors=[DOOR])
    assert f"by the jump host me@bastion. Port 22 of 192.0.2.7: {MEANINGS['unknown']}." in words
    assert seen["asked"] == []


def test_steps_of_the_host_alone():
    assert said(knocks=1, knock=STEPS, knock_host="192.0.2.9") == (
        f"knock_ssh knocked 1 time at 192.0.2.9, directly, from 192.0.2.2. Port 22 of 192.0.2.7: {MEANINGS['closed']}."
        + CHECK_OWN
    )


def test_the_jump_host_knocked(seen):
    path = PATH._replace(jump="me@bastion")
    assert said("channel 0: open failed: connect failed: Connection refused\nstdio forwarding failed", path, knock=STEPS) == (
        "knock_ssh knocked 3 times at 192.0.2.7, by the jump host me@bastion. Port 22 of 192.0.2.7: "
        f"{MEANINGS['perhaps']}." + CHECK_OWN.replace(
            "192.0.2.2", "the jump host's address"
        )
    )  # fmt: skip
    assert seen["asked"] == []


def test_the_jump_host_could_not_be_reached(seen):
    """Its port says nothing of the door."""
    assert (
        said(path=PATH._replace(jump="me@bastion"), knock=STEPS) == "It is the jump host that ssh could not connect to."
    )
    assert seen["asked"] == []


def test_a_forwarded_port_that_no_door_opens():
    words = said(path=PATH._replace(port=2222), knock_doors=[DOOR])
    assert words == (
        KNOCKED.replace("Port 22", "Port 2222") + f"{MEANINGS['closed']}. No door in portknock_doors opens port 2222 "
        "(ansible_port), so it was taken for one that a router forwards to port 22. If that is so, the router must forward the "
        "ports of the knock as well, or ansible_knock_host must be an address that gets them. If sshd listens on 2222 itself, "
        "add it to the opens of a door." + CHECK
    )


def test_knockd_has_advice_of_its_own():
    assert said(knock_doors=[DOOR], knock_engine="knockd").endswith(ENGINES["knockd"].advice)


SET_IT = (
    " If port 2222 is behind a door, set ansible_knock to its steps, or have a door in portknock_doors open the port."
)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"knock_via": "none", "knock": STEPS}, "ansible_knock_via is none."),
        ({}, "neither ansible_knock nor portknock_doors is set for this host." + SET_IT),
        ({"knock_doors": [dict(DOOR, opens=[443])]}, "no door in portknock_doors opens port 2222." + SET_IT),
    ],
)
def test_no_knock_was_sent(options, why, seen):
    assert said(path=PATH._replace(port=2222), **options) == "knock_ssh sent no knock: " + why
    assert seen["asked"] == []


def test_an_empty_knock_needs_no_words(monkeypatch):
    """The guard sets one while it knocks by itself, and knows the port without asking ssh."""
    monkeypatch.setattr(explain, "ssh_path", lambda _connection: pytest.fail("asked ssh"))
    assert said(path=None, knock=[], knock_doors=[DOOR]) == ""


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"portknock_engine": "kernel"},
            "portknock_engine: kernel is not valid. Use one of iptables, knockd, nftables.",
        ),
        (
            {"portknock_engine": "knockd", "ansible_knock_engine": "x"},
            "ansible_knock_engine: x is not valid. Use one of iptables, knockd, nftables.",
        ),
        ({"ansible_knock_via": "x"}, "ansible_knock_via: x is not valid. Use one of auto, direct, jump, none."),
    ],
)
def test_a_variable_with_another_value_is_named(variables, message, way):
    with pytest.raises(AnsibleOptionsError) as caught:
        way.connection(**variables)
    assert str(caught.value) == message


def test_the_words_stand_behind_what_ssh_said(way):
    way.ends = [(255, b"", REFUSED.encode() + b"\r\n")]
    code, _output, errors = run(way.connection(portknock_doors=[DOOR]))
    assert (code, errors.decode()) == (
        255,
        f"{REFUSED}. knock_ssh knocked 3 times at 192.0.2.7, directly, from 192.0.2.2. "
        f"Port 22 of 192.0.2.7: {MEANINGS['closed']}." + CHECK_OWN,
    )


def test_the_words_stand_behind_cores_own_error(way):
    way.ends = [AnsibleConnectionFailure(f"Data could not be sent: {REFUSED}")]
    with pytest.raises(AnsibleConnectionFailure) as caught:
        run(way.connection())
    assert str(caught.value).startswith(f"Data could not be sent: {REFUSED}. knock_ssh knocked 3 times at 192.0.2.7, ")


@pytest.mark.parametrize("end", [(0, b"", b"ssh: connect to host"), (255, b"", b"Permission denied (publickey).\r\n")])
def test_nothing_is_added_to_what_is_no_such_error(end, way, seen):
    way.ends = [end]
    assert run(way.connection()) == end
    assert seen["asked"] == []


def test_what_a_command_on_the_host_printed_is_left_alone(way, monkeypatch):
    """It went through a control master, and has called an ssh of its own."""
    from ansible_collections.sesame.portknock.plugins.connection import knock_ssh

    monkeypatch.setattr(knock_ssh.ControlMaster, "serves", lambda _self, _words: True)
    way.ends = [(255, b"", b"ssh: connect to host other port 22: Connection refused\r\n")]
    assert run(way.connection()) == way.ends[0]


def test_a_choice_that_is_valid_is_let_be():
    send_knock.check_choices({"ansible_knock_via": "jump", "portknock_engine": "knockd"})
