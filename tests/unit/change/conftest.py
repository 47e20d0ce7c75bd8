# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of a change share."""

from pathlib import Path

import pytest
from agent_place import Place
from ansible_collections.sesame.portknock.plugins.module_utils._change import agent as _agent
from ansible_collections.sesame.portknock.plugins.module_utils._change import agent_program as _agent_program
from ansible_collections.sesame.portknock.plugins.module_utils._change import archive as _archive
from ansible_collections.sesame.portknock.plugins.module_utils._change.archive import archive
from ansible_collections.sesame.portknock.plugins.module_utils._change.engines import parts_on
from story import MINE, NAMES, Story


@pytest.fixture(params=NAMES)
def story(request: pytest.FixtureRequest) -> Story:
    return Story(request.param, v4=MINE)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The program, its constants turned to a directory of this test."""
    made = Place(tmp_path / "run")
    # As apply_change() does it before anything is armed.
    for part in parts_on(made.host):
        part.import_late()
    source = _archive._source
    monkeypatch.setattr(_archive, "_source", lambda name: made.own(source(name)))
    monkeypatch.setattr(_archive, "compiled", lambda _name: None)
    for name in (
        "LAST", "LOCK_DIRECTORY", "PROGRAM", "RUN", "SPARE_PROGRAM", "SPARE_RECORD", "SPARE_UNDO", "UNDO_UNIT", "UNDO_WANTS"
    ):  # fmt: skip
        monkeypatch.setattr(_agent, name, made.own(getattr(_agent, name)))
    made.host.filesystem.replace_bytes(made.program, archive(_agent_program.__name__))
    return made
