# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of packets that are sent on: to what nat publishes, and to hosts behind."""

import ipaddress

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import build_rules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import read_state
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed_doors import read_installed
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.proof import lists_in, prove_doors
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_iptables import FakeIptables
from walker import Packet, Walker

HOST = {"ipv4": "203.0.113.1", "ipv6": "2001:db8:ffff::1"}
INNER = {"ipv4": "172.17.0.2", "ipv6": "fd00:17::2"}
ONE = {"ipv4": "198.51.100.7", "ipv6": "2001:db8:1::7"}
OTHER = {"ipv4": "198.51.100.8", "ipv6": "2001:db8:1::8"}
KNOCK = ((17005, "tcp"), (19100, "udp"), (18300, "tcp"))
DOCKER = """*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -j DOCKER
-A DOCKER-USER -s 192.0.2.0/24 -j DROP
-A DOCKER-USER -j RETURN
COMMIT
"""
families = pytest.mark.parametrize("family", sorted(HOST))


def door(name="web", *opens, knock=KNOCK, **more):
    steps = ["{0}/{1}".format(*step) for step in knock]
    return dict({"name": name, "knock": steps, "opens": list(opens or ("8080", "8053/udp"))}, **more)


class Host:
    """A host with the rules of a Spec, and the packets that it gets."""

    def __init__(self, family, *doors, save="*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n", spec=None, **options):
        self.family, self.tables = family, FakeIptables(save)
        self.spec = spec or spec_from_options(dict(options, doors=list(doors)))
        self.tables.restore(plan_family(self.tables.save(), self.spec, family).change)
        self.walker = Walker(parse(self.tables.save()), oracle=lambda *_asked: False)

    def sends_on(self, port=8080, protocol="tcp", source=None, to="", original=None, **more):
        """Whether a packet is sent on; nat published the port unless it goes to a host behind."""
        source, inner = source or ONE[self.family], INNER[self.family]
        nat = None if to else (original or HOST[self.family], port)
        packet = Packet(source, port if to else 80, protocol, destination=to or inner, original=nat, **more)
        return self.walker.send(packet, "FORWARD").action == "ACCEPT"

    def knock(self, *steps, source=None, to=""):
        for port, protocol in steps or KNOCK:
            packet = Packet(source or ONE[self.family], port, protocol, **({"destination": to} if to else {}))
            assert self.walker.send(packet, "FORWARD" if to else "INPUT").action == ("ACCEPT" if to else "REJECT")
            self.walker.later(0.1)


@families
def test_a_published_port(family):
    host = Host(family, door())
    for protocol, port in (("tcp", 8080), ("udp", 8053)):
        assert not host.sends_on(port, protocol)
        assert host.sends_on(port, protocol, state="ESTABLISHED")
        assert not host.sends_on(port, protocol, state="RELATED")
    assert host.sends_on(8081), "it has no door"
    assert host.sends_on(8080, to=OTHER[family]), "a container asks somebody else"
    host.knock()
    assert host.sends_on(8080)
    assert host.sends_on(8053, "udp")
    assert not host.sends_on(8080, source=OTHER[family])
    host.walker.later(16)
    assert not host.sends_on(8080)


@families
def test_what_is_left_alone(family):
    assert "PORTKNOCK_FWD" not in Host(family, door(), published="none").tables.save()
    assert "DOCKER-USER" not in Host(family, door(), published="none").tables.save()
    assert "PORTKNOCK_FWD" not in Host(family, published="doors").tables.save()
    assert "PORTKNOCK_FWD" not in Host(family, published="policy", policy="accept").tables.save()


@families
def test_who_is_trusted(family):
    host = Host(family, door(), trusted_sources=[OTHER[family]], trusted_interfaces=["wg0"])
    assert not host.sends_on()
    assert host.sends_on(source=OTHER[family])
    assert host.sends_on(interface="wg0")


@families
def test_nothing_is_accepted_that_others_refuse(family):
    """Docker's own rules decide on what the door lets through: one of them refuses particular sources."""
    docker = DOCKER.replace("192.0.2.0/24", OTHER[family])
    host = Host(family, door(), save=docker + "")
    host.knock()
    host.knock(source=OTHER[family])
    assert not host.sends_on(source=OTHER[family])
    accepted = docker.replace("-A DOCKER-USER -j RETURN", "-A DOCKER -j ACCEPT\n-A DOCKER-USER -j RETURN")
    host = Host(family, door(), save=accepted.replace("-o docker0 ", ""))
    assert not host.sends_on()
    host.knock()
    assert host.sends_on()


@families
@pytest.mark.parametrize("hooks", ["FORWARD DOCKER-USER", "DOCKER-USER", "FORWARD"])
def test_one_connection_a_knock(family, hooks):
    """Whichever of the hooks a packet passes, and if it is both."""
    host = Host(family, door(once=True), save=DOCKER.replace("FORWARD DROP", "FORWARD ACCEPT"))
    for chain in ("FORWARD", "DOCKER-USER"):
        if chain not in hooks.split():
            host.tables.tables["filter"].chains[chain] = [
                text for text in host.tables.tables["filter"].chains[chain] if "PORTKNOCK" not in text
            ]
    host.walker.load(parse(host.tables.save()))
    for port, protocol in ((8080, "tcp"), (8053, "udp")):
        host.knock()
        assert [host.sends_on(port, protocol) for _turn in range(3)] == [True, False, False]
        host.walker.later(5)


