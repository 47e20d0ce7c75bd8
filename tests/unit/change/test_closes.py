# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a change closes: programs that nobody outside reaches any more, the tunnel's first; and doors to nothing."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._host.sockets import Carrier
from fake_host import FakeHost
from module_run import DOOR, run, settled

HOST = {
    ("tcp", "0.0.0.0", 22, 1): "sshd",
    ("tcp", "::", 22, 2): "sshd",
    ("tcp", "0.0.0.0", 443, 3): "nginx",
    ("tcp", "192.0.2.1", 5432, 4): "postgres",
    ("udp", "0.0.0.0", 51820, 5): "",
    ("tcp", "2001:db8::1", 8080, 6): "node",
    ("tcp", "10.8.0.5", 9100, 7): "exporter",
}
ROUTES = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    "wg0\t0000080A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
)
THROUGH_WG = "10.8.0.7 50000 10.8.0.5 22"
FILTER = "*filter\n:INPUT {0} [0:0]\n{1}COMMIT\n"


def host(v4="", **listens):
    made = FakeHost(v4=v4)
    made.listens = dict(HOST)
    made.kernel_files["/proc/net/route"] = ROUTES
    made.ssh = listens.get("ssh")
    return made


def closed(result):
    return ["{port}/{protocol} {process}".format(**each) for each in result["closes"]]


def kinds(result):
    return [each["kind"] for each in result["findings"]]


CASES = [
    ("all but the door and what is allowed", "", {"allow": [{"port": 443}]},
     ["5432/tcp postgres", "8080/tcp node", "9100/tcp exporter", "51820/udp "]),
    ("what listens inside of a trusted network stays", "", {"allow": [{"port": 443}], "trusted_interfaces": ["wg0"]},
     ["5432/tcp postgres", "8080/tcp node", "51820/udp "]),
    ("policy accept closes nothing", "", {"policy": "accept"}, []),
    ("what a foreign rule accepts stays", FILTER.format("ACCEPT", "-A INPUT -p tcp -m tcp --dport 5432 -j ACCEPT\n"), {},
     ["443/tcp nginx", "8080/tcp node", "9100/tcp exporter", "51820/udp "]),
    ("what was closed before does not close", FILTER.format("DROP", "-A INPUT -p tcp -m tcp --dport 443 -j ACCEPT\n"), {},
     ["8080/tcp node"]),
    ("a rule that refuses all", FILTER.format("ACCEPT", "-A INPUT -p udp -j ACCEPT\n-A INPUT -j DROP\n"), {}, ["8080/tcp node"]),
    ("what nat publishes never met INPUT",
     "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -m tcp --dport 5432 -j DNAT --to-destination 172.17.0.2\nCOMMIT\n",
     {"ip_versions": ["ipv4"]}, ["443/tcp nginx", "9100/tcp exporter", "51820/udp "]),
]  # fmt: skip


