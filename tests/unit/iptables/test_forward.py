# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of packets that are sent on: to what nat publishes, and to hosts behind."""

import ipaddress

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import build_rules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import read_state
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.prove_doors import lists_in, prove_doors
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.module_utils._tables.installed_doors import read_installed
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

    def sends_on(self, port=8080, protocol="tcp", source=None, to="", original=None, by_iptables=False, **more):
        """Whether a packet is sent on; nat published the port unless it goes to a host behind.

        :param by_iptables: whether nat of iptables has; then Docker's rules in FORWARD stand in front of ours.
        """
        source, inner = source or ONE[self.family], INNER[self.family]
        nat = None if to else (original or HOST[self.family], port)
        packet = Packet(source, port if to else 80, protocol, destination=to or inner, original=nat, **more)
        if not by_iptables:
            return self.walker.send(packet, "FORWARD").action == "ACCEPT"
        first = Packet(source, port, protocol, destination=HOST[self.family], **more)
        if self.walker.keeps_destination(first):
            return False
        assert not self.walker.keeps_destination(packet, "POSTROUTING")
        return True

    def knock(self, *steps, source=None, to=""):
        for port, protocol in steps or KNOCK:
            packet = Packet(source or ONE[self.family], port, protocol, **({"destination": to} if to else {}))
            assert self.walker.send(packet, "FORWARD" if to else "INPUT").action == ("ACCEPT" if to else "REJECT")
            self.walker.later(0.1)


by_whom = pytest.mark.parametrize("by_iptables", [False, True])
"""Whether nat of iptables has sent a packet on, or that of somebody else in nftables."""


@families
@by_whom
def test_a_published_port(family, by_iptables):
    host = Host(family, door())
    for protocol, port in (("tcp", 8080), ("udp", 8053)):
        assert not host.sends_on(port, protocol, by_iptables=by_iptables)
        assert host.sends_on(port, protocol, state="ESTABLISHED")
        assert not host.sends_on(port, protocol, state="RELATED")
    assert host.sends_on(8081, by_iptables=by_iptables), "it has no door"
    assert host.sends_on(8080, to=OTHER[family]), "a container asks somebody else"
    (hook,) = host.tables.tables["nat"].chains["PREROUTING"]
    assert hook.startswith("-m addrtype --dst-type LOCAL "), "a container asks somebody else"
    host.knock()
    assert host.sends_on(8080, by_iptables=by_iptables)
    assert host.sends_on(8053, "udp", by_iptables=by_iptables)
    assert not host.sends_on(8080, source=OTHER[family], by_iptables=by_iptables)
    host.walker.later(16)
    assert not host.sends_on(8080, by_iptables=by_iptables)


@families
def test_what_is_left_alone(family):
    assert "PORTKNOCK_FWD" not in Host(family, door(), published="none").tables.save()
    for options in ({"published": "none"}, {"to": [INNER[family]]}):
        doors = [door(**{name: value for name, value in options.items() if name == "to"})]
        save = Host(family, *doors, **{name: value for name, value in options.items() if name != "to"}).tables.save()
        assert "PORTKNOCK_NAT" not in save
        assert (":DOCKER-USER" in save) is ("to" in options)
    assert "PORTKNOCK_FWD" not in Host(family, published="doors").tables.save()
    assert "PORTKNOCK_FWD" not in Host(family, published="policy", policy="accept").tables.save()


@families
def test_who_is_trusted(family):
    host = Host(family, door(), trusted_sources=[OTHER[family]], trusted_interfaces=["wg0"])
    for by_iptables in (False, True):
        assert not host.sends_on(by_iptables=by_iptables)
        assert host.sends_on(source=OTHER[family], by_iptables=by_iptables)
        assert host.sends_on(interface="wg0", by_iptables=by_iptables)


@families
def test_an_exception_for_some_sources_at_the_port_of_a_door(family):
    """As in INPUT, where what is allowed stands in front of the doors."""
    host = Host(family, door(), allow=[{"port": 8080, "sources": [OTHER[family]]}])
    assert not host.sends_on(by_iptables=True)
    assert host.sends_on(source=OTHER[family], by_iptables=True)


@families
def test_who_may_knock(family):
    host = Host(family, door(sources=[ONE[family]]))
    for source in (ONE[family], OTHER[family]):
        host.knock(source=source)
        for by_iptables in (False, True):
            assert host.sends_on(source=source, by_iptables=by_iptables) is (source == ONE[family])


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
def test_one_connection_a_knock_by_nat(family):
    host = Host(family, door(once=True), door("more", "9090", knock=KNOCK[::-1]))
    for port, protocol in ((8080, "tcp"), (8053, "udp")):
        host.knock()
        host.knock(*KNOCK[::-1])
        assert [host.sends_on(port, protocol, by_iptables=True) for _turn in range(3)] == [True, False, False]
        assert [host.sends_on(9090, by_iptables=True) for _turn in range(2)] == [True, True]
        host.knock()
        here = [host.walker.send(Packet(ONE[family], port, protocol)).action for _turn in range(2)]
        assert here == ["ACCEPT", "REJECT"], "what nat did not send on passes INPUT"
        host.walker.later(5)


