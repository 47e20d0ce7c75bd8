# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module knock, delegated to the controller, at real doors."""

import re

import pytest
from rig.counter import Counter
from rig.engines import ASKED, IN_SOAK
from rig.packets import IPV4, IPV6
from rig.peer import TARGET
from rig.shown import steps_in
from rig.target import FAMILIES, door

STEPS = ("17005", "19100/udp", "13100")
DOOR = door(*STEPS, opens=(22,), window=600)
NAME = "sesame.portknock.knock"


@pytest.fixture
def counter(rig):
    """The knocks and connections that the target sees."""
    return Counter(rig, STEPS[-1])


def knock(controller, *words, family="ipv4", expect=0, **options):
    """Run the module on the controller; return its result."""
    task = {"name": NAME, NAME: dict({"host": TARGET[family], "knock": list(STEPS)}, **options)}
    local = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
    run = controller.play(dict(task, delegate_to="localhost"), hosts={"target": {}, "localhost": local},
                          play={"hosts": "target"}, words=("-vvv", *words))  # fmt: skip
    assert bool(run.code) == bool(expect), run.output
    assert steps_in(STEPS, run.output) == []
    return run.only(task=NAME).result


@ASKED
@IN_SOAK
@pytest.mark.parametrize(
    ("reject_with", "version"),
    [("icmp-port-unreachable", IPV6), ("tcp-reset", IPV4), ("drop", IPV6)]
    + [
        pytest.param(reject_with, family, marks=pytest.mark.soak)
        for reject_with, family in [("icmp-port-unreachable", IPV4), ("tcp-reset", IPV6), ("drop", IPV4)]
    ],
)
def test_one_packet_a_step_opens_the_door(rig, version, reject_with, controller, counter):
    rig.target.apply(DOOR, reject_with=reject_with)
    assert controller.gets_in(host=TARGET[version]) is False
    counter.take()
    result = knock(controller, family=version, wait_for={"port": 22})
    assert result["changed"] is True
    assert result["addresses"] == [TARGET[version]]
    assert result["opened"]["tries"] == 1
    # One SYN of the last step, and one to the port that opened.
    assert counter.take() == (1, 1)
    assert controller.gets_in(host=TARGET[version])


def test_check_mode_sends_nothing(rig, controller, counter):
    rig.target.apply(DOOR)
    result = knock(controller, "--check", wait_for={"port": 22})
    assert (result["changed"], result["opened"]) == (True, {})
    assert counter.take() == (0, 0)


def test_a_lost_step_costs_a_second_knock(rig, controller, counter):
    rig.target.apply(DOOR)
    lose = "-t raw -A PREROUTING -p udp --dport 19100 -m statistic --mode nth --every 3 --packet 0 -j DROP"
    rig.target.namespace.run("iptables", *lose.split())
    assert knock(controller, wait_for={"port": 22})["opened"]["tries"] == 2
    assert counter.take()[0] == 2


TOLD = {
    "icmp-port-unreachable": "the host refuses it by ICMP, as a closed door does",
    "tcp-reset": "it is refused by a TCP reset: perhaps the door is closed",
    "drop": "nothing answers: perhaps the host is down",
}


@pytest.mark.parametrize("reject_with", TOLD)
def test_why_it_did_not_open(rig, controller, reject_with):
    rig.target.apply(dict(DOOR, knock=["18000", "14000"]), reject_with=reject_with)
    message = knock(controller, expect=1, wait_for={"port": 22, "timeout": 5})["msg"]
    host = TARGET[FAMILIES[0]]
    assert re.match(rf"port 22 of {host} did not open within 5 s and \d+ knocks?: {TOLD[reject_with]}", message), (
        message
    )
