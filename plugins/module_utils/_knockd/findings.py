# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an operator should know of knockd on a host. Pure."""

from typing import Any, List, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.config import seq_timeout
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV6
from ansible_collections.sesame.portknock.plugins.module_utils._spec.sequences import sequences_of

_ETHERNET = ("1", "772")
"""ARPHRD_ETHER and ARPHRD_LOOPBACK of linux/if_arp.h: where knockd knows how to find an IPv6 header."""


def findings(spec: Any, families: Sequence[str], interface: str, kind: str) -> List[Finding]:
    """Return what an operator should know of knockd on this host.

    :param kind: the text of /sys/class/net/INTERFACE/type.
    """
    found = []
    if IPV6 in families and kind.strip() not in _ETHERNET:
        message = (
            f"knockd_interface: {interface} is no Ethernet interface, and on others knockd sees no IPv6: over IPv6 no door "
            "opens. Choose another interface, knock over IPv4, or set engine to iptables."
        )
        found.append(Finding("knockd", IPV6, "", message))
    found += [
        Finding(
            "knockd", "", "",
            f"doors[{index}].{key}[0]: this first step is also a later step of another knock. After a packet that got lost knockd may take "
            "one for the other until the time is over; our clients know how to get in all the same, others do not. Begin it with a port "
            "of its own.",
        )
        for index, key in _ambiguous(spec)
    ]  # fmt: skip
    times = [
        f"{door.name}: {seq_timeout(door, door.knock)} s for {len(door.knock)} steps"
        for door in spec.doors
        if len(door.knock) > 1
    ]
    if times:
        message = (
            "doors[].step_timeout: knockd knows no time between two steps, only one for the whole knock from its first step on. "
            "It gets the same time in all ({0}).".format("; ".join(times))
        )
        found.append(Finding("knockd", "", "", message))
    return found


def _ambiguous(spec: Any) -> List[Tuple[int, str]]:
    """Return (door's index, key) of the sequences that begin with a later step of any."""
    sequences = sequences_of(spec.doors)
    later = {step for _index, _key, steps in sequences for step in steps[1:]}
    return [(index, key) for index, key, steps in sequences if steps[0] in later]


__all__ = ("findings",)
