# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A change is whole or not at all: both families, whatever fails on the way; and all of it can be taken out."""

import time

import pytest
from rig.faults import unwrap_restore, wrap_restore
from rig.packets import IPV4, IPV6
from rig.peer import OPEN, REFUSED
from rig.shown import steps_in
from rig.target import COMMANDS, FAMILIES, door, without_empty_nat

KNOCK = (7000, "9100/udp", 3100)
DOOR = door(*KNOCK, opens=(2222,), window=600)
ONE = {"doors": [DOOR], "persist": False}
TWO = {"doors": [DOOR, door(7500, 9500, name="two", opens=(8000,))], "persist": False}
FOREIGN = """
:f2b-sshd - [0:0]
-A INPUT -p tcp -m multiport --dports 2222 -j f2b-sshd
-A INPUT -p tcp -m tcp --dport 80 -m comment --comment "the shop" -j ACCEPT
-A f2b-sshd -j RETURN
"""
# It fails, or spoils what it is given, only when the ruleset is really loaded: not for --test, not for a probe.
WRAPPER = """#!/bin/sh
input=$(mktemp)
cat >"$input"
case " $* " in *" --test "*) real=yes ;; *) real="" ;; esac
grep -q ' PORTKNOCK_PROBE \\|:PORTKNOCK_PROBE ' "$input" && real=yes
if [ -z "$real" ]; then
    {what}
fi
{real} "$@" <"$input"
code=$?
rm -f "$input"
exit $code
"""
WHATS = {
    "fails": "rm -f $input; echo the wrapper says no >&2; exit 4",
    "gets a bad line": "sed -i '/^COMMIT/i -A INPUT -m nosuchmatch -j ACCEPT' \"$input\"",
    "loses a rule and says nothing": "sed -i '/-A PORTKNOCK_HEAD -i lo/d' \"$input\"",
}


class Broken:
    """One family's restore command is broken within the block, on the target alone."""

    def __init__(self, rig, family, what):
        """Make the wrapper's text."""
        self._rig, self._family, self._text = rig, family, WRAPPER.replace("{what}", WHATS[what])

    def __enter__(self):
        wrap_restore(self._rig, self._family, self._text)

    def __exit__(self, *_error):
        unwrap_restore(self._rig, self._family)


def state(rig, counters=False):
    """Return both rulesets without the lines that carry the time, and without table nat where nothing is in it."""
    saves = {family: without_empty_nat(rig.target.save(family, counters)) for family in FAMILIES}
    return {
        family: [line.split(" [")[0] for line in text.splitlines() if line[0] != "#"] for family, text in saves.items()
    }


def faults_of(*families):
    """Return what fails in which family as parameters: each fault in one of these, and in the other one in soak."""
    pairs = [(what, family, its) for what, its in zip(WHATS, families, strict=True) for family in FAMILIES]
    return [pytest.param(what, family, marks=[] if family == its else pytest.mark.soak) for what, family, its in pairs]


@pytest.mark.parametrize(("what", "broken"), faults_of(IPV6, IPV4, IPV6))
def test_the_first_apply_fails(rig, what, broken):
    rig.target.load(FOREIGN)
    before = state(rig)
    with Broken(rig, broken, what):
        result = rig.target.module(**ONE, expect=1)
    assert result["failed"]
    assert result["msg"]
    assert steps_in(KNOCK, result["msg"]) == []
    assert state(rig) == before
    assert rig.target.module(**ONE)["changed"], "the next run works"


@pytest.mark.parametrize(("what", "broken"), faults_of(IPV4, IPV6, IPV4))
def test_a_later_apply_fails(rig, what, broken):
    """What was in force stays in force, and who has knocked stays known."""
    rig.target.load(FOREIGN)
    rig.target.module(**ONE)
    before = state(rig)
    rig.client.knock(*KNOCK)
    rig.client.knock(*KNOCK, family=IPV6)
    if what == "loses a rule and says nothing":
        rig.target.namespace.run(COMMANDS[broken], "-F", "PORTKNOCK_HEAD")
        before = state(rig)
    with Broken(rig, broken, what):
        result = rig.target.module(**TWO, expect=1)
    assert result["failed"]
    assert state(rig) == before
    if what == "loses a rule and says nothing":
        rig.target.module(**ONE)
    for family in FAMILIES:
        assert rig.client.probe(2222, family) == OPEN
        assert rig.other.probe(2222, family) == REFUSED[family]


def test_a_held_lock_is_waited_for(rig):
    if rig.backend == "nft":
        pytest.skip("the nft backend has no lock: the kernel takes transactions one by one")
    held = rig.target.namespace.start("flock", "/run/xtables.lock", "sleep", "3")
    try:
        time.sleep(0.3)
        begun = time.monotonic()
        assert rig.target.module(**ONE)["changed"]
        assert time.monotonic() - begun > 2
    finally:
        held.wait()
    assert rig.client.probe(2222) == REFUSED[IPV4]


def test_check_mode_changes_nothing(rig):
    rig.target.load(FOREIGN)
    before = state(rig)
    files = rig.target.namespace.run(
        "find", "/etc", "/usr/local/sbin", "-newer", rig.target.folder / "arguments.json"
    ).stdout
    result = rig.target.module(**dict(ONE, persist=True), check=True)
    assert result["changed"]
    assert any("PORTKNOCK" in part["after"] for part in result["diff"])
    assert state(rig) == before
    after = rig.target.namespace.run(
        "find", "/etc", "/usr/local/sbin", "-newer", rig.target.folder / "arguments.json"
    ).stdout
    assert after in (files, "")
    assert not rig.target.namespace.read_proc("xt_recent/pk4_ssh")


@pytest.mark.parametrize("foreign", ["", FOREIGN])
def test_absent_gives_back_what_was_there(rig, foreign):
    rig.target.load(foreign)
    before = state(rig)
    saves = {
        family: [line for line in rig.target.save(family, True).splitlines() if line.startswith("[")]
        for family in FAMILIES
    }
    assert rig.target.module(**TWO)["changed"]
    result = rig.target.module(state="absent", doors=[], persist=False)
    assert result["changed"]
    assert state(rig) == before
    for family in FAMILIES:
        assert [line for line in rig.target.save(family, True).splitlines() if line.startswith("[")] == saves[family]
        assert rig.client.probe(2222, family) == OPEN
    assert not rig.target.module(state="absent", doors=[], persist=False)["changed"]


def test_drift_is_mended(rig):
    """The collection's rules that were removed, edited or moved by hand come back; nothing else is touched."""
    rig.target.load(FOREIGN)
    rig.target.module(**ONE)
    wanted = state(rig)
    damages = (
        ["-D", "PORTKNOCK_REFUSE", "1"], ["-F", "PORTKNOCK_K1"], ["-D", "INPUT", "1"], ["-F", "PORTKNOCK"],
        ["-I", "PORTKNOCK_D1", "-j", "ACCEPT"], ["-A", "PORTKNOCK_HEAD", "-j", "ACCEPT"],
    )  # fmt: skip
    for words in zip(damages, damages[1:] + damages[:1]):
        for family, damage in zip(FAMILIES, words):
            rig.target.namespace.run(COMMANDS[family], *damage)
        assert rig.target.module(**ONE)["changed"], words
        assert state(rig) == wanted, words
        for family in FAMILIES:
            assert rig.client.probe(2222, family) == REFUSED[family]
