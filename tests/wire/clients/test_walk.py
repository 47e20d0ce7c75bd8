# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The quick start, command by command, as a stranger types it, the README has the same ones; and what docs/fleet.md says to do."""

import json
import re
import shlex

import pytest
from rig.bare_host import play_role, user_of
from rig.controller import PING
from rig.stranger import Stranger, page
from rig.target import ROOT, door

WAY = page(ROOT / "docs" / "quick-start.md")


@pytest.fixture
def stranger(bare_host, core):
    """Somebody who has one host and the page."""
    made = Stranger(bare_host, core, WAY)
    yield made
    made.close()


@pytest.mark.on_one_backend
def test_the_quick_start(bare_host, stranger):
    create, check, close, verify, configure, into, remove = WAY.commands
    stranger.type(create)
    shown = stranger.type(check)
    assert "would change (check mode)" in shown
    assert not bare_host.has_command("iptables")
    shown = stranger.type(close)
    assert "Plain ssh is refused without a knock." in shown
    assert "door ssh: 22/tcp closed" in shown
    assert re.search(r"alpha .*failed=0", shown)
    # That the window ends is seen by the tests of verify.
    shown = stranger.type(f"{verify} -e portknock_verify_wait=0")
    assert re.search(r"^alpha  door ssh .*refused.*open.*not waited for.* proved  ok: its window", shown, re.M), shown
    stranger.type(configure)
    assert stranger.type(into).splitlines()[-1] == bare_host.run("hostname").stdout.strip()
    assert bare_host.own_rules()
    stranger.type(remove)
    assert bare_host.own_rules() == []
    stranger.type(f"ansible-playbook -i hosts.ini -b -J {ROOT}/examples/ssh-only.yml")
    assert bare_host.own_rules()


@pytest.mark.soak
def test_a_host_that_was_down_while_the_knock_was_changed(bare_host, core):
    page_of_fleets = (ROOT / "docs" / "fleet.md").read_text()
    words = shlex.split(re.search(r"--limit web3 (-e .*)$", page_of_fleets, re.M)[1])

    def pings():
        bare_host.run("portknock", "close", "ssh")
        user.end_masters()
        return user.play(PING).code

    with user_of(bare_host, core, portknock_doors=[door(*json.loads(words[1])["ansible_knock"])]) as user:
        play_role(user)
        assert pings() == 0
        user.variables["portknock_doors"] = [door(19173, 11411, 17707)]
        assert pings() == 4, "the new knock opens the door of a host that does not know it"
        play_role(user, *words)
        assert pings() == 0
