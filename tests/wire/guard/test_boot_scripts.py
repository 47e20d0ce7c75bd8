# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A script of the administrator's, or of the cloud's, that writes rules late in each boot: the host is reachable, the words true."""

import pytest
from rig.bare_host import begin_and_leave, changed, play_role, user_of
from rig.controller import cores

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
    with user_of(bare_host, cores()[-1], portknock_doors=[DOOR]) as made:
        yield made


def add_script(host, rules):
    """Have a script load rules at the end of each boot."""
    host.write(RULES, rules, "0600")
    host.write("/etc/systemd/system/boot-rules.service", SCRIPT, "0644")
    host.run("systemctl", "enable", "--quiet", "boot-rules.service")


def hooks(host):
    return host.run("iptables", "-S", "INPUT").stdout.count("-j PORTKNOCK")


def test_script_at_boot(bare_host, user):
    """What was saved in the window of a change does not outlive the boot that loads it; where a script removes the doors, that is said."""
    begin_and_leave(user, bare_host, portknock_guard_timeout=600)
    add_script(bare_host, bare_host.run("iptables-save").stdout)
    bare_host.reboot()
    assert bare_host.run("systemctl", "is-active", "boot-rules.service", check=False).stdout != "failed\n"
    assert user.gets_in(host=bare_host.address), bare_host.rules()
    assert hooks(bare_host) == 0

    play_role(user)
    add_script(bare_host, OWN_RULES)
    bare_host.reboot()
    assert hooks(bare_host) == 0
    assert user.gets_in(host=bare_host.address), "the script's own rules let everyone in"
    seen = user.play({"name": "Look", "sesame.portknock.knock_ruleset_info": {}}).only(task="Look").result
    assert seen["drift"], seen
    assert changed(play_role(user))
    assert hooks(bare_host) == 3
