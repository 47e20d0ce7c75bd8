# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of the engine nftables in a kernel: every text loads and is read back, and who is known stays known."""

import contextlib
import itertools
import re
import subprocess
import sys
import time

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.build import build_table
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.installed import drift
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import TABLE
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.text import load_text, read_text
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from rig import flood
from rig.flood import NETWORK
from rig.nftables import DOOR, KNOCK, OTHER_DOORS, WANTED
from rig.packets import IPV4
from rig.peer import OPEN, REFUSED, SILENT, TARGET
from rig.target import FAMILIES

pytestmark = [pytest.mark.only("nft"), pytest.mark.soak]


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


@pytest.mark.parametrize("policy", ["reject", "accept"])
def test_not_one_wrong_answer_in_400_reapplies(rig, table, policy):
    """The packets that meet a half of a change are the ones that would be decided wrongly.

    One of the very moment is dropped: who connects sends it again a second later, and so does this.
    """
    wanted, lost = dict(WANTED["one"], policy=policy), []

    def answer(peer):
        said = peer.probe(2222)
        lost.extend([said] * (said == SILENT))
        return said if said != SILENT else peer.probe(2222, patience=20)

    texts = [load_text(build_table(spec_from_options(dict(wanted, log=log)))).text for log in (False, True)]
    table.apply(**wanted)
    rig.client.knock(*KNOCK)
    running = rig.target.namespace.start(
        "sh", "-c", 'for turn in $(seq 200); do printf %s "$0" | nft -f - && printf %s "$1" | nft -f - || exit 1; done', *texts
    )  # fmt: skip
    rounds, end = 0, time.monotonic() + 600
    try:
        while running.poll() is None and time.monotonic() < end:
            rounds += 1
            assert answer(rig.client) == OPEN
            assert answer(rig.other) == REFUSED[IPV4]
    finally:
        running.kill()
    assert running.wait() == 0
    assert rounds > 100
    print(f"{2 * rounds} answers, {len(lost)} of them to a packet that was sent again")
    assert len(lost) < 20


FILLED = 8
"""Seconds of a flood after which the sets hold all that it fills them with: longer than a step counts."""


def received(rig):
    """Return how many packets have come to the target."""
    (line,) = re.findall(r"^ *eth0:(.*)$", rig.target.namespace.read_proc("dev"), re.M)
    return int(line.split()[1])


@contextlib.contextmanager
def flooded(rig, sources, ports, rate=50000):
    """Within the block forged sources send to ports of the target, once they have filled what a flood fills.

    Then it is checked that the packets leave this machine time for so many a second: what others have it do meanwhile makes
    the flood last longer, and is not counted.
    """
    # The answers go to a host that is there, and end there.
    rig.target.namespace.run("ip", "route", "replace", NETWORK, "via", rig.other.addresses[IPV4])
    words = (rig.target.namespace.mac, TARGET[IPV4], ",".join(map(str, ports)), sources, rate)
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    running = rig.other.namespace.start(sys.executable, flood.__file__, *words, **pipes)
    try:
        before = received(rig)
        assert running.stdout.readline() == "ready\n"
        end = time.monotonic() + 20 * FILLED
        while received(rig) - before < FILLED * rate:
            assert time.monotonic() < end, "the flood does not get through"
            time.sleep(0.1)
        yield
        sent, seconds, worked = map(float, running.communicate("", timeout=60)[0].split())
        print(
            f"{sent:.0f} packets of {sources} sources in {seconds:.1f} s, {worked:.1f} s of a processor: {sent / seconds:.0f} a second"
        )
        assert sent / worked > 0.9 * rate, "this machine cannot send so many"
    finally:
        running.kill()
        rig.target.namespace.run("ip", "route", "delete", NETWORK)


@pytest.mark.parametrize(
    ("sources", "size", "opened"),
    [(100000, None, {10}), (1000000, None, {10}), (100000, 1000, set(range(6)))],
    ids=["100,000 sources", "1,000,000 sources", "too small sets"],
)
def test_knocks_open_in_a_flood_of_first_steps(rig, table, sources, size, opened):
    """The flood fills the sets of those who are in the middle of a knock for as long as a step counts."""
    table.apply(doors=[DOOR | {"step_timeout": 5}], **({"list_size": size} if size else {}))
    with flooded(rig, sources, KNOCK[:1]):
        assert opened_of_ten(rig, table) in opened


@pytest.mark.parametrize(("sources", "rate"), [(1, 3000), (100000, 20000)])
def test_knocks_open_in_a_flood_of_first_steps_and_wrong_ports(rig, table, sources, rate):
    """Each takes its source in and out of the sets. What a packet deletes the kernel clears away a second later, and walks through it
    until then, so one source costs more than many."""
    table.apply(doors=[DOOR | {"step_timeout": 5}])
    with flooded(rig, sources, (KNOCK[0], 6543), rate):
        assert opened_of_ten(rig, table) == 10


def opened_of_ten(rig, table):
    """Return how many knocks of ten open the door."""
    found = 0
    for _turn in range(10):
        rig.client.knock(*KNOCK, pause=0.1)
        found += rig.client.probe(2222) == OPEN
        table.load(f"flush set {TABLE} open4_ssh\n")
        time.sleep(0.5)
    print(f"{found} of 10 knocks opened")
    return found


def test_a_source_breaks_only_so_many_knocks_a_second(rig, table):
    """What is taken out of a set burdens it until the kernel clears up, so one source must not make any number of it; others do not
    notice."""
    table.apply(doors=[DOOR])
    begun = time.monotonic()
    with flooded(rig, 1, (KNOCK[0], 6543), rate=5000):
        rig.client.knock(*KNOCK, pause=0.1)
        assert rig.client.probe(2222) == OPEN
    seconds = time.monotonic() - begun
    listed = rig.target.namespace.run("nft", "list", "table", *TABLE.split()).stdout
    counted = sum(int(packets) for packets in re.findall(r"@progress4 counter packets (\d+) ", listed))
    assert 50 <= counted <= 50 + 20 * (seconds + 10) + 1, listed


def test_who_is_paused_is_refused_nothing_else(rig, table):
    """A sender can write any address into his packets, that of the router too: what IPv6 needs to work goes on, and so do doors."""
    paused = "".join(
        f"add element {TABLE} paused{family[-1]} {{ {rig.client.addresses[family]} timeout 600s }}\n"
        for family in FAMILIES
    )
    for icmp in (False, True):
        table.apply(doors=[DOOR], icmp=icmp)
        for family in FAMILIES:
            rig.client.knock(*KNOCK, family=family)
        table.load(paused)
        for namespace in (rig.client.namespace, rig.target.namespace):
            namespace.run("ip", "-6", "neigh", "flush", "all")
        assert [rig.client.probe(2222, family) for family in FAMILIES] == [OPEN] * 2
        assert [rig.client.ping(family) for family in FAMILIES] == [icmp] * 2
