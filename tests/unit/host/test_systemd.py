# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""systemctl, with a command in its place."""

import os
import time

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host import systemd
from ansible_collections.sesame.portknock.plugins.module_utils._host.command import Command, PlainRunner
from ansible_collections.sesame.portknock.plugins.module_utils._host.systemd import Systemd

HANGS = "#!/bin/sh\nexec sleep 600\n"
IS_DEAF = "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 1; done\n"
FAILS = '#!/bin/sh\necho "Unit $2 not found." >&2\nexit 5\n'


class Runner(PlainRunner):
    """It finds systemctl in a folder of its own."""

    def __init__(self, folder):
        self.folder = str(folder)

    def get_bin_path(self, name, opt_dirs=None, **options):
        path = os.path.join(self.folder, name)
        return path if os.path.exists(path) else super().get_bin_path(name, opt_dirs, **options)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Return a Systemd of which systemctl is a script."""

    def make(script, limit=1):
        monkeypatch.setattr(systemd, "LIMIT", limit)
        path = tmp_path / "systemctl"
        path.write_text(script)
        path.chmod(0o755)
        return Systemd(Command(Runner(tmp_path)), None)

    return make


@pytest.mark.parametrize("script", [HANGS, IS_DEAF])
def test_one_that_hangs_is_ended(made, script, monkeypatch):
    """Whoever called it has the lock of the host, and would have it for as long."""
    here = made(script)
    monkeypatch.setattr(here, "runs", lambda: True)
    begun = time.monotonic()
    with pytest.raises(HostError) as raised:
        here.service("start", "slow.service")
    assert str(raised.value) == (
        "systemctl start slow.service failed: it did not end within 1 s. 'systemctl list-jobs' shows what it waits for."
    )
    assert time.monotonic() - begun < 300, "it was waited for"


def test_what_it_says_itself_is_passed_on(made, monkeypatch):
    here = made(FAILS, 60)
    monkeypatch.setattr(here, "runs", lambda: True)
    with pytest.raises(HostError, match=r"^systemctl stop none\.service failed: Unit none\.service not found\.$"):
        here.service("stop", "none.service")
    assert here.call("stop", "none.service") == 5
