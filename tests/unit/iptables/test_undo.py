# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back from a change, with the rules of others coming, going and moving between the two."""

import foreign
import pytest
import random_rules
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import read_state
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.undo import is_undone, snapshot_text, undo_text
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.module_utils._tables.own_rules import foreign_rules, is_own_rule
from fake_iptables import FakeIptables, without_empty_nat
from hypothesis import given
from hypothesis import strategies as st

DOORS = [{"name": "ssh", "knock": ["7144", "2791/udp", "9318"], "opens": ["22"]}]
MORE = [{"name": "web", "knock": ["40001", "9100"], "opens": ["8443"]}]
SPECS = {
    "absent": None,
    "doors": spec_from_options(dict(doors=DOORS)),
    "others": spec_from_options(dict(doors=MORE, policy="accept", log=True)),
    "both": spec_from_options(dict(doors=DOORS + MORE, policy="reject", allow=[{"port": 443}])),
}
ALL_CHANGES = [(one, other) for one in sorted(SPECS) for other in sorted(SPECS) if one != other]
RULES = ["-s 192.0.2.0/24 -j ACCEPT", "-p tcp -m tcp --dport 80 -j ACCEPT", "-i wg0 -j F1", "-j REJECT"]


def change_to(host, name, family="ipv4"):
    plan = plan_family(host.save(), SPECS[name], family)
    if plan.change:
        host.restore(plan.change)


def host_with(name, rules=tuple(RULES), policy="ACCEPT", family="ipv4", chains=None):
    """A host whose foreign rules were there first, then the rules of a spec."""
    lists = dict({chain: [] for chain in random_rules.CHAINS}, **(chains or {}))
    host = FakeIptables(random_rules.save_text(policy, list(rules), lists))
    change_to(host, name, family)
    return host


def table_of(text):
    return parse(text).table("filter")


def others(host):
    """The foreign rules: chain to rules, in their order."""
    table = host.tables["filter"]
    found = {
        name: [text for text in rules if not is_own_rule(name, text)]
        for name, rules in table.chains.items()
        if not name.startswith("PORTKNOCK")
    }
    if not found.get("DOCKER-USER"):
        # It is made for Docker, and goes where it is of no use.
        found.pop("DOCKER-USER", None)
    return found, dict(table.policies)


def ours(text):
    return read_state(parse(text))


def undo(host, before):
    text = undo_text(before, host.save())
    if text:
        host.restore(text)
    assert is_undone(before, host.save()), host.save()
    assert undo_text(before, host.save()) == "", "undone twice, changed twice"


@pytest.mark.parametrize(("one", "other"), ALL_CHANGES)
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_nothing_between(one, other, family):
    rules = [rule for rule in RULES if family == "ipv4" or "192." not in rule]
    host = host_with(one, rules, family=family)
    before = host.save()
    assert is_undone(before, before)
    change_to(host, other, family)
    assert host.save() != before
    assert not is_undone(before, host.save())
    undo(host, before)
    after = without_empty_nat(host.save())
    assert after.splitlines()[1:] == before.splitlines()[1:] or same_table(after, before)


def same_table(one, other):
    """Compare two saves but for the order in which the chains are declared."""
    return sorted(line for line in one.splitlines() if line[:1] == ":") == sorted(
        line for line in other.splitlines() if line[:1] == ":"
    ) and by_chain(one) == by_chain(other)


def by_chain(text):
    found = {}
    for line in text.splitlines():
        if line.startswith("-A "):
            found.setdefault(line.split(" ", 2)[1], []).append(line)
    return found


def test_nothing_to_undo():
    host = host_with("doors")
    assert undo_text(host.save(), host.save()) == ""


def test_a_table_that_was_not_there():
    host = FakeIptables()
    assert undo_text("", "") == ""
    change_to(host, "doors")
    undo(host, "")
    assert "PORTKNOCK" not in host.save()


# Others come and go

edits = st.lists(
    st.tuples(
        st.sampled_from(["insert", "insert", "append", "remove", "move", "replace", "chain", "jump"]),
        st.sampled_from(("INPUT", "INPUT", "INPUT", "FORWARD") + random_rules.CHAINS),
        st.integers(0, 30),
        st.integers(0, 30),
    ),
    max_size=8,
)


