# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Spec is read again from the options that it is kept as, whatever it is."""

import json

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._spec.canonical import options_of
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import Spec
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options

DOORS = [
    {"name": "ssh", "knock": [17005, "19100/udp", "18300/tcp"], "opens": [22, "60000-60010/udp"]},
    {
        "name": "web", "knock": ["20100", "20300"], "close": ["20500/udp"], "opens": ["8080"], "window": 60, "step_timeout": 9,
        "sources": ["192.0.2.0/24", "2001:db8::/64"], "once": True,
    },
    {
        "name": "behind", "knock": ["21100", "20310", "21500"], "opens": ["22"], "to": ["10.1.0.0/16", "fd00:1::5"],
    },
]  # fmt: skip
WISHES = {
    "nothing": {},
    "doors": {"doors": DOORS},
    "everything": {
        "doors": DOORS,
        "policy": "accept",
        "published": "policy",
        "reject_with": "drop",
        "allow": [
            {"port": "443", "comment": "the shop"},
            {"port": "1000-1010", "protocol": "udp", "sources": ["192.0.2.9"]},
        ],
        "trusted_sources": ["203.0.113.9", "2001:db8:1::/48"],
        "trusted_interfaces": ["lo", "wg0"],
        "icmp": False,
        "ip_versions": ["ipv6", "ipv4"],
        "ipv6_prefix": 64,
        "list_size": 500,
        "log": True,
        "engine": "knockd",
        "knockd_interface": "eth1",
        "acknowledge": ["list_size"],
        "metrics_directory": "/var/lib/node",
    },
}


@pytest.mark.parametrize("wishes", WISHES.values(), ids=list(WISHES))
def test_what_is_kept_gives_the_same_spec(wishes):
    spec = spec_from_options(wishes)
    kept = json.loads(json.dumps(options_of(spec)))
    assert spec_from_options(kept) == spec
    assert options_of(spec_from_options(kept)) == kept


def test_no_field_is_left_out():
    """A new one must be in the wishes above, and another value than its default's."""
    plain, full = spec_from_options({}), spec_from_options(WISHES["everything"])
    assert {name for name in Spec._fields if getattr(plain, name) == getattr(full, name)} == {"ip_versions", "panic"}
