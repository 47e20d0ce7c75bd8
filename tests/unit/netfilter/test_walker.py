# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The walker itself: what is known of ip_tables and xt_recent from their source and from measurement."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from walker import Packet, Walker
from walker_rules import UnknownMatch

ME, YOU = "192.0.2.1", "192.0.2.2"
ME6 = "2001:db8::1"


def ruleset(*rules, **more):
    chains = more.pop("chains", ())
    lines = ["*filter", ":INPUT {0} [0:0]".format(more.pop("policy", "ACCEPT"))]
    lines += [":{0} - [0:0]".format(chain) for chain in chains]
    lines += [rule if rule.startswith("-A") else "-A INPUT " + rule for rule in rules]
    return Walker(parse("\n".join(lines + ["COMMIT", ""])), **more)


def action(rule, packet, **more):
    """What becomes of a packet when one rule drops what it matches."""
    return ruleset(rule + " -j DROP", **more).send(packet).action


@pytest.mark.parametrize(
    ("rule", "packet", "matches"),
    [
        ("", Packet(ME), True),
        ("-p tcp", Packet(ME), True),
        ("-p 6", Packet(ME), True),
        ("-p udp", Packet(ME), False),
        ("! -p udp", Packet(ME), True),
        ("-p all", Packet(ME, protocol="icmp"), True),
        ("-s 192.0.2.0/31", Packet(ME), True),
        ("-s 192.0.2.0/31", Packet(YOU), False),
        ("! -s 192.0.2.1/32", Packet(ME), False),
        ("-s 192.0.2.9,192.0.2.1", Packet(ME), True),
        ("-s ::/0", Packet(ME6), True),
        ("-s 192.0.2.1", Packet(ME), True),
        ("-s 192.9.2.0/255.0.255.0", Packet(ME), True),
        ("-s 192.9.3.0/255.0.255.0", Packet(ME), False),
        ("-s 2001:db8::/127", Packet(ME6), True),
        ("-d 203.0.113.1/32", Packet(ME), True),
        ("-d 203.0.113.2/32", Packet(ME), False),
        ("-i eth0", Packet(ME), True),
        ("-i eth+", Packet(ME, interface="eth12"), True),
        ("! -i lo", Packet(ME), True),
        ("-i lo", Packet(ME), False),
        ("-o eth0", Packet(ME), False),
        ("-p tcp -m tcp --dport 22", Packet(ME, 22), True),
        ("-p tcp -m tcp --dport 22", Packet(ME, 23), False),
        ("-p tcp -m tcp ! --dport 22", Packet(ME, 23), True),
        ("-p tcp -m tcp --dport 20:22", Packet(ME, 22), True),
        ("-p tcp -m tcp --dport :22", Packet(ME, 22), True),
        ("-p tcp -m tcp --dport 22:", Packet(ME, 21), False),
        ("-p tcp --dport ssh", Packet(ME, 22), True),
        ("-p tcp -m tcp --sport 53 --dport 22", Packet(ME, 22), False),
        ("-p udp -m udp --dport 22", Packet(ME, 22), False),
        ("-p tcp -m multiport --dports 1,20:30,99", Packet(ME, 22), True),
        ("-p tcp -m multiport --dports 1,20:30,99", Packet(ME, 31), False),
        ("-p tcp -m multiport ! --dports 1,20:30,99", Packet(ME, 31), True),
        ("-p tcp -m multiport --ports 40000", Packet(ME, 31), True),
        ("-p tcp --syn", Packet(ME, 22), True),
        ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", Packet(ME, 22, flags="SYN,PSH"), True),
        ("-p tcp -m tcp --tcp-flags ALL SYN", Packet(ME, 22, flags="SYN,PSH"), False),
        ("-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN", Packet(ME, 22, flags="ACK"), True),
        ("-p tcp -m tcp --tcp-flags ALL NONE", Packet(ME, 22, flags=""), True),
        ("-m state --state NEW,INVALID", Packet(ME), True),
        ("-m conntrack ! --ctstate NEW", Packet(ME), False),
        ("-m conntrack --ctstate RELATED,ESTABLISHED", Packet(ME, state="RELATED"), True),
        ("-p icmp -m icmp --icmp-type 8", Packet(ME, protocol="icmp"), True),
        ("-p icmp -m icmp --icmp-type any", Packet(ME, protocol="icmp", icmp_type=3), True),
        ("-p icmp --icmp-type echo-request", Packet(ME, protocol="icmp", icmp_type=3), False),
        ("-p ipv6-icmp -m icmp6 --icmpv6-type 135", Packet(ME6, protocol="ipv6-icmp", icmp_type=135), True),
        ("-m pkttype --pkt-type unicast", Packet(ME), True),
        ("-m pkttype --pkt-type broadcast", Packet(ME), False),
        ("-m addrtype --dst-type LOCAL", Packet(ME), True),
        ("-m addrtype --dst-type MULTICAST,BROADCAST", Packet(ME, destination="224.0.0.1"), True),
        ("-m iprange --src-range 192.0.2.0-192.0.2.1", Packet(YOU), False),
        ("-m mac --mac-source 02:00:00:00:00:01", Packet(ME), True),
        ("-m mark --mark 0x1/0x3", Packet(ME, mark=5), True),
        ('-m comment --comment "a -j ACCEPT in words"', Packet(ME), True),
        ("-p tcp -m comment --comment plain -m tcp --dport 22", Packet(ME, 22), True),
    ],
)
def test_one_match(rule, packet, matches):
    assert action(rule, packet) == ("DROP" if matches else "ACCEPT")


