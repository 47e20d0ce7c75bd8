# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services inside the transaction: another firewall makes way, and is back, with its rules, where the change is not kept."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import plan_change
from ansible_collections.sesame.portknock.plugins.module_utils._errors import AppliedError, SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import UFW_CONFIG
from fake_systemd import NOT_THERE, RUNNING
from module_run import run, settled
from story import IDENT, Story, nth_restore_fails, options

RULE = '-A INPUT -p tcp -m comment --comment "other-firewall" -j DROP'
RULES = "*filter\n:INPUT ACCEPT [0:0]\n" + RULE + "\nCOMMIT\n"
UFW_ON = "ENABLED=yes\nLOGLEVEL=low\n"


def story_with(name, conflicting="disable"):
    """A host whose other firewall runs and refuses something, and a change that switches it off."""
    story = Story("a bare host gets doors")
    host = story.host
    host.units[name] = RUNNING
    host.units["netfilter-persistent"] = RUNNING._replace(active=False, enabled=False)
    host.services_rules = {name: RULES}
    host.rules["iptables"].restore(RULES)
    if name == "ufw":
        host.files[UFW_CONFIG] = (UFW_ON, 0o644)
    story.wanted = dict(story.wanted, conflicting_firewall=conflicting)
    return story


def is_off(story, name):
    host = story.host
    is_enabled = host.units[name].enabled if name != "ufw" else host.read(UFW_CONFIG) == UFW_ON
    return RULE not in host.rules["iptables"].save(), not host.units[name].active, not is_enabled


FIREWALLS = pytest.mark.parametrize("name", ["firewalld", "ufw"])


@FIREWALLS
def test_it_is_stopped_with_the_change_and_disabled_with_the_confirmation(name):
    story = story_with(name)
    story.apply()
    assert is_off(story, name) == (True, True, False)
    assert not story.host.units["netfilter-persistent"].enabled
    story.confirm()
    assert is_off(story, name) == (True, True, True)
    loader = story.host.units["netfilter-persistent"]
    assert (loader.enabled, loader.active) == (True, False), "a start would load a rules file"


@FIREWALLS
def test_it_is_back_with_its_rules_where_the_change_is_rolled_back(name):
    story = story_with(name)
    story.apply()
    assert story.guard.undo(IDENT, "")["outcome"] == "rolled_back"
    assert is_off(story, name) == (False, False, False)
    assert not story.host.units["netfilter-persistent"].enabled
    assert "PORTKNOCK" not in story.host.rules["iptables"].save()


@FIREWALLS
def test_it_is_back_where_loading_fails(name):
    story = story_with(name)
    story.host.refuse = nth_restore_fails(1)
    with pytest.raises(AppliedError):
        story.apply()
    assert is_off(story, name) == (False, False, False)


@FIREWALLS
def test_it_is_back_where_keeping_fails(name):
    story = story_with(name)
    story.apply()
    story.host.unit_refuses = True
    assert story.confirm()["outcome"] == "rolled_back"
    assert is_off(story, name) == (False, False, False)
    assert not story.host.units["netfilter-persistent"].enabled


def test_the_hooks_stand_where_they_belong_once_its_rules_are_gone():
    """The change was planned while they were there: their number is not the number of a rule any more."""
    story = story_with("firewalld")
    story.host.rules["iptables"].restore("*filter\n:INPUT ACCEPT [0:0]\n" + (RULE + "\n") * 5 + "COMMIT\n")
    story.apply()
    story.confirm()
    lines = [line for line in story.host.rules["iptables"].save().splitlines() if line.startswith("-A INPUT")]
    assert [line.rpartition(" ")[2] for line in lines] == ["PORTKNOCK_HEAD", "PORTKNOCK", "PORTKNOCK_TAIL"]


def test_it_is_refused_unless_it_is_to_be_switched_off():
    story = story_with("firewalld", "fail")
    before = story.host.state()
    with pytest.raises(SpecError, match="conflicting_firewall: firewalld is in use on this host"):
        story.apply()
    assert story.host.state() == before
    assert is_off(story, "firewalld") == (False, False, False)


def test_the_last_way_starts_it_again():
    story = story_with("firewalld")
    story.apply()
    assert story.agent.last_way[-1] == "/usr/sbin/systemctl start firewalld.service"


def test_what_a_check_says():
    story = story_with("ufw")
    result = run(story.host, check=True, conflicting_firewall="disable")
    assert result["services"] == {"stop": ["ufw"], "disable": [], "enable": ["netfilter-persistent"]}
    shown = {each["before_header"]: each for each in result["diff"]}
    assert shown["services"]["after"].splitlines() == [
        "ufw.service is stopped",
        "netfilter-persistent.service starts at boot",
    ]
    assert "ENABLED=no" in shown[UFW_CONFIG]["after"]
    assert is_off(story, "ufw") == (False, False, False)


def test_no_finding_is_about_rules_that_go():
    story = story_with("firewalld")
    accept = RULES.replace("DROP", "ACCEPT")
    story.host.rules["iptables"].restore(accept, noflush=False)
    kinds = {each["kind"] for each in run(story.host, check=True, conflicting_firewall="disable")["findings"]}
    assert "lost_effect" not in kinds


def test_a_service_that_is_only_not_enabled_is_a_change():
    story = Story("a bare host gets doors")
    host = story.host
    settled(host)
    host.units["netfilter-persistent"] = RUNNING._replace(enabled=False)
    assert run(host)["changed"]
    assert host.units["netfilter-persistent"].enabled
    assert not run(host)["changed"]


def test_removing_leaves_services_alone():
    story = story_with("firewalld")
    story.host.units["netfilter-persistent"] = NOT_THERE
    story.guard.keep(story.apply(guard=False))
    settled(story.host, state="absent")
    assert is_off(story, "firewalld") == (True, True, True)


def test_options_of_a_run():
    assert options()["conflicting_firewall"] == "fail"


@pytest.mark.parametrize(("name", "looks"), [("firewalld", 0), ("ufw", 0), ("nftables", 1)])
def test_the_rules_are_looked_at_for_it_only_where_a_stop_would_flush_them(name, looks):
    story = story_with(name)
    plan_change(options(**story.wanted), story.host)
    saves = [words for words in story.host.commands if words[0].endswith("tables-save")]
    assert len(saves) == 2 + looks


def test_the_rules_are_not_looked_at_for_a_firewall_that_is_only_refused():
    story = story_with("nftables", "fail")
    with pytest.raises(SpecError, match="nftables"):
        plan_change(options(**story.wanted), story.host)
    assert [words for words in story.host.commands if words[0].endswith("tables-save")] == []
