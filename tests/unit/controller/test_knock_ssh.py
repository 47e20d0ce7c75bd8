# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection knock_ssh with an ssh that is made up: which knocks go before it, and how often it is tried."""

import os

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

import yaml
from ansible import constants
from ansible.errors import AnsibleConnectionFailure
from ansible.playbook.play_context import PlayContext
from ansible.plugins.connection import ssh
from ansible_collections.sesame.portknock.plugins.connection import knock_ssh
from ansible_collections.sesame.portknock.plugins.plugin_utils import send_knock

PLUGIN = "knock_ssh_under_test"
KNOCK = ["17005", "19100/udp"]
FIRST = [(17005, "tcp"), (19100, "udp")]
AGAIN = [(19100, "udp"), *FIRST]
REFUSED = (255, b"", b"ssh: connect to host h port 22: Connection refused\r\n")
DONE = (0, b"out", b"")
LOST = (255, b"", b"Connection reset by peer\r\n")


def options_of(plugin):
    return yaml.safe_load(plugin.DOCUMENTATION)["options"]


def fail(error):
    """Raise it."""
    raise error


class Way:
    """What ssh does one call after the other, the last thing for ever; and what was knocked."""

    def __init__(self, monkeypatch, tmp_path):
        self.ends, self.knocks, self.calls = [DONE], [], 0
        self._directory = str(tmp_path)
        monkeypatch.setattr(ssh.Connection, "_bare_run", self._run)
        monkeypatch.setattr(send_knock, "send", self._send)
        # As the loader does for a collection that is installed.
        options = {**options_of(ssh), **options_of(knock_ssh)}
        constants.config.initialize_plugin_configuration_definitions("connection", PLUGIN, options)
        monkeypatch.setattr(knock_ssh.Connection, "_load_name", PLUGIN, raising=False)
        monkeypatch.setattr(knock_ssh.Connection, "ansible_name", PLUGIN, raising=False)

    def connection(self, password=None, **variables):
        """Return a connection as a play with these variables has it."""
        made = knock_ssh.Connection(PlayContext(), os.devnull)
        known = dict(ansible_host="192.0.2.7", ansible_knock=KNOCK, **variables)
        direct = {"control_path_dir": self._directory, **({"password": password} if password else {})}
        made.set_options(var_options=known, direct=direct)
        return made

    def _run(self, *_words, **_more):
        self.calls += 1
        end = self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]
        return end if isinstance(end, tuple) else fail(end)

    def _send(self, _connection, knock, _path, _warn):
        self.knocks.append(knock)

    def steps(self):
        """Return the steps of each knock."""
        return [[tuple(step) for step in knock.steps] for knock in self.knocks]


@pytest.fixture
def way(monkeypatch, tmp_path):
    return Way(monkeypatch, tmp_path)


def run(connection):
    return connection._bare_run([b"ssh", b"h", b"true"], b"")


@pytest.mark.parametrize(
    ("variables", "engine"),
    [
        ({}, "iptables"),
        ({"portknock_engine": "knockd"}, "knockd"),
        ({"ansible_knock_engine": "knockd"}, "knockd"),
        ({"portknock_engine": "knockd", "ansible_knock_engine": "iptables"}, "iptables"),
        ({"portknock_engine": "iptables", "ansible_knock_engine": "knockd"}, "knockd"),
    ],
)
def test_the_inventory_says_who_recognises_the_knock(variables, engine, way):
    assert run(way.connection(**variables)) == DONE
    assert [(knock.engine, bool(knock.settle)) for knock in way.knocks] == [(engine, engine == "knockd")]
    assert way.steps() == [FIRST]


@pytest.mark.parametrize(("engine", "again", "tries"), [("iptables", FIRST, 3), ("knockd", AGAIN, 5)])
def test_what_did_not_get_in_is_knocked_for_again(engine, again, tries, way):
    way.ends = [REFUSED]
    assert run(way.connection(portknock_engine=engine)) == REFUSED
    assert way.steps() == [again if turn % 4 else FIRST for turn in range(tries)]
    assert way.calls == tries


@pytest.mark.parametrize("engine", ["iptables", "knockd"])
def test_what_was_begun_is_not_run_again(engine, way):
    way.ends = [LOST]
    assert run(way.connection(portknock_engine=engine)) == LOST
    assert way.steps() == [FIRST]


def test_a_knock_that_got_in_leaves_nothing_behind(way):
    connection = way.connection(portknock_engine="knockd")
    way.ends = [REFUSED, DONE]
    assert run(connection) == DONE
    assert run(connection) == DONE
    assert way.steps() == [FIRST, AGAIN, FIRST]


@pytest.mark.parametrize("end", [REFUSED, AnsibleConnectionFailure(REFUSED[2].decode())])
def test_cores_own_retries_know_of_the_knocks_before(end, way):
    """With a password, which is read once, each try is one of core's."""
    connection = way.connection(portknock_engine="knockd", password="secret")
    way.ends = [end, DONE]
    if isinstance(end, tuple):
        assert run(connection) == REFUSED
    else:
        with pytest.raises(AnsibleConnectionFailure):
            run(connection)
    assert run(connection) == DONE
    assert way.steps() == [FIRST, AGAIN]
