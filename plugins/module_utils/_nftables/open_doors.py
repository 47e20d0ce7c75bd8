# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who has a door open, changed by hand: in the set of the door in the kernel, where a knock puts its source too."""

from typing import Any, List

from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.recent_lists import network_of
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.doors import read_doors
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.elements import (
    Element,
    forget_text,
    put_text,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import TABLE, open_set, set_for
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.nft import Nft
from ansible_collections.sesame.portknock.plugins.module_utils._open_doors import DoorHere, OpenDoors
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4, family_of


class TableDoors(OpenDoors):
    """The doors of the table, and the sets of the sources that have them open."""

    def __init__(self, nft: Nft, text: str) -> None:
        """Take the command nft, and the text that the table was loaded from."""
        self._nft, self._read = nft, read_doors(text)

    def doors(self) -> List[DoorHere]:
        return list(self._read.doors)

    def open(self, door: str, source: Any) -> None:
        here = [each for each in self._of(door) if each.ip_version == family_of(source)]
        if not here:
            version = "IPv4" if family_of(source) == IPV4 else "IPv6"
            raise HostError(f"the table has no door {door} for {version}. See: portknock status")
        installed = self._nft.installed()
        if installed is None or _set_of(here[0]) not in installed.sets:
            raise HostError(f"the kernel has no set of the sources that have door {door} open. See: portknock status")
        element = Element(network_of(source, self._read.ipv6_prefix), here[0].window)
        self._nft.load(put_text(_set_of(here[0]), element))

    def close(self, door: str, source: Any = None) -> List[str]:
        closed: List[str] = []
        for each in self._of(door):
            name = _set_of(each)
            known = [element.source for element in self._known(name)]
            if source is None and known:
                self._nft.load(f"flush set {TABLE} {name}\n")
                closed += [str(address) for address in known]
            elif source is not None and network_of(source, self._read.ipv6_prefix) in known:
                network = network_of(source, self._read.ipv6_prefix)
                self._nft.load(forget_text(name, network))
                closed.append(str(network))
        return closed

    def remembers(self, door: str, source: Any) -> bool:
        network = network_of(source, self._read.ipv6_prefix)
        return any(network == element.source for each in self._of(door) for element in self._known(_set_of(each)))

    def _known(self, name: str) -> List[Element]:
        """Return who is in a set; none where it is gone, as after a flush by hand.

        :raises HostError: if it cannot be read.
        """
        try:
            return self._nft.elements(name)
        except HostError:
            installed = self._nft.installed()
            if installed is not None and name in installed.sets:
                raise
            return []

    def _of(self, door: str) -> List[DoorHere]:
        return [each for each in self._read.doors if each.name == door]


def _set_of(door: DoorHere) -> str:
    return set_for(open_set(door), door.ip_version)


__all__ = ("TableDoors",)
