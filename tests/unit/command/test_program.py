# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``portknock``: its command line, its exit codes, and the file that it is."""

import io
import os
import subprocess
import sys

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._command import install, program
from ansible_collections.sesame.portknock.plugins.module_utils._command.manual import completion, manual
from ansible_collections.sesame.portknock.plugins.module_utils._command.parser import parser
from ansible_collections.sesame.portknock.plugins.module_utils._command.verbs import VERBS
from ansible_collections.sesame.portknock.plugins.module_utils._paths import COMMAND, COMPLETION, MANUAL, PENDING
from module_run import DOOR, run
from story import IDENT, NEW_SSH, OLD_SSH, TIMEOUT, Story

WRONG = {
    "nothing": [],
    "no such verb": ["nonsense"],
    "no such flag": ["status", "--force"],
    "a word too many": ["confirm", "now"],
}


@pytest.mark.parametrize("words", WRONG.values(), ids=list(WRONG))
def test_a_wrong_command_line_is_one_line_and_code_2(words, console):
    console.host.frozen = True
    code, out, err = console.run(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("portknock: ") and err.endswith(" --help\n")


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", b"f\\xfcr \\udcff\n"), ("utf-8", b"f\xc3\xbcr \\udcff\n")])
def test_a_terminal_that_lacks_a_letter(encoding, shown, monkeypatch):
    """Of a rule's comment, or of bytes in a file that are no UTF-8."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    program._say("f\u00fcr \udcff")
    assert written.getvalue() == shown


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS])
def test_another_user_is_told_so(verb, console):
    console.host.root = False
    console.host.frozen = True
    words = [argument.name for argument in _verb(verb).arguments if not argument.is_flag]
    assert console.run(verb, *words) == (
        77,
        "",
        "portknock: this needs root. Log in as root, or put sudo in front of it.\n",
    )


def _verb(name):
    return next(verb for verb in VERBS if verb.name == name)


def test_help_needs_no_root(console):
    console.host.root = False
    code, out, err = console.run("--help")
    assert (code, err) == (0, "")
    assert all(verb.name in out and verb.summary.split()[0] in out for verb in VERBS)


def test_every_verb_can_be_done():
    assert set(program._VERBS) == {verb.name for verb in VERBS}


# A pending change


@pytest.fixture
def story(console):
    made = Story("another door")
    made.apply()
    made.host.ssh = None
    console.host = made.host
    return made


def test_rollback(console, story):
    line = "pending: a change by me@here is undone in {0} s unless it is confirmed".format(TIMEOUT - 1)
    assert line in console.out("status")
    assert console.out("rollback") == ["The change was rolled back: it was asked for on the host."]
    story.assert_old()
    assert console.run("confirm") == (
        1,
        "",
        "portknock: No change is pending. The last one: The change was rolled back: it was asked for on the host.\n",
    )


def test_confirm_at_the_console(console, story):
    assert console.out("confirm") == ["The change is confirmed and kept."]
    story.assert_new()


@pytest.mark.parametrize(("ssh", "code"), [(OLD_SSH, 1), (NEW_SSH, 0)])
def test_confirm_over_ssh_needs_a_new_connection(ssh, code, console, story):
    console.host.ssh = ssh
    done, out, err = console.run("confirm")
    assert done == code
    if code:
        assert (out, err) == (
            "",
            "portknock: This connection is older than the change, so it proves nothing. Nothing was done.\n",
        )
        assert story.guard.pending().id == IDENT
    else:
        story.assert_new()


@pytest.mark.parametrize("verb", ["confirm", "rollback"])
def test_nothing_is_pending(verb, console):
    run(console.host, doors=[DOOR])
    code, out, err = console.run(verb)
    assert (code, out) == (1, "")
    assert err == "portknock: No change is pending, and none was since the host was started.\n"


@pytest.mark.parametrize(("code", "out"), [(0, "The change was rolled back: as it says.\n"), (1, "It cannot.\n")])
def test_a_change_of_another_version_is_ended_by_its_own_program(code, out, console, story, monkeypatch):
    called = []
    console.host.files[PENDING] = ('{"version": 99}', 0o600)
    monkeypatch.setattr(program, "call_its_program", lambda _host, *words: called.append(words) or (code, out, ""))
    said = console.run("rollback")
    assert said == ((0, out, "") if code == 0 else (1, "", "portknock: " + out))
    assert called == [("rollback",)] and story.guard


# The file


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The command as it lies on a host."""
    path = tmp_path_factory.mktemp("host") / "portknock"
    texts = install.program({"persist": True}).build(sys.executable)
    assert set(texts) == {COMMAND, COMPLETION, MANUAL}
    path.write_bytes(texts[COMMAND].encode("utf-8", "surrogateescape"))
    path.chmod(0o755)
    return path


def test_it_runs_on_plain_python(built):
    # Python 3.6 has no capture_output.
    done = subprocess.run([str(built), "--help"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.decode().startswith("usage: portknock ")


NEEDED = """
import ast, os, sys, zipfile
PREFIX = "ansible_collections.sesame.portknock.plugins.module_utils."
names = {name[:-3].replace("/", ".") for name in zipfile.ZipFile(sys.argv[1]).namelist() if name.endswith(".py")}
root = sys.argv[2]
place = lambda name: root + "/" + name.replace(".", "/") + ".py"
needed, left = set(), {PREFIX + "_command.program"}
while left:
    name = left.pop()
    needed.add(name)
    with open(place(name), encoding="utf-8") as stream:
        tree = ast.parse(stream.read())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PREFIX[:-1]):
            found = [node.module] + [node.module + "." + each.name for each in node.names]
            left |= {each for each in found if os.path.isfile(place(each))} - needed
print(sorted(needed - names))
"""


def test_all_that_it_may_import_is_in_it(built):
    """Also what is imported late."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    words = [sys.executable, "-c", NEEDED, str(built), os.path.join(root, ".build")]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.stdout.decode() == "[]\n"


# What is made of the same words


def test_the_manual_says_what_the_help_says():
    text = " ".join(manual().replace("\\-", "-").split())
    for verb in VERBS:
        assert " ".join(verb.text.split()) in text and verb.summary[1:] in text
        for argument in verb.arguments:
            assert argument.name in text and argument.help in text
    assert not [line for line in manual().splitlines() if line.startswith("'")]


def test_the_completion(tmp_path):
    path = tmp_path / "completion"
    path.write_text(completion())
    script = '. "$1"; COMP_WORDS=(portknock "${@:2}"); COMP_CWORD=$(($# - 1)); _portknock; echo "${COMPREPLY[*]}"'

    def completed(*words):
        done = subprocess.run(["bash", "-c", script, "bash", str(path), *words], stdout=subprocess.PIPE, check=True)
        return done.stdout.decode().split()

    assert completed("") == [verb.name for verb in VERBS] + ["--help"]
    assert completed("con") == ["confirm"]
    assert completed("status", "--") == ["--json", "--check", "--help"]


def test_the_parser_knows_what_the_words_say():
    for verb in VERBS:
        words = [word for argument in verb.arguments for word in argument.name.split()]
        assert parser().parse_args([verb.name, *words]).verb == verb.name


def test_what_a_run_may_do_to_other_firewalls_is_not_kept():
    """Else a host whose firewall went with the first run would be changed once more by the next, which need not say so."""
    wanted = [install.program({"persist": True, "conflicting_firewall": word}) for word in ("fail", "disable")]
    assert wanted[0].options == wanted[1].options == {"persist": True}