def edit(host, kind, chain, one, two, number, moves=True):
    """Do to the foreign rules of a chain what another program might do; the collection's stay where they are."""
    table = host.tables["filter"]
    rules = table.chains[chain]
    places = [index for index, text in enumerate(rules) if not is_own_rule(chain, text)]
    text = "-p udp -m udp --dport {0} -m comment --comment new{1} -j DROP".format(1000 + one, number)
    if kind == "insert":
        rules.insert(one % (len(rules) + 1), text)
    elif kind == "append":
        rules.append(text)
    elif kind == "chain":
        table.chains["f2b-{0}".format(number)] = ["-j RETURN"]
        rules.insert(0, "-p tcp -j f2b-{0}".format(number))
    elif kind == "jump" and "PORTKNOCK" in table.chains and chain != "INPUT":
        rules.insert(one % (len(rules) + 1), "-p tcp -m comment --comment jump{0} -j PORTKNOCK".format(number))
    elif kind == "remove" and places:
        del rules[places[one % len(places)]]
    elif kind == "replace" and places:
        rules[places[one % len(places)]] = text
    elif kind == "move" and places and moves:
        taken = rules.pop(places[one % len(places)])
        rules.insert(two % (len(rules) + 1), taken)


def scatter(host, places):
    """Put our hooks anywhere among the foreign rules, in their order."""
    rules = host.tables["filter"].chains["INPUT"]
    hooks = [text for text in rules if is_own_rule("INPUT", text)]
    rules[:] = [text for text in rules if not is_own_rule("INPUT", text)]
    for place, hook in reversed(list(zip(sorted(places), hooks))):
        rules.insert(place, hook)


@st.composite
def stories(draw, family="ipv4", unique=False):
    """Return a host before a change, the same after it and after what others did, and the name of the change."""
    policy, rules, chains = draw(foreign.rulesets(family))
    if unique:
        rules = ["-p tcp -m comment --comment old{0} -j ACCEPT".format(number) for number in range(len(rules))]
    one, other = draw(st.sampled_from(ALL_CHANGES))
    host = FakeIptables(random_rules.save_text(policy, rules, chains))
    change_to(host, one, family)
    if unique:
        scatter(host, draw(st.lists(st.integers(0, len(rules)), min_size=3, max_size=3)))
    before = host.save()
    change_to(host, other, family)
    for number, step in enumerate(draw(edits)):
        edit(host, *(step + (number, not unique)))
    return before, host


@pytest.mark.slow
@given(story=stories())
def test_whatever_others_do_stays_done(story):
    before, host = story
    meanwhile = others(host)
    undo(host, before)
    assert others(host) == meanwhile
    kept = ours(before).chains
    for name, rules in ours(host.save()).chains.items():
        assert rules == kept.get(name, ()), name
    assert set(kept) <= set(ours(host.save()).chains)
    assert [hook.text for hook in ours(host.save()).hooks] == [hook.text for hook in ours(before).hooks]


@pytest.mark.slow
@given(story=stories("ipv6"))
def test_whatever_others_do_stays_done_ipv6(story):
    before, host = story
    meanwhile = others(host)
    undo(host, before)
    assert others(host) == meanwhile


@pytest.mark.slow
@given(story=stories(unique=True))
def test_hooks_stand_before_the_rules_they_stood_before(story):
    """Each rule is there once, and none was moved: so it is known which one it was."""
    before, host = story
    undo(host, before)
    texts = [rule.text.rstrip() for rule in foreign_rules(table_of(before))]
    left = [rule.text.rstrip() for rule in foreign_rules(table_of(host.save()))]
    hooks = ([hook for hook in ours(text).hooks if hook.chain == "INPUT"] for text in (before, host.save()))
    for old, new in zip(*hooks):
        behind = [text for text in texts[old.position :] if text in left]
        ahead = [text for text in texts[: old.position] if text in left]
        assert all(left.index(text) < new.position for text in ahead), "overtook a rule"
        assert all(left.index(text) >= new.position for text in behind), "fell behind a rule"
        if behind:
            assert new.position == left.index(behind[0]), "not directly before it"
        elif ahead:
            assert new.position == left.index(ahead[-1]) + 1, "not directly behind it"


PLACES = [
    ("nothing happened", ["a", "b"], ["a", "b"]),
    ("a jump of fail2ban in front", ["a", "b"], ["f2b", "a", "b"]),
    ("one in the middle", ["a", "b"], ["a", "new", "b"]),
    ("one at the end", ["a", "b"], ["a", "b", "new"]),
    ("the first went", ["a", "b"], ["b"]),
    ("the last went", ["a", "b"], ["a"]),
    ("all went", ["a", "b"], []),
    ("all are others", ["a", "b"], ["c", "d", "e"]),
    ("twins", ["a", "a"], ["a", "a", "a"]),
    ("turned around", ["a", "b"], ["b", "a"]),
    ("none before", [], ["a", "b"]),
]


