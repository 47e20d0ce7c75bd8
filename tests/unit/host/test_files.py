# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files on a real disk."""

import os
import stat

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._host import files as _files
from ansible_collections.sesame.portknock.plugins.module_utils._host.command import PlainRunner
from ansible_collections.sesame.portknock.plugins.module_utils._host.files import Filesystem


@pytest.fixture(params=[0o022, 0o077, 0o000], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_who_can_read_what_is_made_is_the_same_under_every_umask(tmp_path, monkeypatch):
    """A directory that is missing is made, as for the manual; the next one who puts a file there needs it to be as usual."""
    ours = str(tmp_path / "portknock")
    monkeypatch.setattr(_files, "_PRIVATE", (ours,))
    public = str(tmp_path / "share" / "man")
    Filesystem(PlainRunner()).replace_files({f"{public}/x.8": ("x", 0o644), f"{ours}/knocks/x": ("x", None)})
    wanted = {
        public: 0o755,
        os.path.dirname(public): 0o755,
        f"{public}/x.8": 0o644,
        ours: 0o700,
        f"{ours}/knocks": 0o700,
        f"{ours}/knocks/x": 0o600,
    }
    assert {path: stat.S_IMODE(os.stat(path).st_mode) for path in wanted} == wanted
