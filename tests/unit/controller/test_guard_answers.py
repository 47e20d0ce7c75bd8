# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of the host about a change, in any shell, and what is read in what it prints."""

import contextlib
import json
import shlex
import shutil
import subprocess

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible_collections.sesame.portknock.plugins.module_utils._change import record as _transaction
from ansible_collections.sesame.portknock.plugins.module_utils._change.record import MARK
from ansible_collections.sesame.portknock.plugins.module_utils._host.files import Filesystem
from ansible_collections.sesame.portknock.plugins.module_utils._host.processes import Processes
from ansible_collections.sesame.portknock.plugins.module_utils._paths import LAST, PROGRAM, SPARE_PROGRAM
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard import answers
from ansible_collections.sesame.portknock.plugins.plugin_utils._guard.answers import TryError, command, read_answer
from ansible_collections.sesame.portknock.plugins.plugin_utils.any_shell import for_any_shell
from guard_answers import IDENT, LATE
from hypothesis import given
from hypothesis import strategies as st


def test_both_halves_speak_of_the_same():
    assert answers.MARK == MARK
    assert answers.CONFIRMED == _transaction.CONFIRMED
    assert answers.ROLLED_BACK == _transaction.ROLLED_BACK


LECTURE = "We trust you have received the usual lecture.\n  #1) Respect the privacy of others.\n"
TEXTS = [
    ("alone", MARK + json.dumps(LATE) + "\n", LATE),
    ("a lecture before", LECTURE + MARK + json.dumps(LATE), LATE),
    ("a farewell behind", MARK + json.dumps(LATE) + "\nBye.\n", LATE),
    ("no newline before", "motd without an end " + MARK + json.dumps(LATE) + "\n", LATE),
    ("a terminal", "hello\r\n" + MARK + json.dumps(LATE) + "\r\n", LATE),
    ("the shell echoes", command("confirm", IDENT) + "\n" + MARK + json.dumps(LATE) + "\n", LATE),
    ("nothing", "", None),
    ("noise alone", LECTURE, None),
    ("cut off", MARK + json.dumps(LATE)[:20], None),
    ("the echo alone", command("confirm", IDENT) + "\n", None),
    ("no object", MARK + "[1]\n", None),
    ("no outcome", MARK + "{}\n", None),
]


@pytest.mark.parametrize(("text", "answer"), [item[1:] for item in TEXTS], ids=[item[0] for item in TEXTS])
def test_the_answer_is_found(text, answer):
    if answer is None:
        with pytest.raises(TryError, match="did not answer"):
            read_answer(text, IDENT)
    else:
        assert read_answer(text, IDENT) == answer


@pytest.mark.slow
@given(st.text(max_size=40), st.text(max_size=40), st.integers(0, 80))
def test_whatever_comes_it_is_an_answer_or_a_failed_try(before, behind, cut):
    text = before + "\n" + (MARK + json.dumps(LATE))[:cut] + "\n" + behind
    with contextlib.suppress(TryError):
        assert "outcome" in read_answer(text, IDENT)


BOOT = "0b1c2d3e-0000-4000-8000-0123456789ab"


@pytest.mark.parametrize(
    ("text", "boot"),
    [
        (f"{MARK}unknown {BOOT} 4711\n", f"{BOOT} 47.11"),
        (f"{MARK}unknown {BOOT} 20\r\n", f"{BOOT} 0.2"),
        (f"{MARK}unknown\n", ""),
        (f"{MARK}unknown \n", ""),
    ],
)
def test_a_host_that_knows_nothing_says_which_boot_it_is_of(text, boot):
    """In the words of the record, whose second part is a number of seconds as Python writes it."""
    assert read_answer(text, IDENT) == {"outcome": "unknown", "boot": boot}


@pytest.mark.parametrize("text", [f"{MARK}unknown $(cat boot_id)", f"{MARK}unknown {BOOT} x", f"{MARK}unknownish"])
def test_what_is_no_word_about_the_boot(text):
    with pytest.raises(TryError):
        read_answer(text, IDENT)


def _shells():
    """The shells of this machine; bin/test installs those that are missing here for the tests of the wire."""
    return [name for name in ("sh", "bash", "zsh", "csh", "tcsh", "fish") if shutil.which(name)]


def elsewhere(folder):
    """The command, on a host whose files lie below a folder."""
    text = command("confirm", IDENT)
    for path in (SPARE_PROGRAM, LAST, PROGRAM):
        assert path in text
        text = text.replace(path, f"{folder}{path}")
    return text


