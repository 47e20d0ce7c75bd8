# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transaction that loads a table, and the table as releases of nft list it."""

import json
import os
import re

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.nft_json import read_listing
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.build import build_table
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.elements import (
    Element,
    add_text,
    read_elements,
)
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.installed import drift, read_installed
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.names import STAGE_SETS
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.text import (
    absent_text,
    change_text,
    load_text,
    read_text,
)
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from hypothesis import given
from nft_options import A_FIFTH, OPTIONS, RECORDED, recorded_table, spec_of

CORPUS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "corpus", "nftables")
RELEASES = ("0.9.8", "1.0.6", "1.1.3", "1.1.7")


def recorded(release):
    with open(os.path.join(CORPUS, release + ".json"), encoding="utf-8") as stream:
        return read_listing(stream.read())


def of(**options):
    return build_table(spec_from_options(dict(RECORDED, **options)))


@A_FIFTH
@given(OPTIONS)
def test_a_text_is_one_command_a_line_that_names_only_our_table(options):
    table = build_table(spec_of(options))
    lines = load_text(table).text.splitlines()
    assert lines[:2] == ["add table inet portknock", "flush table inet portknock"]
    assert all(line.split(" ")[2:4] == ["inet", "portknock"] for line in lines[2:])
    assert {line.split(" ")[0] for line in lines[2:]} == {"add"}
    text = load_text(table).text
    assert change_text(text, None) == text
    assert change_text(text, read_text(text)) == text


def test_the_digest_tells_texts_apart():
    one, other = load_text(of()), load_text(of(log=False))
    assert one == load_text(of())
    assert one.digest != other.digest
    assert f'comment "portknock:about {one.digest} ' in one.text


@pytest.mark.parametrize("release", RELEASES)
def test_what_was_loaded_is_read_back(release):
    """Steps are written with other words by each release, and the table is known all the same."""
    loadable, installed = load_text(recorded_table()), read_installed(recorded(release))
    assert drift(read_text(loadable.text), installed) == []
    assert installed._replace(shape="") == read_text(loadable.text)
    assert installed.digest == loadable.digest
    assert change_text(loadable.text, installed) == loadable.text


@pytest.mark.parametrize("release", RELEASES)
def test_the_shape_is_that_of_the_rules_alone(release):
    """Neither counters, handles nor who is in a set."""
    items = recorded(release)
    before = read_installed(items)
    text = json.dumps(items)
    for old, new in (('"packets": 0', '"packets": 7'), ('"handle": 2', '"handle": 9'), ('"10.1.2.3"', '"10.9.2.3"')):
        assert old in text
        assert read_installed(json.loads(text.replace(old, new))).shape == before.shape, old
    emptied = [
        {"set": {key: 0 if key == "count" else value for key, value in item["set"].items() if key != "elem"}}
        if "set" in item
        else item
        for item in items
    ]
    assert emptied != items
    assert read_installed(emptied).shape == before.shape
    edited = text.replace('"portknock opened: "', '"opened: "')
    assert read_installed(json.loads(edited)).shape != before.shape


def without(items, kind, **fields):
    return [item for item in items if not all(item.get(kind, {}).get(key) == value for key, value in fields.items())]


@pytest.mark.parametrize("release", RELEASES)
def test_drift(release):
    table, items = recorded_table(), recorded(release)
    first = next(item for item in items if item.get("rule", {}).get("chain") == "input")
    bare = {"rule": {"family": "inet", "table": "portknock", "chain": "input", "expr": [{"accept": None}]}}
    mine = {"set": {"family": "inet", "table": "portknock", "name": "mine", "type": "ipv4_addr"}}
    changed = ["rules of chain input were added, removed or edited"]
    for now, said in (
        ([item for item in items if item is not first], changed),
        ([bare if item is first else item for item in items], changed),
        ([bare, *items], changed),
        (without(without(items, "chain", name="wrong"), "rule", chain="wrong"), ["chain wrong is missing"]),
        (without(items, "set", name="open4_ssh"), ["open4_ssh is missing"]),
        (without(items, "set", name="stages4"), ["a set of knocks in progress is missing"]),
        ([*items, mine], ["mine is not one of the collection's"]),
    ):
        assert drift(read_text(load_text(table).text), read_installed(now)) == said


def test_no_table():
    assert read_installed([{"table": {"family": "ip", "name": "portknock"}}]) is None
    assert read_installed([{"table": {"family": "inet", "name": "portknock"}}]) is not None
    assert absent_text(None) == ""
    assert absent_text(read_installed(recorded("1.0.6"))) == "delete table inet portknock\n"


def removals(table, installed):
    text = change_text(load_text(table).text, installed)
    return [line for line in text.splitlines() if line.split(" ")[0] in ("delete", "flush")]


