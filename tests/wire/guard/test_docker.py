# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real Docker on a whole host, which comes after the doors: what it publishes is closed from the first packet on."""

import contextlib
import socket
import threading
import time

import pytest
from rig.bare_host import play_role, user_of
from rig.controller import cores

WEB = {"name": "web", "knock": [57113, "61427/udp", 53819], "opens": ["8080"], "window": 3}
RUN = """
mkdir -p /tmp/root/bin /tmp/root/www
cp /bin/busybox /tmp/root/bin/
echo hello >/tmp/root/www/index.html
tar -c -C /tmp/root . | docker import - web
docker run --detach --restart=always --name web --publish 8080:80 web /bin/busybox httpd -f -h /www -p 80
"""

pytestmark = [pytest.mark.only("nft"), pytest.mark.soak]


@pytest.fixture(params=["iptables", "nftables"])
def user(bare_host, request):
    options = {"portknock_doors": [WEB], "portknock_allow": [{"port": 22}], "portknock_engine": request.param}
    with user_of(bare_host, cores()[-1], **options) as made:
        yield made


def is_open(host):
    with contextlib.suppress(OSError), socket.create_connection((host.address, 8080), timeout=0.5):
        return True
    return False


@contextlib.contextmanager
def never_open(host):
    """Within the block the port is tried all the time, and nothing answers there."""
    ends, found, tries = threading.Event(), [], []

    def look():
        while not ends.wait(0.002):
            tries.append(1)
            if is_open(host):
                found.append(time.monotonic())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
    assert tries
    assert not found, f"{len(found)} of {len(tries)} were let in"


def knock(host):
    for step in WEB["knock"]:
        port, _slash, protocol = str(step).partition("/")
        with socket.socket(type=socket.SOCK_DGRAM if protocol else socket.SOCK_STREAM) as handle:
            handle.settimeout(0.2)
            with contextlib.suppress(OSError):
                handle.connect((host.address, int(port)))
                handle.send(b"knock")


def opens_to_a_knock(host):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        knock(host)
        if is_open(host):
            return True
        time.sleep(1)
    return False


def test_what_docker_publishes(bare_host, user):
    host = bare_host
    play_role(user)
    host.run("mkdir", "-p", "/etc/docker")
    # There is no other one that works within an image of its own kind.
    host.write("/etc/docker/daemon.json", '{"storage-driver": "vfs"}', "0644")
    with never_open(host):
        host.install("docker.io", "busybox-static")
        host.run("sh", "-ec", RUN)
        time.sleep(2)
    assert opens_to_a_knock(host)
    play_role(user)
    if user.variables["portknock_engine"] == "iptables":
        forward = host.run("iptables", "-S", "FORWARD").stdout.splitlines()
        assert forward[1].endswith("-j PORTKNOCK_FWD"), "it is in front again"
    time.sleep(4)
    with never_open(host):
        for name in ("one", "two"):
            host.run("docker", "network", "create", name)
        host.reboot()
        host.run("sh", "-c", "until docker ps | grep -q web; do sleep 1; done", timeout=60)
        time.sleep(2)
    assert opens_to_a_knock(host)
    play_role(user, portknock_state="absent")
    assert is_open(host)
    rules = host.run("iptables", "-S").stdout
    assert "PORTKNOCK" not in rules
    assert "portknock" not in host.run("nft", "list", "tables", check=False).stdout
    assert "-A DOCKER-USER -j RETURN" in rules
