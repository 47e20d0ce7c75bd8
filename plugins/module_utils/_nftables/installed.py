# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table as it is in the kernel, read from what ``nft -j`` lists. Pure.

Releases of nft print a rule in different ways, so no rule is compared with another's text. Each of ours has an id in its comment;
the digest in the chain ``about`` says of which text they are; and shape() tells whether one release lists the same as before.
"""

import hashlib
import json
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import ABOUT, STAGE_SETS, TABLE

_ABOUT = re.compile(r"portknock:about ([0-9a-f]{32}) ([0-9a-f]{16})\Z")
_LISTED = ("chain", "set", "map", "rule")
_COUNTED = re.compile(r'"counter": \{[^{}]*\}')
VOLATILE = ("handle", "index", "position")
"""What changes where nothing did."""
_OF_ELEMENTS = ("elem", "count")
"""What a listing says of who is in a set; how many they are in releases after 1.1.3."""


class Installed(NamedTuple):
    """The table as it is."""

    chains: Dict[str, Tuple[str, ...]]
    """Name of a chain to the comments of its rules, '' for a rule that has none."""
    sets: Dict[str, str]
    """Name of a set to the type of its elements."""
    maps: Tuple[str, ...]
    """Names of maps. None of them is ours."""
    digest: str
    """That of the text that was loaded, '' where none is said."""
    layout: str
    """The layout of the Table that it was, '' where none is said."""
    shape: str
    """The release of nft and a digest of all that it lists, but for handles, counters and the elements of sets."""

    def is_edited(self, shape: str) -> bool:
        """Return whether it was edited since it had a shape, as far as that can be known.

        :param shape: as the same or another release listed it once it was loaded, '' where that is not known.
        """
        same_release = shape.partition(" ")[0] == self.shape.partition(" ")[0]
        return bool(shape) and same_release and shape != self.shape


def read_installed(items: Sequence[Item]) -> Optional[Installed]:
    """Return the Installed of a listing, None where the table is not in there.

    :param items: what read_listing() returned of the table, or of more.
    """
    ours = [item for item in items if any(is_ours(kind, fields) for kind, fields in item.items())]
    if not ours:
        return None
    chains: Dict[str, List[str]] = {item["chain"]["name"]: [] for item in ours if "chain" in item}
    for item in ours:
        if "rule" in item:
            chains.setdefault(item["rule"]["chain"], []).append(str(item["rule"].get("comment", "")))
    sets = {item["set"]["name"]: _kind(item["set"].get("type")) for item in ours if "set" in item}
    maps = tuple(item["map"]["name"] for item in ours if "map" in item)
    release = next((item["metainfo"].get("version") for item in items if "metainfo" in item), "")
    return installed_of(chains, sets)._replace(maps=maps, shape=f"{release} {_shape(ours)}")


def installed_of(chains: Mapping[str, Sequence[str]], sets: Dict[str, str]) -> Installed:
    """Return the Installed of chains and sets, as that has them; with no maps and an unknown shape."""
    found = [each for each in map(_ABOUT.match, chains.get(ABOUT, ())) if each]
    digest, layout = found[0].groups() if found else ("", "")
    return Installed({name: tuple(comments) for name, comments in chains.items()}, sets, (), digest, layout, "")


def is_ours(kind: str, fields: Any) -> bool:
    """Return whether an object of a listing is the table, or something in it."""
    if not isinstance(fields, dict):
        return False
    name = fields.get("name") if kind == "table" else fields.get("table")
    return f"{fields.get('family')} {name}" == TABLE


def _kind(kind: Any) -> str:
    return " . ".join(map(str, kind)) if isinstance(kind, list) else str(kind)


def _shape(ours: Sequence[Item]) -> str:
    kept = [
        {kind: {key: value for key, value in fields.items() if key not in left_out}}
        for item in ours
        for kind, fields in item.items()
        if kind in _LISTED
        for left_out in [(*VOLATILE, *_OF_ELEMENTS) if kind == "set" else VOLATILE]
    ]
    return hashlib.sha256(uncounted(json.dumps(kept, sort_keys=True)).encode("utf-8")).hexdigest()[:32]


def uncounted(text: str) -> str:
    """Return a listing, or a part of one, as text of JSON without what is counted."""
    return _COUNTED.sub('"counter": null', text)


def drift(wanted: Installed, installed: Installed) -> List[str]:
    """Return what is not as it is wanted, in words; no step in them."""
    found = []
    for name, rules in wanted.chains.items():
        if name not in installed.chains:
            found.append(f"chain {name} is missing")
        elif installed.chains[name] != rules:
            found.append(f"rules of chain {name} were added, removed or edited")
    for name, kind in wanted.sets.items():
        if installed.sets.get(name) != kind:
            found.append(f"{_set_in_words(name)} is {'of another type' if name in installed.sets else 'missing'}")
    for name in (*installed.chains, *installed.sets, *installed.maps):
        if name not in wanted.chains and name not in wanted.sets:
            found.append(f"{_set_in_words(name)} is not one of the collection's")
    return list(dict.fromkeys(found))


def _set_in_words(name: str) -> str:
    """Return a name for people: that of a set of a knock's stages is a digest of its steps."""
    return "a set of knocks in progress" if STAGE_SETS.match(name) else name


__all__ = ("VOLATILE", "Installed", "drift", "installed_of", "is_ours", "read_installed", "uncounted")
