# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a table holds, whatever was asked for: nothing named that is not there, nothing forgotten, no step twice in a set."""

import hashlib
import re

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.build import build_table
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.knocks import (
    AT_ONCE,
    FLAT,
    PROGRESS,
    knocks_of,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import STAGES, Entry
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


def beside(stage):
    """Return the key of one who is in a stage, or a group."""
    return f"ip saddr . meta mark & {stage.number:#010x} | {stage.number:#010x}"


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
    assert all(re.match("open|paused|progress|stages", name) for name in set(table.sets) - named)


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
def test_each_stage_has_a_number_of_its_own_and_no_group_has_it(options):
    knocks = knocks_of(spec_of(options).doors)
    assert len(set(knocks.stages)) == len(knocks.stages)
    assert sum(len(sequence.steps) - 1 for sequence in knocks.sequences) == len(knocks.stages)
    assert not set(knocks.stages) & set(knocks.groups)
    assert all(0 < entry.number < 1 << 32 for entry in (*knocks.stages, *knocks.groups) if entry != PROGRESS)


@A_FIFTH
@given(OPTIONS)
def test_a_wrong_port_forgets_every_stage(options):
    """In one way for each version of IP, and by each group's set in which the step puts the source."""
    spec = spec_of(options)
    table, knocks = build_table(spec), knocks_of(spec.doors)
    total = sum(len(sequence.stages) for sequence in knocks.sequences)
    assert (PROGRESS not in knocks.groups) is (total > FLAT) or not total
    for digit in (version[3] for version in options["ip_versions"]):
        for group, sequences in knocks.groups.items():
            inside = f"forget{digit}"
            if group != PROGRESS:
                (jump,) = [rule for rule in chain(table, inside) if f"| {group.number:#010x} @stages{digit} " in rule]
                inside = jump.rsplit(" ", 1)[1]
            deleted = re.findall(rf"delete @stages{digit} {{ [^}}]* \| (0x\w+) }}", "\n".join(chain(table, inside)))
            stages = [stage.number for sequence in sequences for stage in sequence.stages]
            assert sorted(int(number, 16) for number in deleted) == sorted(stages)


@A_FIFTH
@given(OPTIONS)
def test_who_waits_for_a_step_is_in_progress_for_longer(options):
    """Put there first, so that a full set leaves no stage that nothing would forget."""
    for _chain, rule in rules_of(build_table(spec_of(options))):
        found = re.findall(r"update @(\w+) \{(?:[^}]* \| (\w+))?[^}]* timeout (\d+)s \}", rule)
        if found and found[-1][0].startswith("stages"):
            assert re.match(r"progress[46]\Z", found[0][0])
            assert int(found[-1][1], 16) >> 31
            assert not any(int(number, 16) >> 31 for _name, number, _seconds in found[1:-1])
            assert int(found[-1][2]) < min(int(seconds) for _name, _number, seconds in found[:-1])


@A_FIFTH
@given(OPTIONS)
def test_where_no_verdict_map_is_found_nothing_is_decided(options):
    """As the kernel has it while the rules are replaced: no packet that no other rule accepts gets in, out or refused."""
    spec = spec_of(options)
    text = re.sub(r"daddr vmap \{[^}]*\}", "daddr vmap { :: : accept }", load_text(build_table(spec)).text)
    text = re.sub(r"(?<!daddr )vmap \{[^}]*\}", "vmap { 0 : accept }", text)
    model, refused = Model(re.sub('reject with [^"]*', "accept ", text)), Model(text)
    for port in (22, 443, 8005, 5, 20977) if " vmap " in text else ():
        for family, source, here in (("ipv4", "203.0.113.5", "192.0.2.1"), ("ipv6", "2001:db8:99::5", "2001:db8::1")):
            sent = Sent(source, port)
            if family in options["ip_versions"]:
                assert not model.send(sent), "what would refuse it accepts here"
                assert not refused.send(sent)
                if "forward" in model.chains:
                    assert not model.forward(sent._replace(first=(here, port)))


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
    (stage,) = map(beside, knocks_of(spec_from_options({"doors": [door("ssh", "7000", "9100/udp")]}).doors).stages)
    assert chain(table, "knock1") == [
        "meta nfproto ipv4 counter update @progress4 { ip saddr timeout 6s } "
        f"update @stages4 {{ {stage} timeout 5s }}"
    ]
    assert chain(table, "knock2") == [
        f"{stage} @stages4 counter delete @stages4 {{ {stage} }} update @open4_ssh {{ ip saddr timeout 15s }}"
    ]
    assert chain(table, "knocks_or_services") == [
        "ip saddr @paused4 goto services",
        "meta l4proto . th dport vmap { 6 . 22 : goto service1, 6 . 7000 : goto knock1, 17 . 9100 : goto knock2 }",
        "jump current",
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
    asked = {"doors": [door("ssh", "7000", "9100", "3100", "9100")], "ip_versions": ["ipv4"]}
    spec = spec_from_options(asked)
    table = build_table(spec)
    before, between, after = (f"{stage.number:#010x}" for stage in knocks_of(spec.doors).stages)
    (chain_name,) = re.findall(r"6 \. 9100 : goto (\w+)", chain(table, "knocks_or_services")[1])
    last, second = chain(table, chain_name)
    assert re.findall(r"\| (0x\w+)|@(open\w+)", last) == [(after, ""), (after, ""), ("", "open4_ssh")]
    assert re.findall(r"\| (0x\w+)|@(prog\w+)", second) == [
        (before, ""),
        (before, ""),
        ("", "progress4"),
        (between, ""),
    ]


@pytest.mark.parametrize("mark", [0, 1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_the_mark_that_others_set_on_a_packet_is_no_matter(mark):
    model = Model(load_text(built(door("ssh", "7000", "9100", "3100"))).text)
    for source in ("192.0.2.7", "2001:db8::7"):
        for port in (7000, 9100, 3100):
            model.send(Sent(source, port, mark=mark ^ port))
        assert model.send(Sent(source, 22, mark=mark))


def test_the_right_port_over_a_protocol_that_nothing_uses_is_wrong():
    table = built(door("ssh", "7000", "9100"), ip_versions=["ipv4"])
    assert "17 . 7000 : goto wrong, 17 . 9100 : goto wrong" in chain(table, "knocks_or_services")[1]
    assert chain(table, "knocks_or_services")[2:] == ["jump current", "meta l4proto 6 goto wrong"]


def test_a_service_at_the_port_of_a_step_over_the_protocol_that_nothing_uses_is_not_wrong():
    """Who may not use it is wrong there, as at any other port; one look-up has no port twice."""
    allowed = [{"port": "7000/udp"}, {"port": "9000-9200/udp", "sources": ["192.0.2.0/24"]}]
    text = load_text(built(door("ssh", "7000", "9100"), allow=allowed)).text
    model = Model(text)
    for source, port, wrong in (
        ("198.51.100.7", 7000, False),
        ("192.0.2.7", 9100, False),
        ("198.51.100.8", 9100, True),
    ):
        model.send(Sent(source, 7000))
        assert model.send(Sent(source, port, "udp")) is not wrong
        model.send(Sent(source, 9100))
        assert model.send(Sent(source, 22)) is not wrong
    for line in text.splitlines():
        keys = re.findall(r"[0-9]+ \. [0-9]+ :", line)
        assert len(set(keys)) == len(keys), line


def test_what_is_related_or_begins_nothing_is_no_knock_and_meets_the_doors():
    table = built(door("ssh", "7000", "9100"), ip_versions=["ipv4"])
    inside = chain(table, "input")
    leave = [inside.index(rule) for rule in inside if rule.endswith("goto services")]
    assert [inside[number].startswith(("meta l4proto 6 tcp flags", "ct state related")) for number in leave] == [
        True
    ] * 2
    assert max(leave) < inside.index("jump knocks_or_services")
    assert chain(table, "services") == [
        "meta l4proto . th dport vmap { 6 . 22 : goto service1 }",
        "jump current",
        "ct state related accept",
        # Who is paused gets here as well, and what IPv6 needs to work comes from him.
        "meta nfproto ipv4 meta l4proto 1 accept",
        "goto refuse",
    ]


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
    texts = [rule for name in table.chains if re.match(r"service[0-9]", name) for rule in chain(table, name)]
    assert texts
    assert not [text for text in texts if text.endswith("accept") or "goto opened" in text]


@pytest.mark.parametrize(
    ("list_size", "opened", "in_progress"),
    [(4096, 65536, 1048576), (500, 500, 500), (5000, 65536, 65536), (70000, 131072, 131072)],
)
def test_sizes(list_size, opened, in_progress):
    """Of all sizes above 4,096 the kernel makes room for none at once, as it does for their lower 16 bits."""
    table = built(door("ssh", "7000", "9100"), list_size=list_size)
    sizes = {"open": opened, "paused": in_progress, "progress": in_progress, "stages": in_progress * AT_ONCE}
    assert {re.match("[a-z]+", name).group(): each.size for name, each in table.sets.items()} == sizes
    assert all(each.size <= 4096 or each.size % 65536 == 0 for each in table.sets.values())


def many(count):
    doors = [door(f"d{n}", *(str(20000 + n * 7 + step * 1000) for step in (0, 9, 4, 7))) for n in range(count)]
    return knocks_of(spec_from_options({"doors": doors}).doors)


def test_many_knocks_are_parted_into_groups():
    knocks = many(100)
    most = max(len(sequences) * 3 for sequences in knocks.groups.values())
    assert most + len(knocks.groups) < 60
    assert PROGRESS not in knocks.groups
    assert list(many(5).groups) == [PROGRESS]


def test_a_knock_stays_in_its_group_and_keeps_its_numbers():
    assert many(100).sequences[:90] == many(90).sequences
    assert many(100).stages[0] == Entry(STAGES, many(1).stages[0].number)


def test_two_knocks_of_the_same_digest_have_two_numbers(monkeypatch):
    real = hashlib.sha256

    def alike(data):
        """Digests that are the same of all knocks, and differ where they are digested again."""
        return real(data if len(data) == 32 else b"")

    monkeypatch.setattr(hashlib, "sha256", alike)
    found = many(5)
    assert len(set(found.stages)) == len(found.stages) == 15
    assert found.sequences[:4] == many(4).sequences