@families
def test_the_policy(family):
    allow = [{"port": 443, "sources": [ONE[family]]}, {"port": "53/udp"}]
    host = Host(family, door(), published="policy", allow=allow)
    assert not host.sends_on(8081)
    assert not host.sends_on(8081, "sctp")
    assert not host.sends_on(8080)
    assert host.sends_on(443)
    assert not host.sends_on(443, source=OTHER[family])
    assert host.sends_on(53, "udp", source=OTHER[family])
    assert host.sends_on(8081, state="ESTABLISHED")
    assert host.sends_on(8081, state="RELATED")
    assert host.sends_on(0, "icmp" if family == "ipv4" else "ipv6-icmp")
    assert host.sends_on(8081, to=INNER[family]), "nat did not change it"
    host.knock()
    assert host.sends_on(8080)


@families
@pytest.mark.parametrize("log", [False, True])
def test_hosts_behind(family, log):
    host = Host(family, door("in", "22", to=[INNER[family]]), door("own", "22", knock=KNOCK[::-1]), log=log)
    inner = INNER[family]
    assert not host.sends_on(22, to=inner)
    assert host.sends_on(22, to=OTHER[family])
    assert host.sends_on(23, to=inner)
    assert not host.sends_on(22, original=HOST[family]), "nat sends it to a host behind: that one's door decides"
    host.knock(*KNOCK[::-1])
    assert not host.sends_on(22, to=inner)
    assert host.walker.send(Packet(ONE[family], 22)).action == "ACCEPT"
    host.knock()
    assert host.sends_on(22, to=inner)
    assert host.sends_on(22, original=HOST[family])
    assert not host.sends_on(22, to=inner, source=OTHER[family])


@families
def test_knocks_at_hosts_behind(family):
    host = Host(family, door("in", "22", to=[INNER[family]]))
    host.knock(*KNOCK[:2], (9, "tcp"), KNOCK[2], to=INNER[family])
    assert not host.sends_on(22, to=INNER[family]), "a wrong port resets it"
    host.knock(*KNOCK[:2], to=INNER[family])
    host.knock(KNOCK[2])
    assert host.sends_on(22, to=INNER[family])
    host.walker.later(16)
    host.knock(to=OTHER[family])
    assert not host.sends_on(22, to=INNER[family]), "they were sent to somebody else"


@families
def test_in_panic_all_is_closed_but_for_the_trusted(family):
    spec = spec_from_options(
        dict(
            doors=[door(), door("in", "22", to=[INNER[family]], knock=KNOCK[::-1])],
            allow=[{"port": 443}],
            trusted_sources=[OTHER[family]],
        )
    )
    for panic in (False, True):
        host = Host(family, spec=spec._replace(panic=panic))
        host.knock()
        host.knock(*KNOCK[::-1])
        for ways in ({}, {"port": 22, "to": INNER[family]}, {"port": 443}):
            assert host.sends_on(**ways) is not panic
            assert host.sends_on(**ways, source=OTHER[family])


@families
def test_read_back(family):
    to = [INNER[family], "10.1.0.0/24" if family == "ipv4" else "fd01::/64"]
    behind = door("in", "22", "60-61/udp", to=to, window=9, sources=[ONE[family]], once=True)
    spec = spec_from_options({"doors": [door(), dict(behind, knock=["5000", "900"])], "published": "doors"})
    back = read_installed(build_rules(spec, family).chains)
    doors = {each.name: each for each in back.doors}
    assert sorted(doors["in"].to) == sorted(spec.doors[1].to)
    assert (doors["in"].opens, doors["in"].here) == (spec.doors[1].opens, ())
    for field in ("window", "once", "sources", "knock"):
        assert getattr(doors["in"], field) == getattr(spec.doors[1], field)
    assert (doors["web"].to, sorted(doors["web"].opens)) == ((), sorted(spec.doors[0].opens))
    assert back.guards_published
    assert not read_installed(build_rules(spec._replace(published="none"), family).chains).guards_published


def test_the_prover_says_that_it_does_not_follow_what_is_sent_on():
    """A port that nat publishes is not open, and nothing is proved of it; one that goes elsewhere here still is void."""
    local = LocalNetwork(own=(ipaddress.ip_network(HOST["ipv4"]),))
    for target, wanted in (("DNAT --to-destination 172.17.0.2:80", "not proved"), ("REDIRECT --to-ports 80", "void")):
        rule = f"-A PREROUTING -p tcp -m tcp --dport 8080 -j {target}"
        host = FakeIptables(f"*nat\n:PREROUTING ACCEPT [0:0]\n{rule}\nCOMMIT\n")
        spec = spec_from_options({"doors": [door("web", "8080"), door("in", "22", knock=KNOCK[::-1], to=["10.0.0.1"])]})
        host.restore(plan_family(host.save(), spec, "ipv4").change)
        chains = read_state(parse(host.save())).chains
        proofs = prove_doors(parse(host.save()), "ipv4", spec, lists_in(chains), local, refuses_rest=True)
        found = {proof.entry["door"]: proof.entry["result"] for proof in proofs if proof.entry["door"]}
        assert found == {"web": wanted}
        assert not any(proof.is_certain for proof in proofs)
