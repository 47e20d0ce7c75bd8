# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Panic over ssh: undone unless a new connection confirms it."""

from harness import Visitor
from rig_console import AFTER, DOOR, soon, ssh


def say(target, command):
    """Run a command over a new connection of ssh, and return what it prints, errors as well."""
    return ssh(f"root@{target.address}", f"({command}) 2>&1; echo code $?")


def close(controller, **more):
    done = controller.apply(dict(AFTER, **more)).only()
    assert done.kind == "ok" and done.result["guard"]["state"] == "confirmed", done


def test_without_a_confirmation_it_is_undone(target, controller):
    close(controller)
    visitor = Visitor(target.address)
    visitor.knock(DOOR["knock"])
    said = say(target, "portknock panic; portknock confirm")
    assert "This is undone in 60 s" in said and "This connection is older than the change" in said, said
    visitor.knock(DOOR["knock"])
    assert not target.lets_in()
    # As its timer does it after a minute.
    target.run("systemctl start portknock-guard.service")
    assert soon(target.lets_in_after_a_knock) and soon(target.is_tidy), target.leftovers()


def test_a_new_connection_confirms_it(target, controller):
    source = ssh(f"root@{target.address}", "echo ${SSH_CONNECTION%% *}").strip()
    close(controller, trusted_sources=[source])
    visitor = Visitor(target.address)
    assert "code 0" in say(target, "portknock panic")
    said = say(target, "portknock confirm")
    assert said == "The change is confirmed and kept.\ncode 0\n"
    # The process that waits beside the timer looks twice a second whether there is still something to wait for.
    assert soon(target.is_tidy) and visitor.finds_open(22)
    said = say(target, "portknock status")
    assert f"\n  still let in: {source}\n" in said and f" to 22/tcp from {source}" in said, said
    event = controller.apply(dict(AFTER, trusted_sources=[source])).only()
    assert event.kind == "failed" and "this host is in panic since " in event.result["msg"], event
    assert "code 2" in say(target, "portknock status --check")
    assert "code 0" in say(target, "portknock resume")
    done = controller.apply(dict(AFTER, trusted_sources=[source])).only()
    assert done.kind == "ok" and not done.result["changed"], done
