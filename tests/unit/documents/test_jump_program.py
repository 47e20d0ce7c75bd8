# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program with which ssh goes through a jump host that knocks (playbooks/files/portknock-jump.sh), with an ssh that is none."""

import os
import shutil
import subprocess

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._client.answers import DOWN, MEANINGS, PERHAPS, UNKNOWN

PATH = os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "playbooks", "files", "portknock-jump.sh"
)
# Writes down how it was called. It runs what it is to run at the jump host, or says at once what that would say, and connects
# in the try that is asked for.
SSH = """#!/bin/sh
printf '%s\\n' "$*" >>"$HERE/calls"
case $* in
    *"-W "*)
        echo connected >>"$HERE/tries"
        if [ "$(wc -l <"$HERE/tries")" -ge "$OPENS" ]; then echo banner; cat; exit "$ENDS"; fi
        echo "channel 0: open failed: $REASON" >&2
        echo 'stdio forwarding failed' >&2
        exit 255 ;;
    *)
        [ -n "$RUNS" ] || { cat >/dev/null; echo "portknock: $ANSWER"; exit; }
        for word; do last=$word; done
        sh -c "$last" ;;
esac
"""
# As jump_script() makes them: what Python runs, the mark, what bash runs.
SCRIPT = "print('portknock: {0}')\n#-- bash\necho 'portknock: {0}'\n"


@pytest.fixture
def program(tmp_path):
    """Return a function that runs the program and returns what it did, and the calls of ssh."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "ssh").write_text(SSH)
    (tools / "ssh").chmod(0o755)
    shutil.copy(PATH, str(tmp_path))
    (tmp_path / "jumps").mkdir()

    def run(*words, said="sent", opens=1, ends=0, reason="connect failed: Connection refused", runs=""):
        (tmp_path / "jumps" / "web1").write_text(SCRIPT.format(said))
        environment = dict(
            os.environ, HERE=str(tmp_path), OPENS=str(opens), ENDS=str(ends), REASON=reason, RUNS=runs, ANSWER=said,
            PATH=f"{tools}:{os.environ['PATH']}",
        )  # fmt: skip
        with subprocess.Popen(
            ["/bin/sh", str(tmp_path / "portknock-jump.sh"), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=environment,
        ) as process:  # fmt: skip
            said, complained = process.communicate(b"to the host\n", 100)
        calls = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
        return (process.returncode, said.decode(), complained.decode()), calls

    return run


def test_it_knocks_by_the_jump_host_and_connects_through_it(program):
    done, calls = program("web1", "192.0.2.7", "22", "-p", "2200", "--", "bastion", runs="yes")
    assert done == (0, "banner\nto the host\n", "")
    assert len(calls) == 2
    assert calls[0].startswith("-o ClearAllForwardings=yes ")
    assert " -p 2200 -- bastion exec sh -c " in calls[0]
    assert calls[1] == "-o LogLevel=INFO -W 192.0.2.7:22 -p 2200 -- bastion"


def test_an_ipv6_address(program):
    _done, calls = program("web1", "fd00::7", "22", "bastion")
    assert calls[1] == "-o LogLevel=INFO -W [fd00::7]:22 bastion"


def test_a_knock_that_got_lost_is_sent_again_and_nothing_of_the_input_is_lost(program):
    done, calls = program("web1", "192.0.2.7", "22", "bastion", opens=3)
    assert done == (0, "banner\nto the host\n", "")
    assert len(calls) == 6


AGAIN = " Has the knock changed? Then run the playbook sesame.portknock.client_config again."


@pytest.mark.parametrize(
    ("reason", "knocks", "text"),
    [
        ("connect failed: Connection refused", "3 knocks", MEANINGS[PERHAPS] + "." + AGAIN),
        ("connect failed: Connection timed out", "3 knocks", MEANINGS[UNKNOWN] + "." + AGAIN),
        ("connect failed: No route to host", "3 knocks", MEANINGS[DOWN] + "."),
        ("connect failed: Network is unreachable", "3 knocks", "the jump host has no route to it."),
        ("connect failed: Name or service not known", "3 knocks", "the jump host finds no address of this name."),
        (
            "no reason", "3 knocks",
            "the jump host could not connect to it, perhaps because the host did not accept the knock." + AGAIN,
        ),
        (
            "administratively prohibited: open failed", "1 knock",
            "the jump host does not let ssh connect from it (AllowTcpForwarding, PermitOpen).",
        ),
    ],
)  # fmt: skip
def test_what_is_said_when_it_does_not_open(program, reason, knocks, text):
    done, _calls = program("web1", "192.0.2.7", "22", "bastion", opens=9, reason=reason)
    assert done == (
        255, "", f"portknock: no connection to port 22 of 192.0.2.7 after {knocks} by the jump host: {text}\n"
    )  # fmt: skip


def test_a_connection_that_was_open_is_not_made_again(program):
    done, calls = program("web1", "192.0.2.7", "22", "bastion", ends=255)
    assert (done[0], len(calls)) == (255, 2)


@pytest.mark.parametrize(
    ("words", "said", "message"),
    [
        (["web1", "h", "22", "bastion"], "no route", "portknock: the jump host did not knock at h: no route\n"),
        (["web1", "h", "22"], "sent", "portknock: usage: portknock-jump.sh NAME HOST PORT ARGUMENT_OF_SSH...\n"),
    ],
)
def test_no_knock_no_connection(program, words, said, message):
    done, calls = program(*words, said=said, runs="yes")
    assert done == (255, "", message)
    assert not [call for call in calls if "-W" in call]


def test_a_host_that_is_not_known(program, tmp_path):
    done, _calls = program("web2", "h", "22", "bastion")
    assert done[2] == (
        "portknock: web2 is not in {0}/jumps. Run the playbook sesame.portknock.client_config again.\n".format(tmp_path)
    )
