# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is decided for each distribution, with whatever else is on the host, as tables."""

import itertools

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._host.distributions import OsRelease
from ansible_collections.sesame.portknock.plugins.module_utils._host.facts import (
    MISSING,
    PRESENT,
    UNKNOWN,
    HostFacts,
    Units,
)
from ansible_collections.sesame.portknock.plugins.module_utils._host.packages import (
    DISABLE,
    FAIL,
    Firewalls,
    Wanted,
    decide,
)

DEBIAN_PACKAGES = ["iptables", "iptables-persistent"]
EL_8_PACKAGES = ["iptables", "iptables-services"]
EL_9_PACKAGES = ["iptables-nft", "iptables-nft-services"]
FEDORA_PACKAGES = ["iptables-nft", "iptables-services"]
DEBIAN_SERVICES, EL_SERVICES = ["netfilter-persistent"], ["iptables", "ip6tables"]
EL_SAMPLES = ["/etc/sysconfig/iptables", "/etc/sysconfig/ip6tables"]
EL_LIKE = ("rhel", "centos", "fedora")

DISTRIBUTIONS = {
    "debian-11": (OsRelease("debian", "11", (), "Debian 11"), "apt", DEBIAN_PACKAGES, DEBIAN_SERVICES),
    "debian-12": (OsRelease("debian", "12", (), "Debian 12"), "apt", DEBIAN_PACKAGES, DEBIAN_SERVICES),
    "debian-13": (OsRelease("debian", "13", (), "Debian 13"), "apt", DEBIAN_PACKAGES, DEBIAN_SERVICES),
    "debian-sid": (OsRelease("debian", "", (), "Debian sid"), "apt", DEBIAN_PACKAGES, DEBIAN_SERVICES),
    "ubuntu-22.04": (OsRelease("ubuntu", "22.04", ("debian",), "Ubuntu"), "apt", DEBIAN_PACKAGES, DEBIAN_SERVICES),
    "ubuntu-24.04": (OsRelease("ubuntu", "24.04", ("debian",), "Ubuntu"), "apt", DEBIAN_PACKAGES, DEBIAN_SERVICES),
    "ubuntu-26.04": (OsRelease("ubuntu", "26.04", ("debian",), "Ubuntu"), "apt", DEBIAN_PACKAGES, DEBIAN_SERVICES),
    "linuxmint-22": (OsRelease("linuxmint", "22", ("ubuntu", "debian"), "M"), "apt", DEBIAN_PACKAGES, DEBIAN_SERVICES),
    "rhel-8": (OsRelease("rhel", "8.10", ("fedora",), "RHEL 8"), "dnf", EL_8_PACKAGES, EL_SERVICES),
    "rhel-9": (OsRelease("rhel", "9.4", ("fedora",), "RHEL 9"), "dnf", EL_9_PACKAGES, EL_SERVICES),
    "rhel-10": (OsRelease("rhel", "10.0", ("fedora",), "RHEL 10"), "dnf", EL_9_PACKAGES, EL_SERVICES),
    "rocky-8": (OsRelease("rocky", "8.9", EL_LIKE, "Rocky 8"), "dnf", EL_8_PACKAGES, EL_SERVICES),
    "rocky-9": (OsRelease("rocky", "9.3", EL_LIKE, "Rocky 9"), "dnf", EL_9_PACKAGES, EL_SERVICES),
    "rocky-10": (OsRelease("rocky", "10.0", EL_LIKE, "Rocky 10"), "dnf", EL_9_PACKAGES, EL_SERVICES),
    "almalinux-8": (OsRelease("almalinux", "8.9", EL_LIKE, "Alma 8"), "dnf", EL_8_PACKAGES, EL_SERVICES),
    "almalinux-9": (OsRelease("almalinux", "9.3", EL_LIKE, "Alma 9"), "dnf", EL_9_PACKAGES, EL_SERVICES),
    "almalinux-10": (OsRelease("almalinux", "10.0", EL_LIKE, "Alma 10"), "dnf", EL_9_PACKAGES, EL_SERVICES),
    "another-rebuild-9": (OsRelease("eurolinux", "9.3", EL_LIKE, "Another"), "dnf", EL_9_PACKAGES, EL_SERVICES),
    "fedora": (OsRelease("fedora", "42", (), "Fedora 42"), "dnf", FEDORA_PACKAGES, EL_SERVICES),
}
NOT_SUPPORTED = {
    "debian-10": OsRelease("debian", "10", (), "Debian 10"),
    "ubuntu-20.04": OsRelease("ubuntu", "20.04", ("debian",), "Ubuntu 20.04"),
    "rhel-7": OsRelease("rhel", "7.9", ("fedora",), "RHEL 7"),
    "rhel-11": OsRelease("rhel", "11.0", ("fedora",), "RHEL 11"),
    "amzn": OsRelease("amzn", "2023", ("fedora",), "Amazon Linux"),
    "arch": OsRelease("arch", "", (), "Arch Linux"),
    "nothing": OsRelease("", "", (), "This distribution"),
}
NONE = Units(frozenset(), frozenset(), frozenset())
BARE = HostFacts(
    root=True,
    release=DISTRIBUTIONS["debian-12"][0],
    kernel="6.1.0-1-amd64",
    kernel_modules=PRESENT,
    systemd=True,
    ipv6=True,
    units=NONE,
    commands=frozenset(),
    ufw_on=False,
    ufw_excludes_persistent=False,
    live_rules=False,
    rules_file=False,
)
WANTED = Wanted("iptables", True, ("ipv4", "ipv6"), FAIL)
KNOCKD = WANTED._replace(engine="knockd")

