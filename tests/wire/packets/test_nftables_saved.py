# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who saves the whole ruleset with ``nft list ruleset`` has a file that a boot loads, with the rules of others in it."""

import pytest
from rig.nftables import KNOCK, WANTED, check_loads_again
from rig.peer import OPEN

pytestmark = pytest.mark.only("nft")


def test_what_nft_prints_of_the_table_it_loads(rig, table):
    run = rig.target.namespace.run
    for options in WANTED.values():
        check_loads_again(run, options)
    table.apply(**WANTED["one"])
    rig.client.knock(*KNOCK[:2])
    printed = run("nft", "list", "ruleset").stdout
    assert " 10.77.0.2 limit rate" in printed, "how often a source has begun is remembered as well"
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
