# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is decided for each distribution, as tables."""

import itertools

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._host.facts import MISSING, PRESENT, UNKNOWN
from ansible_collections.sesame.portknock.plugins.module_utils._host.other_firewalls import DISABLE
from ansible_collections.sesame.portknock.plugins.module_utils._host.packages import Firewalls, decide
from distributions import (
    BARE,
    DISTRIBUTIONS,
    EL_SAMPLES,
    EL_SERVICES,
    FIREWALLS,
    KNOCKD,
    NOT_SUPPORTED,
    WANTED,
    at_work,
    every_debian,
    every_distribution,
    every_el,
    host,
    packages_of,
)


@every_distribution
def test_bare_host(name):
    _release, manager, packages, _services = DISTRIBUTIONS[name]
    decision = decide(host(name), WANTED)
    assert (decision.refusals, decision.install_refusal, decision.manager) == ([], "", manager)
    assert packages_of(decision) == packages
    assert decision.firewalls == Firewalls([], False)
    assert decision.later == []


@every_distribution
def test_nothing_is_left_to_do_where_all_is_there(name):
    decision = decide(at_work(name), WANTED)
    assert (decision.refusals, decision.install_refusal, decision.installations, decision.later) == ([], "", [], [])


@pytest.mark.parametrize("name", sorted(NOT_SUPPORTED))
def test_distributions_that_are_not_supported(name):
    release = NOT_SUPPORTED[name]
    decision = decide(BARE._replace(release=release), WANTED)
    assert decision.install_refusal.startswith(release.name + " is not one of the distributions")
    assert "Nothing was changed" in decision.install_refusal
    # The rules alone may be written there.
    assert decision.refusals == []


@every_distribution
def test_without_persist_nothing_is_installed_or_enabled_for_it(name):
    decision = decide(host(name), WANTED._replace(persist=False))
    assert packages_of(decision) == DISTRIBUTIONS[name][2][:1]
    assert all(each.sample_files == each.preseed == [] for each in decision.installations)


@every_debian
def test_debconf_is_told_not_to_save_the_live_rules(name):
    (installation,) = decide(host(name), WANTED).installations
    assert installation.preseed == ["iptables-persistent/autosave_v4", "iptables-persistent/autosave_v6"]
    assert installation.sample_files == installation.fallback == []


@every_el
def test_sample_rules_of_the_package_are_kept_out(name):
    installation = decide(host(name), WANTED).installations[0]
    assert installation.sample_files == EL_SAMPLES
    assert installation.preseed == []
    assert "dnf repolist" in installation.advice
    assert DISTRIBUTIONS[name][0].name in installation.advice


@every_el
def test_only_fedora_has_other_names_to_try(name):
    expected = ["iptables-nft", "iptables-nft-services"] if name == "fedora" else []
    assert decide(host(name), WANTED).installations[0].fallback == expected


@pytest.mark.parametrize("modules", [PRESENT, MISSING, UNKNOWN])
@every_distribution
def test_kernel_modules_are_installed_where_they_are_apart(name, modules):
    release, _manager, packages, _services = DISTRIBUTIONS[name]
    decision = decide(host(name, kernel_modules=modules, kernel="6.12.0-55.el10"), WANTED)
    apart = release.version.startswith("10") and modules == MISSING
    assert packages_of(decision) == packages + (["kernel-modules-extra-6.12.0-55.el10"] if apart else [])
    if apart:
        assert "dnf install kernel kernel-modules-extra" in decision.installations[-1].advice


# Parts that are there


@pytest.mark.parametrize(
    ("name", "facts", "expected"),
    [
        ("debian-12", {"commands": frozenset(["iptables"])}, ["iptables-persistent"]),
        ("debian-12", {"commands": frozenset(["iptables-persistent"])}, ["iptables"]),
        # netfilter-persistent alone loads nothing.
        ("debian-12", {"installed": ["netfilter-persistent"]}, ["iptables", "iptables-persistent"]),
        ("rhel-8", {"installed": ["iptables"]}, ["iptables"]),
        ("rhel-9", {"installed": ["iptables"]}, ["iptables-nft"]),
        ("rhel-9", {"commands": frozenset(["iptables"])}, ["iptables-nft-services"]),
        ("fedora", {"commands": frozenset(["iptables"])}, ["iptables-services"]),
    ],
)
def test_only_what_is_missing_is_installed(name, facts, expected):
    assert packages_of(decide(host(name, **facts), WANTED)) == expected