def test_match_set():
    sets = {"bad": ["192.0.2.0/31"]}
    assert action("-m set --match-set bad src", Packet(ME), sets=sets) == "DROP"
    assert action("-m set --match-set bad src", Packet(YOU), sets=sets) == "ACCEPT"


def test_unknown_match_needs_an_oracle():
    with pytest.raises(UnknownMatch, match="geoip"):
        action("-m geoip --src-cc AQ", Packet(ME))
    assert action("-m geoip --src-cc AQ", Packet(ME), oracle=lambda *_asked: True) == "DROP"
    assert action("-m geoip --src-cc AQ", Packet(ME), oracle=lambda *_asked: False) == "ACCEPT"


def test_jump_comes_back_and_goto_does_not():
    walker = ruleset(
        "-j A", "-p tcp -j DROP", "-A A -p udp -g B", "-A A -p tcp -j B", "-A A -j REJECT", "-A B -j RETURN", chains=("A", "B"),
    )  # fmt: skip
    assert walker.send(Packet(ME)).action == "REJECT"
    assert walker.send(Packet(ME, protocol="udp")).action == "ACCEPT"
    assert [chain for chain, _rule in walker.send(Packet(ME)).trail] == ["INPUT", "A", "B", "A"]


def test_goto_from_a_called_chain_returns_to_its_caller():
    walker = ruleset("-j A", "-j DROP", "-A A -g B", "-A A -j REJECT", chains=("A", "B"))
    assert walker.send(Packet(ME)).action == "DROP"


def test_return_in_input_is_the_policy():
    assert ruleset("-j RETURN", "-j DROP").send(Packet(ME)).action == "ACCEPT"
    assert ruleset("-j RETURN", "-j ACCEPT", policy="DROP").send(Packet(ME)).action == "DROP"


def test_reject_answers():
    assert ruleset("-j REJECT").send(Packet(ME)).answer == "icmp-port-unreachable"
    assert ruleset("-j REJECT --reject-with icmp6-adm-prohibited").send(Packet(ME6)).answer == "icmp6-adm-prohibited"


def test_log_and_mark_go_on():
    walker = ruleset(
        '-j LOG --log-prefix "hello: "', "-j MARK --set-xmark 0x1/0xffffffff", "-m mark --mark 0x1 -j DROP"
    )
    verdict = walker.send(Packet(ME))
    assert verdict.action == "DROP"
    assert verdict.logged == ("hello: ",)


def test_limit_is_a_bucket():
    walker = ruleset("-m limit --limit 6/min --limit-burst 2 -j ACCEPT", policy="DROP")
    assert [walker.send(Packet(ME)).action for _turn in range(3)] == ["ACCEPT", "ACCEPT", "DROP"]
    walker.later(10)
    assert [walker.send(Packet(ME)).action for _turn in range(2)] == ["ACCEPT", "DROP"]


KNOCK = "-p tcp -m tcp --dport 1000 -m recent --set --name K --mask 255.255.255.255 --rsource"


def asked(what):
    return "-p tcp -m tcp --dport 22 -m recent {0} --name K --mask 255.255.255.255 --rsource -j ACCEPT".format(what)


def test_recent_window_ends_inclusive():
    walker = ruleset(KNOCK, asked("--rcheck --seconds 15"), policy="DROP")
    assert walker.send(Packet(ME, 22)).action == "DROP"
    walker.send(Packet(ME, 1000))
    walker.later(15)
    assert walker.send(Packet(ME, 22)).action == "ACCEPT"
    assert walker.send(Packet(YOU, 22)).action == "DROP"
    walker.later(0.5)
    assert walker.send(Packet(ME, 22)).action == "DROP"


