# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules read back: what doors there are."""

from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import build_rules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed_doors import read_installed
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options

SSH = {"name": "ssh", "knock": ["17005", "19100/udp", "18300"], "opens": ["22"]}
WEB = {"name": "web", "knock": ["20100", "20300/udp"], "opens": ["53/udp", "443", "8000-8010"], "close": ["20500"],
       "window": 60, "once": True, "sources": ["192.0.2.0/24"]}  # fmt: skip


def test_doors_come_back_from_their_rules():
    spec = spec_from_options(
        dict(
            doors=[SSH, WEB],
            policy="accept",
            allow=[{"port": "25", "sources": ["192.0.2.9"], "comment": "mail"}],
            trusted_sources=["203.0.113.0/24"],
            trusted_interfaces=["wg0"],
            icmp=False,
            log=True,
            ip_versions=["ipv4"],
        )
    )
    back = read_installed(build_rules(spec, "ipv4").chains)
    assert (back.allow, back.trusted_sources) == (spec.allow, spec.trusted_sources)
    assert back.trusted_interfaces == ("lo", *spec.trusted_interfaces)
    doors = {door.name: door for door in back.doors}
    assert {name: (door.knock, door.close, door.window, door.once, door.sources) for name, door in doors.items()} == {
        door.name: (door.knock, door.close, door.window, door.once, door.sources) for door in spec.doors
    }
    assert sorted(doors["web"].opens) == sorted(spec.doors[1].opens)
    assert doors["ssh"].opens == spec.doors[0].opens


def test_where_knockd_recognises_knocks_no_rule_names_a_step():
    back = read_installed(build_rules(spec_from_options({"doors": [SSH], "engine": "knockd"}), "ipv4").chains)
    assert [(door.name, door.knock, door.close, door.window) for door in back.doors] == [("ssh", (), (), 15)]
