# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a packet costs that nat sends on to a container: behind the rules of Docker and 100 doors, against those of Docker alone.

As in bench_packets one process on one core does everything, and the time of the call that sends is the cost of the whole path.
"""

import contextlib
import os
import socket
from collections.abc import Callable

from bench_engines import Nft
from bench_lan import Backend, Lan, inside, run
from bench_packets import PACKETS, Burst, connection_ns
from bench_ruleset import FLOW_PORT, OPEN_PORT, Core, door_options
from bench_series import Table, costs_in_turns, ratios, rounds

DOORS, TURNS = 100, 40
KINDS = (("established packet", 1.05), ("new connection", 1.10))
CONTAINER, ROUTER = "198.19.0.2", "198.19.0.1"
DOCKER = f"""*nat
:PREROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER ! -i docker0 -p tcp -m tcp --dport {OPEN_PORT} -j DNAT --to-destination {CONTAINER}:8000
-A DOCKER ! -i docker0 -p udp -m udp --dport {FLOW_PORT} -j DNAT --to-destination {CONTAINER}:8000
COMMIT
*filter
:FORWARD ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER -d {CONTAINER} ! -i docker0 -o docker0 -p tcp -m tcp --dport 8000 -j ACCEPT
-A DOCKER -d {CONTAINER} ! -i docker0 -o docker0 -p udp -m udp --dport 8000 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
"""


class Routers(Lan):
    """A Lan whose servers have a container each."""

    def __enter__(self) -> "Routers":
        """Make the namespaces."""
        super().__enter__()
        try:
            for name in self._servers:
                self._contain(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def container(self, name: str) -> str:
        """Return the name of the namespace of a server's container."""
        return self.namespace(name) + ".in"

    def _contain(self, name: str) -> None:
        router, container = self.namespace(name), self.container(name)
        self._make(container)
        run(["ip", "-n", router, "link", "add", "docker0", "type", "veth", "peer", "name", "eth0", "netns", container])
        for namespace, link, address in ((router, "docker0", ROUTER), (container, "eth0", CONTAINER)):
            run(["ip", "-n", namespace, "address", "add", address + "/30", "dev", link])
            run(["ip", "-n", namespace, "link", "set", link, "up"])
        run(["ip", "-n", container, "route", "add", "default", "via", ROUTER])
        run(["ip", "netns", "exec", router, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])


class Published:
    """The way from the client to one container."""

    def __init__(self, lan: Routers, name: str, load: Callable[[], None]) -> None:
        """Load Docker's rules and what comes to them, and open the sockets."""
        self._server, self._open = lan.addresses(name)[1], contextlib.ExitStack()
        with inside(lan.namespace(name)):
            Backend("nft").restore(DOCKER)
            load()
        with inside(lan.container(name)):
            self._listener, sink = self._socket(socket.SOCK_STREAM), self._socket(socket.SOCK_DGRAM)
            self._listener.bind((CONTAINER, 8000))
            self._listener.listen(16)
            sink.bind((CONTAINER, 8000))
        with inside(lan.client):
            flow = self._socket(socket.SOCK_DGRAM)
            flow.connect((self._server, FLOW_PORT))
            flow.send(b"first")
            sink.sendto(b"answer", sink.recvfrom(100)[1])
            flow.recv(100)
            flow.setblocking(True)
            self.established = Burst(flow, [b"x" * 32] * PACKETS)

    def _socket(self, kind: int) -> socket.socket:
        sock = self._open.enter_context(socket.socket(socket.AF_INET, kind))
        sock.settimeout(5)
        return sock

    def close(self) -> None:
        """Close the sockets."""
        self._open.close()

    def connect_ns(self) -> float:
        """Return the nanoseconds of a new connection, made, accepted and closed."""
        return connection_ns(self._server, self._listener)


def one_round(load: Callable[[], None]) -> list[float]:
    """Return the ratio of each of KINDS, of Docker's rules with those of an engine to Docker's alone."""
    with Routers("doors", "docker") as lan, contextlib.ExitStack() as stack:
        acts = {}
        for name, what in (("doors", load), ("docker", lambda: None)):
            path = Published(lan, name, what)
            stack.callback(path.close)
            acts[name] = (path.established.send, path.connect_ns)
        with inside(lan.client):
            costs = costs_in_turns(acts, TURNS)
    return ratios(costs["doors"], costs["docker"])


def measure(table: Table, full: bool) -> None:
    """Add the rows."""
    core = Core()
    native = core.load_text(core.build_table(core.spec_from_options(door_options(DOORS)))).text

    def load_rules() -> None:
        backend = Backend("nft")
        spec = core.spec_from_options(dict(door_options(DOORS), engine="iptables"))
        backend.restore(core.plan_family(backend.save(), spec, "ipv4").change)

    loads = {"nftables": lambda: Nft("nft").restore(native), "iptables, nft": load_rules}
    affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(affinity)})
    results: dict[str, list[list[float]]] = {name: [] for name in loads}
    try:
        for _round in range(rounds(full, 7, 21)):
            for name, load in loads.items():
                results[name].append(one_round(load))
    finally:
        os.sched_setaffinity(0, affinity)
    for name, values in results.items():
        for number, (kind, goal) in enumerate(KINDS):
            table.add(f"published, {kind}: {DOORS} doors / Docker, {name}", [each[number] for each in values], goal)
