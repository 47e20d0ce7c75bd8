# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Comments of rules: what is written is read back as what it was, for every meaning that there is."""

import re

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import build_rules
from ansible_collections.sesame.portknock.plugins.module_utils._names import comments
from ansible_collections.sesame.portknock.plugins.module_utils._names.comments import Meaning
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from hypothesis import given
from hypothesis import strategies as st

FIXED = sorted({value for value in vars(comments).values() if isinstance(value, Meaning)})
MEANINGS = st.one_of(
    st.sampled_from(FIXED),
    st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,15}", fullmatch=True).flatmap(
        lambda door: st.one_of(
            st.just(comments.entrance(door)),
            st.just(comments.reset(door)),
            st.just(comments.by_nat(door)),
            st.just(comments.used(door)),
            st.builds(comments.step, st.just(door), st.integers(1, 8), st.integers(1, 8), st.booleans()),
        )
    ),
    st.from_regex(r"[A-Za-z0-9 ,.:;/_()@+#=-]{1,80}", fullmatch=True).map(comments.allowed),
)
TEXTS = st.sampled_from(["", "-p tcp -m tcp --dport 22", "-s 192.0.2.0/24 -p udp -m udp --dport 53"])


@given(MEANINGS, st.sampled_from(["ipv4", "ipv6"]), TEXTS, st.sampled_from(["", "-j ACCEPT", "-g PORTKNOCK_K1"]))
def test_what_is_written_is_read_back(meaning, family, matches, target):
    text = comments.with_comment(family, "PORTKNOCK", matches, meaning, target)
    read = comments.read_comment(text)
    assert read.meaning == meaning
    plain = comments.without_comment(text)
    assert plain == " ".join(part for part in (matches, target) if part)
    assert read.id == comments.rule_id(family, "PORTKNOCK", plain)
    assert comments.comment_texts(text) == ((read.id, comments.wording_of(meaning)),)


@given(MEANINGS, MEANINGS)
def test_no_two_meanings_are_written_alike(one, other):
    assert (one == other) is (comments.wording_of(one) == comments.wording_of(other))


def test_all_fixed_wordings_are_read_back():
    assert len(FIXED) == 36
    assert {comments.meaning_of(comments.wording_of(meaning)) for meaning in FIXED} == set(FIXED)


@pytest.mark.parametrize(
    ("wording", "meaning"),
    [
        ("sessions that run, trusted sources, ICMP", comments.HOOK_HEAD),
        ("doors, knocks and allowed ports", comments.HOOK_DOORS),
        ("refuse the rest, keep this last", comments.HOOK_TAIL),
        ("sessions that run live on", comments.ESTABLISHED),
        ("the host itself", comments.LOOPBACK),
        ("trusted interface", comments.TRUSTED_INTERFACE),
        ("trusted source", comments.TRUSTED_SOURCE),
        ("ping and other ICMP", comments.ICMP),
        ("ping and other ICMPv6", comments.ICMPV6),
        ("ICMPv6 that IPv6 needs to live", comments.NEEDED_ICMPV6),
        ("DHCPv6, answers come from another address", comments.DHCPV6),
        ("refuse with a reset", comments.REFUSE_TCP),
        ("refuse", comments.REFUSE),
        ("log who comes in", comments.LOG_OPENED),
        ("let in", comments.ACCEPT),
        ("everything else is refused", comments.REFUSE_REST),
        ("log who is refused", comments.LOG_REFUSED),
        ("who has not knocked is refused", comments.REFUSE_NOT_KNOCKED),
        ("ports of doors", comments.DOOR_PORTS),
        ("ports of this range", comments.PORT_RANGE),
        ("knocks", comments.KNOCK_PORTS),
        ("wrong port: start again", comments.WRONG_PORT),
        ("wrong protocol: start again", comments.WRONG_PROTOCOL),
        ("no longer on its way", comments.IN_PROGRESS),
        ("door ssh: let in who has knocked", comments.entrance("ssh")),
        ("door ssh: forget a step", comments.reset("ssh")),
        ("door ssh: step 2 of 3", comments.step("ssh", 2, 3)),
        ("door ssh: closing step 1 of 2", comments.step("ssh", 1, 2, closing=True)),
        ("allowed: port 443/tcp", comments.allowed("port 443/tcp")),
    ],
)
def test_the_wordings_of_release_1_0_0(wording, meaning):
    assert comments.meaning_of(wording) == meaning


@pytest.mark.parametrize(
    "wording", ["", "hello", "door ssh: step 2 of 3 and more", "door ssh", "door a b: step 1 of 2"]
)
def test_a_wording_of_somebody_else(wording):
    assert comments.meaning_of(wording).kind == comments.UNKNOWN


@pytest.mark.parametrize(
    "text", ["-j ACCEPT", '-m comment --comment "portknock:xyz hello"', "-m comment --comment portknock"]
)
def test_a_rule_of_somebody_else(text):
    assert comments.read_comment(text) is None
    assert not comments.has_comment(text)
    assert comments.comment_texts(text) == ()


def _wide(**more):
    doors = [
        {"name": f"d{n}", "knock": [str(20000 + 7 * n), str(41000 - 9 * n)], "opens": [str(3000 + n)]}
        for n in range(60)
    ]
    doors[0].update(close=["50001", "50002/udp"], once=True)
    return spec_from_options(dict({"doors": doors, "allow": [{"port": 443}]}, **more))


def test_every_meaning_is_in_use():
    """Nothing is read back that is not written, and every rule has a comment that fits ``iptables`` (256 bytes)."""
    seen = set()
    for spec in (
        _wide(log=True, trusted_interfaces=["wg0"], trusted_sources=["192.0.2.1", "2001:db8::1"]),
        _wide(reject_with="tcp-reset", icmp=False),
        _wide(published="policy", trusted_sources=["192.0.2.1"]),
        _wide(published="none"),
        spec_from_options(
            {"doors": [dict(name="b", knock=["5000", "900"], opens=["22"], to=["10.1.0.7", "fd00::7"], once=True)]}
        ),
        spec_from_options({"doors": [{"name": "a", "knock": ["5000", "900"], "opens": ["22"]}]}),
    ):
        for family in ("ipv4", "ipv6"):
            own = build_rules(spec, family)
            hooks = [own.head, own.doors, own.tail, *dict(own.forward).values()]
            for text in hooks + [text for rules in own.chains.values() for text in rules]:
                seen.add(comments.read_comment(text).meaning)
                assert len(re.search(r'--comment "([^"]*)"', text).group(1)) < 256
    assert comments.UNKNOWN not in {meaning.kind for meaning in seen}
    assert set(FIXED) <= seen
    assert {meaning.kind for meaning in seen - set(FIXED)} == {
        "entrance",
        "forwarded",
        "by_nat",
        "used",
        "step",
        "closing_step",
        "reset",
        "allowed",
    }
