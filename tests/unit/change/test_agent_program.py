# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program in /run/portknock: what it says, what it returns, and that it does not give up."""

import contextlib
import json
import os
import signal
from typing import NamedTuple

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change import agent_program as _console
from ansible_collections.sesame.portknock.plugins.module_utils._change.guard import Guard
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.command import PlainRunner
from ansible_collections.sesame.portknock.plugins.module_utils._host.lock import LockedError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import LAST, PENDING
from fake_host import is_of_a_change
from story import IDENT, NEW_SSH, OLD_SSH, TIMEOUT, Story


class Ended(NamedTuple):
    """What Store.end() reads of a record."""

    id: str
    owner: str = ""


@pytest.fixture
def story(monkeypatch):
    """A change that is pending, and a program that meets its host instead of this machine."""
    made = Story()
    made.apply()
    monkeypatch.setattr(_console, "this_host", lambda _runner: made.host)
    monkeypatch.setattr(_console, "Agent", lambda _host: made.agent)
    monkeypatch.setattr(_console.time, "sleep", lambda seconds: setattr(made.host, "now", made.host.now + seconds))
    return made


def said(capsys):
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def as_json(text):
    """Read what the program says to a controller: one line with a mark."""
    assert text.startswith("portknock-guard: ")
    assert text.count("\n") == 1
    return json.loads(text[len("portknock-guard: ") :])


@pytest.mark.parametrize("words", [[], ["nonsense"], ["--json"], ["confirm", "--force"], ["confirm", IDENT, "--x"]])
def test_usage(words, story, capsys):
    story.host.frozen = True
    assert _console.main(words) == 2
    assert capsys.readouterr().err == ("usage: portknock confirm | portknock rollback | portknock status\n")


SPOKEN = [
    ("confirm", ["confirm"], 0, "The change is confirmed and kept.\n", "new"),
    ("rollback", ["rollback"], 0, "The change was rolled back: it was asked for on the host.\n", "old"),
    ("another id", ["confirm", "ffff"], 1, "No change is pending, and none was since the host was started.\n", ""),
    ("not that one", ["rollback", "ffff"], 1, "No change is pending, and none was since the host was started.\n", ""),
]


@pytest.mark.parametrize(
    ("words", "code", "text", "end"), [item[1:] for item in SPOKEN], ids=[item[0] for item in SPOKEN]
)
def test_an_administrator(words, code, text, end, story, capsys):
    assert _console.main(words) == code
    assert said(capsys) == text
    if end:
        (story.assert_new if end == "new" else story.assert_old)()
    else:
        assert story.state() == "applied"


def test_the_status_of_a_pending_change(story, capsys, monkeypatch):
    monkeypatch.setattr(_console.time, "time", lambda: story.guard.pending().begun + 7.9)
    story.host.frozen = True
    assert _console.main(["status"]) == 0
    assert said(capsys) == (
        "A change is pending, made by me@here, 7 s ago. It is undone in {0} s unless it is confirmed.\n".format(
            TIMEOUT - 1
        )
    )
    assert _console.main(["status", "--json", IDENT]) == 0
    assert as_json(said(capsys)) == dict(outcome="pending", owner="me@here", age=7, left=TIMEOUT - 1)
    assert _console.main(["status", "--json", "ffff"]) == 0
    assert as_json(said(capsys)) == dict(outcome="unknown", boot="one")


def test_the_status_afterwards(story, capsys):
    story.guard.undo(IDENT, "it was not confirmed in time")
    assert _console.main(["status"]) == 0
    assert said(capsys) == "The change was rolled back: it was not confirmed in time.\n"
    assert _console.main(["status", "--json", IDENT]) == 0
    answer = as_json(said(capsys))
    assert (answer["outcome"], answer["undo"], answer["id"]) == ("rolled_back", "exact", IDENT)


def test_the_status_where_sh_alone_has_undone_it(story, capsys):
    """Python was gone at the deadline, and is back: the record is still there."""
    word = dict(
        id=IDENT,
        owner="",
        outcome="rolled_back",
        undo="emptied",
        why="the program could not run",
        connection="",
        ended=0,
    )
    story.host.files[LAST] = (json.dumps(word), 0o600)
    assert _console.main(["status"]) == 0
    assert said(capsys).startswith("The change was rolled back: the program could not run. ")
    assert _console.main(["status", "--json", IDENT]) == 0
    assert as_json(said(capsys))["outcome"] == "pending"
    assert _console.main(["rollback", "--json", IDENT]) == 0
    assert as_json(said(capsys))["undo"] == "exact"
    story.assert_old()


def test_the_controller_confirms(story, capsys):
    story.host.ssh = NEW_SSH
    assert _console.main(["confirm", "--json", IDENT]) == 0
    assert as_json(said(capsys)) == dict(outcome="confirmed", connection=NEW_SSH, why="")
    story.assert_new()


