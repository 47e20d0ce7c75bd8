# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent: how systemd is asked, and its program as the plain Python of a host runs it, in a directory of its own."""

import fcntl
import importlib.machinery
import io
import json
import marshal
import os
import shlex
import subprocess
import sys
import types
import zipfile

import pytest
from agent_place import FLAGS, IDENT, record
from ansible_collections.sesame.portknock.plugins.module_utils._change import agent as _agent
from ansible_collections.sesame.portknock.plugins.module_utils._change import agent_program as _agent_program
from ansible_collections.sesame.portknock.plugins.module_utils._change import archive as _archive
from ansible_collections.sesame.portknock.plugins.module_utils._change.agent import Agent
from ansible_collections.sesame.portknock.plugins.module_utils._change.archive import archive
from ansible_collections.sesame.portknock.plugins.module_utils._change.engines import parts_on
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.command import PlainRunner
from ansible_collections.sesame.portknock.plugins.module_utils._host.host import this_host
from ansible_collections.sesame.portknock.plugins.module_utils._paths import (
    PROGRAM,
    SPARE,
    SPARE_PROGRAM,
    SPARE_RECORD,
    SPARE_UNDO,
    UNDO_UNIT,
    UNDO_WANTS,
)
from fake_host import FakeHost


@pytest.fixture
def host(monkeypatch):
    made = FakeHost()
    made.runs_systemd = True
    made.tools |= {"systemd-run", "systemctl"}
    monkeypatch.setattr(_agent, "detach", lambda words, **how: made.done.append(("detach", words, how)))
    return made


def nothing_known(place):
    """What the program prints for a change that nothing is known of."""
    return "portknock-guard: {0}\n".format(json.dumps({"outcome": "unknown", "boot": place.host.processes.boot()}))


def asked(host):
    return [words for words in host.commands if words[0].endswith("/systemd-run")]


def test_systemd_is_asked_for_a_timer(host):
    assert Agent(host).arm(record(), 30, ["echo one", "echo two"]) == "systemd"
    (words,) = asked(host)
    end = words.index("/bin/sh")
    assert {
        "--quiet",
        "--collect",
        "--unit=portknock-guard",
        "--on-active=30s",
        "--timer-property=AccuracySec=10ms",
        "--property=Restart=on-failure",
        "--property=StartLimitIntervalSec=0",
    } <= set(words[1:end])
    assert not [word for word in words[1:end] if not word.startswith("--")], "systemd-run would take it for a command"
    shell, option, text = words[end:]
    assert (shell, option) == ("/bin/sh", "-c")
    assert not set("$%\\;") & set(text), "systemd would replace something in it"
    tries = text.split(" || ")
    assert [shlex.split(each) for each in tries[:2]] == [
        [sys.executable] + FLAGS + [program, "rollback", "--deadline", IDENT, ""]
        for program in (PROGRAM, SPARE_PROGRAM)
    ]
    assert tries[2] == f"""grep -qsF '"id": "{IDENT}"' /run/portknock.d/last.json"""
    assert tries[3].startswith("{\numask 077\nmkdir -p /run/portknock.d\ntouch /run/portknock.d/lock\n")
    assert "\necho one\necho two\necho '" in tries[3]
    waiting = [sys.executable] + FLAGS + [PROGRAM, "wait", IDENT]
    assert host.done[-1] == ("detach", waiting, {"must_answer": False}), "a timer can be lost"


@pytest.mark.parametrize("undone", [False, True])
def test_the_last_way_waits_for_who_undoes(undone, host, tmp_path):
    """The process beside the timer is in the middle of it, and may have done all there is to do when it lets go of the lock."""
    Agent(host).arm(record(), 30, [f"touch {tmp_path}/gone"], ["true"])
    (words,) = asked(host)
    script = words[-1].replace("/run/portknock.d", str(tmp_path)).replace("/run/portknock", f"{tmp_path}/none")
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(["/bin/sh", "-c", script], stderr=subprocess.DEVNULL)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        assert not (tmp_path / "gone").exists()
        if undone:
            (tmp_path / "last.json").write_text(json.dumps({"id": IDENT, "undo": "exact"}))
    assert process.wait(60) == 0
    assert (tmp_path / "gone").exists() is not undone
    assert json.loads((tmp_path / "last.json").read_text())["undo"] == ("exact" if undone else "emptied")


