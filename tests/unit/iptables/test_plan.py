# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans: what they change, that they change nothing else, that they settle, and that they can be undone."""

import foreign
import pytest
import random_rules
from ansible_collections.sesame.portknock.plugins.module_utils._change.diff import shortened
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError, SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.rule_text import split_words
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.module_utils._tables.readable import readable_file
from fake_iptables import FakeIptables, without_empty_nat
from hypothesis import given, reject
from hypothesis import strategies as st

FAMILIES = ("ipv4", "ipv6")
HEAD, DOORS, TAIL = "PORTKNOCK_HEAD", "PORTKNOCK", "PORTKNOCK_TAIL"


def options(**more):
    door = {"name": "ssh", "knock": ["17005", "19100/udp", "18300"], "opens": ["22"], "close": ["15000", "14000"]}
    return dict({"doors": [door]}, **more)


ARTICLE = spec_from_options({"doors": [{"name": "ssh", "knock": ["1000"], "opens": ["22"]}]})
SPECS = [
    spec_from_options(item)
    for item in (
        {"doors": []},
        options(),
        options(policy="accept", log=True),
        options(engine="knockd"),
        options(engine="knockd", policy="accept", log=True, ipv6_prefix=64),
        options(allow=[{"port": 443}], trusted_sources=["10.1.2.3"], reject_with="tcp-reset", icmp=False, ipv6_prefix=64),
        {"doors": [{"name": "d{0}".format(n), "knock": [str(20000 + 7 * n), str(41000 - 9 * n)], "opens": ["22", str(3000 + n)]}
                   for n in range(40)]},
    )
]  # fmt: skip


def load(host, spec, family="ipv4"):
    plan = plan_family(host.save(), spec, family)
    if plan.change:
        host.restore(plan.change, test=True)
        host.restore(plan.change)
    return plan


def foreign_lines(save):
    """The lines of a save that are not ours, in their order."""
    return foreign.lines_of_others(save)


