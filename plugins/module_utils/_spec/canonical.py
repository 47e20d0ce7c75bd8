# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Spec as the options that it can be read from again: what is kept of it on the host. Pure."""

from typing import Any, Dict, Sequence

from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Allow, Door, Spec, Step
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports


def options_of(spec: Spec) -> Dict[str, Any]:
    """Return options that give this Spec, always in the same form, however they were written; JSON. Steps are in there."""
    plain = {name: value for name, value in spec._asdict().items() if name not in ("doors", "allow", "panic")}
    return dict(
        plain,
        doors=[_door(door) for door in spec.doors],
        allow=[_allow(allow) for allow in spec.allow],
        trusted_sources=_texts(spec.trusted_sources),
        trusted_interfaces=list(spec.trusted_interfaces),
        ip_versions=list(spec.ip_versions),
        acknowledge=list(spec.acknowledge),
    )


def _door(door: Door) -> Dict[str, Any]:
    return dict(
        door._asdict(),
        knock=[_step(step) for step in door.knock],
        close=[_step(step) for step in door.close],
        opens=[_ports(ports) for ports in door.opens],
        sources=_texts(door.sources),
        to=_texts(door.to),
    )


def _allow(allow: Allow) -> Dict[str, Any]:
    return dict(port=_ports(allow.ports), sources=_texts(allow.sources), comment=allow.comment)


def _step(step: Step) -> str:
    return f"{step.port}/{step.protocol}"


def _ports(ports: Ports) -> str:
    first_and_last = str(ports.first) if ports.first == ports.last else f"{ports.first}-{ports.last}"
    return f"{first_and_last}/{ports.protocol}"


def _texts(values: Sequence[Any]) -> Any:
    return [str(value) for value in values]


__all__ = ("options_of",)
