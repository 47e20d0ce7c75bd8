# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The row of knock_verify about a new connection of Ansible."""

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.judge import Context
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.table import rows
from verify_world import SSH, TOLD, V4, spec_of


@pytest.mark.parametrize("result", ["proved", "not proved", "void"])
def test_a_new_connection_of_ansible(result):
    message = "Void: TCP from 192.0.2.7 port 12345 to port 22 (SYN) on eth0 is refused although it is to get in, by -A INPUT -j DROP."
    entry = {"what": "connection", "door": "", "ip_version": "ipv4", "result": result, "message": message}
    spec = spec_of(SSH)
    found = rows({}, Context(spec, {"ipv4": V4}, dict(TOLD, proof=[entry]), {}, 30))
    row = next(row for row in found if row["what"] == "connection")
    assert (row["ip_version"], row["proof"], row["state"]) == ("ipv4", result, "wrong" if result == "void" else "ok")
    note = f"a new connection of Ansible would not get in. {message} Remove that rule." if result == "void" else ""
    assert row["note"] == note
