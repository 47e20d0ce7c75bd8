# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests ask the prover: one packet of the walker as a set of one, or the doors of a Spec."""

import ipaddress
import json
import os
from typing import Any, Dict, List, Optional, Sequence, Set

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.prove_doors import prove_doors
from ansible_collections.sesame.portknock.plugins.module_utils._names.lists import Lists
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.condition import AnyNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import UNKNOWN, LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_rules import (
    DESTINATION,
    DPORT,
    INTERFACE,
    PROTOCOL,
    SOURCE,
    SPORT,
    STATE,
    Term,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_ruleset import Ruleset
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_space import (
    OPENERS,
    Box,
    Space,
    changed,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.prove_walk import Listed, Walk
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Spec
from walker import Packet
from walker_rules import FLAGS

CORPUS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "corpus")
PROMISED = {
    "doors": [
        {"name": "ssh", "knock": ["7144", "2791/udp", "9318"], "opens": ["22"]},
        {"name": "admin", "knock": ["9100", "2000"], "opens": ["8443", "9000-9010", "53/udp"], "window": 30},
        {"name": "one", "knock": ["40001"], "opens": ["40000/udp", "65535"]},
    ],
    "allow": [{"port": 443}, {"port": "8443", "sources": ["203.0.113.200", "2a00::1"]}],
    "trusted_sources": ["10.1.2.3", "fd00::3"],
    "trusted_interfaces": ["wg0"],
}  # fmt: skip
"""Doors of several kinds, at ports that the rules of foreign.py name."""


def recorded() -> List[Dict[str, Any]]:
    """Return what corpus/index.json says of the recorded rulesets that were in a kernel, each with its text."""
    with open(os.path.join(CORPUS, "index.json"), encoding="utf-8") as stream:
        entries = [entry for entry in json.load(stream) if entry["kind"] == "live"]
    for entry in entries:
        with open(
            os.path.join(CORPUS, entry["file"]), encoding="utf-8", errors="surrogateescape", newline=""
        ) as stream:
            entry["text"] = stream.read()
    return entries


def terms_of(packet: Packet) -> List[Term]:
    """Return what is so of a packet."""
    source, destination = (int(ipaddress.ip_address(text)) for text in (packet.source, packet.destination))
    return [
        Term(PROTOCOL, packet.protocol, False),
        Term(DPORT, ((packet.port, packet.port),), False),
        Term(SPORT, ((packet.sport, packet.sport),), False),
        Term(SOURCE, ((source, source),), False),
        Term(DESTINATION, ((destination, destination),), False),
        Term(INTERFACE, packet.interface, False),
        Term(STATE, frozenset((packet.state,)), False),
    ]


def box_of(space: Space, packet: Packet) -> Box:
    """Return the set that holds this packet alone, as it comes in: nat has done nothing to it, and it bears no mark."""
    box = space.all
    for term in terms_of(packet):
        found = space.bits(term)
        assert found is not None
        box = changed(box, found[0], box[found[0]] & found[1])
    flags = sum(FLAGS[flag] for flag in packet.flags.split(",") if flag)
    untouched = 1 << ("NEW", "RELATED").index(packet.state)
    box = changed(changed(box, 5, untouched), 7, 1 << (space.marks or [0]).index(0))
    return changed(box, 6, 1 << OPENERS.index(flags) if packet.protocol == "tcp" else 1)


def possible(
    ruleset: Ruleset, own: Sequence[AnyNetwork], listed: Listed, sent: Sequence[Packet], coarse: bool = False
) -> List[Set[bool]]:
    """Return for each packet whether it may be let in and whether it may not, as the prover has it.

    :param own: the host's own addresses.
    :param listed: what is known of who is on which list.
    :raises TooManyCases: if the prover gives up.
    """
    space = ruleset.space(own, [term for packet in sent for term in terms_of(packet)])
    walk, found = Walk(ruleset, space, listed, coarse=coarse), []
    for packet in sent:
        answer = walk.answer([box_of(space, packet)])
        here = any(not hit.away for hit in answer.accepted)
        away = any(hit.away for hit in answer.accepted)
        found.append({let_in for let_in, can in ((True, here), (False, bool(answer.refused) or away)) if can})
    return found


def named_lists(spec: Spec, family: str) -> Dict[str, str]:
    """Return the name of each door to that of its list."""
    lists = Lists(family, spec.ipv6_prefix)
    return {door.name: lists.door(door) for door in spec.doors}


def entries_of(text: str, spec: Spec, family: str, local: LocalNetwork = UNKNOWN) -> List[Dict[str, Any]]:
    """Return all that the prover says of a ruleset: of doors, allowed ports, and the rest."""
    named, rest = named_lists(spec, family), spec.policy == "reject"
    return [proof.entry for proof in prove_doors(parse(text), family, spec, named, local, spec.panic, rest)]


def words_of(text: str, spec: Spec, family: str, local: LocalNetwork = UNKNOWN) -> List[Dict[str, Any]]:
    """Return what the prover says of each door of a Spec on a ruleset."""
    return [entry for entry in entries_of(text, spec, family, local) if entry["door"]]


def word_of(
    text: str, spec: Spec, family: str, door: Optional[str] = None, local: LocalNetwork = UNKNOWN
) -> Dict[str, Any]:
    """Return what the prover says of one door, the first one if none is named."""
    words = words_of(text, spec, family, local)
    return next(word for word in words if door in (None, word["door"]))
