# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host as each test finds it: with the ruleset from before, confirmed and kept, and nothing pending."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "shared" / "tests"))

from harness import CHECKOUT, NAME, hosts_sh
from rig_console import BEFORE, Target
from rig_play import Controller


@pytest.fixture(scope="session")
def strict_host():
    """The throwaway host, with the ruleset from before."""
    target = Target(NAME, hosts_sh("host_address", NAME))
    controller = Controller(target.address)
    try:
        target.run("rm -rf /run/portknock /etc/portknock; iptables -t raw -F; iptables -F; ip6tables -F")
        done = controller.apply(BEFORE).only()
        assert done.kind == "ok" and done.result["guard"]["state"] == "confirmed", done
    finally:
        controller.close()
    target.remember()
    return target


@pytest.fixture
def target(strict_host):
    """The same, put back to that ruleset."""
    strict_host.go_back()
    return strict_host


@pytest.fixture
def controller(target):
    """A controller that comes as root, and whose masters of ssh end with the test."""
    made = Controller(target.address)
    yield made
    made.close()


@pytest.fixture(scope="session")
def bare_host():
    """A container in which nothing but a sleep runs, so no systemd; it has iptables."""
    name = f"{NAME}-bare"
    target = Target(name, name)
    target.start_bare(image_of=NAME, network=NAME)
    try:
        yield target
    finally:
        target.remove()


@pytest.fixture
def docker_ssh():
    """What Ansible may call in place of ssh, where no sshd runs."""
    return CHECKOUT / "molecule" / "shared" / "docker-ssh"
