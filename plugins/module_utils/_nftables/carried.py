# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who has knocked, taken along when a host changes between this engine and one that keeps lists of xt_recent. Pure."""

import re
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import address_of
from ansible_collections.sesame.portknock.plugins.module_utils._names.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.recent_lists import (
    guess_hertz,
    network_of,
    read_list,
    seconds_left,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.elements import Element
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import OPEN_SETS, families_of, open_set
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


def lists_for(known: Mapping[str, Sequence[Element]], lists: Sequence[str]) -> List[Tuple[str, Any]]:
    """Return the lists that are to get what was in sets of a table: (name, ``ipaddress`` address) pairs.

    A list says when a source was seen last, so the door's window begins anew for it.

    :param known: name of a set, with the family's digit, to those who were in it.
    :param lists: the names of the kernel's lists.
    """
    found: List[Tuple[str, Any]] = []
    for name, elements in sorted(known.items()):
        of_set = OPEN_SETS.match(name)
        pattern = rf"pk{of_set.group(1)}(?:\.[0-9]+)?_{of_set.group(2)}\Z" if of_set else r"\Z."
        found += [(each, element.source) for each in lists if re.match(pattern, each) for element in elements]
    return found


__all__ = ("known_of_lists", "lists_for")
