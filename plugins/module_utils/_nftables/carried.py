# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who has knocked, taken along when a host changes from an engine that keeps lists of xt_recent. Pure."""

from typing import Dict, List, Mapping

from ansible_collections.sesame.portknock.plugins.module_utils._engine import address_of
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.recent_lists import (
    guess_hertz,
    network_of,
    read_list,
    seconds_left,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.elements import Element
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import families_of, open_set
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Spec


def known_of_lists(spec: Spec, lists: Mapping[str, str], uptime: float) -> Dict[str, List[Element]]:
    """Return who is to be in the sets of a table, for as long as the door's window has left for them.

    :param spec: what is wanted now. Doors are known by their names; of IPv6 a list of another prefix tells too little.
    :param lists: name to text of the kernel's lists.
    :param uptime: seconds since boot.
    """
    every = [entry for text in lists.values() for entry in read_list(text)]
    hertz = guess_hertz(every, uptime)
    known: Dict[str, List[Element]] = {}
    for family in families_of(spec) if hertz else ():
        names = Lists(family.name, spec.ipv6_prefix)
        for door in spec.doors:
            left = seconds_left(read_list(lists.get(names.door(door), "")), door.window, uptime, hertz or 1)
            elements = {network_of(address_of(source), spec.ipv6_prefix): seconds for source, seconds in left.items()}
            if elements:
                known[family.set(open_set(door))] = [Element(*item) for item in sorted(elements.items())]
    return known


__all__ = ("known_of_lists",)
