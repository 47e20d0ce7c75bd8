# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where to look: the addresses of a host, and why nothing can be seen from here."""

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.addresses import addresses_to_try, read_facts
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.judge import Context
from ansible_collections.sesame.portknock.plugins.plugin_utils._verify.table import rows
from verify_world import TOLD, V4, V6, spec_of

FACTS = """connection 192.0.2.7 50122 192.0.2.1 22
listed
address 2: eth0    inet 192.0.2.1/24 brd 192.0.2.255 scope global eth0\\       valid_lft forever
address 2: eth0    inet6 2001:db8::bad/64 scope global temporary dynamic \\       valid_lft 1sec
address 2: eth0    inet6 2001:db8::1/64 scope global \\       valid_lft forever
address 3: docker0    inet 172.17.0.1/16 scope global docker0\\       valid_lft forever
address 4: wg0@NONE    inet 10.9.0.1/24 scope global wg0\\       valid_lft forever
"""


def here(address):
    return "2001:db8::7" if ":" in address else "192.0.2.7"


def found_places(addresses, text=FACTS, local=here, **options):
    return {place.family: place for place in addresses_to_try(addresses, read_facts(text), spec_of(**options), local)}


def test_the_other_familys_address_comes_from_the_host():
    found = found_places(["192.0.2.1"])
    assert found["ipv4"] == V4
    assert found["ipv6"] == V6
    found = found_places(["2001:db8::1"])
    assert (found["ipv4"].address, found["ipv4"].given) == ("192.0.2.1", False)


@pytest.mark.parametrize(
    ("more", "family", "why"),
    [
        ({"text": "connection 192.0.2.7 1 192.0.2.1 22\nlisted\n"}, "ipv6", "the host has no IPv6 address"),
        ({"text": ""}, "ipv6", "no IPv6 address of the host is known"),
        ({"ip_versions": ["ipv4"]}, "ipv6", "portknock_ip_versions leaves it out"),
        (
            {"local": lambda address: "" if ":" in address else "192.0.2.7"},
            "ipv6",
            "this controller has no route to 2001:db8::1",
        ),
        ({"local": lambda address: address}, "ipv6", "this controller is the host itself"),
        ({"trusted_sources": ["192.0.2.0/28"]}, "ipv4", "this controller is in portknock_trusted_sources"),
        ({"trusted_interfaces": ["lo", "eth+"]}, "ipv4", "this controller comes in by eth0, a trusted interface"),
    ],
)
def test_why_nothing_can_be_seen_from_here(more, family, why):
    found = found_places(["192.0.2.1"], **more)
    assert found[family].unseen.startswith(why)
    context = Context(
        spec_of(**{key: value for key, value in more.items() if key not in ("text", "local")}), found, TOLD, {}, 30
    )
    row = next(row for row in rows({}, context) if row["ip_version"] == family and row["what"] == "door ssh")
    assert (row["state"], row["note"]) == ("unseen", found[family].unseen)


def test_the_client_is_whom_the_host_sees():
    found = found_places(["198.51.100.1"], FACTS.replace("192.0.2.7", "::ffff:203.0.113.9"))
    assert found["ipv4"].client == "203.0.113.9"
