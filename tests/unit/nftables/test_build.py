# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a table holds, whatever was asked for: nothing named that is not there, nothing forgotten, no step twice in a set."""

import re

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.build import build_table
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.knocks import FLAT, PROGRESS, knocks_of
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.services import pieces
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.text import load_text
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.module_utils._spec.ports import Ports
from hypothesis import given
from hypothesis import strategies as st
from nft_model import Model, Sent
from nft_options import A_FIFTH, OPTIONS, spec_of

COMMENT = re.compile(r' comment "(portknock:([0-9a-f]{8}) [^"]+)"\Z')


def rules_of(table):
    return [(chain, rule) for chain, rules in table.chains.items() for rule in rules]


def door(name, *knock, opens="22", **more):
    return dict(name=name, knock=list(knock), opens=[opens], **more)


def chain(table, name):
    """Return a chain's rules without their comments."""
    return [COMMENT.sub("", rule) for rule in table.chains[name]]


def built(*doors, **options):
    return build_table(spec_from_options(dict(options, doors=list(doors))))


@A_FIFTH
@given(OPTIONS)
def test_what_is_named_is_there_and_what_is_there_is_named(options):
    spec = spec_of(options)
    table = build_table(spec)
    rules = "\n".join(rule for _chain, rule in rules_of(table))
    targets = set(re.findall(r"(?:goto|jump) (\w+)", rules))
    # Under policy accept with no door nothing is refused.
    # What is sent on is left alone where no door and no policy is about it.
    about = spec.published == "policy" and spec.policy == "reject"
    about = about or any(door.to or spec.published != "none" for door in spec.doors)
    hooked = {"input", "forward"} if about else {"input"}
    assert targets | hooked | {"refuse"} == set(table.chains)
    named = set(re.findall(r"@(\w+)", rules))
    assert named <= set(table.sets)
    # Where nobody of a version of IP may knock, the sets are there all the same.
    assert all(re.match("open|paused|progress|stage|group", name) for name in set(table.sets) - named)


@A_FIFTH
@given(OPTIONS)
def test_each_rule_has_a_comment_that_nft_takes_and_an_id_of_its_own(options):
    table = build_table(spec_of(options))
    for name, rules in table.chains.items():
        found = [COMMENT.search(rule) for rule in rules]
        assert all(found), (name, rules)
        assert all(len(each.group(1).encode("utf-8")) <= 127 for each in found)
        assert len({each.group(2) for each in found}) == len(set(map(COMMENT.sub, [""] * len(rules), rules)))


@A_FIFTH
@given(OPTIONS)
def test_one_version_of_ip_asks_for_none_of_the_other(options):
    table = build_table(spec_of(options))
    texts = [*(rule for _chain, rule in rules_of(table)), *table.sets, *(each.kind for each in table.sets.values())]
    for version, signs in (("ipv4", r"\bip saddr|\w4_|ipv4_addr"), ("ipv6", r"\bip6 saddr|\w6_|ipv6_addr")):
        if version not in options["ip_versions"]:
            assert not [text for text in texts if re.search(signs, text)]
            assert f"meta nfproto {version} accept" in chain(table, "input")[0]


@A_FIFTH
@given(OPTIONS)
def test_each_stage_has_a_set_of_its_own(options):
    knocks = knocks_of(spec_of(options).doors)
    assert len(set(knocks.stage_sets)) == len(knocks.stage_sets)
    assert sum(len(sequence.steps) - 1 for sequence in knocks.sequences) == len(knocks.stage_sets)


@A_FIFTH
@given(OPTIONS)
def test_a_wrong_port_forgets_every_stage(options):
    """In one way for each version of IP, and by each group's set in which the step puts the source."""
    spec = spec_of(options)
    table, knocks = build_table(spec), knocks_of(spec.doors)
    total = sum(len(sequence.stages) for sequence in knocks.sequences)
    assert (set(knocks.groups) == {""}) == (0 < total <= FLAT)
    for digit in (version[3] for version in options["ip_versions"]):
        for group, sequences in knocks.groups.items():
            inside = f"forget{digit}"
            if group:
                (jump,) = [rule for rule in chain(table, inside) if f"@{group.replace('*', digit)} delete" in rule]
                inside = jump.rsplit(" ", 1)[1]
            text = "\n".join(chain(table, inside))
            for stage in (stage for sequence in sequences for stage in sequence.stages):
                assert text.count(f"delete @{stage.replace('*', digit)} {{") == 1


@A_FIFTH
@given(OPTIONS)
def test_who_waits_for_a_step_is_in_progress_for_longer(options):
    """Put there first, so that a full set leaves no stage that nothing would forget."""
    for _chain, rule in rules_of(build_table(spec_of(options))):
        found = re.findall(r"update @(\w+?)[46](?:_\w+)? \{[^}]* timeout (\d+)s \}", rule)
        if "stage" in dict(found):
            assert [name for name, _seconds in found] in (["progress", "stage"], ["progress", "group", "stage"])
            assert int(found[-1][1]) < min(int(seconds) for _name, seconds in found[:-1])