@pytest.mark.parametrize(("v4", "options", "wanted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_closes(v4, options, wanted):
    made = host(v4)
    assert closed(run(made, check=True, **options)) == wanted
    assert closed(run(made, **options)) == wanted
    assert closed(run(made, **options)) == [], "nothing changes any more"


def test_in_full():
    assert run(host(), check=True)["closes"][0] == dict(port=443, protocol="tcp", process="nginx", address="0.0.0.0")
    assert run(host(), state="absent")["closes"] == []


def test_an_allowed_port_less_closes_it():
    made = host()
    run(made, allow=[{"port": 443}])
    assert closed(run(made)) == ["443/tcp nginx"]


def test_the_tunnel_of_this_connection_is_first():
    made = host(ssh=THROUGH_WG)
    made.tunnels = {"wg0": [5]}
    result = settled(made)
    assert closed(result)[0] == "51820/udp "
    assert kinds(result)[0] == "tunnel_closes"
    assert result["findings"][0]["message"] == (
        "policy: this connection comes through wg0, a tunnel that ends on this host at port 51820/udp, and policy reject refuses new "
        "packets to that port. The tunnel goes on only until its own connection ends (idle, a reboot, an address that changes); after "
        "that no connection gets in through it. Name the port in allow."
    )
    assert "tunnel_closes" in kinds(run(made)), "as long as it is so"


@pytest.mark.parametrize(
    "options",
    [
        {"allow": [{"port": "51820", "protocol": "udp"}]},
        {"policy": "accept"},
        {"doors": [DOOR, {"name": "vpn", "knock": ["16000", "14000"], "opens": ["51820/udp"]}]},
    ],
)
def test_a_tunnel_that_stays_open(options):
    made = host(ssh=THROUGH_WG)
    made.tunnels = {"wg0": [5]}
    assert "tunnel_closes" not in kinds(run(made, **options))


GRE = Carrier(47, "ipv4", "198.51.100.1")
IP6TNL = Carrier(41, "ipv6", "")


def test_a_tunnel_without_a_port():
    made = host(ssh=THROUGH_WG)
    made.carriers = {"wg0": IP6TNL}
    assert kinds(run(made))[0] == "tunnel_closes"
    made.carriers = {"wg0": GRE}
    message = run(made)["findings"][0]["message"]
    assert "carried by IP protocol 47" in message
    assert "Name 198.51.100.1 in trusted_sources, or add a rule of your own that accepts -p 47." in message


@pytest.mark.parametrize(
    ("v4", "options", "carrier"),
    [
        ("", {"policy": "accept"}, GRE),
        ("", {"trusted_sources": ["198.51.100.0/24"]}, GRE),
        ("", {"trusted_interfaces": ["wg0"]}, GRE._replace(peer="10.8.0.9")),
        ("-A INPUT -p gre -j ACCEPT\n", {}, GRE),
        ("-A INPUT -s 198.51.100.1/32 -p 41 -j ACCEPT\n", {}, Carrier(41, "ipv4", "")),
        ("-A INPUT -i eth1 -j ACCEPT\n", {}, GRE),
        ("", {"ip_versions": ["ipv4"]}, GRE._replace(family="ipv6")),
    ],
)
def test_a_tunnel_without_a_port_that_stays_open(v4, options, carrier):
    made = host(FILTER.format("ACCEPT", v4) if v4 else "", ssh=THROUGH_WG)
    made.carriers = {"wg0": carrier}
    assert "tunnel_closes" not in kinds(run(made, **options))


def test_a_connection_that_does_not_come_through_the_tunnel():
    made = host(ssh="198.51.100.7 50000 192.0.2.1 22")
    made.tunnels = {"wg0": [5]}
    assert "tunnel_closes" not in kinds(run(made))


def test_a_door_to_nothing():
    web = {"name": "web", "knock": ["16000", "14000"], "opens": ["443", "8443-8450", "53/udp"]}
    found = [each for each in run(host(), doors=[DOOR, web])["findings"] if each["kind"] == "nothing_listens"]
    assert [each["message"] for each in found] == [
        "doors[1].opens[{0}]: door 'web' opens {1}, and no program here listens there but for this host itself. Start the service, or "
        "name the port that it listens on.".format(number, ports)
        for number, ports in ((1, "8443-8450/tcp"), (2, "53/udp"))
    ]


def test_a_port_that_no_door_guards():
    made = host(ssh="198.51.100.7 50000 192.0.2.1 22")
    web = {"name": "web", "knock": ["16000", "14000"], "opens": ["443"]}
    result = run(made, doors=[web], allow=[{"port": 22}])
    assert [(each["ip_version"], each["message"]) for each in result["findings"] if each["kind"] == "connection_unguarded"] == [
        ("ipv4", "doors: no door opens port 22, by which this connection comes, and strangers can reach it without a knock. If it is "
                 "ssh that is to be closed, name this port in a door's opens.")
    ]  # fmt: skip
    assert "connection_unguarded" in kinds(run(made, doors=[web], policy="accept"))
    assert "connection_unguarded" not in kinds(run(made, doors=[web], trusted_sources=["198.51.100.7"]))
    assert "connection_unguarded" not in kinds(run(made))