def test_what_is_not_needed_any_more_goes():
    installed = read_installed(recorded("1.0.6"))
    doors = [dict(RECORDED["doors"][0], name="other", knock=["7000"], close=[])]
    gone = removals(of(doors=doors), installed)
    assert gone[0] == "flush table inet portknock"
    assert {
        "delete set inet portknock " + name for name in ("open4_ssh", "open6_ssh", "progress4", "progress6")
    } <= set(gone)
    assert {"delete chain inet portknock wrong", "delete chain inet portknock knock5"} <= set(gone)


def test_who_has_knocked_and_who_is_in_the_middle_of_a_knock_stays():
    installed = read_installed(recorded("1.0.6"))
    assert removals(of(policy="accept"), installed) == ["flush table inet portknock"]
    more = of(doors=[dict(RECORDED["doors"][0], name="new", knock=["4000", "9100/udp"], close=[]), *RECORDED["doors"]])
    assert removals(more, installed) == ["flush table inet portknock"]


def test_a_knock_in_progress_of_a_knock_that_is_another_now_is_forgotten():
    installed = read_installed(recorded("1.0.6"))
    other = of(doors=[dict(RECORDED["doors"][0], knock=["7000", "9100/udp", "3101"]), RECORDED["doors"][1]])
    gone = [line.rsplit(" ", 1)[1] for line in removals(other, installed) if " set " in line]
    assert gone == [], "others stay in the middle of theirs"
    before, after = (set(re.findall(r"\| (0x\w+) \}", load_text(table).text)) for table in (of(), other))
    assert len(before - after) == len(after - before) == 2, "nothing asks for those who knocked as it was"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("k{0:06x}1{1}", "ipv{1}_addr"), ("stage{1}_{0:08x}", ["ipv{1}_addr", "inet_proto", "inet_service"])],
)
def test_a_table_with_a_set_for_each_stage_is_changed_at_once(name, kind):
    """As earlier releases had it: who is in stays in, and knocks in progress begin anew."""
    items, old = recorded("1.0.6"), []
    for item in list(items):
        found = STAGE_SETS.match(item.get("set", {}).get("name", ""))
        if found:
            items.remove(item)
            for number in range(3):
                old.append(name.format(number, found.group()[-1]))
                types = json.loads(json.dumps(kind).replace("{1}", found.group()[-1]))
                items.append({"set": dict(item["set"], name=old[-1], type=types)})
    gone = removals(recorded_table(), read_installed(items))
    assert gone[0] == "flush table inet portknock"
    assert sorted(gone[1:]) == sorted(f"delete set inet portknock {each}" for each in old)
    assert len(set(old)) == 6
    told = drift(read_text(load_text(recorded_table()).text), read_installed(items))
    assert told == [
        "a set of knocks in progress is missing",
        "a set of knocks in progress is not one of the collection's",
    ]


def test_where_knocks_in_progress_are_grouped_otherwise_all_are_forgotten():
    installed = read_installed(recorded("1.0.6"))
    slower = of(doors=[dict(RECORDED["doors"][0], step_timeout=60), RECORDED["doors"][1]])
    gone = [line.rsplit(" ", 1)[1] for line in removals(slower, installed)[1:]]
    assert set(gone) == {"progress4", "progress6", "stages4", "stages6"}
    assert all(line.startswith("flush set") for line in removals(slower, installed)[1:])


def test_a_set_of_another_type_is_made_anew():
    items = [
        {"set": dict(item["set"], type="mark")} if item.get("set", {}).get("name") == "open4_ssh" else item
        for item in recorded("1.1.3")
    ]
    assert "delete set inet portknock open4_ssh" in removals(of(), read_installed(items))


@pytest.mark.parametrize("release", RELEASES)
def test_who_has_knocked(release):
    found = read_elements(recorded(release), "open4_ssh")
    assert [str(element.source) for element in found] == ["10.1.2.3", "192.0.2.7"]
    assert 10 < found[1].seconds <= 15
    assert 3590 < found[0].seconds <= 3600
    assert [str(element.source) for element in read_elements(recorded(release), "open6_ssh")] == ["2001:db8::"]
    assert read_elements(recorded(release), "open4_other") == []


def test_who_has_knocked_is_put_back():
    (one, *_others) = read_elements(recorded("1.0.6"), "open4_ssh")
    assert add_text("open4_ssh", [one, Element(one.source + 1, 0)]) == (
        f"add element inet portknock open4_ssh {{ 10.1.2.3 timeout {one.seconds}s, 10.1.2.4 timeout 1s }}\n"
    )
    assert add_text("open4_ssh", []) == ""
