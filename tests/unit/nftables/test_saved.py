# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table in a file that an administrator saved the ruleset to, and what a boot loads of it."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.saved import own_blocks, with_own_blocks
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.unit import DROP_IN, closed_table, table_files
from ansible_collections.sesame.portknock.plugins.module_utils._paths import BOOT_SCRIPT, CLOSED_TABLE, TABLE_FILE, UNIT
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from nft_options import RECORDED

HEAD = "#!/usr/sbin/nft -f\nflush ruleset\n"
OTHERS = "table inet filter {\n\tchain input {\n\t\ttcp dport 80 accept\n\t}\n}\n"
SPEC = spec_from_options(RECORDED)


def ours(comment):
    return f'table inet portknock {{\n\tchain input {{\n\t\taccept comment "{comment} }} {{"\n\t}}\n}}\n'


@pytest.mark.parametrize("before", ["", ours("old"), ours("old") + ours("older")])
def test_what_a_save_took_along_goes_and_the_rest_stays(before):
    saved = HEAD + ours("new") + OTHERS
    assert own_blocks(saved) == (ours("new"),)
    assert with_own_blocks(saved, HEAD + before) == HEAD + before + OTHERS


def test_a_save_after_the_table_was_taken_out_gets_it_back():
    assert with_own_blocks(HEAD + OTHERS, HEAD + ours("old")) == HEAD + OTHERS + ours("old")


@pytest.mark.parametrize(
    "text", ["", OTHERS, "table inet portknock_2 {\n}\n", "table ip portknock {\n}\n", "# table inet portknock\n"]
)
def test_tables_of_others_are_none_of_ours(text):
    assert own_blocks(text) == ()
    assert with_own_blocks(text, text) == text


def test_a_block_that_is_not_closed_ends_with_the_text():
    assert with_own_blocks(OTHERS + ours("cut")[:40], OTHERS) == OTHERS


def test_what_is_kept():
    kept = table_files(SPEC, "the text\n", persist=True)
    assert kept[TABLE_FILE] == ("the text\n", 0o600)
    assert {path for path, (text, _mode) in kept.items() if text} == {
        TABLE_FILE,
        CLOSED_TABLE,
        DROP_IN,
        UNIT,
        BOOT_SCRIPT,
    }
    for secret in (TABLE_FILE, CLOSED_TABLE):
        assert kept[secret][1] == 0o600
    lost = table_files(SPEC, "the text\n", persist=False)
    assert {path for path, (text, _mode) in lost.items() if text} == {TABLE_FILE}
    gone = table_files(None, "", persist=False)
    # The other engines keep files of the same names.
    assert set(gone) == {TABLE_FILE, CLOSED_TABLE, DROP_IN}
    assert not any(text for text, _mode in gone.values())


def test_the_plainer_table_has_no_step_and_every_door():
    text = closed_table(SPEC)
    steps = {str(step.port) for door in SPEC.doors for step in door.knock}
    assert not steps & set(text.replace("-", " ").split())
    for door in SPEC.doors:
        for ports in door.opens:
            assert f"{ports.protocol} dport {ports.first}" in text
