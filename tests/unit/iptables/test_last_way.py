# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plain sh does, and says, where no program can undo a change: run in a real one, over commands that are made up."""

import subprocess

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.last_way import last_look, last_way
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import FILTER, NAT, table_of
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_iptables import FakeIptables

SPEC = spec_from_options(
    {"doors": [{"name": "ssh", "knock": ["7144", "2791/udp"], "opens": ["22"]}], "published": "doors"}
)
OTHERS = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -j LOG\nCOMMIT\n"
COMMANDS = {"ipv4": "iptables", "ipv6": "ip6tables"}
PRINTS = '#!/bin/sh\n[ "$1" = -t ] && exec cat "$0.$2"\n'


class Place:
    """Where the commands of sh are, and what they print."""

    def __init__(self, folder):
        self.folder = folder
        self.plans = [plan_family(OTHERS, SPEC, family) for family in COMMANDS]
        self.hosts = {family: FakeIptables(OTHERS) for family in COMMANDS}
        for plan in self.plans:
            self.hosts[plan.family].restore(plan.change)
        self.paths = {
            name + tail: str(folder / (name + tail)) for name in COMMANDS.values() for tail in ("-save", "-restore")
        }
        for name in COMMANDS.values():
            self.script(name + "-save", PRINTS)
            self.script(name + "-restore", f"#!/bin/sh\ncat >{folder}/{name}-restore.text\n")
        self.print()

    def script(self, name, text):
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)

    def print(self):
        """Have the save commands print what is in force now."""
        for family, name in COMMANDS.items():
            for table in (FILTER, NAT):
                text = self.hosts[family].save()
                found = text[text.index("*" + table) :].partition("COMMIT\n")[0] + "COMMIT\n"
                (self.folder / f"{name}-save.{table}").write_text(found)

    def empty(self):
        """Do the last way, and have in force what its commands got."""
        for words in last_way(self.plans, self.paths):
            subprocess.run(["sh", "-c", words], check=True)
        for family, name in COMMANDS.items():
            self.hosts[family].restore((self.folder / f"{name}-restore.text").read_text())
        self.print()

    def sees_it(self):
        words = " && ".join(last_look(self.plans, self.paths))
        assert not set("$%\\;") & set(words), "systemd would replace something in it"
        return subprocess.run(["sh", "-c", words], stderr=subprocess.DEVNULL, check=False).returncode == 0


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_both_tables_are_emptied_and_it_is_seen(place):
    assert {table_of(name) for plan in place.plans for name in plan.own_chains()} == {FILTER, NAT}
    assert not place.sees_it()
    place.empty()
    assert place.sees_it()
    assert "-A INPUT -j LOG" in place.hosts["ipv4"].save()


@pytest.mark.parametrize("table", [FILTER, NAT])
@pytest.mark.parametrize("family", COMMANDS)
def test_a_rule_that_is_left_is_seen(place, family, table):
    place.empty()
    chain = next(name for name in place.plans[0].own_chains() if table_of(name) == table)
    place.hosts[family].restore(f"*{table}\n-A {chain} -j RETURN\nCOMMIT\n")
    place.print()
    assert not place.sees_it()


@pytest.mark.parametrize("table", [FILTER, NAT])
@pytest.mark.parametrize("name", COMMANDS.values())
def test_a_table_that_cannot_be_read_is_not_taken_for_an_empty_one(place, name, table):
    place.empty()
    (place.folder / f"{name}-save.{table}").write_text(f"# Table `{table}' is incompatible, use 'nft' tool.\n")
    assert not place.sees_it()


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 1\n", None], ids=["fails", "is gone"])
def test_without_the_command_nothing_is_seen(place, script):
    place.empty()
    if script is None:
        (place.folder / "ip6tables-save").unlink()
    else:
        place.script("ip6tables-save", script)
    assert not place.sees_it()


def test_where_nothing_is_loaded_nothing_is_emptied(place):
    unchanged = [plan_family(place.hosts[family].save(), SPEC, family) for family in COMMANDS]
    assert last_way(unchanged, place.paths) == last_look(unchanged, place.paths) == ()
