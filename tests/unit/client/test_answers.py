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


@pytest.mark.parametrize(
    ("steps", "compared"),
    [([(7000, "tcp"), (8000, "tcp"), (9000, "udp")], 8000), ([(9000, "udp")], None), ([(7000, "tcp")], 7000)],
)
def test_a_port_that_is_closed_for_certain_is_the_last_step_over_tcp(steps, compared, monkeypatch):
    asked = []

    def look(targets, *_more):
        asked.extend(targets)
        return {target: f"answer of {target[1]}" for target in targets}

    monkeypatch.setattr(probe, "probe", look)
    expected = ("answer of 22", f"answer of {compared}" if compared else "")
    assert probe.compare("192.0.2.7", 22, steps) == expected
    assert {port for _address, port, _kind in asked} == {22, compared or 22}


def test_a_port_that_nothing_listens_at():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        answer, closed = probe.compare("127.0.0.1", taken.getsockname()[1], [], 5)
    assert verdict(answer, closed) == (answers.RESET if answer == probe.RESET else answers.PERHAPS)
    assert closed == ""
