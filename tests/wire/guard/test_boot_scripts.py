# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A script of the administrator's, or of the cloud's, that writes rules late in each boot: the host is reachable, the words true."""

import signal

import pytest
from rig.bare_host import play_role, user_of

DOOR = {"name": "shell", "knock": [58391, "61427/udp", 53819], "opens": ["22"], "window": 60}
RULES = "/root/boot.rules"
SCRIPT = f"""[Unit]
After=network-online.target portknock.service netfilter-persistent.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'iptables-restore <{RULES}'
[Install]
WantedBy=multi-user.target
"""
OWN_RULES = """*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
"""

pytestmark = pytest.mark.only("nft")


@pytest.fixture
def user(bare_host):
    """A user with the newest release of ansible-core."""
    with user_of(bare_host, portknock_doors=[DOOR]) as made:
        yield made


def add_script(host, rules):
    """Have a script load rules at the end of each boot."""
    host.write(RULES, rules, "0600")
    host.write("/etc/systemd/system/boot-rules.service", SCRIPT, "0644")
    host.run("systemctl", "enable", "--quiet", "boot-rules.service")


def test_rules_of_its_own(bare_host, user):
    """The doors are gone after a boot: the owner gets in, and the next run says so and puts them back."""
    play_role(user)
    add_script(bare_host, OWN_RULES)
    bare_host.reboot()
    assert bare_host.run("iptables", "-S", "INPUT").stdout.count("PORTKNOCK") == 0
    assert user.gets_in(host=bare_host.address)
    seen = user.play({"name": "Look", "sesame.portknock.knock_ruleset_info": {}}).only(task="Look").result
    assert [
        finding["kind"] for finding in seen["findings"] if "INPUT" in finding["text"] or finding["kind"] == "drift"
    ], seen
    mended = play_role(user)
    assert any(event.result.get("changed") for event in mended.events if event.kind == "ok")
    assert bare_host.run("iptables", "-S", "INPUT").stdout.count("PORTKNOCK") == 3


def test_rules_that_hold_an_unconfirmed_change(bare_host, user):
    """What it saved in the window of a change, and loads at the end of the next boot, does not outlive that boot."""
    play_role(user, "--tags", "portknock_install")
    begun = user.start(play={"roles": ["sesame.portknock.portknock"], "vars": {"portknock_guard_timeout": 600}})
    begun.until(lambda: bare_host.pending().get("state") == "applied")
    begun.kill(signal.SIGKILL)
    begun.wait()
    add_script(bare_host, bare_host.run("iptables-save").stdout)
    bare_host.reboot()
    assert bare_host.pending() == {}
    assert user.gets_in(host=bare_host.address), bare_host.rules()
    assert "PORTKNOCK" not in bare_host.rules()
