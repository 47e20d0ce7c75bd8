# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a new connection gets in, at which door it must knock for that, and whether it can go on. Pure."""

import ipaddress
from typing import Any, List, Optional, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._engine import Connection
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.input_rules import Protected
from ansible_collections.sesame.portknock.plugins.module_utils._foreign.untracked import Trusted, untracked_served
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.condition import Arrival, is_interface
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.packet_walk import Walker, packets_of
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import Document, Table
from ansible_collections.sesame.portknock.plugins.module_utils._redact import masked, ports_named
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Address, Network, Spec
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import foreign_rules


def lets_in(table: Optional[Table], spec: Spec, tail: Optional[int], port: int, source: Address) -> bool:
    """Return whether a new TCP connection from a source to a port may get in, once the hooks stand.

    :param tail: the position of the final reject, or None where there is none.
    """
    decided = is_let_in(spec, port, source)
    if decided is not None:
        return decided
    if tail is None:
        # Without a final reject only the doors' own ports are touched.
        return True
    return _foreign_rules_accept(table, spec, tail, port, source)


def is_let_in(spec: Spec, port: int, source: Address) -> Optional[bool]:
    """Return whether our own rules let a source in to a TCP port, None where they leave it to others, or to the final reject."""
    if any(source in network for network in spec.trusted_sources) or set(spec.trusted_interfaces) - {"lo"}:
        return True
    if any(_covers(allow.ports, port) and _includes(allow.sources, source) for allow in spec.allow):
        return True
    openers = _openers(spec, port)
    return any(may_knock(door, source) for door in openers) if openers else None


def _foreign_rules_accept(table: Optional[Table], spec: Spec, tail: int, port: int, source: Address) -> bool:
    if table is None:
        return False
    packets = packets_of([(port, "tcp")])
    walker = Walker(table, spec.trusted_interfaces, spec.trusted_sources, source=source)
    for rule in foreign_rules(table)[:tail]:
        effect = walker.rule_effect("INPUT", rule.text, packets)
        if effect.accepts or effect.terminal:
            return effect.accepts
    return False


def door_for(spec: Protected, port: int, source: Address) -> str:
    """Return the name of the door that a source must knock at before it connects to a TCP port, '' for none.

    An interface that is trusted may be the one it comes through; a knock does no harm then.
    """
    if any(source in network for network in spec.trusted_sources):
        return ""
    if any(_covers(allow.ports, port) and _includes(allow.sources, source) for allow in spec.allow):
        return ""
    return next((door.name for door in _openers(spec, port) if may_knock(door, source)), "")


def shut_out(spec: Spec, connection: Connection) -> SpecError:
    """Return what is wrong with a Spec under which no connection like this one would get in again."""
    return SpecError(
        "doors" if not spec.doors else "policy",
        f"policy {spec.policy} would shut out this connection: nothing would let {connection.source} in to port "
        f"{connection.port} again. Open the port with a door (if there is one, look at its sources), name it in "
        "allow, or name the address in trusted_sources.",
    )


def check_of_this_host(spec: Spec, local: LocalNetwork) -> None:
    """Refuse options that cannot mean what they say on a host with these addresses and routes.

    :param local: what is known of the host's network.
    :raises SpecError: for the first of them.
    """
    check_trusted_interfaces(spec, local)
    check_hosts_are_behind(spec, local)


def check_hosts_are_behind(spec: Spec, local: LocalNetwork) -> None:
    """Refuse a door whose ``to`` names this host itself: nothing that is sent on goes there, so it would guard nothing.

    A network that has an address of this host in it is right, as long as others are in it too.

    :param local: what is known of the host's network.
    :raises SpecError: for the first of them.
    """
    own = list(local.own)
    for index, door in enumerate(spec.doors):
        found = [each for each in door.to if each.network_address.is_loopback or _is_within(each, own)]
        if found:
            named = found[0] if found[0].num_addresses > 1 else found[0].network_address
            raise SpecError(
                f"doors[{index}].to",
                f"{named} is this host itself, and not a host behind it: door {door.name!r} would guard nothing there. For ports of "
                "this host, or published on it, leave out 'to' (take it into a door of its own where 'to' names other hosts as well).",
            )


def _is_within(network: Any, own: List[Any]) -> bool:
    """Return whether each address of a network is in one of others."""
    return any(
        each.network_address <= network.network_address and network.broadcast_address <= each.broadcast_address
        for each in ipaddress.collapse_addresses([item for item in own if item.version == network.version])
    )


def check_trusted_interfaces(spec: Spec, local: LocalNetwork) -> None:
    """Refuse to trust the interfaces that everybody comes in by.

    :param local: what is known of the host's network.
    :raises SpecError: for the first of them.
    """
    for index, name in enumerate(spec.trusted_interfaces):
        for family in spec.ip_versions if spec.doors else ():
            found = [each for each in local.outside(family) if is_interface(name, each)]
            if found:
                raise SpecError(
                    f"trusted_interfaces[{index}]",
                    f"{name} takes in {found[0]}, by which this host's default route of {family} leads: everybody comes in there, "
                    "and no door would need a knock. Name the sources that you trust in trusted_sources instead.",
                )


def check_tracked(document: Document, spec: Spec, connection: Connection, local: LocalNetwork) -> None:
    """Refuse a door for this connection through which none can go on, because it is not tracked.

    :raises SpecError: if a rule of table raw keeps it out of connection tracking.
    """
    rule = hiding_rule(document, (spec.trusted_interfaces, spec.trusted_sources), connection, local)
    if rule:
        steps = {str(step.port) for door in spec.doors for step in door.knock + door.close}
        rule = masked(rule) if steps & ports_named(rule) else rule
        raise SpecError(
            "doors",
            f"a rule of table raw keeps port {connection.port}, by which this connection comes, out of connection tracking, so it "
            f"would stop when the door's window is over: {rule}. Remove that rule, or let this address in without a knock "
            "(trusted_sources).",
        )


def hiding_rule(document: Document, trusted: Trusted, connection: Connection, local: LocalNetwork) -> str:
    """Return the rule of table raw that certainly keeps a connection out of connection tracking, or ''; it may name steps."""
    interface = local.interface_to(connection.source)
    arrival = Arrival(local.own, (interface,) if interface else ())
    packets = packets_of([(connection.port, "tcp")])
    hidden = untracked_served(document, packets, trusted, arrival, connection.source)
    rule = next((each.rule for each in hidden if not each.rule.is_perhaps), None)
    return f"-A {rule.chain} {rule.text.strip()}" if rule else ""


def may_knock(door: Any, source: Address) -> bool:
    """Return whether a door is for a source."""
    return _includes(door.sources, source)


def _openers(spec: Protected, port: int) -> List[Any]:
    return [door for door in spec.doors if any(_covers(ports, port) for ports in door.here)]


def _covers(ports: Ports, port: int) -> bool:
    return ports.protocol == "tcp" and ports.first <= port <= ports.last


def _includes(sources: Tuple[Network, ...], source: Address) -> bool:
    return not sources or any(source in network for network in sources)


__all__ = (
    "check_hosts_are_behind",
    "check_of_this_host",
    "check_tracked",
    "check_trusted_interfaces",
    "door_for",
    "hiding_rule",
    "is_let_in",
    "lets_in",
    "may_knock",
    "shut_out",
)
