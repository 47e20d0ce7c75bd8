# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The packet walker of the unit tests says what the kernel does: random packets, one by one, both asked."""

import random
import sys
import time
from pathlib import Path

import pytest
from rig.packets import IPV4
from rig.peer import PROHIBITED, SILENT
from rig.target import ROOT, door

sys.path.append(str(ROOT / "tests/unit/support"))
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from walker import ACCEPT, REJECT, Packet, Walker

PAUSE = 1.4
ALLOW = [{"port": "443"}, {"port": "80", "sources": ["10.77.0.2", "fd77::2"]}]
SPECS = {
    "one step": dict(doors=[door(7000, opens=(2222,), window=2)]),
    "three steps": dict(doors=[door(7000, 9100, 3100, opens=("2222-2223",), window=2, step_timeout=2)], allow=ALLOW),
    "mixed, once, close": dict(
        doors=[
            door(7000, "9100/udp", 3100, opens=(2222, "514/udp"), window=2, step_timeout=2, close=["6000", "3100/udp"]),
            door(9100, "7000/udp", name="two", opens=(3333,), window=3600, step_timeout=2, once=True),
        ],
        allow=ALLOW,
    ),
    "sources": dict(
        doors=[door(7000, 9100, opens=(2222,), window=2, step_timeout=2, sources=["10.77.0.2", "fd77::2"])],
        policy="accept",
    ),
    "prefix": dict(doors=[door(7000, 9100, 3100, opens=(2222,), window=2, step_timeout=2)], ipv6_prefix=64),
    "trusted": dict(doors=[door(7000, 9100, opens=(2222,))], trusted_sources=["10.77.0.3", "fd77::3"], allow=ALLOW),
}
SOURCES = {IPV4: ("10.77.0.2", "10.77.0.22", "10.77.0.3"), "ipv6": ("fd77::2", "fd77::22", "fd78::2", "fd77::3")}


def steps_of(options):
    """Return the ports a random packet is sent to; those of knocks more often."""
    knocks = [step for each in options["doors"] for step in each["knock"] + each.get("close", [])]
    opened = [str(port).partition("-")[0] for each in options["doors"] for port in each["opens"]]
    return knocks * 3 + opened * 2 + ["443", "80", "6543", "6543/udp", "9100/udp", "7000"]


def sequence(choose, options, sources):
    """Yield (source, step), mostly at random, at times a whole knock with a slip in it."""
    steps = steps_of(options)
    while True:
        source = choose.choice(sources)
        if choose.random() < 0.5:
            yield source, choose.choice(steps)
            continue
        each = choose.choice(options["doors"])
        knock = list(choose.choice([each["knock"], each.get("close") or each["knock"]]))
        if choose.random() < 0.3:
            knock.insert(choose.randrange(len(knock) + 1), choose.choice(steps))
        for step in knock + [str(each["opens"][0]).partition("-")[0]]:
            yield source, step


def compare(rig, family, options, seed, bursts, length):
    """Send bursts with pauses between; kernel and walker must agree on every packet."""
    plans = rig.target.apply(reject_with="icmp-admin-prohibited", **options)
    assert plans[family].change
    size = int(Path("/sys/module/xt_recent/parameters/ip_list_tot").read_text())
    walker = Walker(parse(rig.target.save(family)), list_size=size)
    packets = sequence(random.Random(seed), options, SOURCES[family])
    last, verdicts, history = time.monotonic(), set(), []
    for burst in range(bursts):
        if burst:
            time.sleep(PAUSE)
        for _number in range(length):
            source, step = next(packets)
            port, _slash, protocol = step.partition("/")
            peer = rig.other if source == rig.other.addresses[family] else rig.client
            sport = peer.fresh_port()
            now = time.monotonic()
            walker.later(now - last)
            last = now
            said = walker.send(Packet(source, int(port), protocol or "tcp", sport)).action
            seen = peer.probe(step, family, source=source, sport=sport)
            history.append((burst, source, step, said, seen))
            assert seen != SILENT, history[-8:]
            assert said in (ACCEPT, REJECT)
            assert (seen == PROHIBITED[family]) == (said == REJECT), history[-30:]
            verdicts.add(said)
    assert verdicts == {ACCEPT, REJECT}, "nothing much happened"


@pytest.mark.parametrize("name", SPECS)
def test_walker_and_kernel_agree(rig, family, name):
    compare(rig, family, SPECS[name], 1, 3, 60)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 12))
@pytest.mark.parametrize("name", SPECS)
def test_walker_and_kernel_agree_for_long(rig, family, name, seed):
    compare(rig, family, SPECS[name], seed, 8, 100)