def hooks(host):
    """INPUT in short: our chains by name, foreign rules as they are."""
    return [
        text.rsplit(" ", 1)[1] if "-j PORTKNOCK" in text else text for text in host.tables["filter"].chains["INPUT"]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
def test_planned_twice_plans_nothing_and_undone_is_as_before(family, data):
    before = FakeIptables(random_rules.save_text(*data.draw(foreign.rulesets(family)))).save()
    host = FakeIptables(before)
    for spec in data.draw(st.lists(st.sampled_from(SPECS[:-1]), min_size=1, max_size=3)):
        saved = host.save()
        plan = load(host, spec, family)
        again = plan_family(host.save(), spec, family)
        assert (again.change, again.undo) == ("", "")
        assert again.before() == again.after()
        assert foreign_lines(host.save()) == foreign_lines(before)
        undone = FakeIptables(host.save())
        if plan.undo:
            undone.restore(plan.undo)
        assert len({tuple(sorted(without_empty_nat(text).splitlines())) for text in (undone.save(), saved)}) == 1
        assert hooks(undone) == hooks(FakeIptables(saved))
    gone = load(host, None, family)
    assert without_empty_nat(host.save()) == before
    host.restore(gone.undo)
    assert plan_family(host.save(), spec, family).change == ""


@given(ruleset=foreign.rulesets("ipv4"))
def test_parse_loses_no_byte(ruleset):
    text = random_rules.save_text(*ruleset)
    document = parse(text)
    assert "".join(document.lines) == text
    table = document.table("filter")
    rules = [rule.text for rule in table.rules("INPUT")]
    chains = {name: [rule.text for rule in table.rules(name)] for name in random_rules.CHAINS}
    rendered = random_rules.save_text(table.policy("INPUT"), rules, chains)
    assert rendered == text


@given(text=st.text(st.sampled_from(list("ab \t\"\\'#-*:\u00e9\n")), max_size=20))
def test_quoted_words_come_back(text):
    quoted = '"{0}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))
    assert split_words("-A INPUT --comment {0} -j X".format(quoted)) == ["-A", "INPUT", "--comment", text, "-j", "X"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spec", SPECS)
def test_a_bare_host(spec, family):
    host = FakeIptables("")
    load(host, spec, family)
    assert hooks(host) == [HEAD, DOORS] + ([TAIL] if spec.policy == "reject" else [])
    assert plan_family(host.save(), spec, family).change == ""


STOCK_EL = """*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -m state --state NEW -m tcp --dport 22 -j ACCEPT
-A INPUT -j REJECT --reject-with icmp-host-prohibited
-A FORWARD -j REJECT --reject-with icmp-host-prohibited
COMMIT
"""


def ruleset(*rules, **more):
    chains = more.pop("chains", {})
    return random_rules.save_text(more.pop("policy", "ACCEPT"), list(rules), chains)


BAN = "-p tcp -m multiport --dports 22 -j f2b"
F2B = {"f2b": ["-s 192.0.2.66/32 -j REJECT --reject-with icmp-port-unreachable", "-j RETURN"]}
PLACES = [
    ("nothing", [], {}, [HEAD, DOORS, TAIL]),
    ("an ACCEPT for the door", ["-p tcp -m tcp --dport 22 -j ACCEPT"], {}, [HEAD, DOORS, 0, TAIL]),
    ("an ACCEPT for another port", ["-p tcp -m tcp --dport 80 -j ACCEPT"], {}, [HEAD, 0, DOORS, TAIL]),
    ("a range", ["-p tcp -m tcp --dport 20:30 -j ACCEPT"], {}, [HEAD, DOORS, 0, TAIL]),
    ("multiport", ["-p tcp -m multiport --dports 80,22 -j ACCEPT"], {}, [HEAD, DOORS, 0, TAIL]),
    ("negated multiport", ["-p tcp -m multiport ! --dports 80,81 -j ACCEPT"], {}, [HEAD, DOORS, 0, TAIL]),
    ("negated with the port", ["-p tcp -m tcp ! --dport 22 -j ACCEPT"], {}, [HEAD, DOORS, 0, TAIL]),
    ("protocol only", ["-p tcp -j ACCEPT"], {}, [HEAD, DOORS, 0, TAIL]),
    ("the other protocol", ["-p udp -j ACCEPT"], {}, [HEAD, 0, DOORS, TAIL]),
    ("all but the other protocol", ["! -p udp -j ACCEPT"], {}, [HEAD, DOORS, 0, TAIL]),
    ("no match at all", ["-j ACCEPT"], {}, [HEAD, DOORS, TAIL, 0]),
    ("a catch-all reject", ["-p tcp -m tcp --dport 80 -j ACCEPT", "-j REJECT"], {}, [HEAD, 0, DOORS, TAIL, 1]),
    ("deep in a chain", ["-p tcp -j A"], {"A": ["-i eth0 -g B"], "B": ["-m state --state NEW -j ACCEPT"]}, [HEAD, DOORS, 0, TAIL]),
    ("a chain that returns", ["-p tcp -j A"], {"A": ["-j RETURN", "-j ACCEPT"]}, [HEAD, 0, DOORS, TAIL]),
    ("an unknown match", ["-m magic --spell x -j ACCEPT"], {}, [HEAD, DOORS, 0, TAIL]),
    ("a queue", ["-j NFQUEUE --queue-num 0"], {}, [HEAD, DOORS, TAIL, 0]),
    ("established only", ["-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"], {}, [HEAD, 0, DOORS, TAIL]),
    ("not SYN", ["-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT"], {}, [HEAD, 0, DOORS, TAIL]),
    ("the loopback", ["-i lo -j ACCEPT"], {}, [HEAD, 0, DOORS, TAIL]),
    ("all but the loopback", ["! -i lo -j ACCEPT"], {}, [HEAD, DOORS, TAIL, 0]),
    ("fail2ban", [BAN], F2B, [HEAD, 0, DOORS, TAIL]),
    ("fail2ban and an ACCEPT", [BAN, "-p tcp -m tcp --dport 22 -j ACCEPT"], F2B, [HEAD, 0, DOORS, 1, TAIL]),
    ("a block and a catch-all", ["-s 192.0.2.66/32 -j DROP", "-j DROP"], {}, [HEAD, 0, DOORS, TAIL, 1]),
    ("a DROP for the door", ["-p tcp -m tcp --dport 22 -j DROP"], {}, [HEAD, DOORS, 0, TAIL]),
    ("a DROP for the knock", ["-p tcp -m tcp --dport 1000 -j DROP"], {}, [HEAD, DOORS, 0, TAIL]),
    ("a DROP for half the world", ["-s 0.0.0.0/1 -j DROP"], {}, [HEAD, DOORS, 0, TAIL]),
    ("a DROP for all but some", ["! -s 192.0.2.0/24 -j DROP"], {}, [HEAD, DOORS, 0, TAIL]),
    ("a RETURN for everything", ["-j RETURN", "-j DROP"], {}, [HEAD, DOORS, TAIL, 0, 1]),
    ("an ACCEPT for some", ["-s 192.0.2.66/32 -j ACCEPT"], {}, [HEAD, DOORS, 0, TAIL]),
    ("a rate limit by source", ["-p tcp -m tcp --dport 22 -m recent --update --seconds 60 --hitcount 4 --name S --rsource -j DROP"],
     {}, [HEAD, 0, DOORS, TAIL]),
    ("a set of sources", ["-m set --match-set bad src -j DROP"], {}, [HEAD, 0, DOORS, TAIL]),
    ("not in a set of sources", ["-m set ! --match-set good src -j DROP"], {}, [HEAD, DOORS, 0, TAIL]),
    ("a log", ["-j LOG"], {}, [HEAD, 0, DOORS, TAIL]),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "chains", "wanted"), [item[1:] for item in PLACES], ids=[item[0] for item in PLACES])
def test_places(rules, chains, wanted):
    host = FakeIptables(ruleset(*rules, chains=chains))
    load(host, ARTICLE)
    assert hooks(host) == [rules[item] if isinstance(item, int) else item for item in wanted]


def test_the_stock_el_file():
    host = FakeIptables(STOCK_EL)
    load(host, ARTICLE)
    rules = [rule.text for rule in parse(STOCK_EL).table("filter").rules("INPUT")]
    assert hooks(host) == [HEAD] + rules[:3] + [DOORS] + rules[3:4] + [TAIL] + rules[4:]


INSERTED_LATER = [
    ("fail2ban's jump is no drift", BAN, 1, False),
    ("a block is no drift", "-s 192.0.2.66/32 -j DROP", 1, False),
    ("an ACCEPT for the door is", "-p tcp -m tcp --dport 22 -j ACCEPT", 1, True),
    ("an ACCEPT between head and doors is", "-p tcp -m tcp --dport 22 -j ACCEPT", 2, True),
    ("an ACCEPT behind the doors is none", "-p tcp -m tcp --dport 22 -j ACCEPT", 3, False),
    ("an ACCEPT for another port is none", "-p tcp -m tcp --dport 80 -j ACCEPT", 1, False),
    ("an ACCEPT behind the tail is", "-p tcp -m tcp --dport 80 -j ACCEPT", 4, True),
    ("a DROP for everyone is", "-j DROP", 1, True),
    ("a DROP behind the tail is none", "-j DROP", 4, False),
]


@pytest.mark.parametrize(
    ("rule", "place", "drift"), [item[1:] for item in INSERTED_LATER], ids=[item[0] for item in INSERTED_LATER]
)
def test_inserted_later(rule, place, drift):
    host = FakeIptables(ruleset(chains=F2B))
    load(host, ARTICLE)
    host.restore("*filter\n-I INPUT {0} {1}\nCOMMIT\n".format(place, rule))
    assert bool(load(host, ARTICLE).change) == drift
    assert plan_family(host.save(), ARTICLE, "ipv4").change == ""


def edited(save, what):
    """Return a save in which the collection's rules were changed by hand."""
    lines = save.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("-A PORTKNOCK_K1"))
    hook = next(
        number for number, line in enumerate(lines) if line.startswith("-A INPUT") and line.endswith("-j " + DOORS)
    )
    replaced = {
        "removed": (first, 1, []),
        "added": (first, 0, ["-A PORTKNOCK_D1 -j ACCEPT"]),
        "moved": (first, 2, [lines[first + 1], lines[first]]),
        "same comment": (first, 1, [lines[first].replace("--seconds 5", "--seconds 500")]),
        "comment": (first, 1, [lines[first].replace("portknock:", "portknock:f")]),
        "hook removed": (hook, 1, []),
        "hook doubled": (hook, 1, [lines[hook]] * 2),
        "hook moved": (hook - 1, 2, [lines[hook], lines[hook - 1]]),
        "hook without comment": (hook, 1, ["-A INPUT -j " + DOORS]),
        "hook edited": (hook, 1, [lines[hook].replace("-A INPUT ", "-A INPUT -s 10.0.0.0/8 ")]),
        "one more chain of the collection": (3, 0, [":PORTKNOCK_D9 - [0:0]"]),
    }
    if what == "target edited":
        lines = [line.replace("-j REJECT", "-j ACCEPT") if "PORTKNOCK_REFUSE" in line else line for line in lines]
    else:
        place, count, instead = replaced[what]
        lines[place : place + count] = instead
    assert lines != save.splitlines()
    return "\n".join(lines + [""])


