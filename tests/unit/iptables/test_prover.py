# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the prover says of rulesets in which the doors hold, and of such in which something lets strangers in."""

import ipaddress
import re
import time

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_iptables import FakeIptables
from prover_questions import PROMISED, entries_of, recorded, word_of, words_of
from walker import Packet, Walker

OPTIONS = {
    "doors": [
        {"name": "ssh", "knock": ["17005", "19100/udp"], "opens": ["22"]},
        {"name": "vpn", "knock": ["18300", "15200"], "opens": ["1194/udp"], "sources": ["198.51.100.0/24", "2001:db8::/32"]},
    ],
    "allow": [{"port": 443}],
    "trusted_interfaces": ["wg0"],
    "trusted_sources": ["10.9.0.0/16", "fd09::/16"],
}  # fmt: skip
SPEC = spec_from_options(OPTIONS)
OWN = LocalNetwork((ipaddress.ip_network("192.0.2.1/32"),), ())
FAMILIES = ("ipv4", "ipv6")
RECORDED = recorded()


def protected(spec=SPEC, family="ipv4", save=""):
    """Return a host with the doors of a Spec."""
    host = FakeIptables(save or "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n")
    host.restore(plan_family(host.save(), spec, family).change)
    return host


def with_lines(*lines, family="ipv4", spec=SPEC):
    """Return the ruleset of a host on which lines for iptables-restore were loaded after ours, each with its table in front."""
    host = protected(spec, family)
    for line in lines:
        table, _blank, command = line.partition(" ")
        chain = re.search(r"-[jg] ((?!PORTKNOCK)[A-Z]+[0-9])$", command)
        own = command.split()[1] if re.match(r"-A [A-Z]+[0-9] ", command) else ""
        new = [":{0} - [0:0]".format(name) for name in dict.fromkeys(filter(None, [own, chain and chain.group(1)]))
               if table not in host.tables or name not in host.tables[table].chains]  # fmt: skip
        host.restore("*{0}\n{1}\nCOMMIT\n".format(table, "\n".join(new + [command])))
    return host.save()


@pytest.mark.parametrize("policy", ["reject", "accept"])
@pytest.mark.parametrize("entry", RECORDED, ids=[entry["file"] for entry in RECORDED])
def test_the_doors_of_recorded_hosts_are_proved(entry, policy):
    spec = spec_from_options(dict(OPTIONS, policy=policy))
    host = protected(spec, entry["family"], entry["text"])
    words = words_of(host.save(), spec, entry["family"])
    # The spelling samples are modelled on our own rules and set our lists, which no other program does.
    first = "void" if entry["file"].startswith("spelling-") else "proved"
    assert [word["result"] for word in words] == [first, "proved"]
    assert ("puts sources on its list" in words[0]["message"]) == (first == "void")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "more", [{}, {"log": True}, {"policy": "accept"}, {"engine": "knockd"}, {"ipv6_prefix": 64}, {"icmp": False}]
)
def test_every_kind_of_doors_is_proved(family, more):
    doors = [dict(door, once=True) if door["name"] == "admin" else door for door in PROMISED["doors"]]
    for options in (dict(PROMISED, **more), dict(PROMISED, doors=doors, **more)):
        spec = spec_from_options(options)
        words = words_of(protected(spec, family).save(), spec, family)
        assert [(word["door"], word["result"]) for word in words] == [(door.name, "proved") for door in spec.doors]


