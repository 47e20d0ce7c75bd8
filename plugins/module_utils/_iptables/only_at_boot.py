# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the next boot brings beside our rules: rules and policies of a rules file that are not in the kernel now. Pure.

A file may have been written and never loaded: its service was off, or the rules were flushed since. The module has the service
enabled, so from then on they are loaded. Rules are compared by what matters and is spelled in one way only, as a file may be written
by hand: a rule that differs in other options alone counts as the same.
"""

import ipaddress
from typing import FrozenSet, List, NamedTuple, Optional, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Finding
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.findings import Names
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.input_rules import Protected
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.match import SERVICES
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.rule_text import options
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import (
    BUILT_IN,
    Document,
    Table,
    parse,
)
from ansible_collections.sesame.portknock.plugins.module_utils._redact import masked
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import is_own_rule

_MOST_SHOWN = 3
_PROTOCOLS = {"1": "icmp", "6": "tcp", "17": "udp", "58": "ipv6-icmp", "icmpv6": "ipv6-icmp"}
_NAMED_PROTOCOLS = frozenset(("tcp", "udp", "icmp", "ipv6-icmp"))
_PORTS = {"--dport": "--dports", "--dports": "--dports", "--sport": "--sports", "--sports": "--sports"}
_AS_THEY_ARE = ("-i", "-o", "-j", "-g")
_STATES = ("--state", "--ctstate")

_Meaning = FrozenSet[Tuple[str, str, bool]]
"""Options with their values, and whether they are negated."""


class _Brought(NamedTuple):
    """What a boot brings."""

    rules: List[str]
    """Rules, as ``-A INPUT …``; those of other tables than filter with ``-t TABLE`` before."""
    policies: List[str]
    """Policies, as ``-P INPUT DROP``; those of other tables in the same way."""


def only_at_boot(path: str, text: str, family: str, live: Document, protected: Protected) -> List[Finding]:
    """Return a list with the Finding that the next boot brings rules or policies, or an empty one.

    :param path: of the rules file.
    :param text: its text, '' where there is none.
    :param live: what is in the kernel.
    :param protected: whose knocks must not be shown.
    :raises HostError: if the text cannot be followed.
    """
    brought = _brought(parse(text, path), live)
    if not brought.rules and not brought.policies:
        return []
    names = Names(protected)
    shown = [masked(text) if names.names_step(text) else text for text in brought.policies + brought.rules]
    more = len(shown) - _MOST_SHOWN
    listed = "; ".join(shown[:_MOST_SHOWN]) + (f"; and {more} more" if more > 0 else "")
    message = (
        f"persist: {path} holds what is not in the kernel now, and the next boot loads it: {listed}. What of it is wanted, load now as "
        "well, with iptables, so that it is seen whether it does what it should; take the rest out of the file."
    )
    return [Finding("only_at_boot", family, "", message)]


def _brought(at_boot: Document, live: Document) -> _Brought:
    brought = _Brought([], [])
    for name in dict.fromkeys(table.name for table in at_boot.tables):
        table, now = at_boot.table(name), live.table(name) or Table(name, 0)
        if table is None:
            continue
        prefix = "" if name == "filter" else f"-t {name} "
        for chain in BUILT_IN:
            if table.policy(chain) != now.policy(chain) and chain in table.policies:
                brought.policies.append(f"{prefix}-P {chain} {table.policy(chain)}")
        for chain, rules in table.chains.items():
            there = {meaning for rule in now.rules(chain) for meaning in _meanings(rule.text)}
            for rule in rules:
                if not is_own_rule(chain, rule.text) and not _meanings(rule.text) <= there:
                    brought.rules.append(f"{prefix}-A {chain} {rule.text.strip()}")
    return brought


def _meanings(text: str) -> Set[_Meaning]:
    """Return what a rule means, as far as it is compared; with several addresses it is several rules in the kernel."""
    found: Set[_Meaning] = {frozenset()}
    for option, values, negated in options(text):
        value = values[0] if values else ""
        if option in ("-s", "-d"):
            networks = [_network(item) for item in value.split(",")]
            found = {
                meaning | ({(option, network, negated)} if network else frozenset())
                for meaning in found
                for network in networks
            }
            continue
        said = _said(option, value)
        if said:
            found = {meaning | {(said[0], said[1], negated)} for meaning in found}
    return found


def _said(option: str, value: str) -> Optional[Tuple[str, str]]:
    """Return an option and its value as they are compared, None where they are not."""
    if option in _AS_THEY_ARE:
        return option, value
    if option == "-p":
        name = _PROTOCOLS.get(value, value).lower()
        return (option, name) if name in _NAMED_PROTOCOLS else None
    if option in _PORTS:
        return _PORTS[option], ",".join(map(_ports, value.split(",")))
    if option in _STATES:
        return "states", ",".join(sorted(value.upper().split(",")))
    return None


def _ports(text: str) -> str:
    first, colon, last = text.partition(":")
    if not colon:
        return _port(first)
    return f"{_port(first or '0')}:{_port(last or '65535')}"


def _port(text: str) -> str:
    return str(int(text)) if text.isdigit() else str(SERVICES.get(text, text))


def _network(text: str) -> str:
    """Return a network as iptables-save prints it, '' for all addresses."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return text
    return str(network) if network.prefixlen else ""


__all__ = ("only_at_boot",)
