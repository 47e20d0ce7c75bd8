# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a real dockerd publishes on a host with doors: closed to a stranger from the first packet on, whatever restarts."""

import contextlib
import json
import threading
import time

import pytest
from harness import HOST_VARS, NAME, Visitor, hosts_sh

(DOOR,) = [door for door in HOST_VARS["portknock_doors"] if door["name"] == "web"]
SERVE = "web /bin/busybox httpd -f -h /www"


@pytest.fixture
def outside():
    return Visitor(hosts_sh("host_address", NAME))


@contextlib.contextmanager
def never_open(visitor, port):
    """Within the block the port is tried all the time, and nothing answers there."""
    ends, tries = threading.Event(), []

    def look():
        while not ends.wait(0.002):
            tries.append(visitor.finds_open(port))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
    assert tries
    assert sum(tries) == 0, f"{sum(tries)} of {len(tries)} were let in"


def opens_to_a_knock(visitor, port):
    """Docker may need a while until what it publishes is there again."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        visitor.knock(DOOR["knock"])
        if visitor.finds_open(port):
            return True
        time.sleep(0.5)
    return False


def test_port_is_open_to_who_has_knocked_for_the_window_alone(visitor, stranger):
    assert visitor.finds_open(8082)
    assert not visitor.finds_open(8080)
    visitor.knock(DOOR["knock"])
    assert visitor.finds_open(8080)
    assert not stranger.finds_open(8080)
    assert stranger.finds_open(8082)
    time.sleep(DOOR["window"] + 0.5)
    assert not visitor.finds_open(8080)


def test_container_is_closed_from_its_first_packet_on(host, outside):
    with never_open(outside, 8081):
        host.check_output(f"docker run --detach --rm --name late --publish 8081:80 {SERVE}")
        time.sleep(1)
    assert opens_to_a_knock(outside, 8081)
    host.check_output("docker kill late")
    outside.wait_until_shut(8080)


def test_nothing_is_open_while_docker_restarts(host, outside):
    with never_open(outside, 8080):
        host.check_output("systemctl restart docker")
        time.sleep(1)
    assert opens_to_a_knock(outside, 8080)
    outside.wait_until_shut(8080)


def test_rules_of_others_stay(host):
    assert "-A DOCKER-USER -s 192.0.2.9/32 -j DROP" in host.check_output("iptables -S DOCKER-USER").splitlines()


def test_nothing_is_open_while_the_host_boots(host, outside):
    with never_open(outside, 8080):
        hosts_sh("host_reboot", NAME)
        host.check_output("until docker ps --format '{{.Names}}' | grep -q web; do sleep 0.2; done")
        time.sleep(1)
    assert opens_to_a_knock(outside, 8080)
    assert outside.finds_open(8082)
    status = json.loads(host.check_output("portknock status --json"))
    assert (status["drift"], status["pending"], status["published"]) == ([], {}, "doors")
