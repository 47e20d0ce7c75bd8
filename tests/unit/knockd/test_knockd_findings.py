# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings about knockd."""

import re

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.findings import findings
from hypothesis import given
from knockd_specs import BOTH, DOOR, SEVERAL, ports_used, spec_of, specs

# Findings


@pytest.mark.parametrize(
    ("kind", "families", "deaf"),
    [("1\n", BOTH, False), ("772\n", BOTH, False), ("512\n", BOTH, True), ("65534\n", BOTH, True), ("512\n", ("ipv4",), False),
     ("", BOTH, True)],
)  # fmt: skip
def test_an_interface_on_which_knockd_sees_no_ipv6(kind, families, deaf):
    found = [each for each in findings(spec_of(), families, "ppp0", kind) if each.ip_version == "ipv6"]
    assert bool(found) is deaf
    assert all("ppp0 is no Ethernet interface" in each.message and each.kind == "knockd" for each in found)


def test_the_time_that_counts_is_told():
    spec = spec_of(*SEVERAL)
    (found,) = findings(spec, BOTH, "eth0", "1\n")
    assert "(ssh: 7 s for 3 steps; six: 6 s for 2 steps)" in found.message
    assert findings(spec_of(dict(DOOR, knock=["17005"])), BOTH, "eth0", "1\n") == []


@pytest.mark.slow
@given(spec=specs())
def test_no_step_in_a_finding(spec):
    numbers = set(re.findall(r"\d{3,}", repr(findings(spec, BOTH, "eth0", "512"))))
    assert not {str(port) for port, _protocol in ports_used(spec)[1]} & numbers
