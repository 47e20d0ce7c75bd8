# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is on a host of our table: doors, who has them open, counters, drift, findings. Reads only."""

import json
import re
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding, Report
from ansible_collections.sesame.portknock.plugins.module_utils._names.comments import (
    ENTRANCE,
    REFUSE_NOT_KNOCKED,
    STEP,
    WRONG_PORT,
    Meaning,
    meaning_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import Item, expressions, rules_in
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.doors import DoorsRead, read_doors
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.elements import Element
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.installed import Installed, drift
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import DIGITS, TABLE, open_set, set_for
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.nft import Nft
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.text import read_text
from ansible_collections.sesame.portknock.plugins.module_utils._open_doors import DoorHere
from ansible_collections.sesame.portknock.plugins.module_utils._paths import STATE_FILE
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import FAMILIES
from ansible_collections.sesame.portknock.plugins.module_utils._spec.words import networks

PART = "table"
_DIGIT = re.compile(r'@[a-z]+([46])(?![0-9a-z])|"right": "ipv([46])"')


class Counters:
    """What the rules of the table have counted, in packets."""

    def __init__(self, items: Sequence[Item]) -> None:
        """Take a listing with counters."""
        self.doors: Dict[Tuple[str, str], Dict[str, int]] = {}
        """(door, digit of the IP version) to ``let_in``, ``knocked`` and ``refused``; what goes to a port of several doors counts for
        each of them."""
        self.refused = self.wrong_knocks = 0
        entrances: Dict[Tuple[str, str], Set[str]] = {}
        for rule in rules_in(items, *TABLE.split()):
            counted = [each["counter"] or {} for each in expressions(rule) if "counter" in each]
            packets = sum(each.get("packets", 0) for each in counted)
            meaning, digit = meaning_of(str(rule.get("comment", "")).partition(" ")[2]), _digit_of(rule)
            doors = entrances.setdefault((rule["chain"], digit), set())
            if meaning.kind == ENTRANCE:
                doors.add(meaning.door)
            self._count(meaning, digit, doors, packets)

    def _count(self, meaning: Meaning, digit: str, doors: Set[str], packets: int) -> None:
        if meaning.kind == ENTRANCE:
            self.of(meaning.door, digit)["refused" if meaning.panic else "let_in"] += packets
        elif meaning.kind == STEP and meaning.number == meaning.total:
            self.of(meaning.door, digit)["knocked"] += packets
        elif meaning == REFUSE_NOT_KNOCKED:
            for door in doors:
                self.of(door, digit)["refused"] += packets
        if meaning == REFUSE_NOT_KNOCKED or meaning.panic:
            self.refused += packets
        elif meaning == WRONG_PORT:
            self.wrong_knocks += packets

    def of(self, door: str, digit: str) -> Dict[str, int]:
        """Return what was counted of a door, for the digit of an IP version."""
        return self.doors.setdefault((door, digit), dict(let_in=0, knocked=0, refused=0))


def _digit_of(rule: Item) -> str:
    """Return the digit of the IP version that a rule is for, '' where it is for both: its sets, or what it asks, tell."""
    found = _DIGIT.search(json.dumps(rule.get("expr", "")))
    return "".join(filter(None, found.groups())) if found else ""


def inspect_table(host: Any, nft: Nft, installed: Optional[Installed], text: str, report: Report) -> Report:
    """Return a Report with what there is to say of the table.

    :param host: a Host.
    :param installed: the table as it is, None where it is gone.
    :param text: what it is, or was, loaded from; '' where that is not known.
    :raises HostError: if it cannot be read.
    """
    read = read_doors(text)
    remembered = json.loads(host.filesystem.read(STATE_FILE) or "{}").get(PART, {})
    counted = Counters(nft.counted() if installed is not None else [])
    known = {door: _known(nft, door, installed) for door in read.doors}
    facts = dict(
        report.facts,
        backend="",
        published=read.published,
        ip_versions=[family for family in FAMILIES if any(door.ip_version == family for door in read.doors)],
        refused=counted.refused,
        wrong_knocks=counted.wrong_knocks,
        lists=[
            dict(door=door.name, ip_version=door.ip_version, size=size, entries=len(elements))
            for door, (size, elements) in known.items()
        ],
        proof=[],
    )
    return report._replace(
        installed=dict(report.installed, **{PART: True}),
        doors=report.doors + [_door(door, read, counted, elements) for door, (_size, elements) in known.items()],
        steps=dict(report.steps, **read.steps),
        drift=report.drift + _drift(installed, text, remembered.get("shape", "")),
        findings=report.findings + _findings(installed, bool(remembered.get("persist", True))),
        facts=facts,
    )


def _known(nft: Nft, door: DoorHere, installed: Optional[Installed]) -> Tuple[int, List[Element]]:
    name = set_for(open_set(door), door.ip_version)
    return nft.size_and_elements(name) if installed is not None and name in installed.sets else (0, [])


def _door(door: DoorHere, read: DoorsRead, counted: Counters, elements: List[Element]) -> Dict[str, Any]:
    return dict(
        name=door.name,
        ip_version=door.ip_version,
        opens=list(door.opens),
        steps=read.steps.get(door.name, 0),
        window=door.window,
        open_for={str(element.source): element.seconds for element in elements},
        **({"to": networks(door.to)} if door.to else {}),
        **counted.of(door.name, DIGITS[door.ip_version]),
    )


def _drift(installed: Optional[Installed], text: str, shape: str) -> List[str]:
    if installed is None:
        return [f"table {TABLE}: it is gone"]
    if not text:
        return [f"table {TABLE}: the text that it was loaded from is gone, so it is not known what it should be"]
    found = drift(read_text(text), installed)
    if not found and installed.is_edited(shape):
        found = ["a rule or a set was edited"]
    return [f"table {TABLE}: {line}" for line in found]


def _findings(installed: Optional[Installed], persist: bool) -> List[Finding]:
    if installed is not None:
        return []
    again = (
        "Put it back: systemctl restart portknock." if persist else "Run knock_ruleset again, with persist set to true."
    )
    message = (
        f"the table {TABLE} was loaded here and is gone, as 'nft flush ruleset' does, so the doors' ports are as open as the rest leaves "
        f"them. {again}"
    )
    return [Finding("doors_gone", "", "", message)]


__all__ = ("PART", "Counters", "inspect_table")
