# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is decided about services, as tables: which are stopped, disabled and enabled, on every distribution."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._host.distributions import distribution_of
from ansible_collections.sesame.portknock.plugins.module_utils._host.systemd import UnitState, parse_states
from ansible_collections.sesame.portknock.plugins.module_utils._services.plan import OTHERS, Facts, plan_services
from distributions import DISTRIBUTIONS, FIREWALLS, every_distribution
from fake_systemd import ENABLED, NOT_THERE, RUNNING

STOPPED = UnitState(True, False, False, False)
MASKED = UnitState(False, False, False, True)
UFW_ON = "# /etc/ufw/ufw.conf\n#\nENABLED=yes\nLOGLEVEL=low\n"


def loaders_of(name):
    return tuple(dict.fromkeys(distribution_of(DISTRIBUTIONS[name][0]).services.values()))


def facts(name="debian-12", loader=ENABLED, **more):
    loaders = loaders_of(name)
    states = dict(dict.fromkeys(OTHERS, NOT_THERE), **dict.fromkeys(loaders, loader))
    states.update({other: more.pop(other) for other in OTHERS if other in more})
    return Facts(**dict(dict(systemd=True, states=states, ufw_config="", live_rules=False, loaders=loaders), **more))


def decide(of, conflicting="fail", may_lack=False):
    return plan_services(of, conflicting, may_lack)


@every_distribution
def test_nothing_is_left_to_do_where_all_is_there(name):
    assert decide(facts(name)) == ([], [], [], "", [])
    assert decide(facts(name, RUNNING)) == ([], [], [], "", [])


@every_distribution
def test_what_loads_the_rules_is_enabled_and_not_started(name):
    todo = decide(facts(name, STOPPED))
    assert (todo.stop, todo.disable, todo.enable) == ([], [], list(loaders_of(name)))
    assert todo.findings == []


@every_distribution
def test_in_check_mode_it_may_be_missing(name):
    assert decide(facts(name, NOT_THERE), may_lack=True).enable == list(loaders_of(name))


LOST = [
    ("not installed", NOT_THERE, True, "is not installed, so nothing loads the rules after a reboot. Install it;"),
    ("masked", MASKED, True, "is masked, so nothing loads the rules after a reboot. Run systemctl unmask "),
    (
        "no systemd",
        NOT_THERE,
        False,
        "cannot be enabled here, and nothing may load the rules after a reboot. See to it",
    ),
]


@pytest.mark.parametrize(("state", "systemd", "why"), [item[1:] for item in LOST], ids=[item[0] for item in LOST])
@every_distribution
def test_what_no_boot_will_start_is_a_finding(name, state, systemd, why):
    todo = decide(facts(name, state, systemd=systemd))
    assert todo.enable == []
    (finding,) = todo.findings
    assert finding.kind == "not_loaded_at_boot"
    assert finding.message.startswith("persist: ")
    assert why in finding.message
    assert all(loader in finding.message for loader in loaders_of(name))


@pytest.mark.parametrize(
    "how", [UnitState(True, True, False, False), ENABLED, RUNNING], ids=["active", "enabled", "both"]
)
@pytest.mark.parametrize("others", [each for each in FIREWALLS if each], ids="+".join)
@every_distribution
def test_other_firewalls(name, others, how):
    config = UFW_ON if "ufw" in others else ""
    of = facts(name, ufw_config=config, **dict.fromkeys(others, how))
    with pytest.raises(SpecError) as error:
        decide(of)
    assert str(error.value).startswith("conflicting_firewall: " + " and ".join(others) + " ")
    assert "then set conflicting_firewall to disable" in str(error.value)
    todo = decide(of, "disable")
    assert todo.stop == (list(others) if how.active else [])
    assert todo.disable == [each for each in others if each != "ufw" and how.enabled]
    assert todo.ufw_config == config.replace("ENABLED=yes", "ENABLED=no")
    assert todo.findings == []


def test_nftables_service_is_not_stopped_where_that_flushes_rules():
    todo = decide(facts(nftables=RUNNING, firewalld=RUNNING, live_rules=True), "disable")
    assert (todo.stop, todo.disable) == (["firewalld"], ["firewalld", "nftables"])
    (finding,) = todo.findings
    assert finding.message.startswith("nftables.service is disabled, but it was not stopped")


def test_an_active_unit_of_ufw_says_nothing():
    assert decide(facts(ufw=RUNNING, ufw_config=UFW_ON.replace("yes", "no"))) == ([], [], [], "", [])


def test_a_firewall_that_is_only_installed_is_no_conflict():
    assert decide(facts(firewalld=STOPPED, nftables=STOPPED)) == ([], [], [], "", [])


def test_without_systemd_ufw_cannot_be_switched_off():
    with pytest.raises(SpecError, match="ufw cannot be switched off here, because systemd does not run"):
        decide(facts(systemd=False, ufw_config=UFW_ON), "disable")


SHOWN = [
    ("a unit that runs", "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\n", RUNNING),
    ("one that starts", "LoadState=loaded\nActiveState=activating\nUnitFileState=enabled-runtime\n", RUNNING),
    ("one at rest", "LoadState=loaded\nActiveState=inactive\nUnitFileState=disabled\n", STOPPED),
    ("one that is masked", "LoadState=masked\nActiveState=inactive\nUnitFileState=masked\n", MASKED),
    ("none", "LoadState=not-found\nActiveState=inactive\nUnitFileState=\n", NOT_THERE),
    ("nothing", "", NOT_THERE),
]


@pytest.mark.parametrize(("text", "state"), [item[1:] for item in SHOWN], ids=[item[0] for item in SHOWN])
def test_what_systemctl_shows(text, state):
    assert parse_states(text, ["a"]) == {"a": state}
    assert parse_states(SHOWN[0][1] + "\n" + text, ["a", "b"]) == {"a": RUNNING, "b": state}
