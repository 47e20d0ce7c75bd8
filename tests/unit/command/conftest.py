# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the host's command share."""

from typing import Any, List, Tuple

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._command import program
from fake_host import FakeHost


class Console:
    """A root's shell on a host in memory."""

    def __init__(self, host: FakeHost, capsys: Any) -> None:
        self.host, self._capsys = host, capsys

    def run(self, *words: str) -> Tuple[int, str, str]:
        """Return exit code, output and errors of ``portknock``."""
        try:
            code = program.main(list(words))
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def out(self, *words: str) -> List[str]:
        """Return the lines of a command that must succeed."""
        code, out, err = self.run(*words)
        assert (code, err) == (0, ""), (code, out, err)
        return out.splitlines()


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Console:
    made = Console(FakeHost(), capsys)
    monkeypatch.setattr(program, "this_host", lambda _runner: made.host)
    return made
