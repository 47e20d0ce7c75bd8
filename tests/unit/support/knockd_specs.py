# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Specs for knockd: fixed ones, and those that hypothesis makes up."""

from typing import Any, Callable, Dict, Set, Tuple

from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.config import config_text
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Spec
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from hypothesis import assume
from hypothesis import strategies as st

DOOR = {"name": "ssh", "knock": ["17005", "19100/udp", "18300"], "opens": ["22"]}
BOTH = ("ipv4", "ipv6")
HERE = "/etc/portknock"
Draw = Callable[[Any], Any]
"""From a strategy to one of its values."""


def spec_of(*doors: Dict[str, Any], **more: Any) -> Spec:
    return spec_from_options(dict({"doors": list(doors) or [DOOR], "engine": "knockd"}, **more))


def text_of(*doors: Dict[str, Any], **more: Any) -> str:
    return config_text(spec_of(*doors, **more), more.get("ip_versions", BOTH), "eth0", HERE)


# The configuration

SEVERAL = [
    dict(DOOR, close=["18311/udp", "17444"], step_timeout=3),
    {"name": "web_2", "knock": ["40001"], "opens": ["443", "8000-8010"], "sources": ["198.51.100.0/24"]},
    {"name": "six", "knock": ["9005", "2044/udp"], "opens": ["53/udp"], "sources": ["2001:db8::/32"]},
]


# Doors that hypothesis makes up

PORTS = st.one_of(
    st.integers(1, 65535),
    st.integers(7000, 7040),
    st.integers(1, 8),
    st.integers(65500, 65535),
    st.integers(1020, 1030),
)
STEPS = st.builds("{0}/{1}".format, PORTS, st.sampled_from(["tcp", "tcp", "udp"]))


@st.composite
def specs(draw: Draw, least: int = 1) -> Spec:
    """A Spec with knocks of ``least`` steps or more."""
    doors = []
    for name in "abc"[: draw(st.integers(1, 3))]:
        opens = draw(st.sampled_from([["22"], ["22/udp"], ["7001-7030"], ["1024-60000"], ["2-6"], ["65000-65535"]]))
        close = draw(st.one_of(st.just([]), st.lists(STEPS, min_size=1, max_size=3)))
        knock = draw(st.lists(STEPS, min_size=least, max_size=4))
        doors.append(dict(name=name, knock=knock, opens=opens, close=close, step_timeout=draw(st.integers(1, 5))))
    try:
        return spec_from_options({"doors": doors, "engine": "knockd"})
    except SpecError:
        assume(False)
        raise


def config_of(spec: Spec) -> str:
    return config_text(spec, BOTH, "eth0", HERE)


def ports_used(spec: Spec) -> Tuple[Set[Tuple[int, str]], Set[Tuple[int, str]]]:
    """Return (port, protocol) of what the doors open, and of the steps."""
    opened = {
        (port, each.protocol) for door in spec.doors for each in door.opens for port in range(each.first, each.last + 1)
    }
    steps = {(step.port, step.protocol) for door in spec.doors for step in door.knock + door.close}
    return opened, steps
