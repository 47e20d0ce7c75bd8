# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each distribution calls the packages and services that are needed. Data, and how it is looked up. Pure."""

import re
import shlex
from typing import Dict, NamedTuple, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._paths import RULES_FILES
from ansible_collections.sesame.portknock.plugins.module_utils._spec.choices import IPV4, IPV6


class OsRelease(NamedTuple):
    """What os-release(5) says."""

    id: str
    """``debian``; empty where there is no such file."""
    version: str
    """``12``; empty in releases that are not out yet."""
    like: Tuple[str, ...]
    """The distributions that it derives from, the nearest first."""
    name: str
    """What a person calls it."""


class Package(NamedTuple):
    """A package, and how it is known whether it is needed."""

    name: str
    provides: str
    """A command, or a unit with its suffix; where the host has it already, the package is not needed."""
    to_persist: bool
    """Whether it is only needed to keep the rules over a reboot."""


class Distribution(NamedTuple):
    """How to install on a distribution, and what loads its rules at boot."""

    manager: str
    """``apt``, ``dnf``, or ``none`` where it is not known how to install."""
    packages: Tuple[Package, ...]
    """For iptables, and to keep its rules."""
    knockd_packages: Tuple[Package, ...]
    """For the engine knockd."""
    nftables_packages: Tuple[Package, ...]
    """For the engine nftables, which needs nothing else."""
    services: Dict[str, str]
    """Family to the service that loads its rules at boot."""
    fallback: Tuple[str, ...] = ()
    """The packages by the names of other releases, where the first names are not found."""
    sample_files: Tuple[str, ...] = ()
    """Rules files that the packages bring, with rules in them, where there are none yet."""
    knockd_source: str = ""
    """Where the package of knockd is to be had."""
    kernel_package: str = ""
    """The package with the kernel's modules of netfilter; empty where they come with the kernel."""


_EL_SERVICES = {IPV4: "iptables", IPV6: "ip6tables"}
_EL_SAMPLES = (RULES_FILES["el"][IPV4], RULES_FILES["el"][IPV6])
_EL_KNOCKD = (Package("knock-server", "knockd", False), Package("iproute", "ip", False))
_EPEL = (
    "knock-server is not in RHEL but in EPEL: enable that (dnf install epel-release, on RHEL itself as "
    "https://docs.fedoraproject.org/en-US/epel/ says), and run this again."
)
_EPEL_10 = (
    "knock-server is not in RHEL, and EPEL 10 may not have it either. If it does (dnf install epel-release, on RHEL "
    "itself as https://docs.fedoraproject.org/en-US/epel/ says, then dnf info knock-server), run this again."
)

# Its service, which no distribution enables by itself, is not needed: the collection loads its own table.
_NFTABLES = (Package("nftables", "nft", False),)

_DEBIAN = Distribution(
    manager="apt",
    packages=(
        Package("iptables", "iptables", False),
        Package("iptables-persistent", "iptables-persistent", True),
    ),
    knockd_packages=(Package("knockd", "knockd", False), Package("iproute2", "ip", False)),
    nftables_packages=_NFTABLES,
    services={IPV4: "netfilter-persistent", IPV6: "netfilter-persistent"},
)
_EL_8 = Distribution(
    manager="dnf",
    packages=(Package("iptables", "iptables", False), Package("iptables-services", "iptables.service", True)),
    knockd_packages=_EL_KNOCKD,
    nftables_packages=_NFTABLES,
    services=_EL_SERVICES,
    sample_files=_EL_SAMPLES,
    knockd_source=_EPEL,
)
# EPEL's iptables-services would bring the legacy stack instead.
_EL_9 = _EL_8._replace(
    packages=(
        Package("iptables-nft", "iptables", False),
        Package("iptables-nft-services", "iptables.service", True),
    )
)
# Every match and target that iptables needs is in the kernel's extra modules, and nothing pulls them in.
_EL_10 = _EL_9._replace(knockd_source=_EPEL_10, kernel_package="kernel-modules-extra")
# Which of the two names there is depends on the release.
_FEDORA = _EL_8._replace(
    packages=(Package("iptables-nft", "iptables", False), Package("iptables-services", "iptables.service", True)),
    fallback=("iptables-nft", "iptables-nft-services"),
    knockd_source=(
        "knock-server is in Fedora's own repositories: check that they are enabled (dnf repolist), and run this again."
    ),
)

UNKNOWN = Distribution(manager="none", packages=(), knockd_packages=(), nftables_packages=(), services={})
"""Any other distribution."""

SUPPORTED = "Debian 11 to 13, Ubuntu 22.04, 24.04 and 26.04, RHEL 8 to 10 and its rebuilds, Fedora"

_TABLES = {"debian": _DEBIAN, "redhat-8": _EL_8, "redhat-9": _EL_9, "redhat-10": _EL_10, "fedora": _FEDORA}
_FAMILIES = {
    "debian": "debian", "ubuntu": "debian",
    "rhel": "redhat", "rocky": "redhat", "almalinux": "redhat", "centos": "redhat", "ol": "redhat",
    "fedora": "fedora",
}  # fmt: skip
# Debian's derivatives and the rebuilds of RHEL share their parent's table.
_PARENTS = (("debian", "debian"), ("rhel", "redhat"))
# iptables before 1.8.4 cannot do what the ruleset needs.
_OLDEST = {"debian": "11", "ubuntu": "22.04"}
# knockd before 0.8. Ubuntu has a later one in every release that is new enough for the rest.
_OLDEST_WITH_KNOCKD = {"debian": "12"}


def parse_os_release(text: str) -> OsRelease:
    """Return what the text of an os-release file says; nothing is in it where the text is empty."""
    fields = {}
    for name, value in re.findall(r"^[ \t]*([A-Z0-9_]+)=(.*)$", text, re.M):
        fields[name] = _unquoted(value)
    found, version = fields.get("ID", ""), fields.get("VERSION_ID", "")
    name = fields.get("PRETTY_NAME") or f"{found} {version}".strip()
    return OsRelease(found, version, tuple(fields.get("ID_LIKE", "").split()), name or "This distribution")


def _unquoted(value: str) -> str:
    try:
        return "".join(shlex.split(value)[:1])
    except ValueError:
        return value.strip("\"' \t")


def distribution_of(release: OsRelease) -> Distribution:
    """Return the Distribution for a release, UNKNOWN where there is no table for it."""
    family = _FAMILIES.get(release.id) or next((parent for name, parent in _PARENTS if name in release.like), "")
    major = release.version.partition(".")[0]
    return _TABLES.get(f"{family}-{major}") or _TABLES.get(family) or UNKNOWN


def is_too_old(release: OsRelease) -> bool:
    """Return whether the iptables of a release is too old."""
    return _is_before(release, _OLDEST)


def has_old_knockd(release: OsRelease) -> bool:
    """Return whether the knockd of a release is too old."""
    return _is_before(release, _OLDEST_WITH_KNOCKD)


def _is_before(release: OsRelease, oldest: Dict[str, str]) -> bool:
    first = oldest.get(release.id, "")
    return bool(first and release.version) and _numbers(release.version) < _numbers(first)


def _numbers(version: str) -> Tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", version))


__all__ = (
    "SUPPORTED",
    "UNKNOWN",
    "Distribution",
    "OsRelease",
    "Package",
    "distribution_of",
    "has_old_knockd",
    "is_too_old",
    "parse_os_release",
)
