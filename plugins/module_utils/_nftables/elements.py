# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who has knocked, read from what ``nft -j`` lists of a set. Pure."""

import ipaddress
from typing import Any, List, NamedTuple, Sequence

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import TABLE


class Element(NamedTuple):
    """A source in a set."""

    source: Any
    """Its ``ipaddress`` address; of IPv6 the bits that must match, the others zero."""
    seconds: int
    """For how much longer it is in there."""


def read_elements(items: Sequence[Item], name: str) -> List[Element]:
    """Return the sources that are in a set of addresses, in the order of their addresses.

    :param items: what read_listing() returned of the set, or of more.
    :param name: the set's name, with the family's digit.
    """
    found = [
        item["set"]
        for item in items
        if "set" in item and f"{item['set'].get('family')} {item['set'].get('table')}" == TABLE
    ]
    listed = [each["elem"] for fields in found if fields.get("name") == name for each in fields.get("elem", ())]
    elements = [
        Element(ipaddress.ip_address(each["val"]), int(each.get("expires", each.get("timeout", 0)))) for each in listed
    ]
    return sorted(elements, key=lambda element: int(element.source))


def add_text(name: str, elements: Sequence[Element]) -> str:
    """Return the text for ``nft -f`` that puts sources into a set, each for as long as it says; '' for none."""
    lines = [f"{element.source} timeout {max(element.seconds, 1)}s" for element in elements]
    return f"add element {TABLE} {name} {{ {', '.join(lines)} }}\n" if lines else ""


def put_text(name: str, element: Element) -> str:
    """Return the text that puts a source into a set for as long as it says, for longer or shorter if it is in there.

    To add what is there changes nothing, and to delete what is not there is an error; so it is added, deleted and added anew, in
    one transaction.
    """
    return forget_text(name, element.source) + add_text(name, [element])


def forget_text(name: str, source: Any) -> str:
    """Return the text that takes a source out of a set, whether it is in there or not."""
    what = f"element {TABLE} {name} {{ {source} }}\n"
    return f"add {what}delete {what}"


__all__ = ("Element", "add_text", "forget_text", "put_text", "read_elements")
