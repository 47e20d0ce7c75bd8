# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""iptables-save and iptables-restore keep what the doors are."""

from rig.packets import IPV4, IPV6
from rig.peer import OPEN, REFUSED
from rig.target import FAMILIES, door

DOOR = door(7000, "9100/udp", 3100, opens=(2222,))


ALLOW = [{"port": 443, "comment": "für alle, 誰でも"}]


def rules(text):
    """Return a save without its comments and counters."""
    return [line.split(" [")[0] for line in text.splitlines() if not line.startswith("#")]


def test_a_restored_ruleset_is_the_same_and_works(rig):
    rig.target.apply(DOOR, allow=ALLOW)
    saved = {family: rig.target.save(family) for family in FAMILIES}
    rig.target.reset()
    for family in FAMILIES:
        assert ALLOW[0]["comment"] in saved[family]
        assert rig.client.probe(2222, family) == OPEN
        rig.target.restore(family, saved[family])
        assert rules(rig.target.save(family)) == rules(saved[family])
        assert rig.target.plan(family, doors=[DOOR], allow=ALLOW).change == ""
    for family in FAMILIES:
        assert rig.client.probe(2222, family) == REFUSED[family]
        rig.client.knock(*DOOR["knock"], family=family)
        assert rig.client.probe(2222, family) == OPEN


def test_who_has_knocked_stays_known(rig, family):
    """Restored over the running ruleset, in mid-window and in mid-knock."""
    rig.target.apply(DOOR)
    rig.client.knock(*DOOR["knock"], family=family)
    rig.other.knock(*DOOR["knock"][:2], family=family)
    rig.target.restore(family, rig.target.save(family))
    assert rig.client.probe(2222, family) == OPEN
    rig.other.knock(DOOR["knock"][2], family=family)
    assert rig.other.probe(2222, family) == OPEN


def test_lists_of_the_families_stay_apart(rig):
    """A list that both families share compares only 32 bits of an IPv6 address after a restore: nothing here may."""
    rig.target.apply(DOOR)
    saved = {family: rig.target.save(family) for family in FAMILIES}
    rig.target.reset()
    for family in FAMILIES:
        rig.target.restore(family, saved[family])
    rig.client.knock(*DOOR["knock"], family=IPV6)
    assert rig.client.probe(2222, IPV6) == OPEN
    for neighbour in ("fd77::22", "fd77:0:5::9"):
        assert rig.client.probe(2222, IPV6, source=neighbour, patience=0.5) != OPEN
    assert rig.other.probe(2222, IPV6) == REFUSED[IPV6]
    assert rig.client.probe(2222, IPV4) == REFUSED[IPV4]
    assert len(rig.target.listed("pk6_ssh")) == 1
    assert not rig.target.listed("pk4_ssh")


def test_the_prefix_survives_a_restore(rig):
    rig.target.apply(DOOR, ipv6_prefix=64)
    saved = rig.target.save(IPV6)
    rig.target.reset()
    rig.target.restore(IPV6, saved)
    rig.client.knock(*DOOR["knock"], family=IPV6)
    assert rig.client.probe(2222, IPV6, source="fd77::22") == OPEN
    assert rig.client.probe(2222, IPV6, source="fd78::2") == REFUSED[IPV6]