def test_the_last_way_is_gone_where_there_is_no_lock(host, tmp_path):
    (tmp_path / "lock").mkdir()
    Agent(host).arm(record(), 30, [f"touch {tmp_path}/gone"])
    (words,) = asked(host)
    script = words[-1].replace("/run/portknock.d", str(tmp_path)).replace("/run/portknock", f"{tmp_path}/none")
    subprocess.run(["/bin/sh", "-c", script], stderr=subprocess.DEVNULL, check=True)
    assert (tmp_path / "gone").exists()


def test_a_timer_is_enough(host, monkeypatch):
    def fails(*_words, **_how):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(_agent, "detach", fails)
    assert Agent(host).arm(record(), 30) == "systemd"


def test_a_unit_of_an_earlier_change_is_cleared_away(host):
    host.failing_commands = {"systemd-run": 1}
    assert Agent(host).arm(record(), 30) == "systemd"
    verbs = [words[1:] for words in host.commands if words[0].endswith("/systemctl")]
    assert verbs == [
        ("stop", "portknock-guard.timer", "portknock-guard.service"),
        ("reset-failed", "portknock-guard.timer", "portknock-guard.service"),
    ]
    assert len(asked(host)) == 2


WITHOUT = [
    ("systemd-run fails", dict(failing_commands={"systemd-run": 99}), 3),
    ("systemd does not run", dict(runs_systemd=False), 0),
    ("there is no systemd-run", dict(tools={"systemctl"}), 0),
]


def test_an_older_systemd_does_without_what_it_does_not_know(host):
    host.failing_commands = {"systemd-run": 2}
    assert Agent(host).arm(record(), 30) == "systemd"
    assert ["IgnoreOnIsolate" in " ".join(words) for words in asked(host)] == [True, True, False]
    first, _second, last = asked(host)
    assert [word for word in first if "IgnoreOnIsolate" not in word] == list(last)


@pytest.mark.parametrize(("more", "tries"), [item[1:] for item in WITHOUT], ids=[item[0] for item in WITHOUT])
def test_elsewhere_a_process_waits(more, tries, host):
    for name, value in more.items():
        setattr(host, name, value)
    assert Agent(host).arm(record(), 30) == "process"
    assert len(asked(host)) == tries
    assert host.done[-1] == ("detach", [sys.executable] + FLAGS + [PROGRAM, "wait", IDENT], {})


def test_only_a_timer_is_disarmed(host):
    Agent(host).disarm(record())
    assert host.commands == []
    Agent(host).disarm(record()._replace(agent="systemd"))
    assert [words[1:] for words in host.commands] == [
        ("stop", "portknock-guard.timer"),
        ("reset-failed", "portknock-guard.timer"),
    ], "stopping the service would end who disarms"


@pytest.mark.parametrize(
    ("agent", "active", "lost"),
    [("systemd", True, False), ("systemd", False, True), ("", False, True), ("process", False, False)],
)
def test_a_change_whose_timer_is_gone(agent, active, lost, host):
    host.failing_commands = {} if active else {"systemctl": 1}
    assert Agent(host).is_lost(record()._replace(agent=agent)) is lost
    assert [words[1:] for words in host.commands] in ([], [("is-active", "--quiet", "portknock-guard.timer")])


@pytest.mark.parametrize(("directory", "program"), [("/run/portknock", PROGRAM), (SPARE, SPARE_PROGRAM)])
def test_what_lies_on_the_host(directory, program, host):
    Agent(host).arm(record(), 30)
    found = {path: mode for path, (_text, mode) in host.files.items() if path.startswith(directory + "/")}
    assert found.pop(SPARE_UNDO, 0o700) == 0o700
    assert found == {directory + "/guard.zip": 0o600}
    # FakeHost keeps bytes as they are written in Python.
    assert host.read(program).startswith("b'#!{0} -ISB\\nPK".format(sys.executable))


def test_what_earlier_releases_left_beside_it_goes(host):
    host.files["/run/portknock/status"] = ("#!/bin/sh\n", 0o700)
    Agent(host).arm(record(), 30)
    assert "/run/portknock/status" not in host.files


def test_the_next_boot_undoes_it(host):
    Agent(host).arm(record(), 30, ["echo one"])
    unit = host.read(UNDO_UNIT).splitlines()
    assert "ConditionPathExists=" + SPARE_RECORD in unit
    assert "ExecStart=/bin/sh " + SPARE_UNDO in unit
    assert host.read(UNDO_WANTS).splitlines()[1:] == ["[Unit]", "Wants=portknock-undo.service"]
    first, second, rest = host.read(SPARE_UNDO).split("\n", 2)[2].split(" || ")
    assert shlex.split(first) == [sys.executable] + FLAGS + [SPARE_PROGRAM, "boot"]
    assert second.startswith("grep ")
    assert rest.startswith("{\numask 077\n")


