# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the collection importable without installing it, and sets how long the properties are hunted."""

import errno
import os
import sys
from typing import Callable, List

import pytest
from hypothesis import HealthCheck, settings

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


def _make_importable() -> None:
    namespace = os.path.join(ROOT, ".build", "ansible_collections", "sesame")
    try:
        os.makedirs(namespace)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
    link = os.path.join(namespace, "portknock")
    if not os.path.islink(link):
        os.symlink(os.path.join("..", "..", ".."), link)
    # In front of the rest: a collection that is installed on this machine is not the one under test.
    sys.path.insert(0, os.path.join(ROOT, ".build"))


_make_importable()
# What asserts on behalf of several tests says what it saw, as they do.
pytest.register_assert_rewrite("agent_place", "action_stage", "knockd_host", "module_run", "story")

_COMMON = dict(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], print_blob=True)
# The same examples every time, so that a build is red for what was changed, and no more than find what was found before;
# --slow goes hunting.
settings.register_profile("default", max_examples=30, derandomize=True, **_COMMON)
settings.register_profile("slow", max_examples=5000, **_COMMON)
settings.register_profile("few", max_examples=20, derandomize=True, **_COMMON)
settings.load_profile("default")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="look at thousands of examples of each property")
    parser.addoption("--few", action="store_true", help="look at a few, where another version of Python looks at all")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--slow"):
        settings.load_profile("slow")
    elif config.getoption("--few"):
        settings.load_profile("few")


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    """What reads the ruleset of 5000 rules is slow, whichever test it is; hunts are for --slow."""
    for item in items:
        if "rules-5000" in item.name:
            item.add_marker(pytest.mark.slow)
            # So many rules are planned alike with either policy.
            if "-accept" in item.name:
                item.add_marker(pytest.mark.hunt)
    if not config.getoption("--slow"):
        hunts = [item for item in items if item.get_closest_marker("hunt")]
        config.hook.pytest_deselected(items=hunts)
        items[:] = [item for item in items if item not in hunts]


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare a text with a file in golden/; what was got is left beside it where they differ."""

    def compare(name: str, text: str) -> None:
        path = os.path.join(HERE, "golden", name)
        expected = ""
        if os.path.exists(path):
            with open(path, encoding="utf-8", newline="") as stream:
                expected = stream.read()
        if text != expected:
            with open(path + ".actual", "w", encoding="utf-8", newline="") as stream:
                stream.write(text)
        elif os.path.exists(path + ".actual"):
            os.unlink(path + ".actual")
        assert text == expected

    return compare
