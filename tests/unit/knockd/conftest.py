# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of knockd share."""

import pytest
from fake_host import FakeHost, knockd_host
from knockd_host import by_knockd
from module_run import settled


@pytest.fixture
def host() -> FakeHost:
    return knockd_host()


@pytest.fixture
def served(host: FakeHost) -> FakeHost:
    """A host on which knockd does its work, and a run finds nothing to do."""
    settled(host, **by_knockd())
    host.done = []
    return host