def test_a_knock_that_was_not_heard_fails(capsys, monkeypatch):
    made = Story("a bare host gets knockd")
    made.wanted = dict(made.wanted, trusted_sources=[OLD_SSH.split()[0]])
    made.apply()
    monkeypatch.setattr(_console, "this_host", lambda _runner: made.host)
    monkeypatch.setattr(_console, "Agent", lambda _host: made.agent)
    made.host.ssh = NEW_SSH
    assert _console.main(["confirm", "--json", IDENT]) == 1
    told = as_json(said(capsys))
    assert told["outcome"] == "unheard"
    assert "knockd has not heard a knock of 192.0.2.7 at door ssh" in told["why"]
    assert made.state() == "applied", "it may be tried again"
    assert _console.main(["confirm", IDENT]) == 1
    assert "knockd has not heard a knock" in capsys.readouterr().out
    made.host.hear("pk4_ssh", "192.0.2.7")
    assert _console.main(["confirm", "--json", IDENT]) == 0


def test_a_stale_connection_fails(story, capsys):
    story.host.ssh = OLD_SSH
    assert _console.main(["confirm", "--json", IDENT]) == 1
    assert as_json(said(capsys))["outcome"] == "stale"
    assert _console.main(["confirm", IDENT]) == 1
    assert "older than the change, so it proves nothing" in said(capsys)
    assert story.state() == "applied"


@pytest.mark.parametrize("verb", ["confirm", "rollback"])
def test_an_error_is_an_answer(verb, story, capsys):
    @contextlib.contextmanager
    def held(seconds):
        if seconds:
            raise HostError("another run has held it for {0} s.".format(seconds))
        yield

    story.host.hold_lock = held
    assert _console.main([verb, "--json", IDENT]) == 1
    assert as_json(said(capsys)) == dict(outcome="error", why="another run has held it for 10 s.")
    assert _console.main([verb]) == 1
    assert said(capsys) == "another run has held it for 10 s.\n"


def test_nobody_who_listens(story, monkeypatch):
    """The connection that asked may be gone by then; what was done is done."""

    class Broken:
        def write(self, _text):
            raise BrokenPipeError

    monkeypatch.setattr(_console.sys, "stdout", Broken())
    assert _console.main(["confirm"]) == 0
    story.assert_new()


# At the deadline


class Log(list):
    """What goes to the system's log."""

    def report(self, error):
        self.append(str(error))


@pytest.fixture
def log(monkeypatch):
    made = Log()
    monkeypatch.setattr(_console, "_report", made.report)
    return made


def test_the_deadline(story, log, capsys):
    story.host.now += TIMEOUT
    assert _console.main(["rollback", "--deadline", IDENT]) == 0
    assert said(capsys) == "The change was rolled back: it was not confirmed in time.\n"
    story.assert_old()
    assert log == []


def test_the_deadline_of_a_change_that_ended_is_no_failure(story, log):
    """Else systemd would start it again and again."""
    story.host.ssh = NEW_SSH
    story.guard.confirm(IDENT, story.host.session())
    story.host.frozen = True
    assert _console.main(["rollback", "--deadline", IDENT]) == 0
    assert _console.main(["rollback", "--deadline", "an earlier one"]) == 0
    assert log == []


def test_a_record_that_was_removed_everywhere_is_a_failure(story, log):
    """Then there is the last way: the unit takes it where this fails."""
    story.host.files = {path: value for path, value in story.host.files.items() if not is_of_a_change(path)}
    assert _console.main(["rollback", "--deadline", IDENT, ""]) == 1
    story.guard._store.end(story.guard._store.read() or Ended("before"), "confirmed")
    assert _console.main(["rollback", "--deadline", IDENT, "before"]) == 1
    story.guard._store.end(Ended(IDENT), "confirmed")
    assert _console.main(["rollback", "--deadline", IDENT, "before"]) == 0
    assert log == []


def test_the_deadline_goes_on_without_a_lock_that_another_process_keeps(story, log):
    """Whatever it is that holds it: nobody else would undo the change."""

    def held(seconds):
        raise LockedError("process 4711 (flock) has held it for {0} s".format(seconds))

    story.host.hold_lock = held
    story.host.lock_holder = lambda: 4711
    assert _console.main(["rollback", "--deadline", IDENT]) == 0
    assert log == ["process 4711 (flock) has held it for 30 s"]
    story.assert_old()


def test_the_boot_undoes_what_is_of_another_boot_alone(story, capsys):
    assert _console.main(["boot"]) == 0
    assert story.state() == "applied", "systemd may start it in the same boot, with its target"
    assert story.agent.looks == []
    story.host.reboot()
    assert _console.main(["boot"]) == 0
    assert story.guard.pending() is None
    assert story.agent.looks == [IDENT]
    assert capsys.readouterr().out.splitlines()[-1] == (
        "The change was rolled back: the host was restarted before it was confirmed."
    )
    assert _console.main(["boot"]) == 0


def test_the_boot_undoes_what_has_lost_its_timer(story):
    """As by systemctl soft-reboot, which leaves /run, the rules and the boot's id; but not beside a run that is at work."""
    story.agent.lost = True
    free = story.host.hold_lock

    def held(_seconds):
        raise LockedError("another run has it")

    story.host.hold_lock = held
    assert _console.main(["boot"]) == 0
    assert story.state() == "applied"
    story.host.hold_lock = free
    assert _console.main(["boot"]) == 0
    assert story.guard.pending() is None
    story.assert_old_after_boot()


