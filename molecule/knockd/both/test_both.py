# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Both hosts at once, each by a pytest of its own: the tests of a host are a story, most of whose time is waiting."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CLONE = f"-{os.environ['PORTKNOCK_CLONE']}" if os.environ.get("PORTKNOCK_CLONE") else ""
HOSTS = {"debian-12": f"portknock-knockd{CLONE}", "debian-13": f"portknock-knockd-13{CLONE}"}
TESTS = Path(__file__).resolve().parents[1] / "tests"
SOAK = bool(os.environ.get("PORTKNOCK_SOAK"))
ONCE = [
    *(f"--ignore={TESTS / name}" for name in ("test_engine.py", "test_quiet.py", "test_command.py")),
    "--deselect=tests/test_guard.py::test_knock_that_never_arrives_is_rolled_back",
    "--deselect=tests/test_guard.py::test_controller_that_needs_no_knock_proves_knockd_all_the_same",
]
"""What no release of Debian decides: on Debian 12 every time, on the other one in soak."""


@pytest.fixture(scope="module")
def runs():
    """The tests of every host, running."""
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-v",
        "--durations=10",
        f"--rootdir={TESTS.parent}",
    ]
    started = {
        title: subprocess.Popen(
            [*words, *(() if SOAK or title == "debian-12" else ONCE), TESTS],
            env={**os.environ, "PORTKNOCK_HOST": name},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for title, name in HOSTS.items()
    }
    yield started
    for run in started.values():
        run.kill()
        run.wait()


@pytest.mark.parametrize("title", HOSTS)
def test_host(runs, title, capfd):
    said, _nothing = runs[title].communicate(timeout=7000)
    with capfd.disabled():
        print(f"\n{title}:\n{said}")
    assert runs[title].returncode == 0 and " passed" in said
