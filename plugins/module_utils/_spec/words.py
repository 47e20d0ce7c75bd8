# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a Spec means, in words for people; no step of a knock in them. Pure."""

from typing import Any, Dict, Iterable, List, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import (
    KERNEL,
    PUBLISHED_POLICY,
    Allow,
    Door,
    Network,
    Spec,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import ports_name

_MOST_SHOWN = 12


def summary(spec: Spec) -> List[str]:
    """Return what the ruleset of a Spec does, a line for each thing."""
    lines = [_door(door) for door in spec.doors] + _allowed(spec)
    # Everybody takes it for granted that a host reaches itself.
    trusted = networks(spec.trusted_sources) + [name for name in spec.trusted_interfaces if name != "lo"]
    if trusted:
        lines.append(f"no knock needed from: {some(trusted)}")
    if spec.doors and spec.engine != KERNEL:
        lines.append(f"knocks are recognised by: {spec.engine}")
    if spec.published == PUBLISHED_POLICY and spec.policy == "reject":
        lines.append("ports that nat publishes: as those of this host, refused unless a door or allow names them")
    rest = "refused (policy reject)" if spec.policy == "reject" else "left to the other rules (policy accept)"
    return [*lines, f"everything else: {rest}"]


def _door(door: Door) -> str:
    ports = ", ".join(ports_name(ports) for ports in door.opens)
    who = f", if it is in {some(networks(door.sources))}" if door.sources else ""
    once = ", for one new connection" if door.once else ""
    behind = f" of {some(networks(door.to))} behind this host" if door.to else ""
    return f"door {door.name}: {ports}{behind} closed; opens for {door.window} s to the address that knocked{who}{once}"


def _allowed(spec: Spec) -> List[str]:
    """Return the ports that need no knock, a line for each group of sources that may connect to them."""
    groups: Dict[Tuple[Network, ...], List[str]] = {}
    for allow in spec.allow:
        groups.setdefault(allow.sources, []).append(_allow(allow))
    if spec.icmp and spec.policy == "reject":
        groups.setdefault((), []).append("ping")
    return [f"open to {some(networks(sources)) or 'everyone'}: {some(what)}" for sources, what in groups.items()]


def _allow(allow: Allow) -> str:
    return f"{ports_name(allow.ports)} ({allow.comment})" if allow.comment else ports_name(allow.ports)


def some(words: List[str]) -> str:
    """Return words one after the other, and of many how many more there are."""
    more = len(words) - _MOST_SHOWN
    return ", ".join(words) if more <= 0 else f"{', '.join(words[:_MOST_SHOWN])} and {more} more"


def networks(wanted: Iterable[Any]) -> List[str]:
    """Return networks as people write them: a single address without its length."""
    return [str(each.network_address) if each.num_addresses == 1 else str(each) for each in wanted]


__all__ = ("networks", "some", "summary")
