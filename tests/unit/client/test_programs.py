# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two programs that ssh calls: what they say where no connection comes about, and that it is the same."""

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import threading

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._client import answers as _answers
from ansible_collections.sesame.portknock.plugins.module_utils._client import connect as _connect

FOLDER = os.path.dirname(os.path.abspath(_connect.__file__))
PROGRAMS = os.path.join(FOLDER, "..", "..", "..", "playbooks", "files")
BASH = os.path.join(PROGRAMS, "portknock-connect.sh")
STEPS = [(17005, "tcp"), (19100, "udp")]


@pytest.fixture
def program(tmp_path, monkeypatch):
    """The Python program as it lies on somebody's machine, imported."""
    for name in ("answers", "connect", "knock", "probe"):
        shutil.copy(os.path.join(FOLDER, f"{name}.py"), str(tmp_path / f"_{name}.py"))
    path = str(tmp_path / "portknock-connect.py")
    shutil.copy(os.path.join(PROGRAMS, "portknock-connect.py"), path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("portknock_connect", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    yield made
    for name in ("answers", "connect", "knock", "probe"):
        sys.modules.pop(f"_{name}", None)


def error(tries=4, **reasons):
    return _connect.NotOpenError(reasons, tries)


CHANGED = " Has the knock changed? Then run the playbook sesame.portknock.client_config again."


@pytest.mark.parametrize(
    ("verdicts", "tries", "said"),
    [
        ({"a": "closed"}, 4, f"after 4 knocks: {_answers.MEANINGS['closed']}.{CHANGED}"),
        ({"a": "no_listener"}, 1, f"after 1 knock: {_answers.MEANINGS['no_listener']}."),
        ({"a": "mute", "b": "mute"}, 2, f"after 2 knocks: {_answers.MEANINGS['mute']}."),
        (
            {"a": "down", "b": "perhaps"},
            2,
            f"after 2 knocks: a: {_answers.MEANINGS['down']}; b: {_answers.MEANINGS['perhaps']}.{CHANGED}",
        ),
    ],
)
def test_what_is_said(verdicts, tries, said, program, monkeypatch):
    monkeypatch.setattr(program, "why_not", lambda address, *_more: verdicts[address])
    failed = error(tries, **dict.fromkeys(verdicts, "refused"))
    assert program.explain(failed, "host", 22, STEPS, 1) == f"no connection to port 22 of host {said}"


@pytest.mark.parametrize(
    ("reason", "before", "answer", "pinged", "expected"),
    [
        ("refused", "refused", ("icmp 3/3", ""), False, "closed"),
        ("refused", "refused", ("reset", "icmp 3/3"), False, "no_listener"),
        ("timed out", "silent", ("silent", "silent"), True, "dropped"),
        ("timed out", "silent", ("silent", "silent"), False, "silent"),
        ("No route to host", "unreachable", ("unreachable", ""), False, "down"),
        ("No route to host", "unreachable", ("icmp 3/13 by 192.0.2.1", ""), False, "on_the_way"),
    ],
)
def test_what_is_looked_at_for_it(reason, before, answer, pinged, expected, program, monkeypatch):
    import _probe

    asked = []

    def compare(*words):
        asked.append(words)
        return answer

    monkeypatch.setattr(_probe, "compare", compare)
    monkeypatch.setattr(_probe, "local_address", lambda _address: "192.0.2.2")
    # true and false stand for a ping that is answered, and one that is not.
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda _words, **more: start(["true" if pinged else "false"], **more))
    assert program.why_not("192.0.2.7", reason, 22, STEPS, 30) == expected
    assert asked == [(("192.0.2.7", 22, "tcp"), STEPS, 30, "", before)]


def test_what_was_accepted_is_not_looked_at_again(program):
    assert program.why_not("192.0.2.7", _connect.MUTE, 22, STEPS, 30) == "mute"
    assert program.why_not("192.0.2.7", _connect.HUNG_UP, 22, STEPS, 30) == "hung_up"


@pytest.mark.parametrize(
    ("parent", "said", "seconds"),
    [
        ("/usr/bin/ssh", b"hostname h\nconnecttimeout 7\n", 7),
        ("/usr/bin/ssh", b"hostname h\nconnecttimeout none\n", 0),
        ("/usr/bin/ssh", b"", 0),
        ("/usr/bin/python3", b"connecttimeout 7\n", 0),
    ],
)
def test_ssh_is_asked_how_long_it_waits(parent, said, seconds, program, monkeypatch):
    called = []

    def run(words, **_more):
        called.append(words)
        return subprocess.CompletedProcess(words, 0, said)

    monkeypatch.setattr(os, "getppid", os.getpid)
    monkeypatch.setattr(os, "readlink", lambda _path: parent)
    monkeypatch.setattr(subprocess, "run", run)
    assert program.connect_timeout() == seconds
    assert [words[:2] for words in called] == ([[parent, "-G"]] if parent.endswith("ssh") else []), (
        "nothing else is run"
    )


@pytest.mark.parametrize(("limit", "look"), [(0, 1.5), (60, 1.5), (2, 1.0), (1, 0.5)])
def test_the_last_of_the_time_is_for_the_reason(limit, look, program, monkeypatch):
    monkeypatch.setattr(program, "connect_timeout", lambda: limit)
    sockets = program.AsLongAsSsh()
    whole = limit or program.SECONDS
    assert whole - look - 5 < sockets.left() <= whole - look
    assert sockets.look_seconds == look


@pytest.mark.parametrize(
    ("reason", "spent", "seconds"),
    [
        ("No route to host", 3.1, 1.5),
        ("No route to host", 4.0, 0.6),
        ("No route to host", 9, 0.4),
        ("timed out", 9, 1.5),
    ],
)
def test_another_look_for_a_host_that_is_not_there_ends_in_time(reason, spent, seconds, program, monkeypatch):
    """Within five seconds in all: it would hear nothing again."""
    sockets = program.AsLongAsSsh()
    began = sockets._began
    monkeypatch.setattr(program.time, "monotonic", lambda: began + spent)
    assert sockets.seconds_to_look({"192.0.2.7": reason}) == pytest.approx(seconds)


@pytest.fixture
def bash(tmp_path):
    """A function that runs lines behind the functions of the bash program, and returns what they print."""

    def run(script, *words):
        path = tmp_path / "portknock-connect.sh"
        with open(BASH, encoding="utf-8") as stream:
            path.write_text("\n".join([stream.read().rsplit("main ", 1)[0], script]), encoding="utf-8")
        return subprocess.run(["bash", str(path), *words], stdout=subprocess.PIPE, check=True).stdout.decode()

    return run


def test_the_bash_program_has_the_same_words(bash):
    names = sorted(_answers.MEANINGS)
    assert bash('for each; do meaning "$each"; done', *names).splitlines() == [
        _answers.MEANINGS[name] for name in names
    ]


CASES = [
    # reason, the port, a closed one, ping, verdict
    ("refused", "icmp", "-", "-", "closed"),
    ("refused", "silent", "-", "-", "closed"),
    ("refused", "reset", "icmp", "-", "no_listener"),
    ("refused", "reset", "silent", "-", "no_listener"),
    ("refused", "reset", "reset", "-", "reset"),
    ("refused", "refused", "refused", "-", "perhaps"),
    ("refused", "open", "-", "-", "late"),
    ("unreachable", "silent", "-", "-", "down"),
    ("unreachable", "filtered", "-", "-", "filtered"),
    ("silent", "-", "silent", "yes", "dropped"),
    ("silent", "-", "reset", "no", "dropped"),
    ("silent", "-", "silent", "no", "silent"),
    ("silent", "-", "silent", "", "unknown"),
    ("mute", "-", "-", "-", "mute"),
    ("hung_up", "-", "-", "-", "hung_up"),
]


def test_the_bash_program_comes_to_the_same_verdicts(bash):
    script = """
    PORT=22 STEPS=(17005/tcp 19100/udp) TRY=1
    look() { if [[ $2 == 22 ]]; then echo "$AT_PORT"; else echo "$AT_STEP"; fi; }
    routed() { true; }
    answers_ping() { echo "$PINGED"; }
    while IFS=, read -r REASON AT_PORT AT_STEP PINGED; do verdict a "$REASON"; done <<<"$1"
    """
    lines = "\n".join(",".join(case[:4]) for case in CASES)
    assert bash(script, lines).splitlines() == [case[4] for case in CASES]
    for reason, port, closed, ping, expected in CASES:
        if port in ("open", "reset", "refused", "icmp") or reason == "silent":
            alive = {"yes": True, "no": False}.get(ping)
            assert _answers.verdict("silent" if port == "-" else port, closed.strip("-"), alive) == expected


OVER = [
    # the number of the try, the seconds until then, what the addresses have answered, whether no other try is due
    (1, 1, "unreachable", True),
    (1, 1, "unreachable refused", False),
    (1, 3, "refused", False),
    (2, 2, "refused", False),
    (2, 3, "refused", True),
    (2, 3, "hung_up", True),
    (2, 3, "refused silent", False),
    (2, 3, "unreachable silent", False),
    (1, 8, "silent", True),
    (5, 1, "refused", True),
]


def test_the_bash_program_tries_again_as_long_as_that_can_help(bash):
    script = """
    ask_ssh() { true; }
    unset SECONDS # does not go on by itself then
    while read -r TRY SECONDS REASONS; do
        is_over $REASONS && echo True || echo False
    done <<<"$1"
    """
    lines = "\n".join("{} {} {}".format(*case[:3]) for case in OVER)
    assert bash(script, lines).splitlines() == [str(case[3]) for case in OVER]


@pytest.mark.parametrize(("tries", "spent", "tenths"), [(1, 3, ""), (1, 4, "5"), (2, 3, "5")])
def test_the_bash_program_looks_for_no_host_in_time(tries, spent, tenths, bash):
    script = """
    unset SECONDS # does not go on by itself then
    PORT=22 STEPS=(17005/tcp) TRY=$1 SECONDS=$2
    look() { echo "looked at $2 for '${3-}'" >&2; echo silent; }
    routed() { true; }
    { verdict a unreachable; } 2>&1
    """
    assert bash(script, str(tries), str(spent)).splitlines() == [f"looked at 22 for '{tenths}'", "down"]


def test_the_bash_program_says_the_same(bash):
    script = """
    NAME=h HOST=host PORT=22 TRY=2 ADDRESSES="a b"
    verdict() { echo "$2"; }
    (explain closed closed) 2>&1
    (explain down perhaps) 2>&1
    true
    """
    first, second = re.findall(r"^portknock: (.*)$", bash(script), re.M)
    assert first == f"no connection to port 22 of host after 2 knocks: {_answers.MEANINGS['closed']}.{CHANGED}"
    assert second == (
        f"no connection to port 22 of host after 2 knocks: a: {_answers.MEANINGS['down']}; "
        f"b: {_answers.MEANINGS['perhaps']}.{CHANGED}"
    )


@pytest.fixture
def hangs_up():
    """The port of a server that says something else than ssh's do, and closes the connection."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(4)

        def serve():
            with listener.accept()[0] as opened:
                opened.sendall(b"Not allowed at this time\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(60)


SAID = b"portknock: 127.0.0.1 says: Not allowed at this time\n"


def test_the_bash_program_says_what_the_server_says_and_ends_with_it(hangs_up, tmp_path):
    """ssh sees the end only if nobody holds what it reads from, also not what waits for more from ssh."""
    shutil.copy(BASH, str(tmp_path))
    (tmp_path / "knocks").write_text("h iptables 0.01 - 17005/udp\n")
    words = ["bash", str(tmp_path / "portknock-connect.sh"), "h", "127.0.0.1", str(hangs_up)]
    running = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with running:
        watch = threading.Timer(60, running.kill)
        watch.start()
        assert (running.stdout.read(), running.stderr.read()) == (b"Not allowed at this time\r\n", SAID)
        watch.cancel()
        running.stdin.close()


def test_the_python_program_says_what_the_server_says(hangs_up, program, tmp_path):
    (tmp_path / "knocks").write_text("h iptables 0.01 - 17005/udp\n")
    ours, its = socket.socketpair()
    with ours, its:
        words = [sys.executable, "-ISB", program.__file__, "h", "127.0.0.1", str(hangs_up)]
        done = subprocess.run(words, stdout=its, stderr=subprocess.PIPE, check=True, timeout=60)
        _byte, extra, _flags, _where = ours.recvmsg(1, socket.CMSG_SPACE(4))
        handed = socket.socket(fileno=int.from_bytes(extra[0][2][:4], sys.byteorder))
        assert (done.stderr, handed.recv(99)) == (SAID, b"Not allowed at this time\r\n"), "nothing of it is lost"
        handed.close()


def test_the_python_program_hands_ssh_a_socket_that_never_was_connected(program, tmp_path):
    """Of that one ssh says one line, and of none at all two."""
    (tmp_path / "knocks").write_text("")
    ours, its = socket.socketpair()
    with ours, its:
        done = subprocess.run([sys.executable, "-ISB", program.__file__, "h", "127.0.0.1", "1"], stdout=its,
                              stderr=subprocess.PIPE, check=False, timeout=60)  # fmt: skip
        _byte, extra, _flags, _where = ours.recvmsg(1, socket.CMSG_SPACE(4))
    assert (done.returncode, len(extra)) == (1, 1)
    assert done.stderr.startswith(b"portknock: h is not in ")
