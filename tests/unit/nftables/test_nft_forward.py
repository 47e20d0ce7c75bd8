# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host sends on: to ports that nat publishes on it, and to hosts behind it."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.build import build_table
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.text import load_text
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from nft_model import Model, Sent

WEB = {"name": "web", "knock": ["7000", "9100/udp"], "opens": ["8080", "9000-9010", "514/udp"]}
BEHIND = {
    "name": "behind", "knock": ["4100", "2700"], "opens": ["22", "8080"], "to": ["10.9.0.5", "10.9.1.0/24", "2001:db8:9::/64"],
}  # fmt: skip
SSH = {"name": "ssh", "knock": ["5100", "3700"], "opens": ["22"]}
ALICE, BOB, SIX = "198.51.100.7", "203.0.113.9", "2001:db8::7"
HERE = {ALICE: "192.0.2.1", BOB: "192.0.2.1", SIX: "2001:db8::1"}
CONTAINER = {ALICE: "172.17.0.2", BOB: "172.17.0.2", SIX: "fd00::2"}
HOST = {ALICE: "10.9.0.5", BOB: "10.9.0.5", SIX: "2001:db8:9::5"}


def host(*doors, panic=False, **options):
    spec = spec_from_options(dict(options, doors=list(doors)))
    return Model(load_text(build_table(spec._replace(panic=panic))).text)


def published(source, port, inner=80, **more):
    """Return a packet to a port here that nat sends to a container."""
    return Sent(source, inner, destination=CONTAINER[source], first=(HERE[source], port), **more)


def behind(source, port, **more):
    return Sent(source, port, destination=HOST[source], **more)


def knock(model, source, door, to="input", **more):
    for step in door["knock"]:
        port, _slash, protocol = step.partition("/")
        getattr(model, "forward" if to == "forward" else "send")(Sent(source, int(port), protocol or "tcp", **more))


@pytest.mark.parametrize("source", [ALICE, SIX])
@pytest.mark.parametrize(("port", "protocol"), [(8080, "tcp"), (9005, "tcp"), (514, "udp")])
def test_a_published_port_is_closed_until_its_source_has_knocked(source, port, protocol):
    model = host(WEB)
    packet = published(source, port, protocol=protocol)
    assert not model.forward(packet)
    assert model.forward(packet._replace(state="established")), "what goes on is never touched"
    knock(model, source, WEB)
    assert model.forward(packet)
    assert not model.forward(published(BOB, port, protocol=protocol))
    model.later(16)
    assert not model.forward(packet)


def test_the_port_that_counts_is_the_one_that_was_sent_to():
    model = host(WEB)
    assert model.forward(published(ALICE, 80, inner=8080)), "another port here, whatever the container's"
    assert model.forward(published(ALICE, 8080, protocol="udp"))
    assert model.forward(Sent(ALICE, 8080, destination=BOB)), "what containers, or hosts behind, send elsewhere"


def test_what_nat_sends_to_another_port_of_this_host_is_guarded_as_well():
    model = host(WEB, allow=[{"port": 80}])
    redirected = Sent(ALICE, 80, first=(HERE[ALICE], 8080))
    assert not model.send(redirected)
    knock(model, ALICE, WEB)
    assert model.send(redirected)
    assert model.send(Sent(BOB, 80))
    assert not model.send(Sent(BOB, 8080, first=(HERE[BOB], 8888)))


def test_a_knock_for_one_connection_is_used_up_wherever_it_goes():
    model = host(dict(WEB, once=True))
    knock(model, ALICE, WEB)
    assert model.forward(published(ALICE, 8080))
    assert not model.forward(published(ALICE, 8080))
    assert not model.send(Sent(ALICE, 8080))


def test_who_is_trusted_needs_no_knock():
    model = host(WEB, trusted_sources=[BOB], trusted_interfaces=["lo", "docker0"])
    assert model.forward(published(BOB, 8080))
    assert model.forward(published(ALICE, 8080, interface="docker0"))
    assert not model.forward(published(ALICE, 8080))


def test_none_leaves_alone_what_is_published():
    model = host(WEB, published="none")
    assert model.forward(published(ALICE, 8080))
    assert not model.send(Sent(ALICE, 8080))
    assert not host(BEHIND, published="none").forward(behind(ALICE, 22))


def test_a_source_from_which_nobody_may_knock_is_refused():
    assert not host(dict(WEB, sources=["10.0.0.0/8"])).forward(published(ALICE, 8080))
    assert not host(dict(WEB, sources=["10.0.0.0/8"])).forward(published(SIX, 8080))