@pytest.mark.parametrize(("was", "now"), [item[1:] for item in PLACES], ids=[item[0] for item in PLACES])
@pytest.mark.parametrize("then", ["absent", "others"])
def test_an_edit(was, now, then):
    def rule(name):
        return "-p tcp -m comment --comment {0} -j ACCEPT".format(name)

    host = host_with("both", map(rule, was))
    before = host.save()
    change_to(host, then)
    rules = host.tables["filter"].chains["INPUT"]
    own = [text for text in rules if is_own_rule("INPUT", text)]
    rules[:] = own[:1] + [rule(name) for name in now] + own[1:]
    undo(host, before)
    assert others(host)[0]["INPUT"] == [rule(name) for name in now]
    assert [hook.text for hook in ours(host.save()).hooks] == [hook.text for hook in ours(before).hooks]


def test_our_own_rules_that_others_took_away_come_back():
    host = host_with("doors")
    before = host.save()
    change_to(host, "both")
    table = host.tables["filter"]
    table.chains["INPUT"] = [text for text in table.chains["INPUT"] if not is_own_rule("INPUT", text)]
    table.chains["PORTKNOCK"] = []
    undo(host, before)
    assert same_table(host.save(), before)


def test_a_foreign_rule_that_names_a_new_chain():
    """The chain cannot be removed, but it is emptied: then it does nothing."""
    host = host_with("absent")
    before = host.save()
    change_to(host, "doors")
    host.restore("*filter\n-A F1 -p tcp -j PORTKNOCK\nCOMMIT\n")
    undo(host, before)
    assert host.tables["filter"].chains["F1"] == ["-p tcp -j PORTKNOCK"]
    assert [name for name in host.tables["filter"].chains if name.startswith("PORTKNOCK")] == ["PORTKNOCK"]
    assert host.tables["filter"].chains["PORTKNOCK"] == []


def test_a_foreign_rule_that_names_a_chain_from_before():
    host = host_with("doors")
    host.restore("*filter\n-A F1 -p tcp -j PORTKNOCK\nCOMMIT\n")
    before = host.save()
    change_to(host, "absent")
    assert "PORTKNOCK" in host.tables["filter"].chains
    undo(host, before)
    assert same_table(host.save(), before)


def test_the_undo_holds_nothing_of_others():
    host = host_with("doors")
    before = host.save()
    change_to(host, "both")
    text = undo_text(before, host.save())
    lines = [line for line in text.splitlines() if line[:1] in "-:"]
    assert lines
    assert all("PORTKNOCK" in line for line in lines), text


@pytest.mark.parametrize("broken", ["*filter\nrubbish\nCOMMIT\n", "*filter\n:INPUT ACCEPT [0:0]\n"])
def test_what_cannot_be_followed_is_an_error(broken):
    good = host_with("doors").save()
    with pytest.raises(HostError, match="the ruleset before the change"):
        undo_text(broken, good)
    with pytest.raises(HostError, match="the live ruleset"):
        undo_text(good, broken)


# The whole table


@pytest.mark.slow
@given(story=stories())
def test_the_snapshot_is_the_table_as_it_was(story):
    before, host = story
    for table in ("filter", "nat"):
        host.restore(snapshot_text(before, table), noflush=False)
    assert same_table(without_empty_nat(host.save()), before)
    assert is_undone(before, host.save())


def test_the_snapshot_leaves_other_tables_alone():
    nat = "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n"
    host = host_with("doors")
    host.restore(nat)
    before = host.save()
    assert "*nat" not in snapshot_text(before)
    change_to(host, "absent")
    host.restore("*nat\n-A PREROUTING -j ACCEPT\nCOMMIT\n")
    host.restore(snapshot_text(before), noflush=False)
    assert host.tables["nat"].chains["PREROUTING"] == ["-j ACCEPT"]
    assert host.tables["filter"].chains["INPUT"] == FakeIptables(before).tables["filter"].chains["INPUT"]


@pytest.mark.parametrize("before", ["", "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n", "*filter\n:INPUT ACCEPT [0:0]\n"])
def test_without_a_table_before_the_snapshot_is_an_empty_one(before):
    host = host_with("doors")
    host.restore(snapshot_text(before), noflush=False)
    assert host.tables["filter"].chains == {"INPUT": [], "FORWARD": [], "OUTPUT": []}
    assert set(host.tables["filter"].policies.values()) == {"ACCEPT"}
