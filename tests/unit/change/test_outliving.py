# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back outlives what others do to it in the window: /run is emptied, rules are saved, the host is restarted."""

import json

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change import agent_program
from ansible_collections.sesame.portknock.plugins.module_utils._change.record import Record
from ansible_collections.sesame.portknock.plugins.module_utils._paths import SPARE, SPARE_RECORD, UNDONE_RECORD
from ansible_collections.sesame.portknock.plugins.module_utils._tables.commands import own_lines
from fake_host import is_of_a_change
from story import IDENT, Story


def test_run_that_is_emptied_leaves_the_way_back(story):
    """Somebody removes /run/portknock in the window: what is on the disk says the same."""
    story.apply()
    story.host.files = {path: value for path, value in story.host.files.items() if not path.startswith("/run/")}
    assert story.guard.undo(IDENT, "it was not confirmed in time")["outcome"] == "rolled_back"
    story.assert_old()


def test_run_that_is_emptied_leaves_the_way_ahead(story):
    story.apply()
    story.host.files = {path: value for path, value in story.host.files.items() if not path.startswith("/run/")}
    assert story.confirm()["outcome"] == "confirmed"
    story.assert_new()


@pytest.mark.parametrize("moment", ["between two looks", "at the deadline"])
def test_a_record_that_is_removed_at_any_moment_is_not_taken_for_an_end(story, monkeypatch, moment):
    """By the process that waits where systemd does not run."""
    story.apply()
    pending, looks = story.guard.pending, []

    def remove():
        story.host.files = {path: value for path, value in story.host.files.items() if not is_of_a_change(path)}

    def removed_before_the_second_look():
        looks.append(1)
        if len(looks) == 2 and moment == "between two looks":
            remove()
        return pending()

    if moment == "at the deadline":
        monkeypatch.setattr(story.agent, "put_back", remove)

    def sleep(seconds):
        story.host.now += seconds

    monkeypatch.setattr(story.guard, "pending", removed_before_the_second_look)
    monkeypatch.setattr(agent_program, "Agent", lambda _host: story.agent)
    monkeypatch.setattr(agent_program.time, "sleep", sleep)
    monkeypatch.setattr(agent_program.os, "dup2", lambda *_numbers: None)
    answer, done = agent_program._wait(story.guard, story.host, IDENT)
    assert (answer["outcome"], done) == ("rolled_back", True)
    story.assert_old()


def test_a_copy_that_could_not_be_removed_revives_nothing():
    """The disk became read-only in the window, after the record was written."""
    story = Story()
    record = story.apply()
    story.confirm()
    story.host.files[SPARE_RECORD] = (json.dumps(record._asdict()), 0o600)
    assert story.guard.pending() is None


def ours(text):
    """Our rules of a save or a file; where a chain stands in it means nothing."""
    return sorted(own_lines(text).split("\n"), key=lambda line: line.split(" ")[:2])


SAVED = {"ipv4": "/etc/iptables/rules.v4", "ipv6": "/etc/iptables/rules.v6"}
COMMANDS = {"ipv4": "iptables", "ipv6": "ip6tables"}


def save_all(host):
    """Do what netfilter-persistent save does."""
    for family, path in SAVED.items():
        host.files[path] = (host.rules[COMMANDS[family]].save(), 0o640)


def test_a_save_and_a_reboot_in_the_window(story):
    """What was not confirmed comes with the boot, and goes before anybody gets in; so do staged files."""
    story.apply()
    save_all(story.host)
    story.host.reboot()
    story.guard.finish_earlier()
    for family, path in SAVED.items():
        live = story.host.rules[COMMANDS[family]].save()
        assert ours(live) == ours(story.old[1].get(path, ("", 0))[0] or ""), family
        assert ours(story.host.read(path)) == ours(live)
        assert "dport 80 " in live or family == "ipv6", "a foreign rule went"
    assert not story.host.staged
    assert not [path for path in story.host.files if path.startswith((SPARE, "/run/portknock/"))]


@pytest.fixture
def restarted(story):
    """A host that was restarted in the window and has undone the change; the value is what a script saved in the window."""
    story.apply()
    saved = {command: rules.save() for command, rules in story.host.rules.items()}
    story.host.reboot()
    agent_program._boot(story.guard, story.host, "")
    return saved


def load(host, saved):
    """Do what such a script does late in the boot."""
    for command, text in saved.items():
        host.rules[command].restore(text, noflush=False, test=False)


def test_what_a_script_loads_late_in_the_boot_is_taken_out(story, restarted):
    load(story.host, restarted)
    agent_program._boot_again(story.guard, story.host, IDENT)
    for family, path in SAVED.items():
        assert ours(story.host.rules[COMMANDS[family]].save()) == ours(story.host.read(path) or ""), family


def test_what_changed_since_the_boot_is_left_alone(story, restarted):
    """Another change has ended since, or one is pending."""
    load(story.host, restarted)
    loaded = {command: rules.save() for command, rules in story.host.rules.items()}
    agent_program._boot_again(story.guard, story.host, "f" * 16)
    story.guard._store.write(Record(**json.loads(story.host.read(UNDONE_RECORD)))._replace(id="f" * 16))
    agent_program._boot_again(story.guard, story.host, IDENT)
    assert {command: rules.save() for command, rules in story.host.rules.items()} == loaded


def test_a_save_in_the_window_keeps_what_others_added(story):
    story.apply()
    rule = "-A INPUT -p tcp -m tcp --dport 8080 -j ACCEPT"
    story.host.rules["iptables"].restore("*filter\n{0}\nCOMMIT\n".format(rule), noflush=True, test=False)
    save_all(story.host)
    story.guard.undo(IDENT, "")
    for text in (story.host.rules["iptables"].save(), story.host.read(SAVED["ipv4"])):
        assert rule in text
    old = story.old[1].get(SAVED["ipv4"], ("", 0))[0]
    assert ours(story.host.read(SAVED["ipv4"])) == ours(old)


def test_a_reboot_while_it_is_kept_keeps_it():
    story = Story()
    record = story.apply()
    story.guard._store.write(record._replace(state="confirming"))
    story.host.reboot()
    story.guard.finish_earlier()
    assert story.guard.ended(IDENT)["outcome"] == "confirmed"
    assert story.seen()[1] == story.new[1]
