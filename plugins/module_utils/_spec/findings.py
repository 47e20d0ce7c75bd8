# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Findings that need no host: doors that any scan opens, and what needs no knock although it is much. Pure."""

from typing import Any, List

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding
from ansible_collections.sesame.portknock.plugins.module_utils._spec.coverage import Coverage, coverages

_NAMES = {4: ("IPv4", "ipv4"), 6: ("IPv6", "ipv6")}
_MOST_SHOWN = 5


def spec_findings(spec: Any) -> List[Finding]:
    """Return what a Spec alone gives reason to say."""
    found = [single_step(index, door.name) for index, door in enumerate(spec.doors) if len(door.knock) == 1]
    return found + [_broad_trust(each) for each in coverages(spec) if each.is_broad]


def _broad_trust(coverage: Coverage) -> Finding:
    name, family = _NAMES[coverage.version]
    networks = sorted(coverage.networks, key=lambda network: network.prefixlen)
    shown = ", ".join(map(str, networks[:_MOST_SHOWN])) + (", ..." if len(networks) > _MOST_SHOWN else "")
    doors = f"door {coverage.door}" if coverage.door else "any door"
    message = (
        f"{coverage.option}: {100 * coverage.share:.2g} % of all public {name} addresses ({shown}) need no knock for {doors}. "
        "Name your own addresses alone."
    )
    return Finding("broad_trust", family, "", message)


def single_step(index: int, name: str) -> Finding:
    """Return the Finding for a door of one step."""
    message = (
        f"doors[{index}].knock: door {name!r} opens to one step, so any port scan opens it for the scanner. "
        "Give it two steps or more."
    )
    return Finding("single_step", "", "", message)


__all__ = ("single_step", "spec_findings")
