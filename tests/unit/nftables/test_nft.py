# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command nft as the collection calls it, and what it says when it refuses."""

import re
import subprocess

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.build import build_table
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.installed import drift
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.nft import Nft
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.text import (
    absent_text,
    change_text,
    load_text,
    read_text,
)
from ansible_collections.sesame.portknock.plugins.module_utils._redact import readable_table, without_lines
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_nft import FakeNft
from hypothesis import given
from nft_options import A_FIFTH, OPTIONS, RECORDED, recorded_table, spec_of
from shown_steps import steps_in

TEXT = load_text(recorded_table()).text


def nft_with(fake):
    return Nft(fake.run, fake.find)


@A_FIFTH
@given(OPTIONS, OPTIONS)
def test_a_table_in_place_of_another_leaves_nothing_of_it(one, other):
    fake = FakeNft()
    nft = nft_with(fake)
    assert nft.installed() is None
    for options in (one, other, one):
        text = load_text(build_table(spec_of(options))).text
        nft.load(change_text(text, nft.installed()))
        assert drift(read_text(text), nft.installed()) == []
    nft.load(absent_text(nft.installed()))
    assert nft.installed() is None


def test_back_again_with_the_text_of_before():
    """As undoing does it: from the text alone, whatever is installed by then."""
    fake = FakeNft()
    nft = nft_with(fake)
    nft.load(change_text(TEXT, None))
    doors = [dict(RECORDED["doors"][0], name="new", knock=["1", "9", "4"])]
    nft.load(change_text(load_text(build_table(spec_from_options({"doors": doors}))).text, nft.installed()))
    assert drift(read_text(TEXT), nft.installed()) != []
    nft.load(change_text(TEXT, nft.installed()))
    assert drift(read_text(TEXT), nft.installed()) == []


def test_to_check_changes_nothing():
    fake = FakeNft()
    nft_with(fake).load(TEXT, only_check=True)
    assert fake.loaded == []
    assert not fake.exists


def test_a_refusal_shows_no_step():
    with pytest.raises(HostError) as caught:
        nft_with(FakeNft(refuses="delete @stages")).load(TEXT)
    line = next(number for number, line in enumerate(TEXT.splitlines(), 1) if "delete @stages" in line)
    assert str(caught.value) == (
        "nft refused the table, and changed nothing: "
        f"line {line}: Error: Could not process rule: Operation not supported."
    )


def test_what_a_kernel_does_not_have_is_named():
    with pytest.raises(HostError) as caught:
        nft_with(FakeNft(refuses="delete @")).check(TEXT)
    assert (
        "does not have what engine nftables needs: rules that take a source out of a set (Linux 5.4). Nothing"
        in str(caught.value)
    )
    with pytest.raises(HostError, match="nft refused the table, and changed nothing: line [0-9]+: Error: Could not"):
        nft_with(FakeNft(refuses="add chain inet portknock knocks")).check(TEXT)
    with pytest.raises(HostError, match="needs: sets of sources beside a number. Nothing"):
        nft_with(FakeNft(refuses=" . meta mark & ")).check(TEXT)
    nft_with(FakeNft()).check(TEXT)


@pytest.mark.parametrize(
    ("refuses", "said"),
    [
        ("flush table inet portknock", "nft refused the table, and changed nothing: line 2: Error: Could not"),
        ("reject with icmpx", "to refuse in a table of both IP versions"),
        ("add chain inet portknock knocks", ""),
    ],
)
def test_of_a_very_long_text_it_is_asked_what_it_needs(refuses, said):
    """To check it whole would take as long as to load it, which nft does wholly or not at all."""
    fake = FakeNft(refuses=refuses)
    if said:
        with pytest.raises(HostError, match=said):
            nft_with(fake).check(TEXT + "\n" * 10000)
    else:
        nft_with(fake).check(TEXT + "\n" * 10000)
    assert not fake.exists


