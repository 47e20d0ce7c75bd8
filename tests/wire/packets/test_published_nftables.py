# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ports that Docker publishes, and hosts behind, with the engine nftables: real packets, sent on by the target."""

import contextlib
import socket
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.build import build_table
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.text import load_text
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from rig.docker_rules import INNER, NETWORK, goes_out, host_behind, start_docker, talking
from rig.network import Rig
from rig.packets import IPV4, IPV6
from rig.peer import OPEN, REFUSED, SILENT, TARGET, Peer
from rig.publishers import PUBLISHERS, published, text_of
from rig.target import FAMILIES, door

pytestmark = [pytest.mark.only("nft"), pytest.mark.usefixtures("table")]

KNOCK, OTHER_KNOCK = (7000, "9100/udp", 3100), (4100, 2700)
WEB = door(*KNOCK, name="web", opens=(8080, "8053/udp"), window=2)
HOST = {IPV4: "172.30.0.3", IPV6: INNER[IPV6][:-1] + "3"}
"""A second host behind the target; it serves the same ports."""

BACKENDS = [
    name if name in ("iptables", "nftables") else pytest.param(name, marks=pytest.mark.soak)
    for name in ("iptables", *PUBLISHERS)
]


def flushed() -> str:
    return "".join(
        f"add table {ip} {table}\nflush table {ip} {table}\n"
        for ip, table in (("ip", "docker-bridges"), ("ip6", "docker-bridges6"))
    )


@contextlib.contextmanager
def docker(rig: Rig, backend: str) -> Iterator[None]:
    """Within the block Docker's rules are there, or those of another publisher."""
    if backend == "iptables":
        start_docker(rig)
        yield
        return
    with published(rig, backend):
        yield


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_port_that_docker_publishes(rig, backend):
    with host_behind(rig) as inner, docker(rig, backend):
        assert {rig.other.probe(port, family) for port in (8080, 8081) for family in FAMILIES} == {OPEN}
        rig.target.apply(WEB)
        for family in FAMILIES:
            assert [rig.client.probe(port, family) for port in (8080, "8053/udp", 8081)] == [
                REFUSED[family], REFUSED[family], OPEN
            ]  # fmt: skip
            assert goes_out(rig, inner, family)
            rig.client.knock(*KNOCK, family=family)
            begin = time.monotonic()
            assert [rig.client.probe(port, family) for port in (8080, "8053/udp")] == [OPEN, OPEN]
            session = rig.client.connect(8080, family)
            assert isinstance(session, socket.socket)
            assert rig.other.probe(8080, family) == REFUSED[family]
            time.sleep(max(0, 2.2 - time.monotonic() + begin))
            assert [rig.client.probe(port, family) for port in (8080, "8053/udp")] == [REFUSED[family]] * 2
            with session:
                session.sendall(b"still here")
                assert session.recv(100) == b"still here"


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_docker_that_starts_again_opens_nothing(rig, backend):
    """Its rules are flushed and made anew all the time; whatever is there of them, a stranger is refused."""
    with host_behind(rig), docker(rig, backend):
        rig.target.apply(WEB)
        nat = (
            rig.target.namespace.run("iptables-save", "-t", "nat").stdout
            if backend == "iptables"
            else "".join(text_of("nftables", family) for family in FAMILIES)
        )
        load = ["iptables-restore", "-w"] if backend == "iptables" else ["nft", "-f", "-"]
        empty = "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n" if backend == "iptables" else flushed()
        script = f'for turn in $(seq 60); do printf %s "$0" | {" ".join(load)}; printf %s "$1" | {" ".join(load)}; done'
        running = rig.target.namespace.start("sh", "-c", script, empty, nat)
        seen = []
        while running.poll() is None:
            seen.append(rig.other.probe(8080))
        assert running.returncode == 0
        assert len(seen) > 100
        assert set(seen) == {REFUSED[IPV4]}
        assert rig.other.probe(8081) == OPEN


@pytest.mark.soak
def test_at_no_moment_a_stranger_gets_in_while_our_rules_are_replaced(rig, table):
    """What is sent on would pass where nothing of ours decides; a packet of the very moment is dropped."""
    options = {"doors": [WEB]}
    with host_behind(rig), docker(rig, "iptables"):
        table.apply(**options)
        texts = [load_text(build_table(spec_from_options(dict(options, log=log)))).text for log in (False, True)]
        script = 'for turn in $(seq 400); do printf %s "$0" | nft -f - && printf %s "$1" | nft -f - || exit 1; done'
        running = rig.target.namespace.start("sh", "-c", script, *texts)
        seen = Counter()
        while running.poll() is None:
            seen[rig.other.probe(8080)] += 1
        assert running.returncode == 0
        print(dict(seen))
        assert seen[REFUSED[IPV4]] > 1000
        assert set(seen) <= {REFUSED[IPV4], SILENT}
        assert seen[SILENT] < 20


