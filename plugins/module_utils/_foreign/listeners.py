# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which programs that listen can be reached from outside, and which can no more once the ruleset is changed. Pure."""

import ipaddress
from functools import partial
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import (
    Connection,
    Finding,
    Wanted,
    address_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.protocols import is_trusted
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.published import Published
from ansible_collections.sesame.portknock.plugins.module_utils._names.chains import HEAD
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.condition import is_interface
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.packet_walk import (
    ACCEPT,
    DIVERT,
    MAYBE,
    Port,
    Walker,
    packets_of,
    ports_in,
)
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document, Rule
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import IPV4, IPV6, Spec, family_of
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports, ports_name

ByPorts = Callable[[Set[Port]], Set[Port]]
"""Returns some of those ports that it is given."""


class Reach(NamedTuple):
    """Who gets to programs over one IP version: anybody but who is trusted, be it with a knock."""

    family: str
    """The IP version."""
    changes: bool
    """Whether anything is changed."""
    before: ByPorts
    """Returns those ports that are reached as it is."""
    after: ByPorts
    """Returns those that are, once it is changed."""
    published: ByPorts
    """Returns those that nat sends elsewhere, so that no program here need listen."""
    excepts: Optional[Callable[[int], bool]] = None
    """Returns whether a rule of others may except packets of an IP protocol from the refusal of the rest; None where none can."""
    closing: Sequence[Published] = ()
    """What nat publishes and is refused from now on."""


class Listening(NamedTuple):
    """What is known of the programs that listen, for one change."""

    sockets: Sequence[Any]
    """The Listeners of the host."""
    tunnel: Sequence[int]
    """The sockets of the tunnel that this connection comes through."""
    interface: str
    """Its interface, '' where it comes through none."""
    carrier: Any
    """The Carrier of that interface, or None."""


class Listeners(NamedTuple):
    """What there is to say of the programs that listen."""

    closes: List[Dict[str, Any]]
    """Those that cannot be reached from outside any more, as the module returns them."""
    findings: Tuple[Finding, ...]
    """What an operator should know."""


def look_at_reach(sockets: Any, wanted: Wanted, reach: Sequence[Reach], local: LocalNetwork) -> Listeners:
    """Return what there is to say of the programs that listen.

    :param sockets: the Sockets of the host.
    :param reach: that of each IP version that is managed.
    """
    spec, connection = wanted.spec, wanted.connection
    interface = interface_of(connection, local)
    tunnel = sockets.of_tunnel(interface) if interface else []
    carrier = _carrier(sockets, interface, spec, local)
    listening = Listening(sockets.listening(), tunnel, interface, carrier)
    lost = _closing(reach, spec, listening, local)
    names = sockets.processes([each.inode for each in lost]) if lost else {}
    closes = [
        dict(port=each.port, protocol=each.protocol, process=names.get(each.inode, ""), address=each.address)
        for each in lost
    ]
    closes += _closing_published(reach, {(each["port"], each["protocol"]) for each in closes})
    return Listeners(closes, tuple(_listener_findings(reach, spec, listening, connection)))


def _carrier(sockets: Any, interface: str, spec: Spec, local: LocalNetwork) -> Any:
    """Return the Carrier of an interface; None where it is no such tunnel, or its packets come in by an interface that is trusted."""
    carrier = sockets.carrier_of(interface) if interface else None
    if carrier is None or not carrier.peer:
        return carrier
    outer = local.interface_to(address_of(carrier.peer))
    return None if outer and any(is_interface(name, outer) for name in spec.trusted_interfaces) else carrier


def interface_of(connection: Optional[Connection], local: LocalNetwork) -> str:
    """Return the interface that a connection comes in by, '' where there is none or nothing tells."""
    if connection is None:
        return ""
    own = address_of(connection.address)
    # The network of its own address first: answers to a tunnel's peer may be routed by a table that is not the main one.
    found = [local.interface_to(address) for address in (own, connection.source)]
    outside = local.outside(family_of(own))
    return next((name for name in found if name and name not in outside), found[1])


def _closing(reach: Iterable[Reach], spec: Spec, listening: Listening, local: LocalNetwork) -> List[Any]:
    """Return the Listeners that cannot be reached from outside any more, and could before; those of the tunnel first.

    That is: but by who needs no knock, and by who is let in with one. A socket of a family that is not managed stays reachable.
    """
    changed = [each for each in reach if each.changes]
    sockets = [each for each in listening.sockets if not _is_inside(each, spec, local)]
    before = {each.family: each.before(_keys(sockets)) for each in changed}
    after = {each.family: each.after(_keys(sockets)) for each in changed}
    found = []
    for each in sockets:
        key, families = (each.port, each.protocol), _families(each)
        managed = [family for family in families if family in after]
        lost = managed and all(key not in after[family] for family in managed)
        if lost and any(key in before[family] for family in managed):
            found.append(each)
    return sorted(found, key=lambda each: (each.inode not in listening.tunnel, each.port, each.protocol, each.address))


def _closing_published(reach: Iterable[Reach], known: Set[Port]) -> List[Dict[str, Any]]:
    """Return what nat publishes and is refused from now on, but for what a program that listens stands for already."""
    found: Dict[Port, Dict[str, Any]] = {}
    for one in reach:
        for each in one.closing if one.changes else ():
            every = "0.0.0.0" if one.family == IPV4 else "::"
            entry = dict(port=each.port, protocol=each.protocol, process="nat", address=each.address or every)
            found.setdefault((each.port, each.protocol), entry)
    return [entry for key, entry in sorted(found.items()) if key not in known]


def served(spec: Spec, keys: Set[Port]) -> Set[Port]:
    """Return those ports that doors open or that are allowed."""
    opened = [ports for door in spec.doors for ports in door.here] + [allow.ports for allow in spec.allow]
    return {key for key in keys if any(_covers(ports, key) for ports in opened)}


def reached_now(document: Document, spec: Spec, keys: Set[Port]) -> Set[Port]:
    """Return those ports that a ruleset lets packets of some sources get to, or sends elsewhere."""
    table = document.table("filter")
    found = diverted(document, spec, keys)
    return found | accepted(document, spec, table.rules("INPUT") if table else [], keys - found, otherwise=True)


def accepted(document: Document, spec: Spec, rules: Sequence[Rule], keys: Set[Port], otherwise: bool) -> Set[Port]:
    """Return those ports that rules of INPUT accept; behind them decides the policy, or with ``otherwise`` False, a refusal."""
    table = document.table("filter")
    if table is None:
        return set(keys) if otherwise else set()
    walker = Walker(table, spec.trusted_interfaces, spec.trusted_sources)
    left, found = set(keys), set()
    for rule in rules:
        if not left:
            break
        effect = walker.rule_effect("INPUT", rule.text, packets_of(left))
        for decision in effect.decisions:
            # Our own head lets in who is trusted, and all that was let in before.
            if decision.verdict in (ACCEPT, MAYBE) and decision.chain != HEAD:
                found |= ports_in(decision.packets)
        left -= ports_in(effect.decided)
    return found | (left if otherwise and table.policy("INPUT") == "ACCEPT" else set())


def diverted(document: Document, spec: Spec, keys: Set[Port]) -> Set[Port]:
    """Return those ports that nat sends elsewhere, so that INPUT decides nothing of them."""
    table = document.table("nat")
    if table is None or not table.rules("PREROUTING"):
        return set()
    walker = Walker(table, spec.trusted_interfaces, spec.trusted_sources)
    decisions = walker.chain_effect("PREROUTING", packets_of(keys)).decisions
    return {key for each in decisions if each.verdict == DIVERT for key in ports_in(each.packets)}


def _keys(sockets: Iterable[Any]) -> Set[Port]:
    return {(each.port, each.protocol) for each in sockets}


def _covers(ports: Ports, key: Port) -> bool:
    return ports.protocol == key[1] and ports.first <= key[0] <= ports.last


def _families(listener: Any) -> List[str]:
    """Return the IP versions that reach a socket: one that listens on all of IPv6 takes IPv4 as well, unless it was set not to."""
    if listener.address == "::":
        return [IPV4, IPV6]
    return [IPV6 if ":" in listener.address else IPV4]


def _is_inside(listener: Any, spec: Spec, local: LocalNetwork) -> bool:
    """Return whether a socket listens on an address of a trusted network alone."""
    address: Any = ipaddress.ip_address(listener.address)
    if address.is_unspecified:
        return False
    interface = local.interface_to(address)
    return any(is_interface(name, interface) for name in spec.trusted_interfaces) if interface else False


def _listener_findings(
    reach: Sequence[Reach],
    spec: Spec,
    listening: Listening,
    connection: Optional[Connection],
) -> List[Finding]:
    """Return findings about who listens: doors to nothing, a tunnel that closes, a connection's port without a door."""
    found = _tunnel_closes(reach, listening) + _carrier_closes(reach, spec, listening)
    if connection is not None and spec.doors:
        found += _connection_unguarded(reach, spec, connection)
    if listening.sockets:
        found += _nothing_listens([each.published for each in reach], spec, listening.sockets)
    return found


def _tunnel_closes(reach: Sequence[Reach], listening: Listening) -> List[Finding]:
    sockets = [each for each in listening.sockets if each.inode in listening.tunnel]
    managed = {each.family: each for each in reach}
    lost = []
    for each in sockets:
        found = [managed[family] for family in _families(each) if family in managed]
        if found and not any(one.after(_keys([each])) for one in found):
            lost.append(f"{each.port}/{each.protocol}")
    if not lost:
        return []
    ports = ", ".join(sorted(set(lost)))
    message = (
        f"policy: this connection comes through {listening.interface}, a tunnel that ends on this host at port {ports}, and policy "
        "reject refuses new packets to that port. The tunnel goes on only until its own connection ends (idle, a reboot, an address "
        "that changes); after that no connection gets in through it. Name the port in allow."
    )
    return [Finding("tunnel_closes", "", "", message)]


def _carrier_closes(reach: Sequence[Reach], spec: Spec, listening: Listening) -> List[Finding]:
    """Return a Finding where the packets that carry a tunnel without a port are refused once nothing has been sent for a while."""
    carrier, interface = listening.carrier, listening.interface
    found = next((each for each in reach if carrier and each.family == carrier.family), None)
    if found is None or spec.policy != "reject" or is_trusted(carrier.peer, spec):
        return []
    if found.excepts and found.excepts(carrier.protocol):
        return []
    peer = carrier.peer or "its other end"
    rule = f", or add a rule of your own that accepts -p {carrier.protocol}" if found.excepts else ""
    message = (
        f"policy: this connection comes through {interface}, a tunnel that ends on this host and is carried by IP protocol "
        f"{carrier.protocol}, and policy reject refuses new packets of it. The tunnel goes on only as long as this host sends "
        f"something through it every few minutes; after that no connection gets in through it. Name {peer} in trusted_sources{rule}."
    )
    return [Finding("tunnel_closes", "", "", message)]


def nothing_listens(documents: Sequence[Document], spec: Spec, sockets: Sequence[Any]) -> List[Finding]:
    """Return a Finding for each door to a port on which no program listens.

    :param documents: the live rulesets of the IP versions that are managed.
    :param sockets: the Listeners of the host.
    """
    return _nothing_listens([partial(diverted, document, spec) for document in documents], spec, sockets)


def _nothing_listens(published: Sequence[ByPorts], spec: Spec, sockets: Sequence[Any]) -> List[Finding]:
    keys = _keys(sockets)
    firsts = {(ports.first, ports.protocol) for door in spec.doors for ports in door.here}
    elsewhere = {key for each in published for key in each(firsts)}
    found = []
    for index, door in enumerate(spec.doors):
        for number, ports in enumerate(door.here):
            served = (ports.first, ports.protocol) in elsewhere or any(_covers(ports, key) for key in keys)
            if not served:
                message = (
                    f"doors[{index}].opens[{number}]: door {door.name!r} opens "
                    f"{ports_name(ports)}, and no program here listens there but for this host "
                    "itself. Start the service, or name the port that it listens on."
                )
                found.append(Finding("nothing_listens", "", "", message))
    return found


def _connection_unguarded(reach: Sequence[Reach], spec: Spec, connection: Connection) -> List[Finding]:
    key = (connection.port, "tcp")
    family = family_of(connection.source)
    found = next((each for each in reach if each.family == family), None)
    if found is None or any(_covers(ports, key) for door in spec.doors for ports in door.here):
        return []
    if key not in found.after({key}):
        return []
    message = (
        f"doors: no door opens port {connection.port}, by which this connection comes, and strangers can reach it without a knock. "
        "If it is ssh that is to be closed, name this port in a door's opens."
    )
    return [Finding("connection_unguarded", family, "", message)]


__all__ = (
    "ByPorts",
    "Listeners",
    "Listening",
    "Reach",
    "accepted",
    "diverted",
    "interface_of",
    "look_at_reach",
    "nothing_listens",
    "reached_now",
    "served",
)
