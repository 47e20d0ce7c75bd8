# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ports that nat publishes: what it sends on to containers and other hosts, and what of that the policy closes. Pure."""

import ipaddress
import re
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Sequence, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._names.comments import REFUSE_PUBLISHED, read_comment
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.packet_walk import (
    DIVERT,
    Port,
    Walker,
    packets_of,
    ports_in,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.rule_text import options
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports, port_samples

_ADDRESS = re.compile(r"\[?([0-9A-Fa-f.:]*[0-9A-Fa-f])\]?")


class Published(NamedTuple):
    """A port that a rule of nat sends on."""

    port: int
    """The port as it is seen from outside."""
    protocol: str
    """``tcp`` or ``udp``."""
    address: str
    """The address of this host that the rule is for, '' for all."""


def sends_on(text: str, own: Sequence[Any]) -> bool:
    """Return whether a rule sends packets to another host, or a container, so that they pass FORWARD and not INPUT.

    :param own: the host's own addresses, as networks; loopback is one of them in any case.
    """
    found = {option: values for option, values, _negated in options(text)}
    if found.get("-j") != ["DNAT"]:
        return False
    # The port may follow an IPv4 address; one of IPv6 then has brackets.
    first = (found.get("--to-destination") or [""])[0].partition("-")[0]
    bare = first.rpartition(":")[0] if first.count(":") == 1 else first
    address = _ADDRESS.match(bare)
    if address is None:
        return False
    try:
        to: Any = ipaddress.ip_address(address.group(1))
    except ValueError:
        return False
    return not to.is_loopback and not any(to.version == each.version and to in each for each in own)


def sent_on(document: Document, keys: Set[Port], own: Sequence[Any], trusted: Tuple[Any, Any]) -> Set[Port]:
    """Return those ports that nat sends on to others.

    :param trusted: interfaces and sources that are trusted.
    """
    table = document.table("nat")
    if table is None or not table.rules("PREROUTING"):
        return set()
    decisions = Walker(table, *trusted).chain_effect("PREROUTING", packets_of(keys)).decisions
    met = [each for each in decisions if each.verdict == DIVERT and sends_on(each.text, own)]
    return {key for each in met for key in ports_in(each.packets)}


def published_ports(document: Document, own: Sequence[Any], trusted: Tuple[Any, Any]) -> List[Published]:
    """Return the ports that rules of nat name and send on, of wide ranges their ends, in their order."""
    table = document.table("nat")
    found: Dict[Port, Published] = {}
    for rules in table.chains.values() if table else ():
        for rule in rules:
            if sends_on(rule.text, own):
                found.update(((each.port, each.protocol), each) for each in _named(rule.text))
    met = sent_on(document, set(found), own, trusted)
    return [found[key] for key in sorted(met)]


def _named(text: str) -> List[Published]:
    found = {option: values for option, values, _negated in options(text)}
    protocol, ports = (found.get("-p") or [""])[0], (found.get("--dport") or found.get("--dports") or [""])[0]
    if protocol not in ("tcp", "udp") or not ports:
        return []
    address = (found.get("-d") or [""])[0].partition("/")[0]
    named = [part.partition(":") for part in ports.split(",")]
    ranges = [Ports(int(first), int(last or first), protocol) for first, _colon, last in named if first.isdigit()]
    return [Published(port, protocol, address) for each in ranges for port in sorted(port_samples(each))]


def policy_is_in_force(chains: Mapping[str, Iterable[str]]) -> bool:
    """Return whether chains of the collection refuse what is published without a door."""
    comments = [read_comment(text) for rules in chains.values() for text in rules]
    return any(comment is not None and comment.meaning == REFUSE_PUBLISHED for comment in comments)


__all__ = ("Published", "policy_is_in_force", "published_ports", "sends_on", "sent_on")