EDITS = ("removed", "added", "moved", "same comment", "comment", "hook removed", "hook doubled", "hook moved",
         "hook without comment", "hook edited", "one more chain of the collection", "target edited")  # fmt: skip


@pytest.mark.parametrize("what", EDITS)
def test_drift_is_mended_and_can_be_undone(what):
    host = FakeIptables(ruleset("-p tcp -m tcp --dport 22 -j ACCEPT", "-p tcp -m tcp --dport 80 -j ACCEPT"))
    load(host, SPECS[1])
    right = host.save()
    drifted = FakeIptables(edited(right, what))
    before = drifted.save()
    plan = load(drifted, SPECS[1])
    assert plan.change
    assert plan.before() != plan.after()
    assert sorted(drifted.save().splitlines()) == sorted(right.splitlines())
    assert hooks(drifted) == hooks(FakeIptables(right))
    drifted.restore(plan.undo)
    assert sorted(drifted.save().splitlines()) == sorted(before.splitlines())


@pytest.mark.parametrize("what", EDITS)
def test_drift_does_not_stop_a_removal(what):
    clean = ruleset("-p tcp -m tcp --dport 22 -j ACCEPT", "-p tcp -m tcp --dport 80 -j ACCEPT")
    host = FakeIptables(clean)
    load(host, SPECS[1])
    drifted = FakeIptables(edited(host.save(), what))
    load(drifted, None)
    assert foreign_lines(drifted.save()) == foreign_lines(FakeIptables(clean).save())
    assert "PORTKNOCK" not in drifted.save()


