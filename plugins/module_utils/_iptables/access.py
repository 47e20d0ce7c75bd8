# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a new connection gets in, and at which door it must knock for that. Pure."""

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import foreign_rules
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.packet_walk import Walker, packets_of


def lets_in(table, spec, tail, port, source):
    """Tell whether a new TCP connection from a source to a port may get in, once the hooks stand.

    :param tail: the place of the final reject, or None where there is none.
    :param source: an ``ipaddress`` address.
    """
    if any(source in network for network in spec.trusted_sources) or set(spec.trusted_interfaces) - {"lo"}:
        return True
    if any(_covers(allow.ports, port) and _from_one(allow.sources, source) for allow in spec.allow):
        return True
    openers = _openers(spec, port)
    if openers:
        return any(_from_one(door.sources, source) for door in openers)
    if tail is None:
        # Without a final reject only the doors' own ports are touched.
        return True
    packets = packets_of([(port, "tcp")])
    walker = Walker(table, spec.trusted_interfaces, spec.trusted_sources, source=source) if table else None
    rules = foreign_rules(table)[:tail]
    for rule in rules:
        effect = walker.rule_effect("INPUT", rule.text, packets)
        if effect.accepts or effect.terminal:
            return effect.accepts
    return False


def door_for(spec, port, source):
    """Return the name of the door that a source must knock at before it connects to a TCP port, '' for none.

    An interface that is trusted may be the one it comes through; a knock does no harm then.
    """
    if any(source in network for network in spec.trusted_sources):
        return ""
    if any(_covers(allow.ports, port) and _from_one(allow.sources, source) for allow in spec.allow):
        return ""
    return next((door.name for door in _openers(spec, port) if may_knock(door, source)), "")


def may_knock(door, source):
    """Tell whether a door is for a source."""
    return _from_one(door.sources, source)


def _openers(spec, port):
    return [door for door in spec.doors if any(_covers(ports, port) for ports in door.opens)]


def _covers(ports, port):
    return ports.protocol == "tcp" and ports.first <= port <= ports.last


def _from_one(sources, source):
    return not sources or any(source in network for network in sources)


__all__ = (
    "door_for",
    "lets_in",
    "may_knock",
)
