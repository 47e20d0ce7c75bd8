# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who saves the whole ruleset with ``nft list ruleset`` has a file that a boot loads, with the rules of others in it."""

import contextlib
import json
import re
import subprocess
import sys
import time

import pytest
from rig import flood
from rig.nftables import KNOCK, WANTED, check_loads_again, text_of
from rig.peer import OPEN

pytestmark = pytest.mark.only("nft")


def test_what_nft_prints_of_the_table_it_loads(rig, table):
    run = rig.target.namespace.run
    for options in WANTED.values():
        check_loads_again(run, options)
    table.apply(**WANTED["one"])
    rig.client.knock(*KNOCK[:2])
    printed = run("nft", "list", "ruleset").stdout
    run("nft", "-f", "/dev/stdin", stdin="flush ruleset\n" + printed)
    rig.client.knock(KNOCK[2])
    assert rig.client.probe(2222) == OPEN


@pytest.mark.soak
@pytest.mark.parametrize(
    "release",
    [pytest.param(name, marks=pytest.mark.image(name)) for name in ("debian-11", "debian-12", "debian-13")],
)
def test_so_does_that_of_every_release(bare_host, release):
    bare_host.run("apt-get", "install", "--yes", "-qq", "nftables")
    version = {"debian-11": "v0.9.8", "debian-12": "v1.0.6", "debian-13": "v1.1.3"}[release]
    assert version in bare_host.run("nft", "--version").stdout
    for options in WANTED.values():
        check_loads_again(bare_host.run, options)
    for sources, ports in ((1, (KNOCK[0], 6543)), (20000, (KNOCK[0], 6543)), (20000, KNOCK[:1])):
        bare_host.run("nft", "-f", "/dev/stdin", stdin="flush ruleset\n" + text_of(WANTED["more"]))
        with flooded(bare_host, sources, ports):
            for _turn in range(5):
                printed = bare_host.run("nft", "list", "ruleset").stdout
                assert len(re.findall(r"paused4|progress4", printed)) > 2
                assert "100.64." in printed, "the flood is seen in the sets"
                bare_host.run("nft", "-f", "/dev/stdin", stdin="flush ruleset\n" + printed)


@contextlib.contextmanager
def flooded(host, sources, ports):
    """Within the block forged sources send to ports of a host in a container; what it answers goes to an address that nothing has."""
    mac = host.run("cat", "/sys/class/net/eth0/address").stdout.strip()
    host.run("ip", "neigh", "replace", "169.254.7.7", "lladdr", "02:00:00:00:00:0f", "dev", "eth0")
    host.run("ip", "route", "replace", flood.NETWORK, "via", "169.254.7.7", "dev", "eth0", "onlink")
    (route,) = json.loads(subprocess.check_output(["ip", "-json", "route", "get", host.address]))
    words = (mac, host.address, ",".join(map(str, ports)), sources, 10000, route["dev"])
    running = subprocess.Popen(
        [sys.executable, flood.__file__, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert running.stdout.readline() == "ready\n"
        time.sleep(2)
        yield
        assert running.poll() is None
    finally:
        running.kill()
        running.wait()
