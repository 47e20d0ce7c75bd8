# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of xt_recent's lists, and the matches that look them up. Pure."""

import ipaddress
import re
from typing import Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4, IPV6, Door

OWN_LIST = re.compile(r"pk[46](_|\.[0-9]+_)")
"""How the names of the collection's lists begin."""
FULL_MASK = {IPV4: "255.255.255.255", IPV6: "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}


class Lists:
    """Names and lookups of xt_recent's lists for one family.

    A list takes the mask of the rule that made it and keeps it, so the families never share a name, nor do
    two IPv6 prefixes. Every user of the host can read the names in /proc/net/xt_recent, so those of the lists that
    a knock in progress needs are numbers, which say nothing of a door or its steps. A door's name cannot hold a dot,
    so none of them is ever named as a door.
    """

    def __init__(self, family: str, ipv6_prefix: int) -> None:
        """Take the family and the leading bits of an IPv6 source that must match."""
        self.mask = FULL_MASK[family]
        self.prefix = "pk4_"
        if family == IPV6:
            self.prefix = "pk6_"
            if ipv6_prefix != 128:
                self.prefix = f"pk6.{ipv6_prefix}_"
                self.mask = str(ipaddress.IPv6Network(f"::/{ipv6_prefix}").netmask)
        self.progress = self.numbered(1)

    def door(self, door: Door) -> str:
        """Return the name of the list of sources that have knocked."""
        return self.prefix + door.name

    def notes(self, door: Door) -> Tuple[str, str]:
        """Return the names of the lists of sources that a door has just sent on: by the hook in FORWARD, by that in DOCKER-USER."""
        return f"{self.door(door)}.f", f"{self.door(door)}.u"

    def numbered(self, number: int) -> str:
        """Return the name of a list of sources that are in the middle of a knock."""
        return f"{self.prefix}.{number}"

    def put(self, name: str) -> str:
        """Match always, and put the source on the list."""
        return self._match("--set", name)

    def forget(self, name: str) -> str:
        """Match if the source was on the list, and take it off."""
        return self._match("--remove", name)

    def seen(self, name: str, seconds: int) -> str:
        """Match if the source was put on the list in the last seconds."""
        return self._match(f"--rcheck --seconds {seconds}", name)

    def known(self, name: str) -> str:
        """Match if the source is on the list."""
        return self._match("--rcheck", name)

    def _match(self, what: str, name: str) -> str:
        return f"-m recent {what} --name {name} --mask {self.mask} --rsource"


__all__ = ("FULL_MASK", "OWN_LIST", "Lists")
