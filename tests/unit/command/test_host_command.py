# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command of a host comes with the guarded change, is made anew only when it must, and goes with the rest."""

import json

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change.guard import Guard
from ansible_collections.sesame.portknock.plugins.module_utils._change.host_command import MARK, MODES, Program
from ansible_collections.sesame.portknock.plugins.module_utils._change.info import inspect
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import plan_change
from ansible_collections.sesame.portknock.plugins.module_utils._change.record import kept_text, read_text
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import COMMAND, MANUAL, OPTIONS, STATE_FILE
from fake_host import FakeHost
from shown_steps import steps_in
from story import IDENT, NEW_SSH, OLD_SSH, FakeAgent, options

DOOR = {"name": "ssh", "knock": ["17005", "19100/udp", "18300"], "opens": ["22"]}
BYTES = b"PK\x03\x04\xff\xfe\x00".decode("utf-8", "surrogateescape")


class Maker:
    """Makes the files, and counts how often."""

    def __init__(self, code="one"):
        self.code, self.made = code, 0

    def program(self):
        return Program(self.code, self._build, {"persist": True})

    def _build(self, python):
        self.made += 1
        return {path: "#!{0}\n# {1} {2}{3}".format(python, MARK, self.code, BYTES) for path in MODES}


@pytest.fixture
def host():
    made = FakeHost()
    made.ssh = OLD_SSH
    return made


def plan(host, maker, **more):
    wanted = options(doors=[DOOR], **more)
    return plan_change(wanted, host, command=maker.program()), wanted


def apply(host, maker, **more):
    """Apply, and return the Guard; the change is pending."""
    change, wanted = plan(host, maker, **more)
    guard = Guard(host, FakeAgent())
    guard.apply(change, wanted)
    host.now += 1
    return guard


def confirm(host, guard):
    host.ssh = NEW_SSH
    assert guard.confirm(IDENT, host.session())["outcome"] == "confirmed"
    host.ssh = OLD_SSH


def installed(host):
    return {path: mode for path, (_text, mode) in host.files.items() if path in MODES}


def test_it_comes_with_the_change(host):
    maker = Maker()
    guard = apply(host, maker)
    assert installed(host) == {COMMAND: 0o755}, "what ends the change is there, the rest is not yet"
    confirm(host, guard)
    assert installed(host) == MODES
    host.frozen = True
    assert not plan(host, maker)[0].changed
    assert maker.made == 1, "it takes longer than all the rest"


def test_the_diff_names_it_and_does_not_show_it(host):
    change, _wanted = plan(host, Maker())
    shown = {part["before_header"]: part for part in change.diff}
    assert {*MODES, OPTIONS} <= set(shown)
    assert shown[OPTIONS]["after"] == "# The options of this change.\n"
    assert steps_in(DOOR["knock"], json.dumps(change.diff)) == []
    assert shown[COMMAND]["before"] == ""
    assert BYTES not in json.dumps(change.diff) and MARK in shown[COMMAND]["after"]


def test_it_goes_with_a_rollback(host):
    guard = apply(host, Maker())
    guard.undo(IDENT, "it was not confirmed in time")
    assert installed(host) == {} and STATE_FILE not in host.files


def test_a_rollback_puts_the_former_one_back(host):
    confirm(host, apply(host, Maker()))
    before = dict(host.files)
    guard = apply(host, Maker("two"), log=True)
    assert "two" in host.read(COMMAND)
    guard.undo(IDENT, "it was not confirmed in time")
    assert {path: host.files[path] for path in MODES} == {path: before[path] for path in MODES}
    assert host.read(STATE_FILE) == before[STATE_FILE][0]


def test_other_code_replaces_it(host):
    confirm(host, apply(host, Maker()))
    maker = Maker("two")
    change, wanted = plan(host, maker)
    assert change.changed and not change.loads and set(change.files) == set(MODES)
    guard = Guard(host, FakeAgent())
    guard.keep(guard.apply(change, wanted))
    assert all("two" in host.read(path) for path in MODES)
    assert not plan(host, maker)[0].changed


HARMS = {
    "edited": lambda host: host.files.update({COMMAND: (host.read(COMMAND) + "x", 0o755)}),
    "removed": lambda host: host.files.pop(MANUAL),
    "not executable": lambda host: host.files.update({COMMAND: (host.read(COMMAND), 0o644)}),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=list(HARMS))
def test_harm_is_drift_and_is_mended(harm, host):
    maker = Maker()
    confirm(host, apply(host, maker))
    assert inspect(host)["drift"] == []
    harm(host)
    (line,) = inspect(host)["drift"]
    assert line in ["edited or removed by hand: " + path for path in (COMMAND, MANUAL)]
    change, wanted = plan(host, maker)
    guard = Guard(host, FakeAgent())
    guard.keep(guard.apply(change, wanted))
    assert installed(host) == MODES and inspect(host)["drift"] == []


def test_it_is_taken_out(host):
    confirm(host, apply(host, Maker()))
    confirm(host, apply(host, Maker(), state="absent"))
    assert installed(host) == {}
    assert not plan(host, Maker(), state="absent")[0].changed


def test_a_stranger_s_file_stays(host):
    host.files[COMMAND] = ("#!/bin/sh\necho mine\n", 0o755)
    with pytest.raises(
        HostError, match="^/usr/local/sbin/portknock is there and is not this collection's.*Move it away"
    ):
        plan(host, Maker())
    assert not plan(host, Maker(), state="absent")[0].files.get(COMMAND)


def test_python_is_the_distribution_s(host):
    host.files["/usr/libexec/platform-python"] = ("", 0o755)
    change, _wanted = plan(host, Maker())
    assert change.files[COMMAND][0].startswith("#!/usr/libexec/platform-python\n")
    host.files["/usr/bin/python3"] = ("", 0o755)
    change, _wanted = plan(host, Maker())
    assert change.files[COMMAND][0].startswith("#!/usr/bin/python3\n")


def test_who_does_not_bring_one_leaves_it(host):
    confirm(host, apply(host, Maker()))
    assert not plan_change(options(doors=[DOOR]), host).changed


@pytest.mark.parametrize(
    "text", [None, "", "plain", "w\u00f6rtlich", bytes(range(256)).decode("utf-8", "surrogateescape") * 99]
)
def test_what_a_record_keeps_of_a_file(text):
    kept = json.dumps(kept_text(text))
    assert read_text(json.loads(kept)) == text
    assert len(kept) < 1.4 * len(text or "") + 20
