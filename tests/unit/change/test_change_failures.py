# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole run of knock_ruleset on a host in memory where something fails: all is as it was before."""

import json

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change.guard import Guard
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import MODPROBE, STATE_FILE
from fake_host import FakeHost
from module_run import ACCEPT_22, KEPT, NoAgent, foreign_part, run


def refusing(when):
    def refuse(command, words, data):
        return (4, "", "iptables-restore: line 3 failed\n") if when(command, words, data) else None

    return refuse


def test_the_second_family_fails_and_the_first_is_undone():
    host = FakeHost(v4=ACCEPT_22)
    before = host.state()
    host.refuse = refusing(
        lambda command, words, data: (
            command == "ip6tables-restore" and "PORTKNOCK_HEAD" in data and "--test" not in words
        )
    )
    with pytest.raises(HostError, match="as they were before the change"):
        run(host)
    assert foreign_part(host.state()) == foreign_part(before)
    assert ("restore", "iptables-restore") in host.done


def test_a_text_that_is_refused_in_the_test_changes_nothing():
    host = FakeHost()
    host.refuse = refusing(lambda command, words, _data: command == "ip6tables-restore" and "--test" in words)
    with pytest.raises(HostError, match="ip6tables-restore refused the ruleset, and changed nothing"):
        run(host)
    assert not host.writes()


def test_the_kernel_lacks_a_match():
    host = FakeHost()
    host.refuse = refusing(lambda _command, _words, data: "-m recent" in data)
    with pytest.raises(HostError, match="cannot use the recent match .*kernel-modules-extra.*Nothing was changed"):
        run(host)
    assert not host.writes()
    assert "PORTKNOCK" not in host.rules["iptables"].save()


@pytest.mark.parametrize("path", sorted(KEPT))
def test_a_full_disk_undoes_the_ruleset(path):
    host = FakeHost(v4=ACCEPT_22)
    before = host.state()
    host.disk_full = path
    with pytest.raises(HostError, match="No space left on device.*are as they were before the change"):
        run(host)
    assert foreign_part(host.state()) == foreign_part(before)


def test_a_full_disk_at_modprobe_changes_nothing():
    host = FakeHost()
    host.module, host.disk_full = True, MODPROBE
    before = host.state()
    with pytest.raises(HostError, match="No space left"):
        run(host)
    assert host.state() == before


def test_a_unit_that_fails_undoes_the_ruleset():
    host = FakeHost(v4=ACCEPT_22)
    host.unit_refuses = True
    with pytest.raises(
        HostError,
        match="it could not be kept: systemctl restart portknock.service failed.*are as they were before the change",
    ):
        run(host)
    assert "PORTKNOCK" not in host.rules["iptables"].save()
    assert "PORTKNOCK" not in host.rules["ip6tables"].save()


def test_an_undo_that_fails_is_said_loudly():
    host = FakeHost()
    seen = []

    def refuse(command, words, data):
        if "--test" in words or "PROBE" in data:
            return None
        seen.append(command)
        return (4, "", "busy\n") if len(seen) > 1 else None

    host.refuse = refuse
    with pytest.raises(
        HostError, match="Undoing it failed too, look at it by hand now: .*Running this again tries to undo it first"
    ):
        run(host)
    assert seen[:3] == ["iptables-restore", "ip6tables-restore", "iptables-restore"]
    host.refuse = None
    Guard(host, NoAgent()).finish_earlier()
    assert "PORTKNOCK" not in host.rules["iptables"].save()


def test_somebody_else_changes_the_ruleset_at_the_same_time():
    host = FakeHost()

    def spell(text):
        """Somebody flushes our chains as soon as they are there."""
        return "\n".join(line for line in text.split("\n") if "PORTKNOCK" not in line) if host.done else text

    host.spell = spell
    with pytest.raises(HostError, match="does not read back as it was loaded: something else changed it.*as they were"):
        run(host)


def test_an_unknown_spelling_is_remembered():
    """A version of iptables-save that prints our rules in a way of its own must not mean changed for ever."""
    host = FakeHost()

    def spell(text):
        lines = text.split("\n")
        return "\n".join(
            line.replace("-m conntrack --ctstate ESTABLISHED", "-m conntrack --ctstate established")
            if "PORTKNOCK" in line else line for line in lines
        )  # fmt: skip

    host.spell = spell
    result = run(host)
    assert result["changed"] is True
    assert sorted(json.loads(host.read(STATE_FILE))["spelling"]) == ["ipv4", "ipv6"]
    assert host.mode(STATE_FILE) == 0o600
    host.frozen = True
    assert run(host)["changed"] is False
    host.frozen = False
    host.spell = lambda text: spell(text).replace("--seconds 5 ", "--seconds 500 ")
    assert run(host, check=True)["changed"] is True, "an edit is not a spelling"


def test_rules_files_that_cannot_be_followed_stop_it_before_anything_is_changed():
    host = FakeHost(files={"/etc/iptables/rules.v6": ("*filter\nrubbish\nCOMMIT\n", 0o644)})
    host.frozen = True
    with pytest.raises(HostError, match="/etc/iptables/rules.v6, line 2: is not a rule"):
        run(host)
