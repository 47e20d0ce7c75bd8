# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of the engine nftables in a kernel: every text loads and is read back, and who is known stays known."""

import itertools
import time

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.build import build_table
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.installed import drift
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import TABLE
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.text import load_text, read_text
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from rig.packets import IPV4
from rig.peer import OPEN, REFUSED
from rig.target import FAMILIES, door

pytestmark = [pytest.mark.only("nft"), pytest.mark.soak]

KNOCK = (7000, "9100/udp", 3100)
DOOR = door(*KNOCK, opens=(2222,), window=600, step_timeout=60)
ALLOW = [
    {"port": "443", "comment": "für alle, 誰でも" * 6},
    {"port": "5000-6000", "sources": ["192.0.2.0/24", "2001:db8::/32"]},
]
OTHER_DOORS = [
    door(4000 + number * 11, 30000 - number * 7, name=f"d{number}", opens=(9000 + number,)) for number in range(40)
]
WANTED = {
    "nothing": {},
    "one": {"doors": [DOOR]},
    "more": {"doors": [DOOR, *OTHER_DOORS], "allow": ALLOW},
    "ranges": {
        "doors": [door(*KNOCK, opens=("22", "5500-5510", "53/udp")), DOOR | {"name": "b", "knock": ["1"]}],
        "allow": ALLOW,
    },
    "once, closed by a knock": {
        "doors": [DOOR | {"once": True, "close": ["6000", "61/udp"], "sources": ["10.0.0.0/8", "fd00::/8"]}]
    },
    "accept": {"doors": [DOOR], "policy": "accept", "log": True, "icmp": False},
    "prefix": {"doors": [DOOR], "ipv6_prefix": 64, "reject_with": "tcp-reset"},
    "ipv4": {"doors": [DOOR], "ip_versions": ["ipv4"], "reject_with": "drop"},
    "ipv6": {"doors": [DOOR], "ip_versions": ["ipv6"], "reject_with": "icmp-admin-prohibited"},
    "trusted": {
        "doors": [DOOR],
        "trusted_sources": ["10.9.0.0/16", "10.9.1.0/24", "::1"],
        "trusted_interfaces": ["lo", "tun+"],
    },
}


def test_from_every_table_to_every_other(table):
    """Each is what was asked for afterwards, with nothing left of the one before."""
    for one, other in itertools.combinations(WANTED, 2):
        for name in (one, other):
            table.apply(**WANTED[name])
            wanted = load_text(build_table(spec_from_options(WANTED[name])))
            installed = table.installed()
            assert drift(read_text(wanted.text), installed) == [], (one, other)
            assert installed.digest == wanted.digest
    table.apply(state="absent")
    assert table.installed() is None


@pytest.mark.parametrize("policy", ["reject", "accept"])
def test_who_has_knocked_still_gets_in(rig, table, policy):
    """In mid-window and in mid-knock, while other doors come and go."""
    one, more = dict(WANTED["one"], policy=policy), dict(WANTED["more"], policy=policy)
    table.apply(**one)
    for family in FAMILIES:
        rig.client.knock(*KNOCK, family=family)
    for step, options in zip(KNOCK, (one, dict(one, log=True), one), strict=True):
        for family in FAMILIES:
            assert rig.other.probe(2222, family) == REFUSED[family]
            rig.other.knock(step, family=family)
        table.apply(**options)
        for family in FAMILIES:
            assert rig.client.probe(2222, family) == OPEN
    for family in FAMILIES:
        assert rig.other.probe(2222, family) == OPEN, "a knock that was under way goes on"
    table.apply(**more)
    assert {rig.client.probe(2222, family) for family in FAMILIES} == {OPEN}
    table.apply(doors=[DOOR | {"name": "new"}])
    assert rig.client.probe(2222) == REFUSED[IPV4], "another door's name is another door"


def test_an_edit_by_hand_is_seen(table):
    options = WANTED["ranges"]
    wanted = read_text(load_text(build_table(spec_from_options(options))).text)
    table.apply(**options)
    shape = table.installed().shape
    for text, said in (
        (f"add rule {TABLE} input accept", ["rules of chain input were added, removed or edited"]),
        (f"insert rule {TABLE} refuse accept", ["rules of chain refuse were added, removed or edited"]),
        (f"flush chain {TABLE} service1", ["rules of chain service1 were added, removed or edited"]),
        (f"add chain {TABLE} mine", ["mine is not one of the collection's"]),
        (f"add map {TABLE} mine {{ type ipv4_addr : verdict; }}", ["mine is not one of the collection's"]),
    ):
        table.load(text + "\n")
        assert drift(wanted, table.installed()) == said
        assert table.installed().shape != shape
        table.apply(**options)
        assert drift(wanted, table.installed()) == []
        assert table.installed().shape == shape


def test_wrong_ports_forget_all_of_many_knocks_in_progress(rig, table):
    """So many doors that they are parted into groups: in each the source has done the first step."""
    table.apply(**WANTED["more"])
    firsts = [each["knock"][0] for each in OTHER_DOORS]
    lasts = [each["knock"][-1] for each in OTHER_DOORS]
    rig.client.knock(*firsts, 6543, *lasts)
    assert not any(table.listed(f"pk4_{each['name']}") for each in OTHER_DOORS)
    rig.client.knock(*firsts, *lasts)
    assert all(table.listed(f"pk4_{each['name']}") == {"10.77.0.2"} for each in OTHER_DOORS)


def test_not_one_wrong_answer_while_it_is_applied(rig, table):
    """The packets that meet a half of a change are the ones that would be decided wrongly."""
    texts = [load_text(build_table(spec_from_options(dict(WANTED["one"], log=log)))).text for log in (False, True)]
    table.apply(**WANTED["one"])
    rig.client.knock(*KNOCK)
    running = rig.target.namespace.start(
        "sh", "-c", 'for turn in $(seq 40); do printf %s "$0" | nft -f - && printf %s "$1" | nft -f - || exit 1; done', *texts
    )  # fmt: skip
    rounds, end = 0, time.monotonic() + 60
    try:
        while running.poll() is None and time.monotonic() < end:
            rounds += 1
            assert rig.client.probe(2222) == OPEN
            assert rig.other.probe(2222) == REFUSED[IPV4]
    finally:
        running.kill()
    assert running.wait() == 0
    assert rounds > 20
