# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel of a host in memory says: routes, sockets, connections, lists, nftables."""

import hashlib
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple, Union

from ansible_collections.sesame.portknock.plugins.module_utils._host.conntrack import Flow
from ansible_collections.sesame.portknock.plugins.module_utils._host.protocols import InUse
from ansible_collections.sesame.portknock.plugins.module_utils._host.sockets import Carrier, Listener
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.netlink import FAMILIES, attribute
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_kernel import KernelRule

if TYPE_CHECKING:
    from fake_host import FakeHost

ROUTE = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
)
ZERO = "0" * 32
ROUTE6 = "{0} 00 {0} 00 fe80000000000000000000000000fffe 00000400 00000001 00000000 00000003 eth0\n".format(ZERO)


class FakeFolders:
    """What else is asked of the files of a FakeHost."""

    files: Dict[str, Tuple[Any, int]]

    def paths_in(self, directory: str) -> List[str]:
        return sorted(path for path in self.files if path.startswith(directory + "/"))

    def digest(self, path: str) -> str:
        return hashlib.sha256(self.files.get(path, ("", 0))[0].encode("utf-8", "surrogateescape")).hexdigest()

    def identity(self, path: str) -> str:
        return self.digest(path)


class FakeSockets:
    """Who listens on a FakeHost."""

    def __init__(self, host: "FakeHost") -> None:
        self._host = host

    def listening(self) -> List[Listener]:
        return sorted(Listener(*each) for each in self._host.listens)

    def processes(self, inodes: List[int]) -> Dict[int, str]:
        return {each[3]: name for each, name in self._host.listens.items() if each[3] in inodes and name}

    def of_tunnel(self, interface: str) -> List[int]:
        return self._host.tunnels.get(interface, [])

    def carrier_of(self, interface: str) -> Optional[Carrier]:
        return self._host.carriers.get(interface)

    def connected(self) -> List[Flow]:
        return self._host.connected


class FakeProtocols:
    """The protocols without ports that a FakeHost uses."""

    def __init__(self, host: "FakeHost") -> None:
        self._host = host

    def in_use(self) -> List[InUse]:
        return sorted(self._host.protocols_in_use)


class FakeConntrack:
    """The connections that a FakeHost tracks."""

    def __init__(self, host: "FakeHost") -> None:
        self._host = host

    def state_of(self, words: Sequence[str]) -> str:
        assert len(words) in (0, 4)
        return "untracked" if " ".join(words) in self._host.untracked else self._host.tracking

    def adopt(self, flows: Sequence[Flow], session: Sequence[str]) -> None:  # noqa: ARG002
        self._host.adopted += flows


class FakeLists:
    """The kernel's lists of a FakeHost."""

    def __init__(self, host: "FakeHost") -> None:
        self._host = host

    def read(self) -> Dict[str, str]:
        return self._host.recent

    def hide(self) -> None:
        self._host.hide_lists()

    def put(self, name: str, address: Union[IPv4Address, IPv6Address]) -> None:
        host = self._host
        self.forget(name, address)
        host.recent[name] += "src={0} ttl: 0 last_seen: {1} oldest_pkt: 1 {1}\n".format(
            address.exploded, int((host.now - 300) * 250) % 2**32
        )

    def clear(self, name: str) -> None:
        self._host.recent[name] = ""

    def forget(self, name: str, address: Union[IPv4Address, IPv6Address]) -> None:
        host = self._host
        host._alive()
        host.forgotten.append((name, str(address)))
        text = host.recent.get(name, "").splitlines(True)
        host.recent[name] = "".join(line for line in text if not line.startswith("src={0} ".format(address.exploded)))


