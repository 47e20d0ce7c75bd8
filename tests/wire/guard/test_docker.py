# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real Docker and podman on a whole host, before the doors or after them: what they publish is closed from the first packet on."""

import contextlib
import json
import socket
import threading
import time
from pathlib import Path

import pytest
from rig.bare_host import ROLE, BareHost, begin_and_leave, hosts_sh, play_role, until, user_of
from rig.controller import cores

WEB = {"name": "web", "knock": [57113, "61427/udp", 53819], "opens": ["8080"], "window": 3}
RUN = """
mkdir -p /tmp/root/bin /tmp/root/www
cp /bin/busybox /tmp/root/bin/
echo hello >/tmp/root/www/index.html
tar -c -C /tmp/root . | docker import - web
docker run --detach --restart=always --name web --publish 8080:80 web /bin/busybox httpd -f -h /www -p 80
"""

WAYS = {"name": "ways", "knock": [57113, "61427/udp", 53819], "opens": ["8080-8103", "5353/udp"], "window": 4}
TCP = (8080, 8090, 8100, 8101, 8102)
SERVER = "server.py"
PODMAN_STORAGE = """[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
"""

pytestmark = [pytest.mark.only("nft"), pytest.mark.soak]


@pytest.fixture(params=["iptables", "nftables"])
def user(bare_host, request):
    options = {"portknock_doors": [WEB], "portknock_allow": [{"port": 22}], "portknock_engine": request.param}
    with user_of(bare_host, cores()[-1], **options) as made:
        yield made


def is_open(host, port=8080, address=""):
    with contextlib.suppress(OSError), socket.create_connection((address or host.address, port), timeout=0.5):
        return True
    return False


def answers(address, port):
    """Return whether a UDP port answers."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as handle, contextlib.suppress(OSError):
        handle.settimeout(0.5)
        handle.connect((address, port))
        handle.send(b"who is there")
        return handle.recv(64) == b"who is there"
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


def knock(host, address=""):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for step in WEB["knock"]:
        port, _slash, protocol = str(step).partition("/")
        with socket.socket(family, socket.SOCK_DGRAM if protocol else socket.SOCK_STREAM) as handle:
            handle.settimeout(0.2)
            with contextlib.suppress(OSError):
                handle.connect((address or host.address, int(port)))
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
        nat = host.run("iptables", "-t", "nat", "-S", "PREROUTING").stdout.splitlines()
        assert nat[1].endswith("-j PORTKNOCK_NAT"), "it is in front still"
    time.sleep(4)
    with never_open(host):
        for name in ("one", "two"):
            host.run("docker", "network", "create", name)
        for _turn in range(3):
            # Its rules come and go, each time in front of ours in FORWARD.
            host.run("systemctl", "reset-failed", "docker")
            host.run("systemctl", "restart", "docker")
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


class Docker:
    """Debian's Docker, with IPv6."""

    command, options = "docker", ()

    def __init__(self, host: BareHost, proxy: bool) -> None:
        """Start it anew with its proxy in user space, or without it."""
        settings = {
            "ipv6": True,
            "fixed-cidr-v6": "fd00:d0c::/64",
            "ip6tables": True,
            "experimental": True,
            "userland-proxy": proxy,
        }
        host.run("mkdir", "-p", "/etc/docker")
        host.write("/etc/docker/daemon.json", json.dumps(settings), "0644")
        host.run("systemctl", "restart", "docker")
        self.families = ("ipv4", "ipv6")


class Podman:
    """Debian's podman, as root: its netavark uses iptables in Debian 12, nftables in Debian 13. Its usual network has no IPv6."""

    command, options = "podman", ("--cgroups=disabled",)
    families = ("ipv4",)

    def __init__(self, host: BareHost) -> None:
        """Install it; in a container it cannot lay one file system on another."""
        host.install("podman", "netavark", "aardvark-dns", "busybox-static", "iptables", "nftables")
        host.run("mkdir", "-p", "/etc/containers", "/srv/web/bin")
        host.write("/etc/containers/storage.conf", PODMAN_STORAGE, "0644")
        host.run(
            "sh",
            "-ec",
            "cp /bin/busybox /srv/web/bin/; tar -c -C /srv/web -f /srv/web.tar .",
        )


MAKERS = {
    "docker": lambda host: Docker(host, proxy=True),
    "docker-no-proxy": lambda host: Docker(host, proxy=False),
    "podman": Podman,
}
EVERY = [
    pytest.param(maker, marks=pytest.mark.image(image), id=f"{maker}-{image}")
    for maker, images in {
        "docker": ("debian-12-docker", "debian-13-docker"),
        "docker-no-proxy": ("debian-12-docker", "debian-13-docker"),
        "podman": ("debian-12", "debian-13"),
    }.items()
    for image in images
]