def test_without_systemd_there_is_no_unit(host):
    host.runs_systemd = False
    Agent(host).arm(record(), 30)
    assert not [path for path in host.files if path.startswith("/etc/systemd/")]


def test_a_disk_that_takes_nothing_is_no_error(host):
    host.disk_full = SPARE_PROGRAM
    assert Agent(host).arm(record(), 30) == "systemd"
    assert not [path for path in host.files if path.startswith("/etc/p")]


def test_the_last_way(host, tmp_path):
    """Where no program runs any more, sh does the commands and leaves word for the controller."""
    told = tmp_path / "portknock.d" / "last.json"
    Agent(host).arm(record(owner="it's 100% $HOME \\me; you"), 30, ["echo emptied"], ["true"])
    text = asked(host)[0][-1].replace("/run/portknock.d", str(told.parent))
    # Python 3.6 has no capture_output.
    done = subprocess.run(["sh", "-c", text], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    assert done.stdout == b"emptied\n"
    last = json.loads(told.read_text())
    assert (last["id"], last["outcome"], last["undo"]) == (IDENT, "rolled_back", "emptied")
    assert told.stat().st_mode & 0o777 == 0o600
    assert told.parent.stat().st_mode & 0o777 == 0o700
    again = subprocess.run(["sh", "-c", text], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    assert again.stdout == b"", "what is undone already is not undone once more"


SAID = {
    "emptied": "so the knock rules were emptied",
    "unseen": "and that the knock rules are emptied was tried and could not be seen",
    "none": "and the change has no rules that could be emptied",
}


@pytest.mark.parametrize(
    ("looks", "said"),
    [(["true", "! false"], "emptied"), (["true", "! true"], "unseen"), (["false"], "unseen"), ([], "none")],
)
def test_the_last_way_says_what_is_seen(looks, said, host, tmp_path):
    Agent(host).arm(record(), 30, ["true"], looks)
    text = asked(host)[0][-1].replace("/run/portknock.d", str(tmp_path))
    assert not set("$%\\;") & set(text), "systemd would replace something in it"
    subprocess.run(["sh", "-c", text], stderr=subprocess.DEVNULL, check=True)
    last = json.loads((tmp_path / "last.json").read_text())
    assert (last["outcome"], last["undo"]) == ("rolled_back", "emptied" if said == "emptied" else "")
    assert last["why"] == f"the program that undoes it could not run, {SAID[said]}"


def test_the_program_is_put_back_from_its_copy(place):
    place.host.filesystem.replace_bytes(place.own(SPARE_PROGRAM), b"program")
    os.unlink(place.program)
    place.agent.put_back()
    with open(place.program, "rb") as stream:
        assert stream.read() == b"program"


def test_a_full_run_is_an_error(host):
    host.disk_full = "/run/portknock/guard.zip"
    with pytest.raises(HostError, match="No space left"):
        Agent(host).arm(record(), 30)
    assert asked(host) == []


def test_a_module_without_source_is_an_error(monkeypatch):
    made_up = types.ModuleType("made_up")
    made_up.__spec__ = importlib.machinery.ModuleSpec("made_up", None)
    monkeypatch.setitem(sys.modules, _archive._PACKAGE + "._made_up", made_up)
    with pytest.raises(HostError, match="_made_up cannot be read, so nothing can be armed"):
        archive(_agent_program.__name__)


def test_what_is_in_the_archive():
    for part in parts_on(this_host(PlainRunner())):
        part.import_late()
    with zipfile.ZipFile(io.BytesIO(archive(_agent_program.__name__))) as made:
        names = made.namelist()
        assert made.testzip() is None
    assert len(names) == len(set(names))
    folder = "ansible_collections/sesame/portknock/plugins/module_utils/"
    parts = folder.split("/")[:-1]
    packages = {"/".join(parts[:depth]) + "/__init__.py" for depth in range(1, len(parts) + 1)}
    files = (
        "_change/agent_program",
        "_change/guard",
        "_change/agent",
        "_change/record",
        "_host/host",
        "_iptables/undo",
        "_names/comments",
        "_tables/commands",
    )
    own = {folder + name + ".py" for name in files}
    packages |= {folder + name + "/__init__.py" for name in ("_change", "_host", "_iptables", "_names", "_tables")}
    assert packages | own | {"__main__.py"} <= set(names)
    assert {name + "c" for name in own} <= set(names)
    assert not [name for name in names if not name.startswith(folder) and name not in packages | {"__main__.py"}]


# The program itself


def test_it_runs_on_plain_python(place):
    assert place.call("status") == (0, "No change is pending, and none was since the host was started.\n")
    assert place.call("status", "--json") == (0, nothing_known(place))


CLOSURE = """
import ast, os, sys
sys.path.insert(0, sys.argv[1])
PREFIX = "ansible_collections.sesame.portknock.plugins.module_utils."
from ansible_collections.sesame.portknock.plugins.module_utils._change import apply
from ansible_collections.sesame.portknock.plugins.module_utils._host.command import PlainRunner
from ansible_collections.sesame.portknock.plugins.module_utils._host.host import this_host
apply.import_late(this_host(PlainRunner()))
loaded = {name for name in sys.modules if name.startswith(PREFIX)}
is_file = lambda name: os.path.isfile(sys.argv[1] + "/" + name.replace(".", "/") + ".py")
needed, left = set(), {PREFIX + "_change.agent_program"}
while left:
    name = left.pop()
    needed.add(name)
    with open(sys.argv[1] + "/" + name.replace(".", "/") + ".py", encoding="utf-8") as stream:
        tree = ast.parse(stream.read())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PREFIX[:-1]):
            names = [node.module] + [node.module + "." + each.name for each in node.names]
            left |= {each for each in names if is_file(each)} - needed
print(sorted(needed - loaded))
"""


def test_all_that_undoing_may_import_is_loaded_when_it_is_armed():
    """Also what is imported late: what is missing in the archive would be missing when the host is cut off."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    # Python 3.6 has no capture_output.
    done = subprocess.run(  # noqa: UP022
        [sys.executable, "-c", CLOSURE, os.path.join(root, ".build")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        check=False,
    )
    assert (done.stdout.decode(), done.stderr.decode()) == ("[]\n", "")


def test_it_uses_what_was_compiled(place):
    """So it starts quickly: the controller waits for it. Python compiles a source anew that looks newer."""
    header = 16 if sys.version_info >= (3, 7) else 12
    other = marshal.dumps(compile("def main(words):\n    print('compiled')\n", "other", "exec"))
    with zipfile.ZipFile(place.program) as archive:
        parts = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(place.program, "w") as archive:
        for info, data in parts:
            archive.writestr(info, data[:header] + other if info.filename.endswith("/agent_program.pyc") else data)
    assert place.call("status") == (0, "compiled\n")


def test_another_python_than_that_which_armed_it_runs_it(place):
    """Say, python3 is upgraded within these seconds: what was compiled is of no use then, the sources are."""
    with zipfile.ZipFile(place.program) as archive:
        parts = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(place.program, "w") as archive:
        for info, data in parts:
            archive.writestr(info, b"\1\2\r\n" + data[4:] if info.filename.endswith(".pyc") else data)
    assert place.call("status", "--json") == (0, nothing_known(place))


def test_it_keeps_and_undoes(place, tmp_path):
    target = tmp_path / "rules"
    for verb, wanted in (("confirm", "new"), ("rollback", "old")):
        target.write_text("old")
        staged = place.host.filesystem.stage({str(target): ("new", 0o600)})
        place.write("pending.json", record(place.host, before={str(target): ["old", 0o600]}, staged=staged)._asdict())
        assert json.loads(place.call("status", "--json", IDENT)[1].split(": ", 1)[1])["outcome"] == "pending"
        code, text = place.call(verb, "--json", IDENT)
        assert code == 0, text
        assert target.read_text() == wanted
        assert os.listdir(str(tmp_path)) and not list(tmp_path.glob(".portknock-*"))
        assert place.read("pending.json") is None
        assert place.read("last.json")["outcome"] == {"confirm": "confirmed", "rollback": "rolled_back"}[verb]


def test_the_controller_runs_it(place):
    """By its first line, with sh: /run may be mounted so that nothing in it can be executed, and is on Debian."""
    data = archive(_agent_program.__name__, "#!{0} -ISB\n".format(sys.executable))
    place.host.filesystem.replace_bytes(place.program, data)
    script = 'program=$0; read -r python <$program; exec ${python#??} $program "$@"'
    for words in (["status", "--json", IDENT], ["status", "--json"]):
        done = subprocess.run(
            ["sh", "-c", script, place.program, *words], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True
        )
        assert done.stdout == nothing_known(place).encode()
