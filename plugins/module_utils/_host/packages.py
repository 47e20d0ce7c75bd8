# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is to be installed on a host, and what is refused. Pure: facts in, decision out."""

from typing import FrozenSet, List, NamedTuple, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._host.distributions import (
    SUPPORTED,
    Distribution,
    Package,
    distribution_of,
    has_old_knockd,
    is_too_old,
)
from ansible_collections.sesame.portknock.plugins.module_utils._host.facts import MISSING, HostFacts
from ansible_collections.sesame.portknock.plugins.module_utils._host.other_firewalls import (
    DISABLE,
    FAIL,
    UFW,
    firewalls_in_use,
    refusal,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import ENGINES, KNOCKD

_EXCLUDED_BY_UFW = "iptables-persistent"
_LOADER = "netfilter-persistent"
_USE_IPTABLES = "Set portknock_engine to iptables: the kernel then recognises the knocks itself, and needs no daemon."


class Wanted(NamedTuple):
    """The options of the role that the decision depends on."""

    engine: str
    """Who recognises the knocks."""
    persist: bool
    """Whether the rules are kept over a reboot."""
    ip_versions: Tuple[str, ...]
    """The families that are managed."""
    conflicting_firewall: str
    """FAIL or DISABLE: what to do about another firewall."""


class Installation(NamedTuple):
    """Packages that are installed in one go, and what belongs to it. Several are carried out in their order."""

    packages: List[str]
    """What is to be installed."""
    fallback: List[str]
    """What is tried where that fails; empty where nothing is."""
    sample_files: List[str]
    """Rules files to be written before, empty, where there are none: the package's samples must not be loaded."""
    preseed: List[str]
    """Questions of debconf to be answered with no before."""
    keep_down: List[str]
    """Services to be stopped and disabled as soon as they are installed."""
    failure: str
    """What to say where it fails, as the beginning of a sentence that the package manager's reason ends."""
    advice: str
    """What the operator can do then."""


class Firewalls(NamedTuple):
    """Other firewalls in use, and what their packages exclude. The module knock_ruleset switches them off."""

    found: List[str]
    """Those that are active, or enabled for the next boot."""
    ufw_removed: bool
    """Whether the installation of iptables-persistent removes the package of ufw."""


class Decision(NamedTuple):
    """What is done to a host."""

    refusals: List[str]
    """Why nothing at all may be done, a message for the operator each; empty where something may."""
    install_refusal: str
    """Why nothing may be installed; empty where it may."""
    manager: str
    """``apt``, ``dnf`` or ``none``."""
    installations: List[Installation]
    """What is to be installed before the rules are written."""
    later: List[Installation]
    """What is to be installed once they are kept, because it removes the package of a firewall that the change switches off."""
    may_remove: bool
    """Whether the installation may remove packages that exclude what is installed."""
    firewalls: Firewalls
    """Other firewalls."""


def decide(facts: HostFacts, wanted: Wanted) -> Decision:
    """Return what is done to a host with these facts."""
    distribution = distribution_of(facts.release)
    firewalls = _firewalls(facts, wanted)
    return Decision(
        refusals=_refusals(facts, wanted, firewalls),
        install_refusal=_install_refusal(facts, distribution),
        manager=distribution.manager,
        installations=_installations(facts, wanted, distribution, firewalls.ufw_removed),
        later=_with_apt([_EXCLUDED_BY_UFW], [], facts) if firewalls.ufw_removed else [],
        may_remove=wanted.conflicting_firewall == DISABLE,
        firewalls=firewalls,
    )


# Refusals


def _refusals(facts: HostFacts, wanted: Wanted, firewalls: Firewalls) -> List[str]:
    found: List[str] = []
    if not facts.root:
        found.append(
            "Only root can read and write packet filter rules, and these tasks run as another user. Nothing was "
            "changed. Set become: true on the play, or run ansible-playbook with --become."
        )
    # Here, so that nothing is installed on a host that cannot use it. The module knock_ruleset refuses as well.
    if wanted.engine == KNOCKD and not facts.systemd:
        found.append(
            "portknock_engine is knockd, and systemd does not run on this host: nothing here could start the daemon, "
            f"keep it running and put it back if the change is undone. Nothing was changed. {_USE_IPTABLES}"
        )
    if wanted.engine == KNOCKD and has_old_knockd(facts.release):
        found.append(
            f"portknock_engine is knockd, and the knockd of {facts.release.name} is older than 0.8: it does not know "
            f"IPv6, and its unit cannot be enabled, so that no door would open after a reboot. Nothing was changed. "
            f"{_USE_IPTABLES}"
        )
    if wanted.conflicting_firewall == FAIL:
        found += _firewall_refusals(firewalls)
    return found


def _firewall_refusals(firewalls: Firewalls) -> List[str]:
    found = []
    if firewalls.found:
        found.append(refusal(firewalls.found, "portknock_"))
    if firewalls.ufw_removed and UFW not in firewalls.found:
        found.append(
            "ufw is installed on this host (switched off), and its package excludes iptables-persistent, which "
            "portknock_persist needs: installing the one removes the other. Nothing was changed. Remove ufw by hand, "
            "or set portknock_conflicting_firewall to disable to have it removed, or set portknock_persist to false "
            "to do without rules that outlive a reboot."
        )
    return found


def _install_refusal(facts: HostFacts, distribution: Distribution) -> str:
    if distribution.manager != "none" and not is_too_old(facts.release):
        return ""
    return (
        f"{facts.release.name} is not one of the distributions this role knows how to install on ({SUPPORTED}). "
        "Nothing was changed. If it has iptables 1.8.4 or later, install that by hand, set portknock_persist to false "
        "and run with --tags portknock_ruleset."
    )


# Packages


def _installations(
    facts: HostFacts, wanted: Wanted, distribution: Distribution, ufw_removed: bool
) -> List[Installation]:
    if not ENGINES[wanted.engine].uses_iptables:
        return _nftables(_missing(distribution.nftables_packages, facts.provided), facts, distribution)
    iptables = [
        package.name
        for package in _missing(distribution.packages, facts.provided)
        if (wanted.persist or not package.to_persist) and not (ufw_removed and package.name == _EXCLUDED_BY_UFW)
    ]
    knockd = _missing(distribution.knockd_packages, facts.provided) if wanted.engine == KNOCKD else []
    names = [package.name for package in knockd]
    keep_down = [KNOCKD] if names and KNOCKD not in facts.commands else []
    if distribution.manager == "apt":
        return _with_apt(names + iptables, keep_down, facts)
    # Alone and first: the repositories may not have it, and then nothing is to have been installed.
    return (
        _knockd_with_dnf(names, keep_down, distribution)
        + _iptables_with_dnf(iptables, facts, wanted, distribution)
        + _kernel_with_dnf(facts, distribution)
    )


def _nftables(missing: Sequence[Package], facts: HostFacts, distribution: Distribution) -> List[Installation]:
    packages = [package.name for package in missing]
    if distribution.manager == "apt" or not packages:
        return _with_apt(packages, [], facts)
    return [Installation(packages, [], [], [], [], _not_installed(packages), _enable_repositories(facts))]


def _enable_repositories(facts: HostFacts) -> str:
    return f"Check that the repositories of {facts.release.name} are enabled (dnf repolist), and run this again."


def _missing(packages: Sequence[Package], provided: FrozenSet[str]) -> List[Package]:
    return [package for package in packages if package.provides not in provided]


def _with_apt(packages: List[str], keep_down: List[str], facts: HostFacts) -> List[Installation]:
    if not packages:
        return []
    # Otherwise the package's first installation freezes whatever is live, passing rules of container engines and
    # bans included, into the rules file.
    persistent = _EXCLUDED_BY_UFW in packages
    questions = [f"{_EXCLUDED_BY_UFW}/autosave_v4", f"{_EXCLUDED_BY_UFW}/autosave_v6"] if persistent else []
    # Installing it enables its service, and what the next boot loads is not judged yet.
    if persistent and facts.systemd and _LOADER not in facts.units.enabled:
        keep_down = [*keep_down, _LOADER]
    advice = "Check that apt-get update and apt-get install work on this host, and run this again."
    return [Installation(packages, [], [], questions, keep_down, _not_installed(packages), advice)]


def _knockd_with_dnf(packages: List[str], keep_down: List[str], distribution: Distribution) -> List[Installation]:
    if not packages:
        return []
    failure = f"{', '.join(packages)}, which the engine knockd needs, could not be installed"
    advice = (
        f"Nothing was installed, and no rule was written. {distribution.knockd_source} Or set portknock_engine to "
        "iptables: the same doors, recognised by the kernel, without any further package."
    )
    return [Installation(packages, [], [], [], keep_down, failure, advice)]


def _iptables_with_dnf(
    packages: List[str], facts: HostFacts, wanted: Wanted, distribution: Distribution
) -> List[Installation]:
    if not packages:
        return []
    # The package brings a sample that lets everyone in to port 22 and rejects the rest. Where there was no rules
    # file, installing must not change what can be reached: the sample is then put beside it (.rpmnew).
    samples = list(distribution.sample_files) if wanted.persist else []
    return [
        Installation(
            packages,
            list(distribution.fallback),
            samples,
            [],
            [],
            _not_installed(packages),
            _enable_repositories(facts),
        )
    ]


def _kernel_with_dnf(facts: HostFacts, distribution: Distribution) -> List[Installation]:
    if not distribution.kernel_package or facts.kernel_modules != MISSING:
        return []
    package = f"{distribution.kernel_package}-{facts.kernel}"
    failure = (
        f"The kernel of this host has no xt_recent, xt_conntrack or nft_compat, which are in {package}, and that "
        "package could not be installed"
    )
    advice = (
        "Repositories often have it for their newest kernel only: install kernel and kernel-modules-extra "
        "(dnf install kernel kernel-modules-extra), reboot into it and run this again."
    )
    return [Installation([package], [], [], [], [], failure, advice)]


def _not_installed(packages: List[str]) -> str:
    return f"{', '.join(packages)} could not be installed"


# Other firewalls


def _firewalls(facts: HostFacts, wanted: Wanted) -> Firewalls:
    uses_iptables = ENGINES[wanted.engine].uses_iptables
    persists = wanted.persist and uses_iptables
    return Firewalls(
        found=firewalls_in_use(facts.units.active | facts.units.enabled, facts.ufw_on, uses_iptables),
        ufw_removed=(facts.ufw_excludes_persistent and persists and _EXCLUDED_BY_UFW not in facts.commands),
    )


__all__ = ("Decision", "Firewalls", "Installation", "Wanted", "decide")
