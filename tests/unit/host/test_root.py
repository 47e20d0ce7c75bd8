# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What another user than root reads: what is missing, and not the first file that cannot be written."""

import os

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.host import require_root
from ansible_collections.sesame.portknock.plugins.module_utils._host.processes import Processes
from fake_host import FakeHost


def test_root_may_go_on():
    require_root(FakeHost())


def test_another_user_reads_what_to_set():
    host = FakeHost()
    host.root = False
    with pytest.raises(
        HostError, match="^this needs root. Set become: true for the play or the task, or log in as root.$"
    ):
        require_root(host)
    with pytest.raises(HostError, match=" Nothing was changed.$"):
        require_root(host, " Nothing was changed.")


@pytest.mark.parametrize(("user", "root"), [(0, True), (1000, False)])
def test_who_is_root(user, root, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert Processes(None).is_root() is root