@pytest.mark.parametrize("policy", ["reject", "accept"])
def test_the_policy_for_what_is_published(policy):
    allow = [{"port": 443}, {"port": 444, "sources": [BOB]}]
    model = host(WEB, policy=policy, published="policy", allow=allow)
    rest = policy == "accept"
    assert model.forward(published(ALICE, 9999)) == rest
    assert model.forward(published(ALICE, 444)) == rest
    assert model.forward(published(BOB, 444))
    assert model.forward(published(ALICE, 443))
    assert model.forward(published(ALICE, 9999, state="related"))
    assert model.forward(behind(ALICE, 9999)), "what nat does not publish"
    assert not model.forward(published(ALICE, 8080))
    assert host(WEB, policy=policy, allow=allow).forward(published(ALICE, 9999)), "doors"


@pytest.mark.parametrize("published", ["doors", "policy"])
def test_panic_closes_what_is_published(published):
    model = host(WEB, BEHIND, allow=[{"port": 443}], published=published, panic=True, trusted_sources=[BOB])
    knock(model, ALICE, WEB)
    knock(model, ALICE, BEHIND)
    sent = [Sent(ALICE, 80, destination=CONTAINER[ALICE], first=(HERE[ALICE], port)) for port in (8080, 443)]
    assert [model.forward(each) for each in sent] == [False, published == "doors"]
    assert not model.forward(behind(ALICE, 22))
    assert model.forward(behind(BOB, 22))


@pytest.mark.parametrize("source", [ALICE, SIX])
def test_a_host_behind_is_closed_until_its_source_has_knocked(source):
    model = host(BEHIND, SSH)
    assert not model.forward(behind(source, 22))
    assert model.forward(behind(source, 443))
    knock(model, source, SSH)
    assert model.send(Sent(source, 22)), "this host's own port is another door"
    assert not model.forward(behind(source, 22))
    knock(model, source, BEHIND)
    assert model.forward(behind(source, 22))
    assert model.forward(Sent(source, 22, destination="10.9.2.1" if source == ALICE else "2001:db8:8::1")), (
        "another host"
    )


def test_a_host_behind_nat_is_known_by_both_addresses_and_both_ports():
    model = host(BEHIND)
    inside, outside = HOST[ALICE], HERE[ALICE]
    packets = [
        Sent(ALICE, 2222, destination=inside, first=(outside, 22)),
        Sent(ALICE, 22, destination=inside, first=(outside, 2222)),
        Sent(ALICE, 2222, destination="172.16.0.9", first=("10.9.1.7", 22)),
    ]
    assert [model.forward(packet) for packet in packets] == [False, False, False]
    knock(model, ALICE, BEHIND)
    assert [model.forward(packet) for packet in packets] == [True, True, True]


def test_what_connection_tracking_does_not_see_needs_the_knock_as_well():
    model = host(BEHIND)
    assert not model.forward(behind(ALICE, 22, state="untracked"))


@pytest.mark.parametrize("first", [None, ("192.0.2.1", 0)])
def test_knocks_may_be_addressed_to_hosts_behind(first):
    model = host(BEHIND, SSH)

    def forward(port, **more):
        sent = behind(ALICE, port, **more)
        return model.forward(sent._replace(first=first and (first[0], port)))

    assert forward(4100)
    assert forward(6000)
    assert forward(2700)
    assert not forward(22), "a wrong port was between"
    assert forward(4100)
    assert forward(6000, state="related")
    assert forward(2700)
    assert forward(22)
    knock(model, ALICE, SSH, "forward", destination=HOST[ALICE])
    assert model.send(Sent(ALICE, 22)), "any door's knock"
    knock(model, BOB, BEHIND, "forward", destination="10.9.2.1")
    assert not model.forward(behind(BOB, 22)), "not to hosts that no door is for"


def test_a_packet_is_counted_once_as_a_knock():
    """Of a knock with the same step twice, a packet that is between two hosts behind would do both."""
    door = dict(BEHIND, knock=["4100", "2700", "4100", "2700"])
    model = host(door)
    for step in door["knock"][:-1]:
        assert model.forward(Sent(ALICE, int(step), destination="10.9.0.5", first=("10.9.1.9", int(step))))
    assert not model.forward(behind(ALICE, 22))
    assert model.forward(Sent(ALICE, 2700, destination="10.9.0.5", first=("10.9.1.9", 2700)))
    assert model.forward(behind(ALICE, 22))


def test_a_host_with_several_doors_to_it():
    other = {"name": "all", "knock": ["6100", "1700"], "opens": ["443"], "to": ["10.9.0.0/16"]}
    model = host(BEHIND, other)
    assert not model.forward(behind(ALICE, 443))
    assert not model.forward(behind(ALICE, 22))
    knock(model, ALICE, other)
    assert model.forward(behind(ALICE, 443))
    assert not model.forward(behind(ALICE, 22))
    assert model.forward(Sent(ALICE, 22, destination="10.9.2.9"))
    assert not model.forward(Sent(BOB, 443, destination="10.9.2.9"))
