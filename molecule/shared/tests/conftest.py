# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import time

import pytest
import testinfra
from harness import NAME, Neighbour, Visitor, hosts_sh, neighbour


@pytest.fixture(scope="session")
def host():
    """The throwaway host, through docker: its door may be closed."""
    return testinfra.get_host(f"docker://{NAME}")


def addresses():
    return {"ipv4": hosts_sh("host_address", NAME), "ipv6": hosts_sh("host_address", NAME, "ipv6")}


@pytest.fixture(scope="session", params=["ipv4", "ipv6"])
def visitor(request, host):
    address = addresses()[request.param]
    if not address:
        pytest.skip(f"this machine gives its containers no {request.param} address")
    # A fresh IPv6 address is not usable before the host has made sure that no other host has it.
    for _try in range(400):
        if not host.check_output("ip -6 address show tentative"):
            return Visitor(address)
        time.sleep(0.25)
    raise AssertionError("the host's IPv6 address stays tentative")


@pytest.fixture(scope="session")
def stranger(visitor):
    with neighbour():
        yield Neighbour(visitor.address)
