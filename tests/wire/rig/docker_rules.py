# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host behind the target, and the rules with which Docker publishes its ports, as tests/unit/corpus/docker.v4.save has them."""

import contextlib
import socket
import threading
from collections.abc import Iterator

from rig.lan import Namespace
from rig.network import Rig
from rig.packets import IPV4, IPV6
from rig.peer import OWN, Peer
from rig.target import FAMILIES, Services

INNER = {IPV4: "172.30.0.2", IPV6: "fd79::2"}
ROUTER = {IPV4: "172.30.0.1", IPV6: "fd79::1"}
NETWORK = {IPV4: "172.30.0.0/24", IPV6: "fd79::/64"}
PORT, UDP_PORT, OTHER = 8080, 8053, 8081
"""The ports that are published, each for another one of the container."""

_SWITCHES = {IPV4: "ipv4/ip_forward", IPV6: "ipv6/conf/all/forwarding"}
_NAT = """*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s {network} ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination {inner}:80
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8081 -j DNAT --to-destination {inner}:443
-A DOCKER ! -i docker0 -p udp -m udp --dport 8053 -j DNAT --to-destination {inner}:5353
COMMIT
"""
FORWARDED = (
    "-i docker0 -o docker0 -j ACCEPT",
    "-i docker0 ! -o docker0 -j ACCEPT",
    "-o docker0 -j DOCKER",
    "-o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
)
"""What Docker puts at the head of FORWARD, in the order in which it does."""


@contextlib.contextmanager
def host_behind(rig: Rig) -> Iterator[Namespace]:
    """Within the block there is a host behind the target, which forwards; it serves what the target serves."""
    target, inner = rig.target.namespace, Namespace("inner")
    services = None
    try:
        inner.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "docker0", "netns", target.pid)
        for host, device in ((inner, "eth0"), (target, "docker0")):
            # Nothing waits for a search for duplicates.
            host.run("sh", "-c", f"echo 0 >/proc/sys/net/ipv6/conf/{device}/accept_dad")
        inner.run("ip", "-batch", "-", stdin=_links("eth0", INNER) + "".join(
            f"route add default via {ROUTER[family]}\n" for family in FAMILIES
        ))  # fmt: skip
        target.run("ip", "-batch", "-", stdin=_links("docker0", ROUTER))
        for switch in _SWITCHES.values():
            target.run("sh", "-c", f"echo 1 >/proc/sys/net/{switch}")
        services = Services(inner)
        yield inner
    finally:
        if services:
            services.close()
        inner.close()
        target.run("ip", "link", "delete", "docker0", check=False)
        for family, switch in _SWITCHES.items():
            target.run("sh", "-c", f"echo 0 >/proc/sys/net/{switch}")
            rig.target.restore(family, "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n")


def _links(device: str, addresses: dict[str, str]) -> str:
    found = [f"link set lo up\nlink set {device} up\n"]
    found += [
        f"address add {addresses[IPV4]}/24 dev {device}\n",
        f"address add {addresses[IPV6]}/64 dev {device} nodad\n",
    ]
    return "".join(found)


def docker_steps(rig: Rig, family: str) -> Iterator[str]:
    """Start Docker as far as its rules go, one command at a time, as it does; yield what was done."""
    command = "iptables" if family == IPV4 else "ip6tables"

    def does(*words: str, check: bool = True) -> str:
        rig.target.namespace.run(command, "-w", *words, check=check)
        return " ".join(words)

    inner = INNER[family] if family == IPV4 else f"[{INNER[family]}]"
    yield does("-N", "DOCKER")
    yield does("-N", "DOCKER-USER", check=False)
    for rule in FORWARDED:
        yield does("-I", "FORWARD", *rule.split())
    for port, protocol in ((80, "tcp"), (443, "tcp"), (5353, "udp")):
        yield does(
            *f"-A DOCKER -d {INNER[family]} ! -i docker0 -o docker0 -p {protocol} --dport {port} -j ACCEPT".split()
        )
    yield does("-A", "DOCKER-USER", "-j", "RETURN")
    yield does("-I", "FORWARD", "-j", "DOCKER-USER")
    rig.target.restore(family, _NAT.format(inner=inner, network=NETWORK[family]), "--noflush")
    yield "nat"


def start_docker(rig: Rig) -> None:
    """Have Docker's rules in both families."""
    for family in FAMILIES:
        for _step in docker_steps(rig, family):
            pass


@contextlib.contextmanager
def talking(peer: Peer, port: int, family: str) -> Iterator[None]:
    """Within the block many connections to a port talk all the time, and none of them may be cut or come to a stop."""
    found = [peer.connect(port, family) for _number in range(20)]
    sessions = [each for each in found if isinstance(each, socket.socket)]
    assert len(sessions) == len(found), found
    ends, failed, rounds = threading.Event(), [], []

    def talk() -> None:
        while not ends.is_set():
            rounds.append(1)
            for session in sessions:
                try:
                    session.sendall(b"still here")
                    if session.recv(100) != b"still here":
                        raise OSError("the connection was closed")
                except OSError as error:
                    failed.append(str(error))
                    return

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
        for session in sessions:
            session.close()
    assert not failed
    assert len(rounds) > 10


def goes_out(rig: Rig, inner: Namespace, family: str) -> bool:
    """Return whether a container can connect to the client, which is how it is to be whatever is closed."""
    kind = socket.AF_INET if family == IPV4 else socket.AF_INET6
    with rig.client.namespace.entered():
        server = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    with inner.entered():
        handle = socket.socket(kind, socket.SOCK_STREAM)
    with server, handle:
        handle.settimeout(2)
        try:
            handle.connect((OWN["client"][family], server.getsockname()[1]))
        except OSError:
            return False
        return True