def test_a_trailing_blank_is_no_drift():
    """As 1.8.7 prints rules without a target."""
    host = FakeIptables(ruleset())
    load(host, SPECS[1])
    save = "\n".join(
        line + " " if line.startswith("-A PORTKNOCK") and " -j " not in line else line
        for line in host.save().split("\n")
    )
    assert plan_family(save, SPECS[1], "ipv4").change == ""


@pytest.mark.parametrize("left_out", ["-m tcp ", "-m udp ", "--mask 255.255.255.255 ", "--rsource "])
def test_another_spelling_is_no_drift(left_out):
    host = FakeIptables(ruleset())
    load(host, SPECS[1])
    save = "\n".join(line.replace(left_out, "") if "PORTKNOCK" in line else line for line in host.save().split("\n"))
    assert save != host.save()
    assert plan_family(save, SPECS[1], "ipv4").change == ""


def test_removal_keeps_a_chain_that_a_foreign_rule_names():
    host = FakeIptables(ruleset("-j MINE", chains={"MINE": []}))
    load(host, SPECS[1])
    host.restore("*filter\n-A MINE -p tcp -j PORTKNOCK_REFUSE\nCOMMIT\n")
    load(host, None)
    assert host.tables["filter"].chains["MINE"] == ["-p tcp -j PORTKNOCK_REFUSE"]
    assert plan_family(host.save(), None, "ipv4").change == "", "a second removal must have nothing to do"


def test_a_foreign_chain_with_our_name_is_refused():
    text = ruleset("-j PORTKNOCK", chains={"PORTKNOCK": ["-p tcp -j ACCEPT"]})
    with pytest.raises(HostError, match="was not made by this collection"):
        plan_family(text, ARTICLE, "ipv4")


def test_other_tables_are_not_touched():
    others = "*{0}\n:PREROUTING ACCEPT [1:60]\n-A PREROUTING -p tcp -m tcp --dport 8080 -j {1}\nCOMMIT\n"
    texts = [
        others.format(*each) for each in (("mangle", "MARK --set-xmark 0x1/0x1"), ("nat", "REDIRECT --to-ports 80"))
    ]
    plan = plan_family("".join(texts) + ruleset("-j ACCEPT"), SPECS[1], "ipv4")
    tables = [line for line in plan.change.splitlines() if line.startswith("*")]
    assert tables == ["*nat", "*filter"], "what guards in nat comes first"
    assert plan.change.count("COMMIT") == 2
    assert [line for line in plan.undo.splitlines() if line.startswith("*")] == ["*filter", "*nat"], "and goes last"
    unguarded = plan_family("".join(texts) + ruleset("-j ACCEPT"), SPECS[1]._replace(published="none"), "ipv4")
    assert [line for line in unguarded.change.splitlines() if line.startswith("*")] == ["*filter"]