def publish_in_every_way(host, made):
    """One container with ports that differ from the host's, a range, one address alone, and UDP."""
    host.write(f"/srv/{SERVER}", Path(__file__).with_name(SERVER).read_text(), "0644")
    ports = ["8080:80", f"{host.address}:8090:80", "8100-8102:80-82", "5353:53/udp"]
    # Its programs are the host's: a registry is out of reach.
    volumes = ["/usr:/usr:ro", "/lib:/lib:ro", "/lib64:/lib64:ro", f"/srv/{SERVER}:/{SERVER}:ro"]
    words = [f"--publish={port}" for port in ports] + [f"--volume={volume}" for volume in volumes]
    host.run(made.command, "import", "/srv/web.tar", "web")
    host.run(
        made.command, "run", "--detach", "--name=ways", *made.options, *words, "web", "/usr/bin/python3", f"/{SERVER}"
    )


def open_ports(host, families):
    """Return every (IP version, port) that answers now."""
    found = set()
    for family in families:
        address = hosts_sh("host_address", host.name, family)
        found |= {(family, port) for port in TCP if is_open(host, port, address)}
        found |= {(family, 5353)} if answers(address, 5353) else set()
    return found


@pytest.mark.parametrize("maker", EVERY)
def test_every_way_to_publish(bare_host, user, maker):
    host = bare_host
    # They say what the kernel does with the addresses of containers.
    host.run("mount", "-o", "remount,rw", "/proc/sys")
    made = MAKERS[maker](host)
    publish_in_every_way(host, made)
    every = {(family, port) for family in made.families for port in (*TCP, 5353)} - {("ipv6", 8090)}
    time.sleep(2)
    assert open_ports(host, made.families) == every
    user.variables["portknock_doors"] = [WAYS]
    play_role(user)
    assert open_ports(host, made.families) == set()
    for family in made.families:
        knock(host, hosts_sh("host_address", host.name, family))
        assert open_ports(host, made.families) == {(version, port) for version, port in every if version == family}
        time.sleep(WAYS["window"] + 1)
        assert open_ports(host, made.families) == set()
    play_role(user, portknock_state="absent")
    assert open_ports(host, made.families) == every


def a_docker_that_waits(host):
    """A host whose Docker was never started since it booted, and publishes a port once it is."""
    host.run("docker", "import", "/srv/web.tar", "web")
    serve = ("/bin/busybox", "httpd", "-f", "-h", "/www", "-p", "80")
    host.run("docker", "run", "--detach", "--restart=always", "--name=web", "--publish=8080:80", "web", *serve)
    host.run("systemctl", "disable", "docker.service", "docker.socket")
    host.reboot()
    assert "DOCKER" not in host.run("iptables-save", "-t", "filter").stdout


def start_docker(host):
    host.run("systemctl", "start", "docker")
    host.run("sh", "-c", "until docker ps | grep -q web; do sleep 0.2; done", timeout=60)


SSH_THAT_WAITS = """#!/bin/sh
case "$*" in *" confirm --json"*) until [ -e {0} ]; do sleep 0.1; done ;; esac
exec ssh "$@"
"""


@pytest.mark.image("debian-12-docker")
def test_docker_that_comes_before_the_change_is_confirmed(bare_host, user):
    host = bare_host
    a_docker_that_waits(host)
    go, ssh = user.folder / "go", user.folder / "ssh-that-waits"
    ssh.write_text(SSH_THAT_WAITS.format(go))
    ssh.chmod(0o755)
    environment = {"ANSIBLE_SSH_EXECUTABLE": str(ssh)}
    user.variables["portknock_guard_timeout"] = 300
    run = user.start(play={"roles": [ROLE], "tasks": []}, environment=environment)
    run.until(lambda: host.pending().get("state") == "applied")
    with never_open(host):
        start_docker(host)
        time.sleep(1)
        go.touch()
        assert run.wait().code == 0, run.output
        time.sleep(1)
    assert opens_to_a_knock(host)
    time.sleep(WEB["window"] + 1)
    play_role(user)
    with never_open(host):
        time.sleep(1)
    status = json.loads(host.run("portknock", "status", "--json", check=False).stdout)
    assert (status["drift"], status["pending"]) == ([], {})
    # The kernel that the tests run on is not theirs.
    assert {each["kind"] for each in status["findings"] if each["severity"] != "info"} <= {"list_size"}


@pytest.mark.image("debian-12-docker")
def test_docker_that_comes_before_the_change_is_undone(bare_host, user):
    host = bare_host
    a_docker_that_waits(host)
    begin_and_leave(user, host, portknock_guard_timeout=20)
    with never_open(host):
        start_docker(host)
        rules = host.run("iptables", "-S").stdout
        time.sleep(1)
    until(lambda: host.pending() == {}, 120)
    assert host.last()["outcome"] == "rolled_back"
    assert is_open(host)
    left = host.run("iptables", "-S").stdout
    assert "PORTKNOCK" not in left
    assert sorted(left.splitlines()) == sorted(line for line in rules.splitlines() if "PORTKNOCK" not in line)
    play_role(user)
    assert opens_to_a_knock(host)