VOIDS = {
    "an accept on top": ["filter -I INPUT 1 -p tcp -m multiport --dports 20:25 -j ACCEPT"],
    "for some sources": ["filter -I INPUT 1 -s 203.0.113.0/24 -p tcp -j ACCEPT"],
    "for all but some sources": ["filter -I INPUT 1 ! -s 203.0.113.0/24 -p tcp -j ACCEPT"],
    "for a range of sources": ["filter -I INPUT 1 -m iprange --src-range 203.0.113.5-203.0.113.9 -j ACCEPT"],
    "by interface": ["filter -I INPUT 1 -i eth1 -j ACCEPT"],
    "by a prefix of interfaces": ["filter -I INPUT 1 -i br-+ -j ACCEPT"],
    "by every interface but one": ["filter -I INPUT 1 ! -i eth0 -j ACCEPT"],
    "by source port": ["filter -I INPUT 1 -p tcp -m tcp --sport 53 -j ACCEPT"],
    "with odd flags": ["filter -I INPUT 1 -p tcp -m tcp --tcp-flags SYN,PSH,URG SYN,PSH -j ACCEPT"],
    "deep in chains": [
        "filter -A DEEP3 -p tcp -j ACCEPT", "filter -A DEEP2 -i eth0 -j DEEP3", "filter -A DEEP1 -p tcp -g DEEP2",
        "filter -I INPUT 1 -p tcp -m tcp --dport 1:1023 -j DEEP1",
    ],
    "a goto that no return comes back from": ["filter -A PAST1 -p udp -j DROP", "filter -I INPUT 2 -p tcp -m tcp --dport 22 -g PAST1"],
    "a goto past a return": [
        "filter -A PAST2 -p tcp -j RETURN", "filter -A PAST2 -j DROP", "filter -A PAST1 -g PAST2", "filter -A PAST1 -j DROP",
        "filter -I INPUT 2 -j PAST1", "filter -I INPUT 3 -p tcp -j ACCEPT",
    ],
    "in our own chain": ["filter -I PORTKNOCK_D1 1 -p tcp -j ACCEPT"],
    "in the head": ["filter -I PORTKNOCK_HEAD 1 -m conntrack --ctstate NEW -j ACCEPT"],
    "a list that is another's": ["filter -I INPUT 1 -p tcp -m recent ! --rcheck --seconds 60 --name bad --rsource -j ACCEPT"],
    "a knock that is too old": ["filter -I PORTKNOCK_D1 1 -p tcp -m recent --rcheck --seconds 600 --name pk4_ssh --rsource -j ACCEPT"],
    "another door's knock": ["filter -I PORTKNOCK_D1 1 -p tcp -m recent --rcheck --seconds 15 --name pk4_vpn --rsource -j ACCEPT"],
    "by set": ["filter -I INPUT 1 -m set --match-set friends src -j ACCEPT"],
    "by a mark that a rule sets": [
        "mangle -A PREROUTING -s 203.0.113.0/24 -j MARK --set-xmark 0x4/0xffffffff", "filter -I INPUT 1 -m mark --mark 0x4 -j ACCEPT",
    ],
    "by limit": ["filter -I INPUT 1 -p tcp -m limit --limit 5/min -j ACCEPT"],
    "by hardware address": ["filter -I INPUT 1 -m mac --mac-source 02:00:00:00:00:01 -j ACCEPT"],
    "by what is not known": ["filter -I INPUT 1 -p tcp -m u32 --u32 0x0=0x0 -j ACCEPT"],
    "untracked": [
        "raw -A PREROUTING -p tcp -m tcp --dport 22 -j CT --notrack",
        "filter -I INPUT 1 -m conntrack --ctstate UNTRACKED -j ACCEPT",
    ],
    "redirected here": [
        "nat -I PREROUTING 1 -p tcp -m tcp --dport 22 -j REDIRECT --to-ports 2222",
        "filter -I INPUT 3 -p tcp -m tcp --dport 2222 -j ACCEPT",
    ],
    "redirected, and accepted for that": [
        "nat -A PREROUTING -p tcp -m tcp --dport 2222 -j REDIRECT --to-ports 22",
        "filter -I INPUT 1 -m conntrack --ctstate RELATED,DNAT -j ACCEPT",
    ],
    "sent to another host": [
        "nat -I PREROUTING 1 -p tcp -m tcp --dport 22 -j DNAT --to-destination 10.0.0.2:22",
        "filter -I FORWARD 1 -j ACCEPT",
    ],
    "by the policy": ["filter -D INPUT {doors}", "filter -D INPUT {tail}"],
}  # fmt: skip


def lines_of(name):
    host = protected()
    hooks = {key: next(text for text in host.tables["filter"].chains["INPUT"] if text.endswith(chain))
             for key, chain in (("doors", "PORTKNOCK"), ("tail", "PORTKNOCK_TAIL"))}  # fmt: skip
    return [line.format(**hooks) if "{" in line else line for line in VOIDS[name]]


KNOCKED = {"a knock that is too old": ("pk4_ssh", 100), "another door's knock": ("pk4_vpn", 1)}
"""The list that the packet's source is on, and since how many seconds."""
ELSEWHERE = (
    "redirected here",
    "redirected, and accepted for that",
    "sent to another host",
    "untracked",
    "by a mark that a rule sets",
)
"""What the walker cannot follow: it knows the table filter alone."""