@pytest.mark.parametrize(
    ("err", "said"),
    [
        ("/dev/stdin:3:26-33: Error: No such file\nflush map 7000\n    ^^^^\n", "line 3: Error: No such file"),
        ("Error: Operation not permitted\nadd rule 9100\n", "Error: Operation not permitted"),
        ("internal:0:0-0: Error: no\n" * 2, "line 0: Error: no"),
        ("Segmentation fault 7000", "it did not say why"),
    ],
)  # fmt: skip
def test_what_nft_quotes_is_left_out(err, said):
    assert without_lines(err) == said


def test_a_listing_that_is_none_is_told():
    """As nft 1.0.6 prints a table that a program owns: it has no word for that flag."""
    out = '{"nftables": [{"table": {"family": "inet", "name": "portknock", "flags": \x01}}]}'
    with pytest.raises(HostError, match="printed no JSON, .* where a running program owns a table. Stop that program"):
        Nft(lambda _words, _text: (0, out, ""), FakeNft().find).installed()


@pytest.mark.parametrize(
    ("version", "taken"), [("0.9.2", False), ("0.9.3", True), ("0.9.8", True), ("1.1", True), ("2", False)]
)
def test_versions(version, taken):
    nft = nft_with(FakeNft(version))
    if taken:
        nft.check_version()
    else:
        with pytest.raises(HostError, match=r"older than 0\.9\.3" if version != "2" else "does not say a version"):
            nft.check_version()


@pytest.mark.parametrize(
    ("script", "lets_in"),
    [
        ('case "$*" in "list tables") ;; *) echo "table inet portknock {" ;; esac', True),
        ('case "$*" in "list tables") ;; *) exit 1 ;; esac', True),
        ('case "$*" in "list tables") ;; *) echo "drop comment \\"portknock:0123 refuse\\"" ;; esac', False),
        ("exit 1", False),
        (None, False),
    ],
    ids=["emptied", "no table", "rules are left", "nft fails", "nft is gone"],
)
def test_whether_it_lets_all_in_as_sh_sees_it(tmp_path, script, lets_in):
    path = tmp_path / "nft"
    if script is not None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    words = Nft(FakeNft().run, lambda _name: str(path)).lets_in_words()
    done = subprocess.run(["sh", "-c", " && ".join(words)], stderr=subprocess.DEVNULL, check=False)
    assert (done.returncode == 0) is lets_in


def test_no_command():
    nft = Nft(FakeNft().run, lambda _name: None)
    assert not nft.is_there
    with pytest.raises(HostError, match="Install the package nftables"):
        nft.installed()


def test_a_listing_that_cannot_be_read_is_an_error():
    with pytest.raises(HostError, match="'nft -j list tables' failed: Error: no. Nothing was changed."):
        Nft(lambda _words, _text: (1, "", "Error: no"), lambda name: name).installed()


# For people


@A_FIFTH
@given(OPTIONS)
def test_no_step_in_what_people_read(options):
    text = load_text(build_table(spec_of(options))).text
    readable = readable_table(text)
    steps = [step for door in options["doors"] for step in (*door["knock"], *door["close"])]
    assert not steps or steps_in(steps, readable) == []
    assert not re.search(r"stage|0x[0-9a-f]+", readable)
    assert "portknock:" not in readable
    for each in options["doors"]:
        assert f"knocks: door {each['name']}: step 1 of {len(each['knock'])}\n" in readable or each["sources"]


def test_the_readable_table_says_the_same_wherever_the_steps_are():
    """So a guess at the steps cannot be checked against it."""

    def readable(*knock):
        door = {"name": "ssh", "knock": list(knock), "opens": ["22"]}
        return readable_table(load_text(build_table(spec_from_options({"doors": [door]}))).text)

    assert readable("7000", "9100", "3100") == readable("60001", "123", "40000")
    assert "service1: ip saddr @open4_ssh counter accept # door ssh: accept sources that have knocked\n" in readable(
        "1"
    )
