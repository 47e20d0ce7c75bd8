# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program for OpenSSH on Windows (playbooks/files/portknock-connect.ps1), as far as it can be looked at without PowerShell."""

import os
import re

import pytest

pytest.importorskip("ansible", reason="the grammar of PowerShell is installed on Pythons of a controller alone")

import tree_sitter
import tree_sitter_powershell
from ansible_collections.sesame.portknock.plugins.module_utils._client.answers import (
    DOWN,
    HUNG_UP,
    MEANINGS,
    MUTE,
    NO_ROUTE,
    PERHAPS,
    UNKNOWN,
)
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import ENGINES, SETTLE

PATH = os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "playbooks", "files", "portknock-connect.ps1"
)
with open(PATH, "rb") as stream:
    DATA = stream.read()
TEXT = DATA.decode("ascii")


def nodes(data):
    """Return all nodes of a script's syntax tree."""
    found = [tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language())).parse(data).root_node]
    for node in found:
        found += node.children
    return found


def problems(data):
    """Return the lines that are no PowerShell, or none that 5.1 knows."""
    code = [node for node in nodes(data) if node.type not in ("comment", "string_literal")]
    wrong = [node for node in code if node.is_error or node.is_missing]
    wrong += [node for node in code if node.type in ("&&", "||", "??", "?.", "ternary_expression")]
    return sorted({node.start_point[0] + 1 for node in wrong})


def test_the_syntax_is_that_of_powershell_5():
    assert problems(DATA) == []


@pytest.mark.parametrize("line", ["if ($a {", "foreach ($a in $b) { $a", "$a = @(1, 2", "a && b"])
def test_the_check_sees_what_is_wrong(line):
    assert problems(line.encode()) != []


def defined():
    return set(re.findall(r"^function ([\w-]+)", TEXT, re.M))


def test_every_function_that_is_called_is_there_and_every_one_is_called():
    names = [node for node in nodes(DATA) if node.type == "command_name"]
    called = {node.text.decode() for node in names}
    known = {"Set-StrictMode", "Join-Path", "New-Object", "Start-Sleep"}
    assert called - known == defined()


def test_no_variable_is_read_that_is_never_set():
    words = {word.lower() for word in re.findall(r"\$(?:script:)?(\w+)", re.sub(r"(?m)^\s*#.*$", "", TEXT))}
    given = {word.lower() for word in re.findall(r"\$(?:script:)?(\w+)(?=\s*=[^=]|,? \$?\w* ?=[^=])", TEXT)}
    given |= {word.lower() for word in re.findall(r"\[[\w.\[\]]+\]\s*\$(\w+)", TEXT)}
    given |= {
        word.lower() for word in re.findall(r"foreach \(\$(\w+) in|[(,] ?\$(\w+)[,)]", TEXT) for word in word if word
    }
    automatic = {"null", "true", "false", "_", "psscriptroot"}
    assert words - given - automatic == set()


def test_the_engines_are_those_of_the_other_programs():
    assert {name for name, traits in ENGINES.items() if traits.keeps_broken_knocks} == {"knockd"}
    assert "$words[1] -ceq 'knockd'" in TEXT
    assert f"if ($keeps) {{ $settle = {SETTLE * 1000:g}; $tries = {ENGINES['knockd'].tries} }}" in TEXT
    assert f"$tries = {ENGINES['iptables'].tries}\n" in TEXT


def test_the_words_are_those_of_the_other_programs():
    meanings = re.findall(r"^        '(\w+)' \{ return '(.*)' \}$", TEXT, re.M)
    wanted = {
        "ConnectionRefused": PERHAPS, "TimedOut": UNKNOWN, "HostUnreachable": DOWN, "HostDown": DOWN,
        "NetworkUnreachable": NO_ROUTE, "Mute": MUTE, "HungUp": HUNG_UP,
    }  # fmt: skip
    assert dict(meanings) == {reason: MEANINGS[meaning] for reason, meaning in wanted.items()}


def test_what_it_says_on_standard_output_is_the_servers_alone():
    """ssh reads it: PowerShell writes there whatever a statement returns."""
    assert "Write-Host" not in TEXT and "Write-Output" not in TEXT and "[Console]::Out" not in TEXT
    assert TEXT.count("OpenStandardOutput()") == 1
