# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a panic has closed, and what stays open in it, for ``portknock status``. Pure."""

from typing import Any, Dict, Iterable, List, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._host.conntrack import Flow
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Spec
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import PortIndex, Ports, ports_name
from ansible_collections.sesame.portknock.plugins.module_utils._spec.words import networks, some

NOT_OURS = "Other ports that rules of others open, or that nat publishes (containers), are as before."


def in_panic(spec: Spec, connected: Iterable[Flow]) -> Dict[str, Any]:
    """Return what is closed and what is not, as ``status --json`` prints it; no step is in it.

    :param spec: what is in force but for the panic.
    :param connected: the established TCP connections with other hosts.
    """
    doors = [(ports, dict(ports=ports_name(ports), door=door.name)) for door in spec.doors for ports in door.opens]
    allowed = [(each.ports, dict(ports=ports_name(each.ports), allowed=each.comment)) for each in spec.allow]
    return dict(
        closed=[shown for _ports, shown in doors + allowed],
        trusted_sources=networks(spec.trusted_sources),
        trusted_interfaces=list(spec.trusted_interfaces),
        icmp=spec.icmp,
        connections=_going_on([(ports, shown["ports"]) for ports, shown in doors + allowed], connected),
    )


def _going_on(closed: List[Tuple[Ports, str]], connected: Iterable[Flow]) -> List[Dict[str, Any]]:
    """Return the connections to ports that are closed now, counted by port and source."""
    index = PortIndex(closed)
    counted: Dict[Tuple[int, str], int] = {}
    for flow in connected:
        port = flow.destination_port
        if index.find(Ports(port, port, "tcp")) is not None:
            key = (port, str(flow.source))
            counted[key] = counted.get(key, 0) + 1
    return [dict(port=f"{port}/tcp", source=source, count=counted[port, source]) for port, source in sorted(counted)]


def in_panic_text(found: Dict[str, Any]) -> List[str]:
    """Return the same as lines for people."""
    let_in = found["trusted_sources"] + [f"interface {name}" for name in found["trusted_interfaces"] if name != "lo"]
    going_on = [
        "{} to {} from {}".format(each["count"], each["port"], each["source"]) for each in found["connections"]
    ]  # fmt: skip
    return [
        f"closed: {some([_closed(each) for each in found['closed']])}",
        f"still let in: {some(let_in) or 'no source, so only the console gets in'}",
        *(["still answered: ping"] if found["icmp"] else []),
        f"established connections to closed ports, which go on: {some(going_on) or 'none'}",
        NOT_OURS,
    ]


def _closed(each: Dict[str, str]) -> str:
    if "door" in each:
        return "{ports} (door {door})".format(**each)
    return "{ports} (allowed: {allowed})".format(**each) if each["allowed"] else "{ports} (allowed)".format(**each)


__all__ = ("NOT_OURS", "in_panic", "in_panic_text")