every_distribution = pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
every_debian = pytest.mark.parametrize("name", sorted(n for n, row in DISTRIBUTIONS.items() if row[1] == "apt"))
every_el = pytest.mark.parametrize("name", sorted(n for n, row in DISTRIBUTIONS.items() if row[1] == "dnf"))


def host(name="debian-12", installed=(), running=(), **more):
    """A bare host of a distribution, with units that are there, and of these those that run and are enabled."""
    units = Units(frozenset(installed) | frozenset(running), frozenset(running), frozenset(running))
    return BARE._replace(release=DISTRIBUTIONS[name][0], units=units, **more)


def at_work(name, **more):
    """A host on which the role was run already, and which was booted after it."""
    _release, manager, _packages, services = DISTRIBUTIONS[name]
    commands = ["iptables", "iptables-restore", "ip6tables-restore", "ip"]
    commands += ["apt-get", "iptables-persistent"] if manager == "apt" else ["dnf"]
    facts = dict(commands=frozenset(commands), live_rules=True, rules_file=True)
    return host(name, running=services, **dict(facts, **more))


def packages_of(decision):
    return [name for each in decision.installations for name in each.packages]


# Each distribution


@every_distribution
def test_bare_host(name):
    _release, manager, packages, services = DISTRIBUTIONS[name]
    decision = decide(host(name), WANTED)
    assert (decision.refusals, decision.install_refusal, decision.manager) == ([], "", manager)
    assert packages_of(decision) == packages
    assert decision.services.enable == decision.services.start == decision.services.not_installed == services
    assert decision.services.note == ""
    assert decision.firewalls == Firewalls([], False, False, [], [], "")


@every_distribution
def test_nothing_is_left_to_do_where_all_is_there(name):
    decision = decide(at_work(name), WANTED)
    assert (decision.refusals, decision.install_refusal, decision.installations) == ([], "", [])
    assert decision.services[:3] == ([], [], [])
    assert decision.services.note == ""


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
    assert decision.services[:3] == ([], [], [])
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
def test_iptables_services_that_is_there_is_only_enabled(name):
    decision = decide(host(name, installed=EL_SERVICES, commands=frozenset(["iptables"])), WANTED)
    assert decision.installations == []
    assert decision.services.enable == decision.services.start == EL_SERVICES
    assert decision.services.not_installed == []


# knockd


@every_distribution
def test_knockd_on_a_bare_host(name):
    release, manager, packages, _services = DISTRIBUTIONS[name]
    decision = decide(host(name), KNOCKD)
    first = decision.installations[0]
    if manager == "apt":
        assert [each.packages for each in decision.installations] == [["knockd", "iproute2"] + packages]
        assert first.keep_down == ["knockd"]
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
        assert [each.keep_down for each in decision.installations] == [[]]
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


# Other firewalls

FIREWALLS = [names for size in range(4) for names in itertools.combinations(("firewalld", "nftables", "ufw"), size)]


@pytest.mark.parametrize("how", ["active", "enabled"])
@pytest.mark.parametrize("others", FIREWALLS, ids=lambda names: "+".join(names) or "none")
@every_distribution
def test_other_firewalls(name, others, how):
    services = [each for each in others if each != "ufw"]
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
    assert decision.firewalls == Firewalls(list(others), "ufw" in others, False, services, services, "")
    # What they are does not change what is installed.
    assert packages_of(decision) == DISTRIBUTIONS[name][2]