def test_recent_update_extends_and_rcheck_does_not():
    for verb, expected in (("--rcheck", "DROP"), ("--update", "ACCEPT")):
        walker = ruleset(KNOCK, asked(verb + " --seconds 15"), policy="DROP")
        walker.send(Packet(ME, 1000))
        walker.later(10)
        assert walker.send(Packet(ME, 22)).action == "ACCEPT"
        walker.later(10)
        assert walker.send(Packet(ME, 22)).action == expected


def test_recent_remove_matches_once():
    walker = ruleset(KNOCK, asked("--remove"), policy="DROP")
    walker.send(Packet(ME, 1000))
    assert [walker.send(Packet(ME, 22)).action for _turn in range(2)] == ["ACCEPT", "DROP"]


def test_recent_negated():
    walker = ruleset(KNOCK, asked("! --rcheck --seconds 5"), policy="DROP")
    assert walker.send(Packet(ME, 22)).action == "ACCEPT"
    walker.send(Packet(ME, 1000))
    assert walker.send(Packet(ME, 22)).action == "DROP"
    walker.later(6)
    assert walker.send(Packet(ME, 22)).action == "ACCEPT"


def test_recent_hitcount_within_the_seconds():
    walker = ruleset(
        asked("--set").replace(" -j ACCEPT", ""), asked("--rcheck --seconds 10 --hitcount 3"), policy="DROP"
    )
    answers = []
    for _turn in range(3):
        answers.append(walker.send(Packet(ME, 22)).action)
        walker.later(6)
    assert answers == ["DROP", "DROP", "DROP"]
    walker.later(60)
    assert [walker.send(Packet(ME, 22)).action for _turn in range(3)] == ["DROP", "DROP", "ACCEPT"]


def test_recent_side_effects_stop_at_the_first_that_does_not_match():
    walker = ruleset(
        "-m recent --remove --name A --rsource -m recent --set --name B --rsource",
        "-p udp -m recent --set --name A --rsource",
        "-m recent --set --name C --rsource -m recent --rcheck --name B --rsource -j DROP",
    )
    walker.send(Packet(ME))
    assert (len(walker.lists["A"].entries), len(walker.lists["B"].entries), len(walker.lists["C"].entries)) == (0, 0, 1)
    walker.send(Packet(ME, protocol="udp"))
    assert walker.send(Packet(ME)).action == "DROP"
    assert not walker.lists["A"].entries


def test_recent_mask_is_the_first_rules():
    rule = "-m recent --{0} --name K --mask {1} --rsource"
    walker = ruleset(
        "-p tcp -m tcp --dport 1 " + rule.format("set", "ffff:ffff:ffff:ffff::"),
        "-p tcp -m tcp --dport 22 " + rule.format("rcheck", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff") + " -j DROP",
    )
    walker.send(Packet("2001:db8::1", 1))
    assert walker.send(Packet("2001:db8::2", 22)).action == "DROP"
    assert walker.send(Packet("2001:db8:0:1::2", 22)).action == "ACCEPT"


@pytest.mark.parametrize(("floods", "expected"), [(99, "ACCEPT"), (100, "DROP")])
def test_recent_forgets_the_longest_unseen(floods, expected):
    """Measured: exactly 100 forged sources push one out of a list of 100."""
    walker = ruleset(KNOCK, asked("--rcheck --seconds 15"), policy="DROP")
    walker.send(Packet(ME, 1000))
    for number in range(floods):
        walker.send(Packet("198.51.100.{0}".format(number), 1000))
    assert walker.send(Packet(ME, 22)).action == expected


def test_recent_rttl_asks_for_the_same_time_to_live():
    walker = ruleset(KNOCK, asked("--rcheck --rttl"), policy="DROP")
    walker.send(Packet(ME, 1000, ttl=60))
    assert walker.send(Packet(ME, 22, ttl=61)).action == "DROP"
    assert walker.send(Packet(ME, 22, ttl=60)).action == "ACCEPT"


def test_loading_again_keeps_lists_that_are_named():
    walker = ruleset(KNOCK, asked("--rcheck --seconds 15"), policy="DROP")
    walker.send(Packet(ME, 1000))
    walker.load(parse("*filter\n:INPUT DROP [0:0]\n-A INPUT {0}\nCOMMIT\n".format(asked("--rcheck"))))
    assert walker.send(Packet(ME, 22)).action == "ACCEPT"
    walker.load(parse("*filter\n:INPUT DROP [0:0]\nCOMMIT\n"))
    assert walker.lists == {}
