# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Foreign rules with lists of recent: a recipe that was there before, and rules that use the lists of the doors."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from flows import Host

SSH = {"doors": [{"name": "ssh", "knock": ["7005", "9100"], "opens": ["22"]}]}
# What iptables-save prints of an older recipe: accept appended, reset ports around the knock port inserted.
RECIPE = """*filter
:INPUT ACCEPT [0:0]
-A INPUT -p tcp -m conntrack --ctstate NEW -m tcp --dport 1503 -m recent --remove --name {0} --mask 255.255.255.255 --rsource
-A INPUT -p tcp -m conntrack --ctstate NEW -m tcp --dport 1502 -m recent --set --name {0} --mask 255.255.255.255 --rsource
-A INPUT -p tcp -m conntrack --ctstate NEW -m tcp --dport 22 -m recent --update --seconds 240 --name {0} --rsource -j ACCEPT
COMMIT
"""


def found(save, options=None, family="ipv4"):
    findings = plan_family(save, spec_from_options(options or SSH), family).findings
    return [finding for finding in findings if finding.kind == "list_shared"]


def test_an_older_recipe_with_a_list_of_its_own_opens_nothing_and_goes_on():
    save = RECIPE.format("GATE")
    assert found(save) == []
    host = Host(SSH, save=save)
    assert host.flow("1502 shut:22 7005 9100 open:22") == []
    assert host.walker.lists["GATE"].entries


@pytest.mark.parametrize("name", ["pk4_ssh", "pk4_.1", "pk4_other", "pk6_ssh", "pk6.64_ssh"])
def test_a_rule_that_changes_a_list_of_the_doors_is_named(name):
    rules = found(RECIPE.format(name))
    assert [finding.severity for finding in rules] == ["error"] * 3
    assert all(name in finding.rule for finding in rules)


@pytest.mark.parametrize("name", ["GATE", "pk", "pk4", "xpk4_ssh", "pk5_ssh", "pk4-ssh"])
def test_other_names_are_no_lists_of_the_doors(name):
    assert found(RECIPE.format(name)) == []


def test_whoever_only_asks_changes_nothing():
    save = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 80 -m recent --rcheck --name pk4_ssh --rsource -j ACCEPT\nCOMMIT\n"
    assert found(save) == []


def test_the_collections_own_rules_and_any_table():
    host = Host(SSH)
    assert found(host.iptables.save()) == []
    raw = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p udp -m udp --dport 5 -m recent --set --name pk4_ssh --rsource\nCOMMIT\n"
    assert len(found(host.iptables.save() + raw)) == 1


def test_a_step_is_masked():
    (finding,) = found(
        "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 7005 -m recent --set --name pk4_ssh --rsource\nCOMMIT\n"
    )
    assert "7005" not in finding.rule
    assert "--name pk4_ssh" in finding.rule
