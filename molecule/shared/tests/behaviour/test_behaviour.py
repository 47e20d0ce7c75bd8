# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What another machine finds, in more detail: once, after the reboot."""

import json
import subprocess
import time

import pytest
from harness import DOORS, NAME, PATIENCE, SHARED, WINDOW, secret_pattern

KNOCK = DOORS["shell"]["knock"]
WRONG_PORT = 60001


@pytest.fixture(autouse=True)
def door_shut_and_no_step_remembered(visitor):
    visitor.knock(DOORS["shell"]["close"] + [WRONG_PORT])


def test_ping_is_answered(visitor, stranger):
    script = (SHARED / "tests" / "ping.py").read_text()
    done = subprocess.run(
        ["docker", "exec", "-i", f"{NAME}-neighbour", "python3", "-", stranger.address],
        input=script,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert stranger.address == visitor.address


def test_allowed_port_is_open_to_everyone(visitor, stranger):
    assert visitor.finds_open(7008)
    assert stranger.finds_open(7008)


def test_ssh_answers_once_somebody_has_knocked(visitor, host):
    if not host.file("/usr/sbin/sshd").exists:
        pytest.skip("this image has no sshd")
    assert not visitor.finds_open(22)
    visitor.knock(KNOCK)
    with visitor.connect(22) as session:
        session.settimeout(50)
        assert session.recv(4) == b"SSH-"


def test_the_command_on_the_host(visitor, host):
    visitor.knock(KNOCK)
    found = json.loads(host.check_output("portknock status --json"))
    family = "ipv6" if ":" in visitor.address else "ipv4"
    (door,) = [each for each in found["doors"] if (each["name"], each["ip_version"]) == ("shell", family)]
    source, left = max(door["open_for"].items(), key=lambda item: item[1])
    assert 0 < left <= WINDOW
    assert door["knocked"] >= 1 and found["drift"] == [] and found["pending"] == {}
    assert secret_pattern().search(host.check_output("portknock status")) is None
    host.check_output(f"portknock close {source}")
    assert not visitor.finds_open(7007)
    host.check_output(f"portknock open shell {source} 2")
    assert visitor.finds_open(7007)
    assert secret_pattern().search(host.check_output("ps -ww -e -o args")) is None
    host.check_output(f"portknock open shell {source} {4 * WINDOW}")
    time.sleep(WINDOW + 1)
    assert visitor.finds_open(7007), "for longer than the window, and the shorter time before it does not count"
    host.check_output("portknock close shell")
    assert not visitor.finds_open(7007)
    assert host.run("portknock confirm").rc == 1
    assert host.run("portknock open-everything").rc == 2
    assert host.run("su -s /bin/sh nobody -c '/usr/local/sbin/portknock status'").rc == 77


def test_running_session_outlives_the_window(visitor):
    visitor.knock(KNOCK)
    with visitor.connect(7007) as session:
        time.sleep(WINDOW + 0.5)
        assert not visitor.finds_open(7007)
        session.sendall(b"still here\n")
        assert session.recv(100) == b"still here\n"


def test_one_step_opens_the_door_of_one_step(visitor):
    visitor.knock(DOORS["article"]["knock"])
    assert visitor.finds_open(7009)
    assert not visitor.finds_open(7007)
    visitor.wait_until_shut(7009)


def test_other_knock_shuts_the_door_before_its_time(visitor):
    visitor.knock(KNOCK)
    assert visitor.finds_open(7007)
    visitor.knock(DOORS["shell"]["close"])
    assert not visitor.finds_open(7007)


@pytest.mark.parametrize(
    "steps",
    [KNOCK[:-1], KNOCK[::-1], KNOCK[:1] + [WRONG_PORT] + KNOCK[1:], [str(step).split("/", 1)[0] for step in KNOCK]],
    ids=["incomplete", "backwards", "wrong-port-between", "wrong-protocol"],
)
def test_wrong_knock_opens_nothing(visitor, steps):
    visitor.knock(steps)
    time.sleep(PATIENCE / 2)
    assert not visitor.finds_open(7007)
