# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What others in the packet filter do to doors of engine nftables.

The hosts in corpus/native/others are what ``nft -j list ruleset`` says on them.

- Recorded of the packages of Debian, whole: firewalld-1.3 (12: 1.3.3) and firewalld-2.3 (13: 2.3.1), zone public with http and 443/tcp
  added; fail2ban (12: 1.0.2) and fail2ban-1.1 (13: 1.1.0) with banaction nftables, sources banned from ssh and one from all ports.
  Docker 20.10 and 26.1 have iptables' rules alone: corpus/docker.v4.save and docker-trixie.v4.save.
- Written, from firewalld's rules or from documentation, with one of each rule: those with a text beside, whose first line says which;
  what nft 1.0.6 lists of it alone: ``unshare -n sh -c 'nft -f NAME.nft && nft -j list ruleset' > NAME.json``.
"""

import ipaddress
import os

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._engine import Connection
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork, Route
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import read_listing
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.foreign import (
    Foreign,
    Save,
    findings_of_others,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.foreign_reach import reach_of, what_cuts
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options

CORPUS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "corpus")
KNOCK = ["7000", "9100/udp", "3100"]
DOORS = [{"name": "ssh", "knock": KNOCK, "opens": ["22"]}]
BOTH = ("ipv4", "ipv6")
LOCAL = LocalNetwork(
    tuple(ipaddress.ip_network(each) for each in ("192.0.2.10", "172.17.0.1", "100.100.7.7", "2001:db8::10")),
    (
        Route(ipaddress.ip_network("0.0.0.0/0"), "eth0", 0),
        Route(ipaddress.ip_network("172.17.0.0/16"), "docker0", 0),
        Route(ipaddress.ip_network("::/0"), "eth0", 0),
    ),
)


def host(name):
    with open(os.path.join(CORPUS, "native", "others", name + ".json"), encoding="utf-8") as stream:
        return read_listing(stream.read())


def chain(*rules, hook="input", prio=0, policy="accept", family="inet", name="t", **more):
    """Return the listing of a table with one chain."""
    fields = dict(family=family, table=name, name="c", hook=hook, type="filter", prio=prio, policy=policy, **more)
    return [
        {"table": {"family": family, "name": name}},
        {"chain": fields},
        *[{"rule": dict(family=family, table=name, chain="c", expr=list(expr))} for expr in rules],
    ]


def dport(port, protocol="tcp"):
    return {"match": {"op": "==", "left": {"payload": {"protocol": protocol, "field": "dport"}}, "right": port}}


SPORT = {"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "sport"}}, "right": 53}}
DROP, ACCEPT = {"drop": None}, {"accept": None}


def save(input_rules, policy="ACCEPT", rest=""):
    return f"{rest}*filter\n:INPUT {policy} [0:0]\n{input_rules}COMMIT\n"


def found(items=(), saves=(), families=BOTH, local=LOCAL, **options):
    spec = spec_from_options(dict({"doors": DOORS}, **options))
    foreign = Foreign(items, tuple(Save(*each) for each in saves))
    return findings_of_others(foreign, spec, families, local)


def kinds(*args, **options):
    return [each.kind for each in found(*args, **options)]


# Hosts as there are


@pytest.mark.parametrize(
    ("name", "allow"),
    [
        ("firewalld", [80, 443]),
        ("docker", [443, 8081]),
        ("fail2ban", [80]),
        ("fail2ban-1.1", [80]),
        ("kube-proxy", [53, 6443]),
        ("tailscale", [80]),
    ],
)
def test_a_host_that_lets_the_doors_be(name, allow):
    """Bans, published ports, services in a cluster: none of it is about the door or what is allowed."""
    for policy in ("reject", "accept"):
        assert found(host(name), allow=[{"port": port} for port in allow], policy=policy) == []


TOUCHED = [
    ("firewalld-1.3", {"opens": ["2222"]},
     [("native_table", "the chain filter_INPUT of table inet firewalld drops packets to door ssh, and a packet must pass both.")]),
    ("firewalld-2.3", {"opens": ["2222"]},
     [("native_table", "the chain filter_INPUT of table inet firewalld drops packets to door ssh, and a packet must pass both.")]),
    ("firewalld-2.3", {"allow": 443}, []),
    ("firewalld", {"opens": ["2222"]}, [("native_table", "the chain filter_INPUT of table inet firewalld drops packets to door ssh,")]),
    ("firewalld", {"allow": 8443}, [("native_table", "the chain filter_INPUT of table inet firewalld drops packets to 8443/tcp,")]),
    ("docker", {"opens": ["8080"]}, []),
    ("docker", {"opens": ["8080"], "published": "none"},
     [("unguarded", "the chain nat-PREROUTING of table ip docker-bridges redirects packets to door ssh b")]),
    ("docker", {"allow": 8080}, [("unguarded", "the chain nat-PREROUTING of table ip docker-bridges redirects packets to 8080/tcp b")]),
    ("kube-proxy", {"opens": ["30053"]}, []),
    ("kube-proxy", {"opens": ["30053"], "published": "none"},
     [("native_table", "the chain nat-prerouting of table ip kube-proxy may drop or redirect pac")]),
    ("kube-proxy", {"opens": ["30022"]}, [("native_table", "the chain filter-input of table ip kube-proxy may drop or redirect pac")]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "what", "wanted"), TOUCHED)
def test_a_host_that_has_to_do_with_a_door(name, what, wanted):
    options = {"doors": [dict(DOORS[0], opens=what.get("opens", ["22"]))]}
    options["allow"] = [{"port": what["allow"]}] if "allow" in what else []
    told = found(host(name), **options, published=what.get("published", "doors"))
    assert [(each.kind, each.message[: len(words)]) for each, (_kind, words) in zip(told, wanted)] == wanted
    assert len(told) == len(wanted)


def test_where_all_addresses_of_the_host_are_those_that_a_rule_names_it_is_certain():
    local = LOCAL._replace(own=LOCAL.own[:1])
    (sent,) = found(host("kube-proxy"), local=local, doors=[dict(DOORS[0], opens=["30053"])], published="none")
    assert sent.kind == "unguarded"
    assert (
        "the chain nat-prerouting of table ip kube-proxy redirects packets to door ssh before the doors" in sent.message
    )
    (refused,) = found(host("kube-proxy"), local=local, doors=[dict(DOORS[0], opens=["30022"])])
    assert (
        "the chain filter-input of table ip kube-proxy drops packets to door ssh, and a packet must" in refused.message
    )


def test_a_knock_at_a_port_that_is_published_is_never_seen():
    (finding,) = found(host("docker"), doors=[dict(DOORS[0], knock=["8080", "3100"])])
    assert finding.kind == "unguarded"
    assert "redirects packets to the knock of door ssh before the doors see them" in finding.message
    assert "8080" not in finding.message + finding.rule


# Where a chain stands


CHAINS = [
    ("behind the table it may drop a knock", chain([dport(3100), DROP]), []),
    ("in front of it it may not", chain([dport(3100), DROP], prio=-11), ["native_table"]),
    ("nor at the same priority", chain([dport(3100), DROP], prio=-10), ["native_table"]),
    ("nor before it is delivered", chain([dport(3100), DROP], hook="prerouting", prio=300), ["native_table"]),
    ("over the other protocol", chain([dport(3100, "udp"), DROP], prio=-11), []),
    ("all that it does not accept", chain([dport(22), ACCEPT], policy="drop"), []),
    ("and not the door", chain([dport(80), ACCEPT], policy="drop"), ["policy_drop"]),
    ("what it accepts voids nothing", chain([ACCEPT], prio=-300, hook="prerouting"), []),
    ("the door, anywhere", chain([dport(22), DROP], prio=300), ["native_table"]),
    ("the interface that strangers come in by", chain([dport(22), DROP], hook="ingress", family="netdev", dev="eth0"), ["native_table"]),
    ("another one", chain([dport(22), DROP], hook="ingress", family="netdev", dev="eth1"), []),
    ("a program decides", chain([dport(22), {"queue": {"num": 0}}]), ["native_table"]),
    ("a limit", chain([dport(22), {"limit": {"rate": 5, "per": "second", "inv": True}}, DROP]), ["native_table"]),
    ("out of connection tracking", chain([dport(22), {"notrack": None}], hook="prerouting", prio=-300), ["untracked"]),
    ("too late for that", chain([dport(22), {"notrack": None}], hook="prerouting", prio=-150), []),
    ("answers out of connection tracking", chain([SPORT, {"notrack": None}], hook="prerouting", prio=-300), ["untracked"]),
    ("all out of connection tracking", chain([{"notrack": None}], hook="prerouting", prio=-300), ["untracked", "untracked"]),
    ("forwarded", chain([DROP], hook="forward"), []),
    ("of a table that is dormant", [{"table": {"family": "inet", "name": "t", "flags": ["dormant"]}}, *chain([DROP])[1:]], []),
]  # fmt: skip


@pytest.mark.parametrize(("items", "wanted"), [each[1:] for each in CHAINS], ids=[each[0] for each in CHAINS])
def test_what_a_chain_refuses(items, wanted):
    assert kinds(items) == wanted


def test_the_collections_own_table_is_none_of_others():
    assert kinds(chain([DROP], name="portknock")) == []
    assert kinds(chain([DROP], name="portknock", family="ip")) == ["native_table"]


def test_answers_are_let_in_where_the_policy_is_to_accept():
    assert kinds(chain([SPORT, {"notrack": None}], hook="prerouting", prio=-300), policy="accept") == []


def test_where_the_interfaces_are_not_known_it_may_be():
    (finding,) = found(chain([dport(22), DROP], hook="ingress", family="netdev", dev="eth0"), local=LocalNetwork())
    assert "may drop or redirect packets to door ssh" in finding.message


def test_a_listing_that_cannot_be_read():
    (finding,) = found(None)
    assert finding.kind == "native_unknown"
    assert "Run 'nft -j list ruleset' by hand to see why." in finding.message


def test_wide_ranges_are_looked_at_where_rules_name_a_port():
    items = chain([dport(5555), DROP])
    (finding,) = found(items, allow=[{"port": "5000-9000"}], doors=[])
    assert "drops packets to 5555/tcp, and" in finding.message


# iptables


def test_the_tables_of_iptables_are_read_as_iptables_prints_them():
    xt = {"xt": {"type": "match", "name": "recent"}}
    items = chain([xt, dport(22), DROP], family="ip", name="filter")
    items[1]["chain"]["name"] = items[2]["rule"]["chain"] = "INPUT"
    assert kinds(items) == ["native_table"], "of a match that only iptables knows nothing is known"
    assert kinds(items, [("ipv4", "nft", save(""))]) == []
    assert kinds(items, [("ipv4", "legacy", save(""))]) == ["native_table"]


_PUBLISHED = "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -m tcp --dport {} -j DNAT --to-destination 172.17.0.2\nCOMMIT\n"
SAVES = [
    ("a policy", save("", "DROP"), [("policy_drop", "the policy of INPUT in iptables-nft drops packets to door ssh, 443/tcp, whi")]),
    ("a policy, and the door", save("-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n", "DROP"),
     [("policy_drop", "the policy of INPUT in iptables-nft drops packets to 443/tcp, which the doors let in, and a packet must pass b")]),
    ("by the interface of the default route", save("-A INPUT -i eth0 -p tcp -m multiport --dports 22,443 -j ACCEPT\n", "DROP"), []),
    ("a limit on what it accepts", save("-A INPUT -p tcp -m limit --limit 5/sec -j ACCEPT\n", "DROP"),
     [("native_table", "the policy of INPUT in iptables-nft may drop packets to door ssh, 443/tcp, which the doors let in, depending")]),
    ("a rule", save("-A INPUT -p tcp -m tcp --dport 22 -j DROP\n"),
     [("native_table", "iptables-nft refuses packets to door ssh with this rule, which the doors let in, and a packet must pass both.")]),
    ("a rule for the rest", save("-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -j REJECT\n"),
     [("native_table", "iptables-nft refuses packets to 443/tcp with this rule, which the doors let in, and a packet must pass both.")]),
    ("particular sources", save("-A INPUT -s 198.51.100.7/32 -p tcp -j DROP\n"), []),
    ("a rate", save("-A INPUT -p tcp -m tcp --dport 22 -m recent --update --seconds 60 --hitcount 4 --name s --rsource -j DROP\n"
                    "-A INPUT -p tcp -m tcp --dport 22 -m recent --set --name s --rsource\n"),
     [("limited", "refuses sources that connect to door ssh too often, after the doors have let them in: an owner in a hurry, or")]),
    ("exceptions for some", save("-A INPUT -s 198.51.100.7/32 -p tcp -m tcp --dport 22 -j ACCEPT\n"),
     [("lost_effect", "accepts some sources on ports of door ssh; the doors decide before it, so these need the knock all the same.")]),
    ("a knock behind the table", save("-A INPUT -p tcp -m tcp --dport 3100 -j DROP\n"), []),
    ("a knock in front of it", save("", rest="*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -m tcp --dport 3100 -j DROP\nCOMMIT\n"),
     [("unguarded", "table raw refuses packets to knocks of door ssh before INPUT sees them, so the doors cannot guard or")]),
    ("a port that is published, and guarded", save("", rest=_PUBLISHED.format(22)), []),
    ("a knock that is published", save("", rest=_PUBLISHED.format(3100)),
     [("unguarded", "table nat redirects packets to knocks of door ssh before INPUT sees them, so the doors cannot guard or")]),
    ("out of connection tracking", save("", rest="*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -m tcp --dport 22 -j CT --notrack\n"
                                                 "COMMIT\n"),
     [("untracked", "table raw keeps packets of door ssh out of connection tracking, so no connection through it is ever")]),
    ("answers out of connection tracking",
     save("", rest="*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p udp -m udp --sport 53 -j CT --notrack\nCOMMIT\n"),
     [("untracked", "table raw keeps answers to this host out of connection tracking, so policy reject refuses them, and the host")]),
    ("the collection's own of another engine", save(
        ':PORTKNOCK - [0:0]\n-A INPUT -m comment --comment "portknock:0 hook" -j PORTKNOCK\n-A PORTKNOCK -j DROP\n'), []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), [each[1:] for each in SAVES], ids=[each[0] for each in SAVES])
def test_what_iptables_refuses(text, wanted):
    told = found((), [("ipv4", "nft", text)], allow=[{"port": 443}])
    assert [(each.kind, each.message[: len(words)]) for each, (_kind, words) in zip(told, wanted)] == wanted
    assert len(told) == len(wanted)
    assert {each.ip_version for each in told} <= {"ipv4"}
    assert "3100" not in "".join(each.rule + each.message for each in told)


def test_an_answer_that_is_not_tracked_can_be_excepted_by_no_rule():
    text = save(
        "", rest="*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p udp -m udp --sport 53 -j CT --notrack\nCOMMIT\n"
    )
    (finding,) = found((), [("ipv4", "nft", text)])
    assert finding.message.endswith("there. Remove the rule, or name the others in trusted_sources.")
    assert kinds((), [("ipv4", "nft", text)], policy="accept") == []


# Who is reached


def reach(items=(), saves=(), family="ipv4", **options):
    spec = spec_from_options(dict({"doors": DOORS}, **options))
    return reach_of(Foreign(items, tuple(Save(*each) for each in saves)), family, spec, LOCAL, True)


PORTS = {(22, "tcp"), (80, "tcp"), (8080, "tcp"), (53, "udp")}


def test_what_others_accept_is_reached_no_more():
    both = reach(host("firewalld"), [("ipv4", "legacy", save("-A INPUT -p udp -j DROP\n"))], allow=[{"port": 443}])
    assert both.before(PORTS) == {(22, "tcp"), (80, "tcp"), (8080, "tcp")}, "the last one from docker0"
    assert both.after(PORTS) == {(22, "tcp")}
    assert reach(host("firewalld"), policy="accept").after(PORTS) == both.before(PORTS) | {(53, "udp")}


def test_what_is_published_stays_reached():
    made = reach(host("docker"))
    assert made.published(PORTS) == {(8080, "tcp")}
    assert made.after(PORTS) == {(22, "tcp"), (8080, "tcp")}
    assert made.before(PORTS) == PORTS


def test_who_some_may_reach_is_reached():
    """Named sources are somebody; who is trusted is nobody from outside."""
    some = {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "198.51.100.7"}}
    items = chain([some, dport(80), ACCEPT], policy="drop")
    assert reach(items).before(PORTS) == {(80, "tcp")}
    assert reach(items, trusted_sources=["198.51.100.0/24"]).before(PORTS) == set()


@pytest.mark.parametrize("release", ["0.9.8", "1.0.6", "1.1.3"])
def test_the_table_as_it_was_says_who_was_reached_before(release):
    with open(os.path.join(CORPUS, "nftables", release + ".json"), encoding="utf-8") as stream:
        items = read_listing(stream.read())
    asked = {(port, protocol) for port in (22, 23, 443, 514, 7000, 9000, 9020, 9021) for protocol in ("tcp", "udp")}
    was = {(22, "tcp"), (443, "tcp"), (514, "udp"), (9000, "tcp"), (9020, "tcp")}
    assert reach(items).before(asked) == was


# This connection


CUT = (
    "{0} refuses new connections from 198.51.100.7 to port 22, by which this connection comes. A packet must pass that as well as the "
    "doors, so none like this one would get in again. Accept it there, then run this again."
)
FROM = Connection(ipaddress.ip_address("198.51.100.7"), "192.0.2.10", 22)


def cuts(items=(), saves=(), connection=FROM):
    return what_cuts(Foreign(items, tuple(Save(*each) for each in saves)), connection, LOCAL)


def saddr(right, op="=="):
    return {"match": {"op": op, "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": right}}


CUTS = [
    ("a policy", chain(policy="drop"), True),
    ("its port", chain([dport(22), DROP]), True),
    ("another port", chain([dport(23), DROP]), False),
    ("its source", chain([saddr("198.51.100.7"), DROP]), True),
    ("its network", chain([saddr({"prefix": {"addr": "198.51.100.0", "len": 24}}), DROP]), True),
    ("all but its source", chain([saddr("198.51.100.7", "!="), DROP]), False),
    ("another source", chain([saddr("198.51.100.8"), DROP]), False),
    ("its interface", chain([{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth0"}}, DROP]), True),
    ("another interface", chain([{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth1"}}, DROP]), False),
    ("nobody knows", chain([{"limit": {"rate": 5, "per": "second"}}, DROP]), False),
    ("in front of all", chain([dport(22), DROP], hook="prerouting"), True),
    ("in front of all, where ports are changed", chain([dport(22), DROP], hook="prerouting") + host("docker"), False),
    ("sent elsewhere", chain([dport(22), {"redirect": {"port": 2222}}], hook="prerouting"), False),
]  # fmt: skip


@pytest.mark.parametrize(("items", "wanted"), [each[1:] for each in CUTS], ids=[each[0] for each in CUTS])
def test_what_cuts_this_connection(items, wanted):
    assert cuts(items) == (CUT.format("chain c of table inet t (nft list chain inet t c)") if wanted else "")


SAVE_CUTS = [
    ("a policy", save("", "DROP"), True),
    ("a policy, and its source", save("-A INPUT -s 198.51.100.0/24 -j ACCEPT\n", "DROP"), False),
    ("a policy, and another source", save("-A INPUT -s 203.0.113.0/24 -j ACCEPT\n", "DROP"), True),
    ("a policy, and a limit", save("-A INPUT -p tcp -m limit --limit 5/sec -j ACCEPT\n", "DROP"), False),
    ("its source", save("-A INPUT -s 198.51.100.7/32 -j DROP\n"), True),
    ("its port", save("-A INPUT -p tcp -m tcp --dport 22 -j REJECT\n"), True),
    ("a set of sources", save("-A INPUT -m set --match-set bad src -j DROP\n"), False),
    ("the collection's own", save(
        ':PORTKNOCK - [0:0]\n-A INPUT -m comment --comment "portknock:0 hook" -j PORTKNOCK\n-A PORTKNOCK -j DROP\n'), False),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), [each[1:] for each in SAVE_CUTS], ids=[each[0] for each in SAVE_CUTS])
def test_what_of_iptables_cuts_this_connection(text, wanted):
    where = "INPUT of table filter of iptables-nft (iptables-nft-save)"
    assert cuts((), [("ipv4", "nft", text)]) == (CUT.format(where) if wanted else "")


def test_a_ban_of_this_very_source_cuts_it():
    banned = FROM._replace(source=ipaddress.ip_address("192.0.2.66"))
    assert cuts(host("fail2ban")) == ""
    assert "chain f2b-chain of table inet f2b-table" in cuts(host("fail2ban"), connection=banned)
    assert cuts(host("fail2ban"), connection=banned._replace(port=80)) == ""
