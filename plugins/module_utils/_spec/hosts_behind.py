# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Doors to hosts behind this one: the option ``to``, and which of them would be in each other's way. Pure."""

import ipaddress
from typing import Any, List, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Door, Network, Spec
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import PortIndex, ports_name
from ansible_collections.sesame.portknock.plugins.module_utils._spec.values import read_network, read_strings


def read_hosts_behind(value: Any, path: str, versions: Sequence[str]) -> Tuple[Network, ...]:
    """Return the addresses of hosts behind this one, as few networks as can name them.

    :raises SpecError: for what is no address, and for what would be everything that is forwarded, outwards as well.
    """
    found = [(read_network(item, where, versions), where) for item, where in read_strings(value, path)]
    for network, where in found:
        if network.prefixlen == 0:
            raise SpecError(
                where,
                f"{network} is every address, so what hosts behind this one connect to elsewhere would be closed as well. "
                "Name the addresses of the hosts behind this one.",
            )
    networks: List[Any] = [network for network, _where in found]
    return tuple(
        network
        for version in (4, 6)
        for network in ipaddress.collapse_addresses([each for each in networks if each.version == version])
    )


def overlap(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Return whether some address is in networks of both."""
    return any(a.version == b.version and a.overlaps(b) for a in one for b in other)


def check_hosts_behind(spec: Spec, prefix: str) -> None:
    """Refuse two doors that open the same port of the same host behind this one.

    :raises SpecError: for the first that is found.
    """
    behind = [(index, door) for index, door in enumerate(spec.doors) if door.to]
    for number, (index, door) in enumerate(behind):
        for earlier, other in behind[:number]:
            if overlap(door.to, other.to):
                _check_pair((index, door), (earlier, other), prefix)


def _check_pair(later: Tuple[int, Door], earlier: Tuple[int, Door], prefix: str) -> None:
    opened = PortIndex((ports, ports) for ports in earlier[1].opens)
    for number, ports in enumerate(later[1].opens):
        if opened.find(ports) is not None:
            raise SpecError(
                f"{prefix}doors[{later[0]}].opens[{number}]",
                f"{ports_name(ports)} is also opened by door {earlier[1].name!r}, for addresses in {prefix}doors[{earlier[0]}].to "
                f"that {prefix}doors[{later[0]}].to has as well: either knock would open it. Name different hosts in the two.",
            )


__all__ = ("check_hosts_behind", "overlap", "read_hosts_behind")