@pytest.mark.parametrize("name", VOIDS)
def test_a_way_in_is_found_and_gone_with_what_made_it(name):
    text = with_lines(*lines_of(name))
    word = word_of(text, SPEC, "ipv4", "ssh", OWN)
    assert word["result"] == "void", word
    packet = word["packet"]
    assert word["rule"].startswith("-") and word["rule"] in word["message"]
    if name not in ELSEWHERE:
        sent = Packet(packet["source"], packet["port"], packet["protocol"], packet["source_port"], ",".join(packet["flags"]),
                      packet["interface"], destination="192.0.2.1")  # fmt: skip
        walker = Walker(parse(text), oracle=lambda *_asked: True, sets={"friends": [packet["source"] + "/32"]})
        for listed, ago in [KNOCKED[name]] if name in KNOCKED else []:
            walker.lists[listed].entries[int(ipaddress.ip_address(packet["source"]))] = [64, [walker.clock.now - ago]]
        assert walker.send(sent).action == "ACCEPT", word
    assert word_of(with_lines(), SPEC, "ipv4", "ssh", OWN)["result"] == "proved"


NO_VOIDS = {
    "a trusted interface": ["filter -I INPUT 1 -i wg0 -j ACCEPT"],
    "a trusted source": ["filter -I INPUT 1 -s 10.9.8.0/24 -j ACCEPT"],
    "loopback": ["filter -I INPUT 1 -i lo -j ACCEPT"],
    "established": ["filter -I INPUT 1 -m conntrack --ctstate ESTABLISHED -j ACCEPT"],
    "what is no beginning": ["filter -I INPUT 1 -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT"],
    "another port": ["filter -I INPUT 1 -p tcp -m tcp --dport 23:79 -j ACCEPT"],
    "another protocol": ["filter -I INPUT 1 -p gre -j ACCEPT"],
    "another host's address": ["filter -I INPUT 1 -d 192.0.2.7/32 -j ACCEPT"],
    "a mark that nothing sets": ["filter -I INPUT 1 -m mark --mark 0x4 -j ACCEPT"],
    "a mark that something else bears": [
        "mangle -A PREROUTING -i wg0 -j MARK --set-xmark 0x4/0xffffffff", "filter -I INPUT 1 -m mark --mark 0x4 -j ACCEPT",
    ],
    "refused first": ["filter -I INPUT 1 -p tcp -m tcp --dport 22 -j DROP", "filter -I INPUT 2 -p tcp -m tcp --dport 22 -j ACCEPT"],
    "a chain that comes back": ["filter -A BACK1 -p tcp -j RETURN", "filter -A BACK1 -j ACCEPT", "filter -I INPUT 1 -p tcp -j BACK1"],
    "not to this host": ["filter -I INPUT 1 -m addrtype ! --dst-type LOCAL -j ACCEPT"],
    "a port that is not opened": [
        "nat -A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080", "filter -I INPUT 1 -m conntrack --ctstate DNAT -j ACCEPT",
    ],
    "redirected into the door": ["nat -A PREROUTING -p tcp -m tcp --dport 2222 -j REDIRECT --to-ports 22"],
    "blocked sources": ["filter -I INPUT 1 -s 203.0.113.0/24 -j DROP"],
}  # fmt: skip


@pytest.mark.parametrize("name", NO_VOIDS)
def test_what_lets_no_stranger_in_is_no_void(name):
    word = word_of(with_lines(*NO_VOIDS[name]), SPEC, "ipv4", "vpn" if name == "refused first" else "ssh", OWN)
    assert word["result"] == "proved", word


def test_ipv6_alone():
    """What is open over IPv6 is void there, whatever is so over IPv4."""
    text = with_lines("filter -I INPUT 1 -p tcp -m tcp --dport 22 -j ACCEPT", family="ipv6")
    word = word_of(text, SPEC, "ipv6", "ssh")
    assert (word["result"], word["ip_version"], word["packet"]["source"]) == ("void", "ipv6", "2001:db8:77::77")
    assert word_of(with_lines(), SPEC, "ipv4", "ssh")["result"] == "proved"


@pytest.mark.parametrize(
    "save", ["", "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n", "*raw\n-A PREROUTING -j ACCEPT\nCOMMIT\n"]
)
def test_a_host_without_the_table(save):
    """Its kernel makes tables when they are first asked for: there is none where the other backend's commands are asked."""
    words = words_of(save, SPEC, "ipv4")
    assert [word["result"] for word in words] == ["void", "void"]
    assert all(word["rule"] == "-P INPUT ACCEPT" for word in words)
    assert others(save)