@given(
    st.lists(
        st.tuples(st.integers(1, 12), st.integers(0, 5), st.sampled_from(["tcp", "udp"]), st.integers(0, 3)), max_size=6
    )
)
def test_pieces_hold_just_what_applies(entries):
    services = [(Ports(first, first + more, protocol), value) for first, more, protocol, value in entries]
    found = pieces(services)
    for protocol in ("tcp", "udp"):
        for port in range(20):
            applies = [
                value for ports, value in services if ports.protocol == protocol and ports.first <= port <= ports.last
            ]
            here = [
                values for ports, values in found if ports.protocol == protocol and ports.first <= port <= ports.last
            ]
            assert here == ([tuple(dict.fromkeys(applies))] if applies else [])


def test_a_step_is_one_rule():
    table = built(door("ssh", "7000", "9100/udp"), ip_versions=["ipv4"])
    (stage,) = [name for name in table.sets if name.startswith("stage")]
    assert chain(table, "knock1") == [
        "ip saddr != @paused4 counter update @progress4 { ip saddr timeout 6s } "
        f"update @{stage} {{ ip saddr timeout 5s }}"
    ]
    assert chain(table, "knock2") == [
        f"ip saddr @{stage} counter delete @{stage} {{ ip saddr }} update @open4_ssh {{ ip saddr timeout 15s }}"
    ]
    assert chain(table, "knocks") == [
        "meta l4proto . th dport vmap { 6 . 7000 : goto knock1, 17 . 9100 : goto knock2 }",
        "meta l4proto 6 goto wrong",
        "meta l4proto 17 meta pkttype 0 goto wrong",
    ]


def test_while_many_knocks_are_broken_who_breaks_one_begins_none_for_a_second():
    model = Model(load_text(built(door("ssh", "7000", "9100"))).text)
    for family in ("192.0.2.", "2001:db8::"):

        def knocks(host, *ports, family=family):
            return [model.send(Sent(f"{family}{host}", port)) for port in ports][-1]

        for often, gets_in in ((False, True), (True, False)):
            model.is_often = often
            assert knocks(7, 7000, 7000, 9100, 22), "one that breaks none is not in the way"
            knocks(8, 7000, 1234)
            assert knocks(8, 7000, 9100, 22) is gets_in
            assert knocks(9, 7000, 9100, 22)
            model.later(1)
            assert knocks(8, 7000, 9100, 22)
            model.forget()


def test_a_knock_that_waits_for_a_step_twice_knows_for_which():
    table = built(door("ssh", "7000", "9100", "3100", "9100"), ip_versions=["ipv4"])
    before, between, after = [name for name in table.sets if name.startswith("stage")]
    (chain_name,) = re.findall(r"6 \. 9100 : goto (\w+)", chain(table, "knocks")[0])
    last, second = chain(table, chain_name)
    assert re.findall(r"@(\w+)", last) == [after, after, "open4_ssh"]
    assert re.findall(r"@(\w+)", second) == [before, before, "progress4", between]


def test_the_right_port_over_a_protocol_that_nothing_uses_is_wrong():
    table = built(door("ssh", "7000", "9100"), ip_versions=["ipv4"])
    assert "17 . 7000 : goto wrong, 17 . 9100 : goto wrong" in chain(table, "knocks")[0]
    assert chain(table, "knocks")[1:] == ["meta l4proto 6 goto wrong"]


def test_the_prefix_of_ipv6():
    table = built(door("ssh", "7000"), ipv6_prefix=72)
    source = "ip6 saddr & ffff:ffff:ffff:ffff:ff00::"
    assert chain(table, "service1")[1] == f"{source} @open6_ssh counter accept"
    assert chain(table, "knock1")[1].endswith(f"update @open6_ssh {{ {source} timeout 15s }}")


def test_panic_refuses_everyone_at_doors_and_allowed_ports():
    spec = spec_from_options(
        {"doors": [door("ssh", "7000")], "allow": [{"port": "80"}], "policy": "accept", "log": True}
    )
    table = build_table(spec._replace(panic=True))
    texts = [rule for name in table.chains if name.startswith("service") for rule in chain(table, name)]
    assert texts
    assert not [text for text in texts if text.endswith("accept") or "goto opened" in text]


@pytest.mark.parametrize(
    ("list_size", "sizes"), [(4096, {65536, 1048576}), (500, {500}), (5000, {65536}), (70000, {131072})]
)
def test_sizes(list_size, sizes):
    table = built(door("ssh", "7000", "9100"), list_size=list_size)
    assert {each.size for each in table.sets.values()} == sizes


def many(count):
    doors = [door(f"d{n}", *(str(20000 + n * 7 + step * 1000) for step in (0, 9, 4, 7))) for n in range(count)]
    return knocks_of(spec_from_options({"doors": doors}).doors)


def test_many_knocks_are_parted_into_groups():
    knocks = many(100)
    most = max(len(sequences) * 3 for sequences in knocks.groups.values())
    assert most + len(knocks.groups) < 60
    assert PROGRESS not in knocks.groups


def test_a_knock_stays_in_its_group_and_its_sets():
    assert many(100).sequences[:90] == many(90).sequences