def is_open(peer: Peer, address: str, port: int) -> bool:
    """Return whether a port of any address, by way of the target, answers."""
    family = IPV6 if ":" in address else IPV4
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TARGET, family, address)
        return peer.probe(port, family, patience=0.4) == OPEN


def knock_at(peer: Peer, address: str, *steps: int) -> None:
    """Knock at any address, by way of the target."""
    family = IPV6 if ":" in address else IPV4
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TARGET, family, address)
        peer.knock(*steps, family=family)


@pytest.fixture
def behind(rig: Rig) -> Iterator[None]:
    """Two hosts behind the target."""
    with host_behind(rig) as inner:
        for family in FAMILIES:
            bits = NETWORK[family].partition("/")[2]
            inner.run(
                "ip", "address", "add", f"{HOST[family]}/{bits}", "dev", "eth0", *(["nodad"] if family == IPV6 else [])
            )
        yield


@pytest.mark.usefixtures("behind")
def test_doors_to_hosts_behind(rig, table):
    """Port 443 of this host, of one host behind and of the other: three ports, of which each has its own door or none."""
    rig.target.apply(
        door(*OTHER_KNOCK, name="behind", opens=(443,), window=60, to=list(INNER.values())),
        door(*KNOCK, name="here", opens=(443,), window=60),
    )
    for family in FAMILIES:
        places = (INNER[family], HOST[family], TARGET[family])
        assert [is_open(rig.client, place, 443) for place in places] == [False, True, False]
        assert is_open(rig.client, INNER[family], 80)
        rig.client.knock(*OTHER_KNOCK, family=family)
        assert [is_open(rig.client, place, 443) for place in places] == [True, True, False]
        knock_at(rig.other, INNER[family], *OTHER_KNOCK)
        assert [is_open(rig.other, place, 443) for place in places] == [True, True, False], "knocked at the host behind"
        table.forget()
        knock_at(rig.other, INNER[family], OTHER_KNOCK[0], 6543, OTHER_KNOCK[1])
        knock_at(rig.client, HOST[family], *OTHER_KNOCK)
        assert not any(is_open(peer, INNER[family], 443) for peer in (rig.client, rig.other))


@pytest.mark.usefixtures("behind")
def test_doors_to_hosts_behind_nat(rig):
    """By the port that they are sent to, and by the port there."""
    with docker(rig, "nftables"):
        rig.target.apply(
            door(*OTHER_KNOCK, name="by_theirs", opens=(80,), window=60, to=list(INNER.values())),
            door(*KNOCK, name="by_ours", opens=(8081,), window=60, to=list(INNER.values())),
            allow=[{"port": port} for port in (8080, 8081)],
        )
        for family in FAMILIES:
            assert [rig.client.probe(port, family) for port in (8080, 8081)] == [REFUSED[family]] * 2
            rig.client.knock(*OTHER_KNOCK, family=family)
            assert [rig.client.probe(port, family) for port in (8080, 8081)] == [OPEN, REFUSED[family]]
            rig.other.knock(*KNOCK, family=family)
            assert [rig.other.probe(port, family) for port in (8080, 8081)] == [REFUSED[family], OPEN]


def test_the_policy_for_what_is_published(rig):
    with host_behind(rig) as inner, docker(rig, "iptables"):
        rig.target.apply(WEB, published="policy", allow=[{"port": 8081}])
        for family in FAMILIES:
            assert [rig.client.probe(port, family) for port in (8080, 8081)] == [REFUSED[family], OPEN]
            assert goes_out(rig, inner, family)
        rig.target.apply(WEB, published="policy")
        assert [rig.client.probe(8081, family) for family in FAMILIES] == [REFUSED[family] for family in FAMILIES]
        rig.target.apply(WEB, published="none")
        assert [rig.client.probe(8080, family) for family in FAMILIES] == [OPEN, OPEN]


def test_another_way_to_guard_what_is_published_cuts_nothing(rig):
    with host_behind(rig), docker(rig, "iptables"):
        rig.target.apply(WEB)
        rig.client.knock(*KNOCK)
        with talking(rig.client, 8080, IPV4):
            for way in ("policy", "none", "doors", "policy"):
                rig.target.apply(WEB, published=way)
                time.sleep(0.1)
