# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's name that takes long to look up, while the window of its door runs."""

import shutil
import subprocess

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import KnockError
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh import path as way
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import (
    Lookup,
    SshPath,
    look_up,
    options_without_lookup,
)

NAMED = SshPath("Web.example", 22, "any", "me")


@pytest.mark.parametrize(
    ("path", "lookup", "turn", "options"),
    [
        (NAMED, Lookup(("192.0.2.7",), 0.2), 0, ()),
        (NAMED, Lookup((), 4.0), 0, ()),
        (NAMED, Lookup(("192.0.2.7",), 4.0), 1, ("HostName=192.0.2.7", "HostKeyAlias=web.example")),
        (
            NAMED._replace(port=2222),
            Lookup(("fe80::7%eth0", "192.0.2.7"), 4.0),
            0,
            ("HostName=fe80::7%%eth0", "HostKeyAlias=[web.example]:2222"),
        ),
        (
            NAMED._replace(host_key_alias="own"),
            Lookup(("2001:db8::7", "192.0.2.7"), 4.0),
            3,
            ("HostName=192.0.2.7", "HostKeyAlias=own"),
        ),
    ],
)
def test_a_name_that_takes_long_is_not_looked_up_again(path, lookup, turn, options):
    """The window of the door runs meanwhile."""
    assert options_without_lookup(path, lookup, turn) == options


def test_a_lookup_is_timed(monkeypatch):
    now = [100.0]

    def resolve(_path):
        now[0] += 4
        return ("192.0.2.7", "2001:db8::7")

    monkeypatch.setattr(way, "addresses_of", resolve)
    monkeypatch.setattr(way.time, "monotonic", lambda: now[0])
    assert look_up(NAMED) == Lookup(("192.0.2.7", "2001:db8::7"), 4.0)
    assert look_up(NAMED._replace(host="192.0.2.9")) == Lookup(("192.0.2.9",))
    assert look_up(NAMED._replace(jump="j")) == Lookup()

    def finds_none(_path):
        raise KnockError("none")

    monkeypatch.setattr(way, "addresses_of", finds_none)
    assert look_up(NAMED) == Lookup()


def test_ssh_takes_these_options():
    assert shutil.which("ssh"), "this test asks ssh itself: install the OpenSSH client"
    options = options_without_lookup(NAMED._replace(port=2222), Lookup(("fe80::7%eth0",), 4.0), 0)
    words = ["ssh", "-F", "/dev/null", *[word for option in options for word in ("-o", option)], "-G", "web.example"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "hostname fe80::7%eth0\n" in done.stdout
    assert "hostkeyalias [web.example]:2222\n" in done.stdout