def rule_message(rule: KernelRule, family: str) -> bytes:
    """Return the message of a rule that asks for a port, of one that says notrack, or of one that no release of iptables prints."""

    def expression(name: bytes, *parts: Tuple[int, int]) -> bytes:
        data = b"".join(attribute(kind, number.to_bytes(4, "big")) for kind, number in parts)
        return attribute(1, attribute(1, name + b"\0") + attribute(2, data))

    load = expression(b"payload", (1, 8), (2, 2), (3, 2), (4, 2)) + expression(b"cmp", (1, 8), (2, 0))
    assert rule.options in (None, ("--dport",), ("--notrack",))
    parts = [(1, rule.table.encode() + b"\0"), (2, rule.chain.encode() + b"\0"), (3, rule.handle.to_bytes(8, "big"))]
    known: Dict[Tuple[str, ...], bytes] = {("--dport",): load, ("--notrack",): expression(b"notrack")}
    expressions = known.get(rule.options or (), expression(b"lookup"))
    parts.append((4, expressions + (expression(b"counter") if rule.counts else b"")))
    return bytes([FAMILIES[family], 0, 0, 0]) + b"".join(attribute(*part) for part in parts)


def chain_message(chain: Dict[str, Any]) -> bytes:
    """Return the message of a chain, from the fields that nft lists of it."""
    parts = [(1, chain["table"].encode() + b"\0"), (3, chain["name"].encode() + b"\0")]
    if "hook" in chain:
        number = ("prerouting", "input", "forward", "output", "postrouting").index(chain["hook"])
        parts.append((4, attribute(1, number.to_bytes(4, "big")) + attribute(2, bytes(4))))
        parts.append((5, (chain["policy"] == "accept").to_bytes(4, "big")))
    return bytes([FAMILIES[chain["family"]], 0, 0, 0]) + b"".join(attribute(*part) for part in parts)


class FakeMarks:
    """What differs wherever something on a FakeHost does."""

    def __init__(self, host: "FakeHost") -> None:
        self._host = host

    def network(self) -> str:
        host = self._host
        return repr((host.sockets.listening(), host.protocols.in_use(), host.local_network()))

    def interface(self, name: str) -> str:
        return repr((self._host.sockets.of_tunnel(name), self._host.sockets.carrier_of(name)))

    def units(self, names: List[str]) -> str:
        host = self._host
        return repr((names, host.runs_systemd, host.units, sorted(host.wants), sorted(host.services), host.unit))


class FakeNftables:
    """What the kernel of a FakeHost holds in nftables."""

    def __init__(self, host: "FakeHost") -> None:
        self._host = host

    def rules(self, family: str) -> List[bytes]:
        return [rule_message(rule, family) for rule in self._host.held.get(family, [])]

    def tables(self, family: str) -> List[bytes]:
        number = bytes([FAMILIES[family], 0, 0, 0])
        flags = ((family in self._host.dormant) + 2 * (family in self._host.owned)).to_bytes(4, "big")
        if family == "inet":
            ours = number + attribute(1, b"portknock\0") + attribute(2, flags)
            return [ours] if self._host.nft.exists else []
        return [
            number + attribute(1, b"nat\0") + attribute(2, bytes(4)),
            number + attribute(1, b"filter\0") + attribute(2, flags),
        ]

    def generation(self) -> str:
        host = self._host
        saved = [ruleset.save() for ruleset in host.rules.values()]
        return repr((saved, host.held, host.dormant, host.owned, host.chains, host.nft.exists, host.nft.__dict__))

    def delete_table(self, family: str, table: str) -> None:
        assert (family, table) == ("inet", "portknock")
        self._host._change("netlink", "delete_table")
        self._host.nft.forget_all()

    def empty_chain(self, family: str, table: str, chain: str) -> None:
        self._host._change("netlink", "empty_chain")
        if family == "inet":
            assert table == "portknock"
            self._host.nft.chains[chain] = []
        else:
            assert table == ("nat" if "_NAT" in chain else "filter")
            rules = self._host.rules[{"ip": "iptables", "ip6": "ip6tables"}[family]]
            if f":{chain} " in rules.save():
                rules.restore(f"*{table}\n:{chain} - [0:0]\nCOMMIT\n", noflush=True, test=False)

    def chains(self) -> Optional[List[bytes]]:
        chains = self._host.chains
        return None if chains is None else [chain_message(each["chain"]) for each in chains]