@every_el
def test_iptables_services_that_is_there_is_not_installed(name):
    decision = decide(host(name, installed=EL_SERVICES, commands=frozenset(["iptables"])), WANTED)
    assert decision.installations == []


@every_debian
def test_what_the_package_enables_is_kept_down_until_the_rules_are_kept(name):
    """Its installation enables its service, and the next boot would load a rules file that nobody has judged."""
    assert decide(host(name), WANTED).installations[0].keep_down == ["netfilter-persistent"]
    for facts in (host(name, systemd=False), host(name, running=["netfilter-persistent"])):
        assert decide(facts, WANTED).installations[0].keep_down == []


# knockd


@every_distribution
def test_knockd_on_a_bare_host(name):
    release, manager, packages, _services = DISTRIBUTIONS[name]
    decision = decide(host(name), KNOCKD)
    first = decision.installations[0]
    if manager == "apt":
        assert [each.packages for each in decision.installations] == [["knockd", "iproute2"] + packages]
        assert first.keep_down == ["knockd", "netfilter-persistent"]
    else:
        # Alone and first: where it is not to be had, nothing was installed.
        assert [each.packages for each in decision.installations] == [["knock-server", "iproute"], packages]
        assert [each.keep_down for each in decision.installations] == [["knockd"], []]
        assert ("EPEL" in first.advice) == (name != "fedora")
        assert "Nothing was installed" in first.advice
        assert "portknock_engine to iptables" in first.advice
    assert bool(decision.refusals) == (release.id == "debian" and release.version == "11")


@every_distribution
def test_knockd_that_is_there_is_not_touched(name):
    commands = frozenset(["knockd", "ip"])
    for decision in (decide(host(name, commands=commands), KNOCKD), decide(host(name, running=["knockd"]), WANTED)):
        assert "knockd" not in decision.installations[0].keep_down
        assert packages_of(decision) == DISTRIBUTIONS[name][2]


def test_only_ip_is_missing_for_knockd():
    decision = decide(at_work("debian-12", commands=frozenset(["iptables", "iptables-persistent", "knockd"])), KNOCKD)
    assert packages_of(decision) == ["iproute2"]
    assert decision.installations[0].keep_down == []


def test_knockd_of_debian_11_is_too_old():
    (refusal,) = decide(host("debian-11"), KNOCKD).refusals
    assert "older than 0.8" in refusal
    assert "portknock_engine to iptables" in refusal


def test_knockd_needs_systemd():
    (refusal,) = decide(host(systemd=False), KNOCKD).refusals
    assert "systemd does not run on this host" in refusal
    assert decide(host(systemd=False), WANTED).refusals == []


# Root


def test_another_user_than_root_is_refused_first():
    decision = decide(host("debian-11", root=False, running=["firewalld"], systemd=False), KNOCKD)
    assert "become: true" in decision.refusals[0]
    assert len(decision.refusals) == 4


# All of it


@every_distribution
def test_a_second_look_plans_nothing_that_the_first_one_did(name):
    """Whatever firewall and engine there is: once all was done, nothing is left."""
    manager = DISTRIBUTIONS[name][1]
    for engine, others in itertools.product(("iptables", "knockd"), FIREWALLS):
        wanted = WANTED._replace(engine=engine, conflicting_firewall=DISABLE)
        assert decide(host(name, running=[each for each in others if each != "ufw"]), wanted).installations
        commands = ["iptables", "ip", "knockd"] + (["iptables-persistent"] if manager == "apt" else [])
        second = decide(at_work(name, commands=frozenset(commands)), wanted)
        assert second.installations == second.later == []
        assert second.firewalls == Firewalls([], False)
