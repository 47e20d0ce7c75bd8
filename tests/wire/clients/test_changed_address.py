# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's address changes between two tasks: its connection is dead, and nothing tells ssh."""

import contextlib
import time

import pytest
from rig.controller import PING
from rig.guard import BEHIND, DOOR
from rig.masters import master_pids
from rig.packets import IPV4
from rig.peer import TARGET

OWN, OTHER = "10.77.0.2", "10.77.0.22"


@contextlib.contextmanager
def another_address(rig):
    """Within the block the client has lost the address that it sends from, as a laptop does in another network."""
    run = rig.client.namespace.run
    # The first one is what it sends from, and the others of its network go with it.
    run("ip", "address", "flush", "dev", "eth0", "to", "10.77.0.0/24")
    run("ip", "address", "add", f"{OTHER}/24", "dev", "eth0")
    try:
        yield
    finally:
        run("ip", "address", "flush", "dev", "eth0", "to", "10.77.0.0/24")
        for address in (OWN, OTHER):
            run("ip", "address", "add", f"{address}/24", "dev", "eth0")


@pytest.mark.parametrize("name", ["", "the-target"], ids=["address", "name"])
def test_right_after_a_task(rig, controller, name):
    rig.target.apply(dict(DOOR, window=600))
    hosts = {"target": BEHIND}
    if name:
        # Which address it is only ssh's configuration tells.
        controller.configure(f"Host {name}\n    HostName {TARGET[IPV4]}")
        hosts = {"target": dict(BEHIND, ansible_host=name)}
    assert controller.play(PING, hosts=hosts).only(task="ping").kind == "ok"
    (master,) = master_pids(controller)
    with another_address(rig):
        begun = time.monotonic()
        again = controller.play(PING, hosts=hosts)
        assert again.only(task="ping").kind == "ok", again.output
        assert time.monotonic() - begun < 30
        assert master not in master_pids(controller)
        assert rig.target.listed("pk4_ssh") >= {OTHER}
        controller.end_masters()
