# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collection promises, on rulesets of others that Hypothesis makes up.

On each the hooks are placed by the core, then others insert rules of theirs, and the core is asked again.
Then packets are walked through what came of it.
"""

import zlib

import foreign
import pytest
import random_rules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.config import config_text
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.service import is_needed
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_iptables import FakeIptables
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from knockd_model import Knockd, obey
from walker import Packet, Walker

TRUSTED = {"ipv4": "10.1.2.3", "ipv6": "fd00::3"}
FRIEND = {"ipv4": "203.0.113.200", "ipv6": "2a00::1"}
BASE = {
    "doors": [
        {"name": "ssh", "knock": ["7144", "2791/udp", "9318"], "opens": ["22"]},
        {"name": "admin", "knock": ["9100", "2000"], "opens": ["8443", "9000-9010", "53/udp"], "window": 30},
        {"name": "one", "knock": ["40001"], "opens": ["40000/udp", "65535"]},
    ],
    "allow": [{"port": 443}, {"port": "8443", "sources": list(FRIEND.values())}],
    "trusted_sources": list(TRUSTED.values()),
    "trusted_interfaces": ["wg0"],
}
SPECS = [
    spec_from_options(dict(BASE, policy=policy, reject_with=answer))
    for policy, answer in (("reject", "icmp-port-unreachable"), ("accept", "tcp-reset"), ("reject", "drop"))
]
SPECS += [
    spec_from_options(dict(BASE, engine="knockd", policy=policy, ipv6_prefix=prefix))
    for policy, prefix in (("reject", 128), ("accept", 64))
]
DOORS = {
    "ssh": ([(7144, "tcp"), (2791, "udp"), (9318, "tcp")], [(22, "tcp")]),
    "admin": ([(9100, "tcp"), (2000, "tcp")], [(8443, "tcp"), (9000, "tcp"), (9005, "tcp"), (53, "udp")]),
    "one": ([(40001, "tcp")], [(40000, "udp"), (65535, "tcp")]),
}
FAMILIES = ("ipv4", "ipv6")


@st.composite
def hosts(draw, family):
    """Return a host's ruleset with the collection's rules in it: as first planned, and again after others inserted rules."""
    policy, rules, chains = draw(foreign.rulesets(family))
    spec = draw(st.sampled_from(SPECS))
    host = FakeIptables(random_rules.save_text(policy, rules, chains))
    apply(host, spec, family)
    for text, place in draw(st.lists(st.tuples(foreign.rule(family), st.integers(1, 12)), max_size=3)):
        place = min(place, len(host.tables["filter"].chains["INPUT"]) + 1)
        host.restore("*filter\n-I INPUT {0} {1}\nCOMMIT\n".format(place, text))
        apply(host, spec, family)
    return host.save(), spec, draw(st.integers(0, 2**16))


def apply(host, spec, family):
    plan = plan_family(host.save(), spec, family)
    if plan.change:
        host.restore(plan.change)
    assert not plan_family(host.save(), spec, family).change, "planned twice, changed twice"


class Served(Walker):
    """A host where knockd, if it is to, sees what comes in, whatever becomes of it."""

    daemon = None

    def send(self, packet):
        verdict = super().send(packet)
        if self.daemon:
            flags = frozenset(packet.flags.split(","))
            for _section, command in self.daemon.packet(
                packet.port, packet.protocol, packet.source, self.clock.now, flags
            ):
                obey(command, self.lists, self.clock.now)
        return verdict


def walker_of(host, family):
    text, spec, seed = host

    def oracle(chain, rule, words, packet):
        """Any answer may be the kernel's; the same question gets the same one."""
        asked = repr((seed, chain, rule, words, packet.source, packet.port, packet.protocol))
        return zlib.crc32(asked.encode("utf-8")) & 1

    walker = Served(parse(text), oracle=oracle, sets={"bad": [random_rules.NETWORKS[family][1]]})
    walker.daemon = (
        Knockd(config_text(spec, FAMILIES, "eth0", "/etc/portknock"))
        if spec.engine == "knockd" and is_needed(spec)
        else None
    )
    return walker


def strangers(family):
    return st.sampled_from(
        [source for source in random_rules.SOURCES[family] if source not in (TRUSTED[family], FRIEND[family])]
    )


interfaces = st.sampled_from(["eth0", "eth1", "br0"])
syns = st.sampled_from(["SYN", "SYN", "SYN,PSH", "SYN,URG", "SYN,PSH,URG"])
hunt = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much])


