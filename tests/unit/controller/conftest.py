# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the controller share."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Iterator

import pytest

if TYPE_CHECKING:
    from action_stage import Stage
    from knock_way import Way


@pytest.fixture
def alarm() -> Iterator[None]:
    """No alarm is left behind, and the handler is whose it was."""
    before = signal.getsignal(signal.SIGALRM)
    yield
    left = signal.setitimer(signal.ITIMER_REAL, 0)[0]
    after = signal.signal(signal.SIGALRM, before)
    assert left == 0, "an alarm was left behind"
    assert after == before


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> "Stage":
    # Not imported above: this file is read on a Python without ansible-core too.
    from action_stage import Stage

    return Stage(monkeypatch)


@pytest.fixture
def way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> "Way":
    from knock_way import Way

    return Way(monkeypatch, tmp_path)