@families
@pytest.mark.parametrize("hooks", ["FORWARD DOCKER-USER", "DOCKER-USER", "FORWARD"])
def test_one_connection_a_knock(family, hooks):
    """Whichever of the hooks a packet passes, and if it is both; there is a second one for hosts behind."""
    behind = door("in", "22", knock=KNOCK[::-1], to=[OTHER[family]])
    host = Host(family, door(once=True), behind, save=DOCKER.replace("FORWARD DROP", "FORWARD ACCEPT"))
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
def test_a_port_that_a_range_of_another_door_has_too(family):
    """The range fills a group of ports, as one match can name them, and the port is in the next one."""
    ranges = door("ranges", *map(str, range(7000, 7026, 2)), "8000-8010", knock=KNOCK[::-1])
    host = Host(family, ranges, door("web", "8005"))
    host.knock()
    for port in (8005, 8006):
        assert host.sends_on(port, by_iptables=True) is (port == 8005)
        assert host.walker.send(Packet(ONE[family], port)).action == ("ACCEPT" if port == 8005 else "REJECT")


@families
@pytest.mark.parametrize("once", [False, True])
def test_many_doors(family, once):
    """They stand in ranges of ports, and few rules are asked for each packet; the policy holds between them and behind."""
    doors = [
        door(f"d{number}", str(8000 + 10 * number), f"{8001 + 10 * number}-{8003 + 10 * number}/udp", once=once)
        for number in range(40)
    ]
    for number, each in enumerate(doors):
        each["knock"] = [f"{20000 + 7 * number}", f"{41000 - 9 * number}"]
    host = Host(family, *doors, published="policy", allow=[{"port": 8005}])
    for number in (0, 17, 39):
        host.knock((20000 + 7 * number, "tcp"), (41000 - 9 * number, "tcp"))
    for by_iptables in (False, True):
        for number in (0, 1, 17, 39) if not (once and by_iptables) else ():
            for port, protocol in ((8000, "tcp"), (8002, "udp")):
                sent = host.sends_on(port + 10 * number, protocol, by_iptables=by_iptables)
                assert sent is (number != 1 and not (once and protocol == "udp")), (port, number)
        for port in (8004, 8006, 8395, 9000):
            assert not host.sends_on(port, by_iptables=by_iptables)
        assert host.sends_on(8005, by_iptables=by_iptables)
    longest = max(len(rules) for name, rules in host.tables.tables["filter"].chains.items() if "_FWD" in name)
    assert longest < 40


@families
def test_the_policy(family):
    allow = [{"port": 443, "sources": [ONE[family]]}, {"port": "53/udp"}]
    host = Host(family, door(), published="policy", allow=allow)
    for by_iptables in (False, True):
        assert not host.sends_on(8081, by_iptables=by_iptables)
        assert not host.sends_on(8081, "sctp", by_iptables=by_iptables)
        assert not host.sends_on(8080, by_iptables=by_iptables)
        assert host.sends_on(443, by_iptables=by_iptables)
        assert not host.sends_on(443, source=OTHER[family], by_iptables=by_iptables)
        assert host.sends_on(53, "udp", source=OTHER[family], by_iptables=by_iptables)
    assert host.sends_on(8081, state="ESTABLISHED")
    assert host.sends_on(8081, state="RELATED")
    assert host.sends_on(0, "icmp" if family == "ipv4" else "ipv6-icmp")
    assert host.sends_on(8081, to=INNER[family]), "nat did not change it"
    host.knock()
    assert host.sends_on(8080)
    assert host.sends_on(8080, by_iptables=True)


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
        for port in (8080, 443):
            assert host.sends_on(port, by_iptables=True) is not panic
            assert host.sends_on(port, source=OTHER[family], by_iptables=True)


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


@pytest.mark.parametrize(
    ("target", "first", "wanted"),
    [
        ("DNAT --to-destination 172.17.0.2:80", False, "proved"),
        ("REDIRECT --to-ports 80", False, "proved"),
        ("DNAT --to-destination 172.17.0.2:80", True, "proved"),
        ("REDIRECT --to-ports 80", True, "void"),
    ],
)
def test_what_the_prover_says_of_what_nat_sends_on(target, first, wanted):
    """Behind our hook nat sees who has knocked alone; what is sent on in front of it, FORWARD refuses."""
    local = LocalNetwork(own=(ipaddress.ip_network(HOST["ipv4"]),))
    rule = f"-A PREROUTING -p tcp -m tcp --dport 8080 -j {target}"
    host = FakeIptables(f"*nat\n:PREROUTING ACCEPT [0:0]\n{rule}\nCOMMIT\n")
    doors = [door("web", "8080"), door("in", "22", knock=KNOCK[::-1], to=["10.0.0.1"])]
    spec = spec_from_options({"doors": doors, "policy": "accept"})
    host.restore(plan_family(host.save(), spec, "ipv4").change)
    if first:
        host.tables["nat"].chains["PREROUTING"].reverse()
    chains = read_state(parse(host.save())).chains
    proofs = prove_doors(parse(host.save()), "ipv4", spec, lists_in(chains), local)
    found = {proof.entry["door"]: proof.entry["result"] for proof in proofs if proof.entry["door"]}
    assert found == {"web": wanted, "in": "proved"}
    assert not any(proof.is_certain for proof in proofs)