def explain(host, verdict):
    return "\n".join([host[0], repr(verdict)])


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
@hunt
def test_no_door_opens_without_its_knock(family, data):
    host = data.draw(hosts(family))
    walker = walker_of(host, family)
    for source in (data.draw(strangers(family)), data.draw(strangers(family))):
        interface, sport, mac = (
            data.draw(interfaces),
            data.draw(st.sampled_from([22, 53, 40000])),
            data.draw(st.sampled_from(["02:00:00:00:00:01", "02:00:00:00:00:02"])),
        )
        for noise in (80, 443, 7145, 2791, 9318, 2000):
            walker.send(Packet(source, noise, interface=interface, sport=sport))
        for _steps, opens in DOORS.values():
            for port, protocol in opens:
                flags = data.draw(syns)
                packet = Packet(source, port, protocol, interface=interface, sport=sport, flags=flags, mac=mac)
                for state in (packet.state, "RELATED"):
                    verdict = walker.send(packet._replace(state=state))
                    assert verdict.action != "ACCEPT", explain(host, verdict)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
@hunt
def test_a_right_knock_opens(family, data):
    host = data.draw(hosts(family))
    source, interface = data.draw(strangers(family)), data.draw(interfaces)
    name = data.draw(st.sampled_from(sorted(DOORS)))
    steps, opens = DOORS[name]
    for port, protocol in opens:
        walker = walker_of(host, family)
        verdicts = []
        for knock in steps:
            verdicts.append(walker.send(Packet(source, knock[0], knock[1], interface=interface)))
            walker.later(1)
        final = walker.send(Packet(source, port, protocol, interface=interface))
        stopped = [verdict for verdict in verdicts + [final] if not _reached_doors(verdict)]
        if not any(foreign.refused_as_particular(verdict) for verdict in stopped):
            assert final.action == "ACCEPT", explain(host, verdicts + [final])


def _reached_doors(verdict):
    return any(text.endswith("-j PORTKNOCK") for _chain, text in verdict.trail)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
@hunt
def test_running_sessions_live_on(family, data):
    host = data.draw(hosts(family))
    walker = walker_of(host, family)
    source = data.draw(st.sampled_from(random_rules.SOURCES[family]))
    for protocol in ("tcp", "udp"):
        for port in (22, 53, 443, 9318, 50123):
            flags = data.draw(st.sampled_from(["ACK", "ACK,PSH", "SYN,ACK", "FIN,ACK", "RST"]))
            packet = Packet(source, port, protocol, state="ESTABLISHED", interface=data.draw(interfaces), flags=flags)
            verdict = walker.send(packet)
            if not foreign.refused_as_particular(verdict):
                assert verdict.action == "ACCEPT", explain(host, verdict)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
@hunt
def test_trusted_sources_always_get_in(family, data):
    host = data.draw(hosts(family))
    walker = walker_of(host, family)
    for port, protocol in ((22, "tcp"), (8443, "tcp"), (53, "udp")):
        for packet in (
            Packet(TRUSTED[family], port, protocol),
            Packet(random_rules.SOURCES[family][0], port, protocol, interface="wg0"),
        ):
            verdict = walker.send(packet)
            # Somebody who refuses what comes in by wg0, in front of us, means it.
            meant = any(" -i wg0 " in " " + text for _chain, text in foreign.path(verdict.trail))
            if not meant and not foreign.refused_as_particular(verdict):
                assert verdict.action == "ACCEPT", explain(host, verdict)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
@hunt
def test_policy_reject_leaves_nothing_to_the_policy(family, data):
    """What no rule lets in is refused, whatever INPUT's own policy says."""
    host = data.draw(hosts(family))
    walker = walker_of(host, family)
    if host[1].policy != "reject":
        return
    for port, protocol in ((80, "tcp"), (81, "tcp"), (123, "udp"), (0, "sctp"), (0, "gre")):
        verdict = walker.send(Packet(data.draw(strangers(family)), port, protocol, interface=data.draw(interfaces)))
        if verdict.action == "ACCEPT":
            decided = foreign.path(verdict.trail)
            assert decided, explain(host, verdict)
            assert any(word in text for _chain, text in decided for word in ("ACCEPT", "RETURN", "-g ")), explain(
                host, verdict
            )


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
@hunt
def test_policy_accept_changes_nothing_but_the_doors(family, data):
    policy, rules, chains = data.draw(foreign.rulesets(family))
    text = random_rules.save_text(policy, rules, chains)
    host = FakeIptables(text)
    apply(host, SPECS[1], family)
    seed = data.draw(st.integers(0, 2**16))
    with_ours, without = (walker_of((save, SPECS[1], seed), family) for save in (host.save(), text))
    for port, protocol in ((80, "tcp"), (81, "tcp"), (123, "udp"), (1, "tcp"), (0, "sctp")):
        packet = Packet(data.draw(strangers(family)), port, protocol, interface=data.draw(interfaces))
        before, after = without.send(packet), with_ours.send(packet)
        assert before.action == after.action, explain((host.save(),), (before, after))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
