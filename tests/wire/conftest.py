# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rig: one network of namespaces a backend, with both families on it."""

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from rig_lan import Lan
from rig_packets import IPV4, IPV6
from rig_peer import Peer
from rig_target import Target

NEEDED = (
    "unshare",
    "nsenter",
    "ip",
    "iptables-nft",
    "iptables-legacy",
    "nmap",
    "telnet",
    "nc",
    "knock",
    "curl",
    "ssh",
    "sshd",
    "flock",
)
BACKENDS = ("nft", "legacy")


class Rig(NamedTuple):
    """What a test works with."""

    target: Target
    client: Peer
    other: Peer
    backend: str


def pytest_addoption(parser):
    """Add our options."""
    parser.addoption("--soak", action="store_true", help="run the long series as well")
    parser.addoption("--backend", choices=BACKENDS, action="append", help="only this backend of iptables")


def pytest_configure(config):
    """Say at once what is missing, instead of failing later in a hundred places."""
    config.addinivalue_line("markers", "soak: a long series, only with --soak")
    # Whatever ends the run, what it made is taken down; a shell starts what runs beside it deaf to SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing:
        pytest.exit("these commands are missing: " + ", ".join(missing) + ". bin/test wire installs them.", 3)
    if os.geteuid():
        pytest.exit("the tests on the wire need root.", 3)


def pytest_collection_modifyitems(config, items):
    """Leave the long series out, unless they were asked for."""
    if config.getoption("--soak"):
        return
    long = [item for item in items if item.get_closest_marker("soak")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


def pytest_generate_tests(metafunc):
    """Run each test on both backends, and where it asks for a family, on both of those."""
    if "rig" in metafunc.fixturenames:
        metafunc.parametrize(
            "network", metafunc.config.getoption("--backend") or BACKENDS, indirect=True, scope="session"
        )
    if "family" in metafunc.fixturenames:
        metafunc.parametrize("family", (IPV4, IPV6))


@pytest.fixture(scope="session")
def network(request):
    """A network whose target uses one backend."""
    folder = Path(tempfile.mkdtemp(prefix="portknock-wire-"))
    lan = Lan()
    target = client = other = None
    try:
        target = Target(lan.target, request.param, folder)
        client, other = (Peer(host, lan.target.mac) for host in (lan.client, lan.other))
        yield Rig(target, client, other, request.param)
    finally:
        for part in (client, other, target, lan):
            if part:
                part.close()
        shutil.rmtree(folder)


@pytest.fixture
def rig(network):
    """The network with an empty ruleset."""
    network.target.reset()
    network.client.drain()
    return network


@pytest.fixture
def soak(request):
    """Whether the long series were asked for."""
    return request.config.getoption("--soak")