def failing(error, times, action):
    """Fail some times, then act."""
    count = [0]

    def act(*args):
        count[0] += 1
        if count[0] <= times:
            raise error
        return action(*args)

    return act


def test_the_deadline_tries_until_it_works(story, log, monkeypatch):
    monkeypatch.setattr(Guard, "undo", failing(HostError("the lock of iptables is held"), 5, Guard.undo))
    assert _console.main(["rollback", "--deadline", IDENT]) == 0
    assert log == ["the lock of iptables is held"] * 5
    story.assert_old()


@pytest.mark.parametrize("error", [OSError("no memory"), KeyError("saves"), ValueError("half a file")])
def test_the_deadline_goes_on_after_any_error(error, story, log, monkeypatch):
    monkeypatch.setattr(Guard, "undo", failing(error, 2, Guard.undo))
    assert _console.main(["rollback", "--deadline", IDENT]) == 0
    assert len(log) == 2
    story.assert_old()


def test_the_deadline_gives_up_at_last(story, log, monkeypatch, capsys):
    def never(*_args):
        raise HostError("broken")

    monkeypatch.setattr(Guard, "undo", never)
    began = story.host.now
    assert _console.main(["rollback", "--deadline", IDENT]) == 1
    assert story.host.now - began >= 600, "it tried for less than ten minutes"
    assert len(log) >= 600
    assert "could not be rolled back" in said(capsys)


STUCK = [
    ("it hangs", 4242, 77.5, 77.5, 4242, [4242]),
    ("it hangs, as far as can be seen", 4242, 77.5, 77.5, 0, [4242]),
    ("it is gone", 4242, 77.5, None, 0, []),
    ("another has its number", 4242, 77.5, 99.0, 4242, []),
    ("it is not known when it began", 4242, None, None, 4242, []),
    ("another process holds it", 4242, 77.5, 77.5, 4711, []),
    ("it is free again", 4242, 77.5, 77.5, None, []),
]


@pytest.mark.parametrize(
    ("pid", "noted", "started", "held", "killed"), [item[1:] for item in STUCK], ids=[item[0] for item in STUCK]
)
def test_a_run_that_hangs_with_the_lock_is_ended(pid, noted, started, held, killed, story, log, monkeypatch):
    record = story.guard.pending()._replace(module=[pid, noted])
    story.host.files[PENDING] = (json.dumps(record._asdict()), 0o600)
    story.host.started = {pid: started} if started is not None else {}
    kills = []
    monkeypatch.setattr(_console.os, "kill", lambda *args: kills.append(args))
    story.host.lock_holder = lambda: held
    lock = story.host.hold_lock

    @contextlib.contextmanager
    def lock_or_not(seconds):
        if len(log) < 1:
            raise LockedError("another run has held it for {0} s".format(seconds))
        with lock(seconds):
            yield

    story.host.hold_lock = lock_or_not
    assert _console.main(["rollback", "--deadline", IDENT]) == 0
    assert kills == [(number, signal.SIGKILL) for number in killed]
    story.assert_old()


def test_the_log_gets_it(monkeypatch, capsys):
    import syslog

    lines = []
    monkeypatch.setattr(syslog, "syslog", lambda level, text: lines.append((level, text)))
    _console._report(HostError("ip6tables-restore refused the ruleset"))
    assert lines[0][0] == syslog.LOG_ERR
    assert "ip6tables-restore refused the ruleset" in lines[0][1]
    assert "ip6tables-restore refused the ruleset" in capsys.readouterr().err


# Without Ansible


def test_commands_are_run():
    runner = PlainRunner()
    assert runner.run_command(["sh", "-c", "cat; echo $X >&2; exit 3"], data="a\udcff\n", environ_update={"X": "y"}) == (
        3, "a\udcff\n", "y\n",
    )  # fmt: skip
    code, out, err = runner.run_command(["/nonexistent/program"], data=None, binary_data=True)
    assert (code, out) == (127, "")
    assert "/nonexistent/program" in err


def test_commands_are_found(tmp_path, monkeypatch):
    places = [tmp_path / name for name in ("first", "path", "plain")]
    for place in places:
        place.mkdir()
        (place / "tool").write_text("#!/bin/sh\n")
    for place in places[:2]:
        (place / "tool").chmod(0o755)
    (tmp_path / "plain" / "other").mkdir()
    runner = PlainRunner()
    monkeypatch.setenv("PATH", ":{0}:{1}".format(places[2], places[1]))
    assert runner.get_bin_path("tool", opt_dirs=[str(places[0])], required=False) == str(places[0] / "tool")
    assert runner.get_bin_path("tool") == str(places[1] / "tool")
    assert runner.get_bin_path("other") is None, "that is a directory"
    assert runner.get_bin_path("no-such-tool-anywhere") is None
    monkeypatch.delenv("PATH")
    assert os.path.basename(runner.get_bin_path("sh")) == "sh"
