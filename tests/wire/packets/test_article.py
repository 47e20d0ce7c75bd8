# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The article's own test, on both families at once."""

import socket
import subprocess
import time

from rig.engines import ASKED, EVERY_TIME, IN_SOAK
from rig.packets import IPV4, IPV6
from rig.peer import OPEN, OWN, REFUSED, TARGET
from rig.target import FAMILIES, door

pytestmark = [ASKED, EVERY_TIME]

WINDOW = 15
OPTIONS = ["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
           "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=5", "-o", "ControlMaster=no"]  # fmt: skip


def ssh(rig, family, key, *words):
    """Return a command line for a real ssh from the client, as words for the machine itself."""
    return rig.client.namespace.words("ssh", *OPTIONS, "-i", key, f"root@{TARGET[family]}", *words)


def gets_in(rig, family, key):
    """Return whether a new ssh login works."""
    done = subprocess.run(
        ssh(rig, family, key, "echo", "i-am-in"), capture_output=True, text=True, timeout=300, check=False
    )
    return done.stdout == "i-am-in\n"


class Session:
    """An ssh session that stays."""

    def __init__(self, rig, family, key):
        """Log in and start cat."""
        self._ssh = subprocess.Popen(
            ssh(rig, family, key, "cat"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def lives(self, text):
        """Return whether what is typed comes back."""
        self._ssh.stdin.write(text + "\n")
        self._ssh.stdin.flush()
        return self._ssh.stdout.readline() == text + "\n"

    def close(self):
        """Log out."""
        self._ssh.stdin.close()
        self._ssh.wait(10)
        self._ssh.stdout.close()
        self._ssh.stderr.close()


@IN_SOAK
def test_the_article(rig):
    key = rig.target.start_sshd()
    rig.target.apply(door(1000, window=WINDOW))
    sessions = {}
    knocked = {}
    for family in FAMILIES:
        assert rig.client.probe(22, family) == REFUSED[family]
        assert not gets_in(rig, family, key)
        rig.client.knock(1000, family=family)
        knocked[family] = time.monotonic()
        sessions[family] = Session(rig, family, key)
        assert sessions[family].lives("in the window")
        assert gets_in(rig, family, key), "a second login in the window"
        assert rig.other.probe(22, family) == REFUSED[family], "another source stays out"
    assert time.monotonic() - knocked[IPV6] < WINDOW - 2, "this machine is too slow to tell"
    for family in FAMILIES:
        time.sleep(max(0.0, knocked[family] + WINDOW - 1.0 - time.monotonic()))
        assert rig.client.probe(22, family) == OPEN, "open to the end of the window"
        time.sleep(max(0.0, knocked[family] + WINDOW + 0.5 - time.monotonic()))
        assert rig.client.probe(22, family) == REFUSED[family], "the window has passed"
        assert not gets_in(rig, family, key)
        assert sessions[family].lives("after the window"), "a running session lives on"
        sessions[family].close()
        assert rig.client.ping(family)


def test_one_family_does_not_open_the_other(rig):
    rig.target.apply(door(1000))
    rig.client.knock(1000, family=IPV4)
    assert rig.client.probe(22, IPV6) == REFUSED[IPV6]
    assert rig.client.probe(22, IPV4) in (OPEN, "reset")
    rig.target.reset()
    rig.target.apply(door(1000))
    rig.client.knock(1000, family=IPV6)
    assert rig.client.probe(22, IPV4) == REFUSED[IPV4]


def test_everything_else_is_refused(rig, family):
    rig.target.apply(door(1000))
    for step in (80, 443, 2222, 9999, "514/udp", "515/udp"):
        assert rig.client.probe(step, family) == REFUSED[family], step


def test_the_host_reaches_itself(rig, family):
    rig.target.apply(door(1000))
    with rig.target.namespace.entered():
        for address in ({IPV4: "127.0.0.1", IPV6: "::1"}[family], TARGET[family]):
            with socket.create_connection((address, 2222), timeout=5) as handle:
                handle.sendall(b"to myself")
                assert handle.recv(100) == b"to myself"


def test_answers_to_the_hosts_own_questions_get_in(rig, family):
    """As DNS does: the answer over UDP is let in, a datagram that was not asked for is not."""
    rig.target.apply(door(1000))
    kind = socket.AF_INET if family == IPV4 else socket.AF_INET6
    with rig.other.namespace.entered():
        server = socket.socket(kind, socket.SOCK_DGRAM)
    with rig.target.namespace.entered():
        asker = socket.socket(kind, socket.SOCK_DGRAM)
    with server, asker:
        server.bind((OWN["other"][family], 53))
        server.settimeout(5)
        asker.bind((TARGET[family], 0))
        asker.settimeout(5)
        asker.sendto(b"question", (OWN["other"][family], 53))
        question, source = server.recvfrom(100)
        server.sendto(b"answer to " + question, source)
        assert asker.recvfrom(100)[0] == b"answer to question"
        rig.client.knock(f"{source[1]}/udp", family=family, sport=53)
        asker.settimeout(0.5)
        try:
            got = asker.recvfrom(100)[0]
        except TimeoutError:
            got = None
        assert got is None, "a datagram from a source that was not asked came in"


def test_ping_switched_off(rig, family):
    """IPv6 still finds its neighbours: the connection works although their entries were forgotten."""
    rig.target.apply(door(1000), icmp=False)
    assert not rig.client.ping(family, patience=0.5)
    rig.client.knock(1000, family=family)
    neighbour = [
        "ip",
        "neighbour",
        "replace",
        OWN["client"][family],
        "dev",
        "eth0",
        "lladdr",
        rig.client.namespace.mac,
        "nud",
    ]
    rig.target.namespace.run(*neighbour, "stale")
    try:
        rig.target.start_sshd()
        handle = rig.client.connect(22, family)
        assert not isinstance(handle, OSError), handle
        handle.close()
    finally:
        rig.target.namespace.run(*neighbour, "permanent")
