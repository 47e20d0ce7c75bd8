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


@pytest.fixture(scope="module")
def runs():
    """The tests of every host, running."""
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", "--durations=10", TESTS]
    started = {
        title: subprocess.Popen(
            words,
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