@pytest.mark.parametrize("shell", _shells())
def test_the_command_on_a_host_that_was_restarted(shell):
    text = elsewhere("/nonexistent")
    done = subprocess.run([shell, "-c", text + " && sleep 0"], capture_output=True, text=True, check=True)
    answer = read_answer(done.stdout, IDENT)
    assert answer["outcome"] == "unknown"
    assert answer["boot"] == Processes(Filesystem(None)).boot(), "the controller compares it with what the record says"


@pytest.mark.parametrize("shell", _shells())
def test_the_command_calls_the_program(shell, tmp_path):
    """By what its first line names, whatever stands behind that."""
    for place in (SPARE_PROGRAM, PROGRAM):
        path = tmp_path / place[1:]
        path.parent.mkdir(parents=True)
        path.write_bytes(f'#!/bin/sh -u\necho "{MARK}" {place} "$@"; echo Bye; exit\nPK\0\1'.encode())
        text = elsewhere(tmp_path)
        done = subprocess.run([shell, "-c", text + " && sleep 0"], capture_output=True, text=True, check=True)
        assert done.stdout == f"{MARK} {place} confirm --json {IDENT}\nBye\n"


@pytest.mark.parametrize("shell", _shells())
def test_a_change_of_release_1_0_0_is_asked_for_by_its_script(shell, tmp_path):
    path = tmp_path / PROGRAM[1:]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK\0\1\n")
    (path.parent / "confirm").write_text(f'#!/bin/sh\necho "{MARK}" "$@"\n')
    done = subprocess.run([shell, "-c", elsewhere(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{MARK} --json {IDENT}\n"


NO_PYTHON = "#!/nonexistent/python3 -ISB\n"


@pytest.mark.parametrize("shell", _shells())
def test_a_program_that_cannot_be_run(shell, tmp_path):
    """Python is gone: sh says so; and where only one copy of the program is broken, the other one answers."""
    for place in (PROGRAM, SPARE_PROGRAM):
        path = tmp_path / place[1:]
        path.parent.mkdir(parents=True)
        path.write_text(NO_PYTHON)
    done = subprocess.run([shell, "-c", elsewhere(tmp_path)], capture_output=True, text=True, check=True)
    answer = read_answer(done.stdout, IDENT)
    assert answer["outcome"] == answers.NOT_RUN
    assert answer["why"].startswith(answers.PROGRAM_NOT_RUN + " (")
    assert "/nonexistent/python3" in answer["why"]
    (tmp_path / SPARE_PROGRAM[1:]).write_text(f"#!/bin/sh\nprintf '%s\\n' '{MARK}{json.dumps(LATE)}'\n")
    done = subprocess.run([shell, "-c", elsewhere(tmp_path)], capture_output=True, text=True, check=True)
    assert read_answer(done.stdout, IDENT) == LATE


@pytest.mark.parametrize("shell", _shells())
def test_the_word_of_the_last_way_where_no_program_can_be_run(shell, tmp_path):
    for path, text in (
        (tmp_path / PROGRAM[1:], NO_PYTHON),
        (tmp_path / LAST[1:], json.dumps(dict(LATE, id=IDENT))),
    ):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    done = subprocess.run([shell, "-c", elsewhere(tmp_path)], capture_output=True, text=True, check=True)
    assert read_answer(done.stdout, IDENT) == dict(LATE, id=IDENT)


def test_what_a_broken_python_says_is_not_shown_at_length():
    answer = read_answer(f"{MARK}{answers.NOT_RUN}: {'x' * 999} ModuleNotFoundError: No module named json.\n", IDENT)
    assert answer["why"].endswith(" ModuleNotFoundError: No module named json)")
    assert len(answer["why"]) < 300
    assert read_answer(f"{MARK}{answers.NOT_RUN}: \n", IDENT)["why"] == answers.PROGRAM_NOT_RUN


@pytest.mark.parametrize("shell", _shells())
@pytest.mark.parametrize(("ident", "outcome"), [(IDENT, "rolled_back"), ("another", "unknown")])
def test_how_the_change_ended_outlives_the_program(shell, ident, outcome, tmp_path):
    path = tmp_path / LAST[1:]
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(dict(LATE, id=ident, why='a "why" with \\n in it')))
    done = subprocess.run([shell, "-c", elsewhere(tmp_path)], capture_output=True, text=True, check=True)
    assert read_answer(done.stdout, IDENT)["outcome"] == outcome


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_a_script_that_not_every_shell_understands_is_refused(script):
    if set(script) & set("'!\\"):
        with pytest.raises(ValueError, match="not every shell"):
            for_any_shell(script)
    else:
        assert shlex.split(for_any_shell(script)) == ["/bin/sh", "-c", script]


@pytest.mark.parametrize("script", ["two\nlines", "two\rlines"])
def test_a_script_has_one_line(script):
    with pytest.raises(ValueError, match="not every shell"):
        for_any_shell(script)
