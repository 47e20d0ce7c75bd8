# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources that need no knock: refused where they are everyone, however that is split up; a finding where they are many."""

import ipaddress

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.findings import spec_findings
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from hypothesis import given
from hypothesis import strategies as st

DOOR = {"name": "ssh", "knock": ["17005", "19100/udp"], "opens": ["22", "8000-9000"]}
WEB = {"name": "web", "knock": ["16000", "14000"], "opens": ["8443"]}
V4, V6 = ["0.0.0.0/1", "128.0.0.0/1"], ["::/1", "8000::/1"]
WHOLE = (
    "together with what else needs no knock this includes everyone who speaks IPv{0}, so {1}. Name your own addresses."
)
VOID = "no door would need a knock"
SSH_VOID = "door 'ssh' would not need a knock"


def spec_of(**options):
    return spec_from_options(dict({"doors": [DOOR, WEB]}, **options))


def allowed(*pairs):
    return [{"port": port, "sources": sources} for port, sources in pairs]


QUARTERS = [str(each) for each in ipaddress.ip_network("0.0.0.0/0").subnets(new_prefix=4)]
ALL_BUT_ONE = [
    str(each) for each in ipaddress.ip_network("0.0.0.0/0").address_exclude(ipaddress.ip_network("192.0.2.1"))
]


@pytest.mark.parametrize(
    ("options", "option", "version", "what"),
    [
        ({"trusted_sources": V4}, "trusted_sources", 4, VOID),
        ({"trusted_sources": V6}, "trusted_sources", 6, VOID),
        ({"trusted_sources": ["2000::/4", "3000::/4"]}, "trusted_sources", 6, VOID),
        ({"trusted_sources": QUARTERS}, "trusted_sources", 4, VOID),
        ({"trusted_sources": QUARTERS[:14]}, "trusted_sources", 4, VOID),
        ({"trusted_sources": ALL_BUT_ONE}, "trusted_sources", 4, VOID),
        ({"allow": allowed(("22", V4))}, "allow[0].sources", 4, SSH_VOID),
        (
            {"allow": allowed(("22", V4[:1]), ("80", ["192.0.2.1"]), ("1-1023", V4[1:]))},
            "allow[2].sources",
            4,
            SSH_VOID,
        ),
        ({"allow": allowed(("8500-9500", V6))}, "allow[0].sources", 6, SSH_VOID),
        ({"allow": allowed(("22", V4[:1])), "trusted_sources": V4[1:]}, "allow[0].sources", 4, SSH_VOID),
    ],
)
def test_everyone_is_refused(options, option, version, what):
    with pytest.raises(SpecError) as refusal:
        spec_of(**options)
    assert str(refusal.value) == "{0}: {1}".format(option, WHOLE.format(version, what))


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"trusted_sources": ["0.0.0.0/1"]},
         ["trusted_sources: 57 % of all public IPv4 addresses (0.0.0.0/1) need no knock for any door. Name your own addresses alone."]),
        ({"trusted_sources": ["11.0.0.0/8"]},
         ["trusted_sources: 0.45 % of all public IPv4 addresses (11.0.0.0/8) need no knock for any door. Name your own addresses alone."]),
        ({"trusted_sources": ["2000::/16"]},
         ["trusted_sources: 0.012 % of all public IPv6 addresses (2000::/16) need no knock for any door. Name your own addresses alone."]),
        ({"allow": allowed(("8443", ["128.0.0.0/2"]))},
         ["allow[0].sources: 29 % of all public IPv4 addresses (128.0.0.0/2) need no knock for door {0}. Name your own addresses "
          "alone.".format(name) for name in ("ssh", "web")]),
        ({"trusted_sources": ["10.0.0.0/8", "fc00::/7", "172.16.0.0/12", "2001:db8::/32", "192.0.2.0/24"]}, []),
        ({"allow": allowed(("22", V4[:1]), ("22/udp", V4[1:]), ("80", V4))},
         ["allow[0].sources: 57 % of all public IPv4 addresses (0.0.0.0/1) need no knock for door ssh. Name your own addresses alone."]),
    ],
)  # fmt: skip
def test_many_are_a_finding(options, wanted):
    found = spec_findings(spec_of(**options))
    assert [finding.message for finding in found] == wanted
    assert {finding.kind for finding in found} <= {"broad_trust"}


@st.composite
def splits(draw):
    """Everyone, split at random."""
    parts, whole = [], [ipaddress.ip_network(draw(st.sampled_from(["0.0.0.0/0", "::/0"])))]
    while whole:
        network = whole.pop()
        if len(parts) + len(whole) < 30 and (network.prefixlen == 0 or draw(st.booleans())):
            whole += network.subnets()
        else:
            parts.append(str(network))
    return parts


@given(splits())
def test_no_split_of_everyone_is_taken(parts):
    with pytest.raises(SpecError):
        spec_of(trusted_sources=parts)
    with pytest.raises(SpecError):
        spec_of(allow=[{"port": "22", "sources": [part]} for part in parts])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("eth0:1", "is the label of an address, and no packet comes in by that name. Write the interface's own: eth0."),
        ("eth0@if3", "is an interface with its parent, as ip link shows it, and no packet comes in by that name. "
                     "Write the interface's own: eth0."),
        ("vlan7@bond0", "is an interface with its parent, as ip link shows it, and no packet comes in by that name. "
                        "Write the interface's own: vlan7."),
    ],
)  # fmt: skip
def test_names_that_no_packet_comes_in_by(name, message):
    for options, path in (
        ({"trusted_interfaces": ["lo", name]}, "trusted_interfaces[1]"),
        ({"knockd_interface": name}, "knockd_interface"),
    ):
        with pytest.raises(SpecError) as refusal:
            spec_of(**options)
        assert str(refusal.value) == "{0}: {1!r} {2}".format(path, name, message)
