# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who has a door open, changed by hand: on the list of the door in the kernel, where a knock puts its source too."""

import re
from typing import Any, List, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import address_of
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import read_state
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.recent_lists import network_of, read_list
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._open_doors import DoorHere, OpenDoors
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4, family_of
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import ports_name
from ansible_collections.sesame.portknock.plugins.module_utils._tables.commands import Iptables, own_lines
from ansible_collections.sesame.portknock.plugins.module_utils._tables.installed_doors import read_installed
from ansible_collections.sesame.portknock.plugins.module_utils._tables.native import Native
from ansible_collections.sesame.portknock.plugins.module_utils._tables.reading import other_save

_LIST = re.compile(r"pk(?P<version>[46])(?:\.(?P<bits>\d+))?_(?P<door>\w+)\Z")


class RulesetDoors(OpenDoors):
    """The doors of a ruleset, and the lists of the sources that have them open."""

    def __init__(self, host: Any, iptables: Iptables) -> None:
        """Take a Host, and its iptables."""
        self._host, self._iptables = host, iptables

    def doors(self) -> List[DoorHere]:
        return [
            DoorHere(
                door.name,
                family,
                tuple(ports_name(ports) for ports in door.opens),
                door.window,
                door.sources,
                door.once,
                door.to,
            )
            for family in self._host.kernel.families()
            if self._iptables.installed(family)
            for door in read_installed(read_state(parse(self._save(family))).chains).doors
        ]

    def _save(self, family: str) -> str:
        save = self._iptables.save(family)
        # Where the alternative was switched since, ours are in force all the same.
        native = Native(self._host.command.run, self._host.command.find, self._host.nftables.chains)
        return save if own_lines(save) else other_save(self._iptables.other(), native, family) or save

    def open(self, door: str, source: Any) -> None:
        name, bits = self._list_of(door, source)
        if not name:
            raise HostError(f"the kernel has no list of the sources that have door {door} open. See: portknock status")
        self._host.recent_lists.put(name, network_of(source, bits))

    def close(self, door: str, source: Any = None) -> List[str]:
        closed: List[str] = []
        for name, text in self._host.recent_lists.read().items():
            found = _LIST.match(name)
            if found is None or found.group("door") != door:
                continue
            remembered = [entry.source for entry in read_list(text)]
            if source is None:
                self._host.recent_lists.clear(name)
                closed += remembered
            elif _is_for(found, source):
                network = network_of(source, int(found.group("bits") or 128))
                self._host.recent_lists.forget(name, network)
                closed += [each for each in remembered if address_of(each) == network]
        return closed

    def remembers(self, door: str, source: Any) -> bool:
        name, bits = self._list_of(door, source)
        entries = read_list(self._host.recent_lists.read().get(name, ""))
        return network_of(source, bits) in {address_of(entry.source) for entry in entries}

    def _list_of(self, door: str, source: Any) -> Tuple[str, int]:
        """Return the name of a door's list, '' for none, and how many bits of an IPv6 address it looks at."""
        for name in self._host.recent_lists.read():
            found = _LIST.match(name)
            if found is not None and found.group("door") == door and _is_for(found, source):
                return name, int(found.group("bits") or 128)
        return "", 128


def _is_for(found: Any, source: Any) -> bool:
    return (found.group("version") == "4") == (family_of(source) == IPV4)


__all__ = ("RulesetDoors",)
