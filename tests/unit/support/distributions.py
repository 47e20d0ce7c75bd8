# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The distributions that are supported, as facts, and what is installed on each."""

import itertools
from typing import Any, Iterable, List

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._host.distributions import OsRelease
from ansible_collections.sesame.portknock.plugins.module_utils._host.facts import PRESENT, HostFacts, Units
from ansible_collections.sesame.portknock.plugins.module_utils._host.other_firewalls import FAIL
from ansible_collections.sesame.portknock.plugins.module_utils._host.packages import Decision, Wanted

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
)
WANTED = Wanted("iptables", True, ("ipv4", "ipv6"), FAIL)
KNOCKD = WANTED._replace(engine="knockd")

every_distribution = pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
every_debian = pytest.mark.parametrize("name", sorted(n for n, row in DISTRIBUTIONS.items() if row[1] == "apt"))
every_el = pytest.mark.parametrize("name", sorted(n for n, row in DISTRIBUTIONS.items() if row[1] == "dnf"))


def host(name: str = "debian-12", installed: Iterable[str] = (), running: Iterable[str] = (), **more: Any) -> HostFacts:
    """A bare host of a distribution, with units that are there, and of these those that run and are enabled."""
    units = Units(frozenset(installed) | frozenset(running), frozenset(running), frozenset(running))
    return BARE._replace(release=DISTRIBUTIONS[name][0], units=units, **more)


def at_work(name: str, **more: Any) -> HostFacts:
    """A host on which the role was run already, and which was booted after it."""
    _release, manager, _packages, services = DISTRIBUTIONS[name]
    commands = ["iptables", "iptables-restore", "ip6tables-restore", "ip"]
    commands += ["apt-get", "iptables-persistent"] if manager == "apt" else ["dnf"]
    return host(name, running=services, **dict(dict(commands=frozenset(commands)), **more))


def packages_of(decision: Decision) -> List[str]:
    return [name for each in decision.installations for name in each.packages]


FIREWALLS = [names for size in range(4) for names in itertools.combinations(("firewalld", "nftables", "ufw"), size)]
