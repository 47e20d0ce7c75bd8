# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Spec means, in words."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.module_utils._spec.words import summary

SSH = {"name": "ssh", "knock": ["17005", "19100/udp"], "opens": ["22"]}
DOOR = "door ssh: 22/tcp closed; opens for 15 s to the address that knocked"
REFUSED, LEFT = "everything else: refused (policy reject)", "everything else: left to the other rules (policy accept)"
SHOP = {"port": 443, "comment": "the web shop"}

WORDS = {
    "a door": (dict(doors=[SSH]), [DOOR, "open to everyone: ping", REFUSED]),
    "no ping": (dict(doors=[SSH], icmp=False), [DOOR, REFUSED]),
    "another engine": (
        dict(doors=[SSH], engine="knockd"), [DOOR, "open to everyone: ping", "knocks are recognised by: knockd", REFUSED],
    ),
    "policy accept": (dict(doors=[SSH], policy="accept"), [DOOR, LEFT]),
    "a door for some": (
        dict(doors=[dict(SSH, opens=["9000-9010/udp", "22"], window=30, once=True, sources=["10.0.0.0/8", "2001:db8::1"])]),
        [
            "door ssh: 9000-9010/udp, 22/tcp closed; opens for 30 s to the address that knocked, if it is in 10.0.0.0/8, "
            "2001:db8::1, for one new connection",
            "open to everyone: ping",
            REFUSED,
        ],
    ),
    "exceptions": (
        dict(allow=[SHOP, {"port": "53", "protocol": "udp"}, {"port": 25, "sources": ["192.0.2.1"]}]),
        ["open to everyone: 443/tcp (the web shop), 53/udp, ping", "open to 192.0.2.1: 25/tcp", REFUSED],
    ),
    "trusted": (
        dict(trusted_sources=["192.0.2.0/24", "198.51.100.7"], trusted_interfaces=["lo", "wg+"], icmp=False),
        ["no knock needed from: 192.0.2.0/24, 198.51.100.7, wg+", REFUSED],
    ),
    "many": (
        dict(trusted_sources=[f"192.0.2.{number}" for number in range(1, 21)], icmp=False),
        ["no knock needed from: " + ", ".join(f"192.0.2.{number}" for number in range(1, 13)) + " and 8 more", REFUSED],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WORDS)
def test_summary(name):
    options, words = WORDS[name]
    assert summary(spec_from_options(options)) == words