def test_the_words():
    text = with_lines("filter -I INPUT 1 -s 203.0.113.0/24 -p tcp -m multiport --dports 20:25 -j ACCEPT")
    word = word_of(text, SPEC, "ipv4", "ssh")
    assert word == {
        "what": "door ssh", "door": "ssh", "ip_version": "ipv4", "result": "void",
        "packet": {
            "interface": "eth0", "source": "203.0.113.77", "protocol": "tcp", "source_port": 12345, "port": 22, "flags": ["SYN"],
            "state": "NEW",
        },
        "rule": "-A INPUT -s 203.0.113.0/24 -p tcp -m multiport --dports 20:25 -j ACCEPT", "exceptions": [],
        "message": "Void: TCP from 203.0.113.77 port 12345 to port 22 (SYN) on eth0 gets in without the knock, by -A INPUT -s "
        "203.0.113.0/24 -p tcp -m multiport --dports 20:25 -j ACCEPT in table filter.",
    }  # fmt: skip
    assert word_of(text, SPEC, "ipv4", "vpn") == {
        "what": "door vpn", "door": "vpn", "ip_version": "ipv4", "result": "proved", "packet": {}, "rule": "", "exceptions": [],
        "message": "",
    }  # fmt: skip


def test_who_has_knocked_is_refused():
    """The other half: a door that opens to nobody is as wrong as one that is open."""
    host = protected()
    rule = next(text for text in host.tables["filter"].chains["PORTKNOCK_D1"] if "door ssh" in text)
    host.restore("*filter\n-D PORTKNOCK_D1 {0}\nCOMMIT\n".format(rule))
    word = word_of(host.save(), SPEC, "ipv4", "ssh")
    assert word["result"] == "void"
    assert "is refused although its source has knocked, by -A PORTKNOCK_REFUSE" in word["message"]


def others(text, spec=SPEC):
    """Return what is said of allowed ports and of the rest: what it is about to result, rule and foreign exceptions."""
    found = [entry for entry in entries_of(text, spec, "ipv4", OWN) if not entry["door"]]
    return {entry["what"]: (entry["result"], entry["rule"], entry["exceptions"]) for entry in found}


def test_the_rest_is_refused_and_what_is_allowed_is_not():
    assert others(with_lines()) == {"allow 443/tcp": ("proved", "", []), "rest": ("proved", "", [])}
    accepting = spec_from_options(dict(OPTIONS, policy="accept"))
    assert others(protected(accepting).save(), accepting) == {"allow 443/tcp": ("proved", "", [])}


@pytest.mark.parametrize("entry", RECORDED, ids=[entry["file"] for entry in RECORDED])
def test_nothing_else_is_void_on_recorded_hosts(entry):
    found = entries_of(protected(SPEC, entry["family"], entry["text"]).save(), SPEC, entry["family"])
    results = {each["what"]: each["result"] for each in found if not each["door"]}
    assert results == {"allow 443/tcp": "proved", "rest": "proved"}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_thousands_of_foreign_rules_take_no_longer(family):
    """Three times what is wanted of 5,000 rules: 2 s of the processor."""
    text = next(entry["text"] for entry in RECORDED if entry["file"] == f"rules-5000.v{family[-1]}.save")
    text = protected(SPEC, family, text).save()
    begun = time.process_time()
    found = entries_of(text, SPEC, family)
    assert {each["result"] for each in found} == {"proved"}
    assert time.process_time() - begun < 6
    exceptions = next(each["exceptions"] for each in found if each["what"] == "rest")
    assert len(exceptions) == 20
    assert all(rule.startswith("-A ") and rule.endswith("-j ACCEPT") for rule in exceptions)


def test_no_step_is_shown_where_its_port_is_reached():
    text = with_lines("filter -I PORTKNOCK_HEAD 1 -p tcp -m tcp --dport 17005 -j ACCEPT")
    entry = next(each for each in entries_of(text, SPEC, "ipv4") if each["what"] == "rest")
    assert entry["result"] == "void"
    assert entry["message"].startswith("Void: packets to the port of a step are let in: -A PORTKNOCK_HEAD -p tcp")
    assert "17005" not in repr(entry)


def test_foreign_exceptions_to_the_rest_are_named():
    rules = [
        "-A INPUT -s 198.51.100.0/24 -p tcp -m tcp --dport 80 -j ACCEPT",
        "-A INPUT -p udp -m udp --dport 53 -j ACCEPT",
    ]
    redirect = "nat -A PREROUTING -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.0.0.2:80"
    text = with_lines(redirect, *["filter " + rule.replace("-A INPUT", "-I INPUT 1") for rule in rules])
    result, rule, exceptions = others(text)["rest"]
    assert (result, rule, set(exceptions)) == ("proved", "", {*rules, redirect.partition(" ")[2]})


def test_the_rest_gets_in_by_what_is_ours():
    text = with_lines("filter -I PORTKNOCK_HEAD 1 -p udp -j ACCEPT")
    assert others(text)["rest"][:2] == ("void", "-A PORTKNOCK_HEAD -p udp -j ACCEPT")
    hook = next(text for text in protected().tables["filter"].chains["INPUT"] if text.endswith("PORTKNOCK_TAIL"))
    assert others(with_lines("filter -D INPUT " + hook))["rest"][:2] == ("void", "-P INPUT ACCEPT")


