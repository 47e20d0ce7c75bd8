# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the answer of a port that did not open means."""

import socket

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._client import answers, probe
from ansible_collections.sesame.portknock.plugins.module_utils._client.answers import verdict

BY_ROUTER = "icmp 3/13 by 192.0.2.1"


@pytest.mark.parametrize(
    ("answer", "closed", "expected"),
    [
        # reject_with: icmp-port-unreachable and icmp-admin-prohibited, for both IP versions.
        ("icmp 3/3", "icmp 3/3", answers.CLOSED),
        ("icmp 3/13", "", answers.CLOSED),
        ("icmp 1/4", "silent", answers.CLOSED),
        ("icmp 1/1", "icmp 1/1", answers.CLOSED),
        (BY_ROUTER, "icmp 3/3", answers.ON_THE_WAY),
        # A reset comes from where nothing listens, or from reject_with: tcp-reset, which closed ports have too.
        ("reset", "icmp 3/3", answers.NO_LISTENER),
        ("reset", BY_ROUTER, answers.NO_LISTENER),
        ("reset", "silent", answers.NO_LISTENER),
        ("reset", "reset", answers.RESET),
        ("reset", "", answers.RESET),
        # Refused, where the system does not say how.
        ("refused", "silent", answers.NO_LISTENER),
        ("refused", "refused", answers.PERHAPS),
        ("refused", "", answers.PERHAPS),
        ("open", "icmp 3/3", answers.LATE),
    ],
)
def test_what_answered(answer, closed, expected):
    assert verdict(answer, closed) == expected
    assert verdict(answer, closed, alive=False) == expected, "what has answered need not be asked by ping"


@pytest.mark.parametrize(
    ("closed", "alive", "expected"),
    [
        ("silent", None, answers.UNKNOWN),
        ("silent", False, answers.SILENT),
        ("silent", True, answers.DROPPED),
        ("reset", False, answers.DROPPED),
        ("icmp 3/3", None, answers.DROPPED),
        (BY_ROUTER, None, answers.UNKNOWN),
        ("", False, answers.SILENT),
    ],
)
def test_what_did_not_answer(closed, alive, expected):
    assert verdict("silent", closed, alive) == expected


def test_no_way_to_it():
    assert verdict("unreachable") == answers.DOWN
    assert verdict("unreachable", routed=False) == answers.NO_ROUTE


def test_every_verdict_has_words():
    names = {value for name, value in vars(answers).items() if name.isupper() and isinstance(value, str)}
    assert names == set(answers.MEANINGS)
    assert set(answers.MEANINGS) > answers.ABOUT_THE_KNOCK
    assert not [text for text in answers.MEANINGS.values() if text.endswith(".")], "a sentence is made of it"


def test_the_answers_are_those_of_probe():
    known = {probe.OPEN, probe.RESET, probe.REFUSED, probe.SILENT, probe.UNREACHABLE}
    assert known == {"open", "reset", "refused", "silent", "unreachable"}


TARGET = ("192.0.2.7", 22, "tcp")
STEPS = [(7000, "tcp"), (8000, "tcp"), (9000, "udp")]
CLOSED = ("192.0.2.7", 8000, "tcp")


@pytest.mark.parametrize(
    ("before", "steps", "answers_of", "expected", "rounds"),
    [
        ("refused", STEPS, {TARGET: "reset", CLOSED: "icmp 3/3"}, ("reset", "icmp 3/3"), [[TARGET], [CLOSED]]),
        ("refused", [(9000, "udp")], {TARGET: "reset"}, ("reset", ""), [[TARGET]]),
        ("refused", STEPS, {TARGET: "icmp 3/3"}, ("icmp 3/3", ""), [[TARGET]]),
        # Only an ICMP error is not sent as often as it could be.
        ("refused", STEPS, {TARGET: "silent"}, ("icmp", ""), [[TARGET]]),
        ("unreachable", STEPS, {TARGET: "silent"}, ("unreachable", ""), [[TARGET]]),
        ("unreachable", STEPS, {TARGET: "icmp 3/13"}, ("icmp 3/13", ""), [[TARGET]]),
        # Nothing has used up what may be sent.
        ("silent", STEPS, {TARGET: "silent", CLOSED: "reset"}, ("silent", "reset"), [[TARGET, CLOSED]]),
        ("silent", [(9000, "udp")], {TARGET: "silent"}, ("silent", ""), [[TARGET]]),
    ],
)
def test_the_port_and_one_that_is_closed_for_certain(before, steps, answers_of, expected, rounds, monkeypatch):
    asked = []

    def look(targets, *_more):
        asked.append(list(dict.fromkeys(targets)))
        return {target: answers_of[target] for target in targets}

    monkeypatch.setattr(probe, "probe", look)
    assert probe.compare(TARGET, steps, before=before) == expected
    assert asked == rounds
    assert verdict("icmp") == answers.CLOSED


def test_a_port_that_nothing_listens_at():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        answer, closed = probe.compare((*taken.getsockname(), "tcp"), [], 5, before="refused")
    assert verdict(answer, closed) == (answers.RESET if answer == probe.RESET else answers.PERHAPS)
    assert closed == ""