@given(ruleset=foreign.rulesets("ipv4"), spec=st.sampled_from(SPECS[:-1]))
def test_the_change_names_no_foreign_rule(ruleset, spec):
    """A change holds our lines alone: what it does not name it cannot lose."""
    plan = plan_family(random_rules.save_text(*ruleset), spec, "ipv4")
    for line in (plan.change + plan.undo).splitlines():
        # Docker's chain for the rules of others, which is made where it is missing.
        assert line in ("*filter", "*nat", "COMMIT", ":DOCKER-USER - [0:0]", "-X DOCKER-USER") or "PORTKNOCK" in line
        assert not line.startswith(("-F", "-P", ":INPUT", "-D INPUT 1"))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_diff_names_what_changed_and_no_step(family):
    plan = plan_family(ruleset("-p tcp -m tcp --dport 22 -j ACCEPT"), SPECS[1], family)
    assert plan.before() == "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n"
    assert "-A PORTKNOCK_D1 -p tcp -m tcp --dport 22 -m recent --rcheck --seconds 15" in plan.after()
    for step in ("17005", "19100", "18300", "15000", "14000"):
        assert step not in plan.after()
        assert step not in readable_file(plan.change)
        assert step in plan.change


@given(
    ports=st.lists(st.integers(10000, 65000), min_size=5, max_size=5, unique=True),
    protocols=st.lists(st.sampled_from(["tcp", "udp"]), min_size=5, max_size=5),
    policy=st.sampled_from(["reject", "accept"]),
    rules=st.lists(foreign.rule("ipv4"), max_size=3),
)
def test_no_step_in_a_diff_or_a_finding(ports, protocols, policy, rules):
    steps = ["{0}/{1}".format(*pair) for pair in zip(ports, protocols)]
    try:
        spec = spec_from_options(
            options(policy=policy, doors=[{"name": "ssh", "knock": steps[:3], "close": steps[3:], "opens": ["22"]}])
        )
    except SpecError:
        reject()  # an unlucky draw that a scan would open
    host = FakeIptables(ruleset(*rules, chains={name: [] for name in random_rules.CHAINS}))
    plan = load(host, spec)
    there = " ".join(rules)
    shown = " ".join(
        (plan.before(), plan.after(), readable_file(plan.change), readable_file(plan.undo), repr(plan.findings))
    )
    gone = load(host, None)
    shown += " ".join((gone.before(), gone.after()))
    assert [port for port in ports if str(port) in shown and str(port) not in there] == []


def test_shortened_keeps_what_changed():
    before = "".join("-A INPUT -s 192.0.2.{0}/32 -j DROP\n".format(n) for n in range(200))
    one, other = shortened(before, before.replace("192.0.2.100/32", "192.0.2.100/31"))
    assert [line for line in one.splitlines() if line not in other] == ["-A INPUT -s 192.0.2.100/32 -j DROP"]
    assert one.count("\n") == 7 + 2 * 4
    assert "# ... 94 lines that stay" in one


def test_counters_stay_out_of_it():
    text = "*filter\n:INPUT ACCEPT [7:70]\n[3:30] -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n[0:0] -A INPUT -j DROP\nCOMMIT\n"
    plan = plan_family(text, ARTICLE, "ipv4")
    host = FakeIptables(text)
    host.restore(plan.change)
    assert hooks(host) == [HEAD, DOORS, "-p tcp -m tcp --dport 22 -j ACCEPT", TAIL, "-j DROP"]


def test_parser_refuses_what_it_cannot_follow():
    for text, message in (
        ("-A INPUT -j DROP\n", "x, line 1: stands outside of a table"),
        ("*filter\n-A INPUT -j DROP\n", "x, line 1: begins a table that no COMMIT ends"),
        ("*filter\n:INPUT DROP [0:0]\n-F INPUT\nCOMMIT\n", "x, line 3: has the command -F"),
        ("*filter\nrubbish\nCOMMIT\n", "x, line 2: is not a rule"),
    ):
        with pytest.raises(HostError, match=message):
            parse(text, "x")


def test_parser_takes_comments_that_look_like_headers():
    text = '*filter\n-A INPUT -m comment --comment "*nat\nCOMMIT\n:X" -j DROP\n# *raw\nCOMMIT\n'
    document = parse(text)
    assert [table.name for table in document.tables] == ["filter"]
    assert len(document.table("filter").rules("INPUT")) == 1
    assert "".join(document.lines) == text