def test_an_allowed_port_is_refused():
    entry = next(each for each in entries_of(with_lines("filter -I PORTKNOCK 1 -p tcp -j PORTKNOCK_REFUSE"), SPEC, "ipv4", OWN)
                 if each["what"] == "allow 443/tcp")  # fmt: skip
    assert entry["result"] == "void"
    assert (
        "to port 443 (SYN) on eth0 is refused although its port is allowed, by -A PORTKNOCK_REFUSE" in entry["message"]
    )


def chain_of_steps(host):
    return next(name for name, rules in host.tables["filter"].chains.items() if re.match("PORTKNOCK_K", name) and rules)


LISTED = {
    "by a foreign rule": ("void", ["-A INPUT -p tcp -m tcp --dport 80 -m recent --set --name pk4_ssh --rsource"]),
    "by a foreign rule of another table": ("void", ["*mangle", "-A PREROUTING -m recent --update --name pk4_ssh --rsource"]),
    "by another port": ("not proved", ["-A {chain} -p tcp -m tcp --dport 80 -m recent --set --name pk4_ssh --rsource"]),
    "by the last step alone": ("not proved", ["-A {chain} -p udp -m udp --dport 19100 -m recent --set --name pk4_ssh --rsource"]),
    "after a stage that any port sets": ("not proved", ["-A {chain} -p tcp -m tcp --dport 80 -m recent --set --name pk4_.2 --rsource"]),
    "after a stage too long ago": (
        "not proved",
        ["-A {chain} -p udp -m udp --dport 19100 -m recent --rcheck --seconds 500 --name pk4_.2 --rsource -m recent --set --name pk4_ssh "
         "--rsource"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTED)
def test_nobody_is_listed_but_by_the_steps(name):
    result, lines = LISTED[name]
    host = protected()
    table = lines[0] if lines[0].startswith("*") else "*filter"
    host.restore("{0}\n{1}\nCOMMIT\n".format(table, lines[-1].format(chain=chain_of_steps(host))))
    word = word_of(host.save(), SPEC, "ipv4", "ssh")
    assert word["result"] == result
    assert "a rule puts sources on its list that have not done all steps of the knock: -A " in word["message"]
    assert "19100" not in repr(word), "a step"


def test_a_door_whose_knock_is_not_recognised():
    host = protected()
    rule = next(
        text for rules in host.tables["filter"].chains.values() for text in rules if "--set --name pk4_ssh" in text
    )
    chain = next(name for name, rules in host.tables["filter"].chains.items() if rule in rules)
    host.restore("*filter\n-D {0} {1}\nCOMMIT\n".format(chain, rule))
    word = word_of(host.save(), SPEC, "ipv4", "ssh")
    assert (word["result"], word["message"]) == ("not proved", "Not proved: no rule puts a source on its list.")


@pytest.mark.slow
def test_more_cases_than_are_followed_prove_nothing():
    lines = [
        "filter -A INPUT -m limit --limit {0}/min -j CASE{1}".format(number + 1, number % 8) for number in range(8)
    ]
    chains = [
        "filter -A CASE{0} -m u32 --u32 0x{0}=0x1 -j CASE{1}".format(number, number + 1)
        for number in range(8)
        for _turn in range(6)
    ]
    host = protected()
    host.restore("*filter\n{0}\n{1}\nCOMMIT\n".format(
        "\n".join(":CASE{0} - [0:0]".format(number) for number in range(9)),
        "\n".join(line.partition(" ")[2].replace("-A INPUT", "-I INPUT 1") for line in chains + lines),
    ))  # fmt: skip
    word = word_of(host.save(), SPEC, "ipv4", "ssh")
    assert (word["result"], word["packet"], word["message"]) == (
        "not proved", {}, "Not proved: its packets part into more cases than are followed.",
    )  # fmt: skip


def test_it_is_quick():
    """Ten times what is wanted: 5 ms a door, 500 ms for 100 doors."""
    doors = [{"name": "d{0}".format(number), "knock": [str(20000 + 7 * number), str(30000 + 11 * number)], "opens": [str(1000 + number)]}
             for number in range(100)]  # fmt: skip
    for count, seconds in ((1, 0.05), (100, 5)):
        spec = spec_from_options({"doors": doors[:count]})
        text = protected(spec).save()
        begun = time.perf_counter()
        assert {word["result"] for word in words_of(text, spec, "ipv4")} == {"proved"}
        assert time.perf_counter() - begun < seconds