@hunt
def test_allowed_ports_are_let_in(family, data):
    host = data.draw(hosts(family))
    walker = walker_of(host, family)
    for packet in (
        Packet(data.draw(strangers(family)), 443, interface=data.draw(interfaces)),
        Packet(FRIEND[family], 8443, interface=data.draw(interfaces)),
    ):
        verdict = walker.send(packet)
        if not foreign.refused_as_particular(verdict):
            assert verdict.action == "ACCEPT", explain(host, verdict)


def built(family, rules=(), chains=None, inserts=(), policy="ACCEPT", spec=0):
    """A host like those that Hypothesis draws, from what it once found."""
    host = FakeIptables(
        random_rules.save_text(policy, list(rules), dict({name: [] for name in random_rules.CHAINS}, **(chains or {})))
    )
    apply(host, SPECS[spec], family)
    for text, place in inserts:
        host.restore("*filter\n-I INPUT {0} {1}\nCOMMIT\n".format(place, text))
        apply(host, SPECS[spec], family)
    return host.save(), SPECS[spec], 0


OPENED = [
    (["-p tcp -m tcp --dport 1:1023 --tcp-flags SYN,URG SYN,URG -j ACCEPT"], {}, "SYN,URG"),
    (["-p tcp -m tcp --tcp-flags ALL SYN,PSH -j ACCEPT"], {}, "SYN,PSH"),
    (["-p tcp -m tcp ! --tcp-flags ALL SYN -j RETURN"], {}, "SYN,PSH"),
    (["-p tcp -m tcp --tcp-flags SYN,URG SYN,URG -g F4"], {}, "SYN,URG"),
]


@pytest.mark.parametrize(("rules", "chains", "flags"), OPENED)
def test_found_open(rules, chains, flags):
    """Linux takes a SYN with PSH or URG for the begin of a connection, whatever a rule thinks of it."""
    verdict = walker_of(built("ipv4", rules, chains), "ipv4").send(Packet("192.0.2.1", 22, flags=flags))
    assert verdict.action != "ACCEPT", verdict.trail


SHUT = [
    "-m connlimit --connlimit-above 5 --connlimit-mask 0 -j DROP",
    "-p tcp -m tcp --dport 22:9318 -m hashlimit --hashlimit-upto 5/min --hashlimit-mode srcip --hashlimit-name h -j DROP",
]


@pytest.mark.parametrize("rule", SHUT)
def test_found_shut(rule):
    """These count all sources together, or refuse each one's first packets: no knock gets in behind them."""
    walker = Walker(parse(built("ipv4", [rule])[0]), oracle=lambda *_asked: True)
    for port, protocol in DOORS["ssh"][0]:
        walker.send(Packet("192.0.2.1", port, protocol))
    verdict = walker.send(Packet("192.0.2.1", 22))
    assert verdict.action == "ACCEPT", verdict.trail


CUT = [
    (
        "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j DROP",
        Packet("192.0.2.1", 22, flags="ACK", state="ESTABLISHED"),
    ),
    ("-p tcp -m tcp --tcp-flags ACK ACK -j REJECT", Packet("192.0.2.1", 22, flags="ACK", state="ESTABLISHED")),
    ("-p tcp -m tcp --dport 1024:65535 -j DROP", Packet("192.0.2.1", 50123, flags="ACK", state="ESTABLISHED")),
    ("-s 128.0.0.0/1 -p udp -m udp --dport 443 -j DROP", Packet("192.0.2.1", 443, "udp", state="ESTABLISHED")),
    ("-p udp -m conntrack --ctstate ESTABLISHED -j DROP", Packet("192.0.2.1", 50123, "udp", state="ESTABLISHED")),
]


@pytest.mark.parametrize(("rule", "packet"), CUT)
def test_found_cut(rule, packet):
    """Somebody inserted it in front of everything; the head has to move above it."""
    verdict = walker_of(built("ipv4", inserts=[(rule, 1)]), "ipv4").send(packet)
    assert verdict.action == "ACCEPT", verdict.trail
