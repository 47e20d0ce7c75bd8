# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A door to one port, and whether it is open by all accounts."""

from collections.abc import Iterable
from typing import Any

from rig.knockd import WRONG
from rig.network import Rig
from rig.packets import IPV4, IPV6
from rig.peer import OPEN, PATIENCE, REFUSED, Peer
from rig.target import door

PORT = 2222
UDP_PORT = "514/udp"
EIGHT = (7000, "9100/udp", 3100, "5200/udp", 8300, 4400, "6100/udp", 9900)
PORTS = (7000, 9100, 3100, 5200, 8300, 4400, 6100, 9900)
A, B, C = EIGHT[:3]
TCP_ONLY = (7000, 9100, 3100)
WRONG_UDP = f"{WRONG}/udp"
PUBLIC, PUBLIC_UDP = 443, "5353/udp"
ALLOW = [{"port": "443"}, {"port": "5353/udp"}]
PREFIX = {IPV4: "pk4_", IPV6: "pk6_"}


def prepare(rig: Rig, *knock: int | str, **more: Any) -> None:
    """Load one door to PORT."""
    rig.target.apply(door(*knock, opens=(PORT, UDP_PORT), **more), allow=ALLOW)


def breaker(rig: Rig) -> int | str:
    """Return a port that breaks a knock: to knockd a wrong one is none, it looks at its own alone."""
    return rig.target.daemon.breaker if rig.target.daemon else WRONG


def opened(rig: Rig, family: str, name: str = "ssh", port: int = PORT, peer: Peer | None = None) -> bool:
    """Return whether the door is open; list and answer must say the same, for TCP and for UDP."""
    peer = peer or rig.client
    # It answers in any case: on a busy machine later, and that it is late says nothing.
    answer = peer.probe(port, family, patience=10 * PATIENCE)
    listed = peer.addresses[family] in addresses(rig.target.listed(PREFIX[family] + name))
    assert answer in (OPEN, REFUSED[family])
    assert listed == (answer == OPEN), (answer, listed)
    return listed


def addresses(listed: Iterable[str]) -> set[str]:
    """Return addresses as ipaddress writes them; the kernel prints IPv6 in full."""
    import ipaddress

    return {str(ipaddress.ip_address(text)) for text in listed}
