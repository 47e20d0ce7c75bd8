# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Findings that need no host: doors that any scan opens. Pure."""

from typing import Any, List

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding


def spec_findings(spec: Any) -> List[Finding]:
    """Return what a Spec alone gives reason to say."""
    return [single_step(index, door.name) for index, door in enumerate(spec.doors) if len(door.knock) == 1]


def single_step(index: int, name: str) -> Finding:
    """Return the Finding for a door of one step."""
    message = (
        f"doors[{index}].knock: door {name!r} opens to one step, so any port scan opens it for the scanner. "
        "Give it two steps or more."
    )
    return Finding("single_step", "", "", message)


__all__ = ("single_step", "spec_findings")
