# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random options whose doors every engine takes, and the table of one set of them that was recorded from several releases of nft."""

from typing import Any, Dict, List

from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.build import build_table
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.rules import Table
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Spec
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from hypothesis import assume, settings
from hypothesis import strategies as st

RECORDED: Dict[str, Any] = {
    "doors": [
        {
            "name": "ssh",
            "knock": ["7000", "9100/udp", "3100"],
            "opens": ["22", "514/udp", "9000-9010"],
            "close": ["6000", "8200/udp"],
            "once": True,
            "sources": ["10.0.0.0/8", "2001:db8::/32"],
        },
        {
            "name": "behind",
            "knock": ["9700", "9300"],
            "opens": ["22", "5000-5010/udp"],
            "to": ["10.9.0.5", "10.9.1.0/24", "2001:db8:9::/64"],
        },
    ],
    "allow": [
        {"port": "443", "comment": "web"},
        {"port": "9005-9020", "sources": ["192.0.2.1", "198.51.100.0/24"]},
    ],
    "trusted_sources": ["192.168.0.0/16"],
    "trusted_interfaces": ["lo", "tun+"],
    "log": True,
    "ipv6_prefix": 64,
    "reject_with": "tcp-reset",
    "icmp": False,
    "published": "policy",
}
"""What the listings in tests/unit/corpus/nftables were loaded from: ``nft -j list table inet portknock`` of Debian 11, 12 and 13, and
1.1.7 of Debian unstable, with four elements added by hand, on kernel 6.18."""

_PORTS = [20000 + 977 * number % 40009 for number in range(1, 25)]
_STEP = st.builds("{0}/{1}".format, st.sampled_from(_PORTS), st.sampled_from(["tcp", "udp"]))
_SOURCES = st.sampled_from([[], ["192.0.2.0/24"], ["2001:db8::/32", "198.51.100.7"]])
_DOOR = st.fixed_dictionaries(
    {
        "knock": st.lists(_STEP, min_size=1, max_size=8),
        "close": st.one_of(st.just([]), st.lists(_STEP, min_size=1, max_size=3)),
        "opens": st.lists(
            st.sampled_from(["22", "443", "8000-8010", "8005", "53/udp"]), min_size=1, max_size=3, unique=True
        ),
        "once": st.booleans(),
        "sources": _SOURCES,
        "step_timeout": st.integers(1, 60),
        "to": st.sampled_from([[], [], [], ["10.9.0.5"], ["10.9.0.0/24", "2001:db8:9::/64"]]),
    }
)
_ALLOW = st.fixed_dictionaries(
    {
        "port": st.sampled_from(["80", "8010-8020", "8000-9000", "5353/udp"]),
        "sources": st.sampled_from([["192.0.2.1"], ["2001:db8::/32", "10.0.0.0/8", "10.1.0.0/16"]]),
        "comment": st.sampled_from(["", "é" * 80]),
    }
)


def _named(doors: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    return [dict(door, name=f"door{number}") for number, door in enumerate(doors)]


OPTIONS = st.fixed_dictionaries(
    {
        "doors": st.lists(_DOOR, max_size=6).map(_named),
        "allow": st.lists(_ALLOW, max_size=3),
        "policy": st.sampled_from(["reject", "accept"]),
        "published": st.sampled_from(["doors", "policy", "none"]),
        "reject_with": st.sampled_from(["icmp-port-unreachable", "tcp-reset", "icmp-admin-prohibited", "drop"]),
        "ip_versions": st.sampled_from([["ipv4", "ipv6"], ["ipv4"], ["ipv6"]]),
        "ipv6_prefix": st.sampled_from([128, 64]),
        "log": st.booleans(),
        "icmp": st.booleans(),
    }
)


A_FIFTH = settings(max_examples=settings().max_examples // 5)
"""Of the usual number of examples: each of these makes a whole table."""


def spec_of(options: Dict[str, Any]) -> Spec:
    """Return the Spec of random options, or leave out the example where they are refused."""
    left_out = [sign for sign in ".:" if {".": "ipv4", ":": "ipv6"}[sign] not in options["ip_versions"]]
    kept = {
        key: [
            {
                name: [item for item in value if not set(left_out) & set(item)] if name in ("sources", "to") else value
                for name, value in each.items()
            }
            for each in options[key]
        ]
        for key in ("doors", "allow")
    }
    try:
        return spec_from_options(dict(options, **kept))
    except SpecError:
        assume(False)
        raise


def recorded_table() -> Table:
    """Return the Table of what was recorded."""
    return build_table(spec_from_options(RECORDED))
