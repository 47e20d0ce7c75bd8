# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A playbook of the collection that no host matches fails, with advice."""

import re
from pathlib import Path

import pytest
import yaml

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible_collections.sesame.portknock.plugins.plugin_utils.matching_hosts import no_hosts_problem

GROUPS = {"all": ["alpha", "beta"], "guarded": ["alpha"], "ungrouped": ["beta"]}
MANY = {**GROUPS, **{f"g{number}": [] for number in range(10)}}
NOTHING = "so nothing was done."


@pytest.mark.parametrize(
    ("groups", "pattern", "limit", "problem"),
    [
        (GROUPS, "all", "", ""),
        (GROUPS, "guarded", "", ""),
        (GROUPS, ["alpha", "beta"], "", ""),
        (GROUPS, "alpha,NOSUCH", "", ""),
        (GROUPS, "all:!beta", "alph*", ""),
        (GROUPS, "localhost", "", ""),
        ({"all": []}, "localhost", "", ""),
        # What cannot be read at all is left to ansible-core.
        (GROUPS, "~(", "", ""),
        # Never all of them: a shell's variable may not be set.
        (GROUPS, "", "", f"portknock_hosts is empty, {NOTHING} Name the hosts, or all."),
        (GROUPS, [], "", f"portknock_hosts is empty, {NOTHING} Name the hosts, or all."),
        (GROUPS, "gaurded", "", f"portknock_hosts: gaurded matches no host of the inventory, {NOTHING} Did you mean guarded?"),
        (GROUPS, "ALPHA1", "", f"portknock_hosts: ALPHA1 matches no host of the inventory, {NOTHING} Its groups are guarded."),
        (MANY, "NOSUCH", "", f"portknock_hosts: NOSUCH matches no host of the inventory, {NOTHING} ansible-inventory --graph shows them."),
        (GROUPS, "all:!all", "", f"portknock_hosts: all:!all matches no host of the inventory, {NOTHING} Its groups are guarded."),
        (GROUPS, ["x", "y"], "", f"portknock_hosts: x,y matches no host of the inventory, {NOTHING} Its groups are guarded."),
        (GROUPS, "guarded", "beta", f"portknock_hosts: none of guarded matches --limit beta, {NOTHING} Leave one of the two out."),
        (GROUPS, "all", "NOSUCH", f"No host of the inventory matches --limit NOSUCH, {NOTHING}"),
        ({"all": [], "guarded": []}, "guarded", "", f"The inventory has no hosts, {NOTHING} Name one that has some with -i."),
        ({}, "all", "", f"The inventory has no hosts, {NOTHING} Name one that has some with -i."),
    ],
)  # fmt: skip
def test_a_pattern_without_hosts_is_a_mistake(groups, pattern, limit, problem):
    assert no_hosts_problem(groups, pattern, limit) == problem


def test_every_playbook_chooses_its_hosts_so():
    playbooks = sorted((Path(__file__).parents[3] / "playbooks").glob("*.yml"))
    hosts = {path.stem: play["hosts"] for path in playbooks for play in yaml.safe_load(path.read_text("utf-8"))}
    chosen = re.compile(r"lookup\('sesame\.portknock\.hosts_of_play', portknock_hosts\b")
    assert len(hosts) > 3
    assert [name for name, text in hosts.items() if not chosen.search(text)] == []
