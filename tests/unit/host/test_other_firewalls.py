# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is decided where another firewall is on the host, as tables."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._host.facts import Units
from ansible_collections.sesame.portknock.plugins.module_utils._host.other_firewalls import DISABLE
from ansible_collections.sesame.portknock.plugins.module_utils._host.packages import Firewalls, decide
from distributions import DISTRIBUTIONS, FIREWALLS, WANTED, every_distribution, host, packages_of


@pytest.mark.parametrize("how", ["active", "enabled"])
@pytest.mark.parametrize("others", FIREWALLS, ids=lambda names: "+".join(names) or "none")
@every_distribution
def test_other_firewalls(name, others, how):
    units = Units(frozenset(others), frozenset(), frozenset())._replace(**{how: frozenset(others)})
    facts = host(name)._replace(units=units, ufw_on="ufw" in others)

    decision = decide(facts, WANTED)
    assert decision.firewalls.found == list(others)
    if others:
        (refusal,) = decision.refusals
        assert refusal.startswith(" and ".join(others) + (" is in use" if len(others) == 1 else " are in use"))
        assert "portknock_conflicting_firewall to disable" in refusal
    else:
        assert decision.refusals == []

    decision = decide(facts, WANTED._replace(conflicting_firewall=DISABLE))
    assert decision.refusals == []
    assert decision.may_remove
    assert decision.firewalls == Firewalls(list(others), False)
    # What they are does not change what is installed.
    assert packages_of(decision) == DISTRIBUTIONS[name][2]


def test_an_active_unit_of_ufw_says_nothing():
    decision = decide(host(running=["ufw"]), WANTED)
    assert (decision.refusals, decision.firewalls.found) == ([], [])


def test_a_firewall_that_is_only_installed_is_no_conflict():
    decision = decide(host(installed=["firewalld", "nftables"]), WANTED)
    assert (decision.refusals, decision.firewalls.found) == ([], [])


@pytest.mark.parametrize(
    ("more", "wanted", "removed"),
    [
        ({}, WANTED, True),
        ({}, WANTED._replace(persist=False), False),
        ({"commands": frozenset(["iptables-persistent"])}, WANTED, False),
    ],
)
def test_ufw_that_excludes_iptables_persistent(more, wanted, removed):
    facts = host(ufw_excludes_persistent=True, **more)
    decision = decide(facts, wanted)
    assert decision.firewalls.ufw_removed == removed
    assert [refusal[:21] for refusal in decision.refusals] == (["ufw is installed on t"] if removed else [])
    decision = decide(facts, wanted._replace(conflicting_firewall=DISABLE))
    assert decision.firewalls.ufw_removed == removed
    assert decision.refusals == []
    # Its package goes once the change is kept, and not before.
    assert [each.packages for each in decision.later] == ([["iptables-persistent"]] if removed else [])
    assert "iptables-persistent" not in packages_of(decision) or not removed
    assert all(each.keep_down == ["netfilter-persistent"] for each in decision.later)


def test_ufw_that_is_on_and_excludes_iptables_persistent_is_refused_once():
    decision = decide(host(ufw_on=True, ufw_excludes_persistent=True), WANTED)
    assert [refusal[:13] for refusal in decision.refusals] == ["ufw is in use"]


def test_nothing_is_removed_unless_it_was_asked_for():
    assert not decide(host(), WANTED).may_remove
