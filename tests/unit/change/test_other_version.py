# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pending change whose record another version of this collection wrote."""

import json

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change.guard import Guard
from ansible_collections.sesame.portknock.plugins.module_utils._change.record import OtherVersionError
from ansible_collections.sesame.portknock.plugins.module_utils._change.rollback import end_other_version
from ansible_collections.sesame.portknock.plugins.module_utils._errors import PendingError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import PENDING, PROGRAM
from fake_host import FakeHost
from story import FakeAgent

# A change of another version of this collection

RELEASED = dict(
    id="fedcba9876543210", owner="you@there", begun=0.0, boot="one", deadline=1030.0, state="applied", agent="systemd",
    module=[1, None], session=[], applied=1000.0, saves={}, changed=[], expected={}, before={},
    staged=[["/etc/iptables/.portknock-old", "/etc/iptables/rules.v4"]], gone=[], unit="", unit_was=False, directory_goes=False,
    doorman="", doorman_was={}, proof={},
)  # fmt: skip
"""A record as the first release wrote it."""


class OldProgram(FakeHost):
    """A host with the record of the first release, and its program, which ends the change if it works."""

    works = True

    def run(self, words, data=""):
        if words[-3:-1] == [PROGRAM, self.verb] and words[-1] == RELEASED["id"]:
            self.called = words[-2]
            if self.works:
                del self.files[PENDING]
            return 0, "", ""
        return super().run(words, data)


def released(verb="rollback", **more):
    host = OldProgram()
    host.verb, host.called = verb, None
    host.files[PENDING] = (json.dumps(dict(RELEASED, **more)), 0o600)
    host.staged["/etc/iptables/.portknock-old"] = ("old", 0o600)
    return host, Guard(host, FakeAgent())


def test_one_that_can_still_be_confirmed_is_waited_for():
    host, guard = released()
    host.now = 1010.0
    assert end_other_version(host) == ""
    with pytest.raises(PendingError, match="made by you@there, .* undone in 20 s") as error:
        guard.finish_earlier()
    assert error.value.pending["id"] == RELEASED["id"]
    assert host.called is None


@pytest.mark.parametrize(
    ("more", "now", "verb"),
    [
        (dict(), 1031.0, "rollback"),
        (dict(state="armed"), 1001.0, "rollback"),
        (dict(state="undoing"), 1001.0, "rollback"),
        (dict(state="confirming"), 1001.0, "confirm"),
    ],
)
def test_its_own_program_ends_it(more, now, verb):
    host, guard = released(verb, **more)
    host.now = now
    assert "made by another version, had been left unfinished; it was ended first" in end_other_version(host)
    assert host.called == verb
    assert guard.finish_earlier() == ""


def test_one_that_its_program_cannot_end_is_refused_with_advice():
    host, guard = released()
    host.now, host.works = 1031.0, False
    end_other_version(host)
    with pytest.raises(OtherVersionError, match="written by another version.*portknock rollback, or portknock confirm"):
        guard.finish_earlier()
    assert PENDING in host.files


def test_one_of_another_boot_is_forgotten():
    host, guard = released(boot="another")
    assert end_other_version(host) == ""
    assert guard.finish_earlier() == ""
    assert (PENDING in host.files, host.staged, host.called) == (False, {}, None)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"version": 2}', '{"version": 99, "id": "x"}'])
def test_a_record_that_nobody_understands_is_refused(text):
    host, guard = released()
    host.files[PENDING] = (text, 0o600)
    assert end_other_version(host) == ""
    for action in (guard.finish_earlier, lambda: guard.confirm(""), lambda: guard.undo("", ""), guard.pending):
        with pytest.raises(OtherVersionError):
            action()
    assert host.called is None
