# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that waits where systemd does not."""

import json
import os
import signal
import sys
import time

import pytest
from agent_place import record
from ansible_collections.sesame.portknock.plugins.module_utils._change import agent as _agent
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import SPARE, SPARE_RECORD


def waiting(place):
    """Return the process ids of the programs of a place that wait."""
    found = []
    for name in os.listdir("/proc"):
        try:
            with open("/proc/{0}/cmdline".format(name), "rb") as stream:
                words = stream.read().split(b"\0")
        except OSError:
            continue
        if place.program.encode() in words and b"wait" in words:
            found.append(int(name))
    return found


def until(condition, seconds=200.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def ended(place):
    yield
    for pid in waiting(place):
        os.kill(pid, signal.SIGKILL)


def stat_of(pid):
    """Return parent and session of a process."""
    with open("/proc/{0}/stat".format(pid), encoding="utf-8") as stream:
        fields = stream.read().rpartition(")")[2].split()
    return int(fields[1]), int(fields[3])


@pytest.mark.usefixtures("ended")
def test_it_waits_outside_of_the_session(place):
    wanted = record(place.host)
    place.write("pending.json", wanted._asdict())
    assert place.agent.arm(wanted, 30) == "process"
    (pid,) = waiting(place)
    parent, session = stat_of(pid)
    assert parent != os.getpid()
    assert session != os.getsid(0)
    assert os.readlink("/proc/{0}/cwd".format(pid)) == "/"
    until(lambda: {os.readlink("/proc/{0}/fd/{1}".format(pid, number)) for number in range(3)} == {"/dev/null"})
    os.kill(pid, signal.SIGHUP)
    time.sleep(0.2)
    assert waiting(place) == [pid], "a session that ends must not end it"
    place.agent.disarm(wanted)
    place.write("pending.json", wanted._replace(id="another")._asdict())
    until(lambda: not waiting(place))
    assert place.read("pending.json")["id"] == "another"


@pytest.mark.usefixtures("ended")
def test_it_undoes_at_the_deadline(place, tmp_path):
    target = tmp_path / "options"
    target.write_text("new")
    wanted = record(place.host, 1.0, state="armed", before={str(target): ["old", 0o600]})
    place.write("pending.json", wanted._asdict())
    place.agent.arm(wanted, 1)
    until(lambda: place.read("last.json"))
    assert place.host.clock.monotonic() >= wanted.deadline
    assert place.host.clock.monotonic() - wanted.deadline < 50
    assert place.read("last.json")["why"] == "it was not confirmed in time"
    until(lambda: not waiting(place))
    assert place.read("pending.json") is None


@pytest.mark.usefixtures("ended")
@pytest.mark.parametrize("all_of_it", [False, True])
def test_it_undoes_though_what_it_needs_was_removed(place, tmp_path, all_of_it):
    """Its program, the record, and even the copies of both: it remembers what it waits for."""
    target = tmp_path / "options"
    target.write_text("new")
    before = {str(target): ["old", 0o600]}
    wanted = record(place.host, 2.0, state="armed", before=before, early=[str(target)])
    for path in (place.path("pending.json"), place.own(SPARE_RECORD)):
        place.host.filesystem.replace_files({path: (json.dumps(wanted._asdict()), 0o600)})
    place.agent.arm(wanted, 2)
    # In one step: the process puts its record back when it sees that it is gone.
    for path in [place.run, *([place.own(SPARE)] if all_of_it else [])]:
        os.rename(path, f"{path}.removed")
    until(lambda: place.read("last.json"))
    assert place.read("last.json")["outcome"] == "rolled_back"
    assert target.read_text() == "old"
    until(lambda: not waiting(place))
    assert not os.path.exists(place.own(SPARE))


@pytest.mark.usefixtures("ended")
def test_it_undoes_where_the_timer_is_lost(place, tmp_path, monkeypatch):
    """Whoever stopped it, removed its unit file, or had PID 1 hang."""
    target = tmp_path / "options"
    target.write_text("new")
    monkeypatch.setattr(place.host.systemd, "runs", lambda: True)
    monkeypatch.setattr(place.host.command, "find", lambda name: f"/bin/{name}")
    monkeypatch.setattr(place.agent, "_arm_unit", lambda *_words: True)
    wanted = record(place.host, 1.0, state="armed", before={str(target): ["old", 0o600]})
    place.write("pending.json", wanted._asdict())
    assert place.agent.arm(wanted, 1) == "systemd"
    until(lambda: place.read("last.json"))
    assert place.read("last.json")["outcome"] == "rolled_back"
    until(lambda: not waiting(place))


@pytest.mark.usefixtures("ended")
def test_it_ends_at_once_where_nothing_is_pending(place):
    place.agent.arm(record(place.host), 30)
    until(lambda: not waiting(place))
    assert place.read("last.json") is None


def test_a_process_that_does_not_start_is_an_error(place, monkeypatch):
    monkeypatch.setattr(_agent.sys, "executable", "/nonexistent/python")
    with pytest.raises(HostError, match="does not start, so nothing was changed"):
        place.agent.arm(record(place.host), 30)


def test_a_process_that_says_nothing_is_an_error(monkeypatch):
    monkeypatch.setattr(_agent, "_START_SECONDS", 0.3)
    with pytest.raises(HostError, match="does not start"):
        _agent.detach([sys.executable, "-c", "import time; time.sleep(1)"])


@pytest.mark.parametrize("must_answer", [True, False])
def test_it_inherits_nothing(must_answer, tmp_path):
    """A descriptor that stays open would keep the ssh session from ending."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    seen = tmp_path / "seen"
    code = "import os; os.listdir('/proc/self/fd'); open({0!r}, 'w').write(' '.join(os.listdir('/proc/self/fd'))); print('armed')"
    _agent.detach([sys.executable, "-c", code.format(str(seen))], must_answer=must_answer)
    os.close(writer)
    assert os.read(reader, 1) == b"", "a process holds it"
    os.close(reader)
    until(lambda: seen.exists() and seen.read_text())
    assert len(seen.read_text().split()) <= 5