@every_distribution
def test_nftables_service_is_not_stopped_where_that_flushes_rules(name):
    facts = host(name, running=["firewalld", "nftables"], live_rules=True)
    firewalls = decide(facts, WANTED._replace(conflicting_firewall=DISABLE)).firewalls
    assert firewalls.disable == ["firewalld", "nftables"]
    assert firewalls.stop == ["firewalld"]
    assert firewalls.note.startswith("nftables.service is disabled, but it was not stopped")


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


def test_ufw_that_is_on_and_excludes_iptables_persistent_is_refused_once():
    decision = decide(host(ufw_on=True, ufw_excludes_persistent=True), WANTED)
    assert [refusal[:13] for refusal in decision.refusals] == ["ufw is in use"]
    firewalls = decide(
        host(ufw_on=True, ufw_excludes_persistent=True), WANTED._replace(conflicting_firewall=DISABLE)
    ).firewalls
    assert firewalls.ufw_off
    assert firewalls.ufw_removed


def test_nothing_is_removed_unless_it_was_asked_for():
    assert not decide(host(), WANTED).may_remove


# Services


@pytest.mark.parametrize("rules_file", [False, True])
@pytest.mark.parametrize("live_rules", [False, True])
@every_distribution
def test_a_service_is_started_only_where_that_loses_no_rule(name, live_rules, rules_file):
    _release, manager, _packages, services = DISTRIBUTIONS[name]
    facts = host(name, live_rules=live_rules, rules_file=rules_file)
    found = decide(facts, WANTED).services
    # Without a rules file nothing is loaded, but on EL the packages bring one.
    safe = not live_rules or (manager == "apt" and not rules_file)
    assert found.enable == services
    assert found.start == (services if safe else [])
    assert bool(found.note) == (not safe)
    if not safe:
        assert found.note.startswith(", ".join(services) + ": enabled for the next boot, not started now")


@pytest.mark.parametrize(
    ("name", "versions", "ipv6", "expected"),
    [
        ("rhel-9", ("ipv4",), True, ["iptables"]),
        ("rhel-9", ("ipv6",), True, ["ip6tables"]),
        ("rhel-9", ("ipv4", "ipv6"), False, ["iptables"]),
        ("rhel-9", ("ipv6", "ipv4"), True, ["ip6tables", "iptables"]),
        ("debian-12", ("ipv4",), True, ["netfilter-persistent"]),
        ("debian-12", ("ipv6",), False, []),
    ],
)
def test_services_are_those_of_the_families_in_use(name, versions, ipv6, expected):
    assert decide(host(name, ipv6=ipv6), WANTED._replace(ip_versions=versions)).services.enable == expected


def test_enabled_but_not_running():
    units = Units(frozenset(EL_SERVICES), frozenset(["iptables"]), frozenset(EL_SERVICES))
    found = decide(host("rhel-9")._replace(units=units), WANTED).services
    assert found[:3] == ([], ["ip6tables"], [])


@every_distribution
def test_without_systemd_nothing_can_be_enabled(name):
    services = DISTRIBUTIONS[name][3]
    found = decide(host(name, systemd=False), WANTED).services
    assert found[:3] == ([], [], [])
    assert found.note.startswith("systemd does not run on this host: " + ", ".join(services))
    assert decide(host(name, systemd=False), WANTED._replace(persist=False)).services.note == ""


# All of it


@every_distribution
def test_a_second_look_plans_nothing_that_the_first_one_did(name):
    """Whatever firewall and engine there is: once all was done, only what the next boot does is left."""
    _release, manager, _packages, services = DISTRIBUTIONS[name]
    for engine, others in itertools.product(("iptables", "knockd"), FIREWALLS):
        wanted = WANTED._replace(engine=engine, conflicting_firewall=DISABLE)
        first = decide(host(name, running=[each for each in others if each != "ufw"]), wanted)
        done = Units(
            frozenset(services + ["knockd"]), frozenset(first.services.start), frozenset(first.services.enable)
        )
        commands = ["iptables", "ip", "knockd"] + (["iptables-persistent"] if manager == "apt" else [])
        second = decide(at_work(name)._replace(units=done, commands=frozenset(commands)), wanted)
        assert second.installations == []
        assert second.services == ([], [], [], "")
        assert second.firewalls == Firewalls([], False, False, [], [], "")
