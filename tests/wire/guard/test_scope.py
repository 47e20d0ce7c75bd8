# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the guard owns on a whole host with systemd: services, other firewalls, what a boot loads, and its own way back.

The criterion is the host's truth: a new ssh from outside, our rules whole or gone, services as they were.
"""

import pytest
from rig.bare_host import begin_and_leave, changed, play_role, until, user_of
from rig.controller import cores

DOOR = {"name": "shell", "knock": [58391, "61427/udp", 53819], "opens": ["22"], "window": 2}
OTHER = {"name": "web", "knock": [57113, 59021], "opens": ["8080"]}
STALE = "*filter\n:INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT\nCOMMIT\n"
FIREWALLD = """[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/ip route add blackhole 192.0.2.99
ExecStop=/usr/sbin/ip route delete blackhole 192.0.2.99
[Install]
WantedBy=multi-user.target
"""
OURS = "/etc/portknock/pending"
RULES = "/root/boot.rules"
SCRIPT = f"""[Unit]
After=network-online.target portknock.service netfilter-persistent.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'iptables-restore <{RULES}'
[Install]
WantedBy=multi-user.target
"""
"""Of the administrator's, or of the cloud's: it writes rules late in each boot."""

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
    with user_of(bare_host, cores()[-1], portknock_doors=[DOOR], portknock_guard_timeout=30) as made:
        yield made


def begun(user, host, **variables):
    """Begin a change that adds a door, and leave it."""
    begin_and_leave(user, host, **{"portknock_doors": [DOOR, OTHER], **variables})
    assert "door web" in host.rules()


def found(host, words):
    return host.run("sh", "-c", words, check=False).stdout.strip()


def add_script(host, rules):
    """Have a script load rules at the end of each boot."""
    host.write(RULES, rules, "0600")
    host.write("/etc/systemd/system/boot-rules.service", SCRIPT, "0644")
    host.run("systemctl", "enable", "--quiet", "boot-rules.service")


def hooks(host):
    return host.run("iptables", "-S", "INPUT").stdout.count("-j PORTKNOCK")


def test_services_and_other_firewalls(bare_host, user):
    """A stale rules file is never enabled; another firewall that made way is back where the change is not kept."""
    host = bare_host
    host.run("sh", "-c", "mkdir -p /etc/iptables")
    host.write("/etc/iptables/rules.v4", STALE, "0640")
    elsewhere = {"portknock_policy": "accept", "portknock_doors": [OTHER]}
    refused = play_role(user, code=2, **elsewhere)
    assert "persist: /etc/iptables/rules.v4 is what a boot loads, and its chain INPUT refuses" in refused.output
    assert host.enabled("netfilter-persistent") == ["disabled"]
    assert "PORTKNOCK" not in host.rules()
    assert user.gets_in(host=host.address)

    host.write("/etc/systemd/system/firewalld.service", FIREWALLD, "0644")
    host.run("systemctl", "enable", "--now", "--quiet", "firewalld.service")
    begun(user, host, portknock_conflicting_firewall="disable", portknock_guard_timeout=15)
    assert host.state("firewalld") == ("inactive", "enabled")
    assert found(host, "ip route show type blackhole") == ""
    until(lambda: not host.pending())
    assert host.last()["outcome"] == "rolled_back"
    assert host.state("firewalld") == ("active", "enabled")
    assert found(host, "ip route show type blackhole") == "blackhole 192.0.2.99"
    assert host.enabled("netfilter-persistent") == ["disabled"]
    assert "PORTKNOCK" not in host.rules()
    assert host.text_of("/etc/iptables/rules.v4") == STALE
    assert user.gets_in(host=host.address)


def test_the_way_back_outlives_what_others_do(bare_host, user):
    """In the window /run is emptied, Python is lost, the live rules are saved and the host is restarted.

    What was saved does not outlive the boot that loads it; where a script removes the doors in each boot, that is said.
    """
    host = bare_host
    play_role(user)
    kept = host.own_rules()

    def is_as_before():
        return host.own_rules() == kept

    begun(user, host, portknock_guard_timeout=15)
    assert found(host, "stat -c %a /run/portknock.d /run/portknock.d/lock /etc/portknock/pending").split() == [
        "700",
        "600",
        "700",
    ]
    host.run("rm", "-rf", "/run/portknock")
    until(is_as_before)
    until(lambda: host.last().get("outcome") == "rolled_back")
    assert found(host, f"ls {OURS} /etc/systemd/system/portknock-undo.service 2>/dev/null") == ""

    begun(user, host, portknock_guard_timeout=15)
    python = found(host, "readlink -f /usr/bin/python3")
    host.run("mv", python, python + ".lost")
    until(lambda: host.last().get("undo") == "emptied")
    assert not [line for line in host.rules().splitlines() if line.startswith("-A PORTKNOCK")]
    assert user.gets_in(host=host.address), "nothing is refused by us"
    host.run("mv", python + ".lost", python)
    play_role(user)
    assert is_as_before()

    begun(user, host, portknock_guard_timeout=600)
    host.run("netfilter-persistent", "save")
    assert "door web" in host.text_of("/etc/iptables/rules.v4")
    add_script(host, host.run("iptables-save").stdout)
    host.reboot()
    assert host.run("systemctl", "is-active", "boot-rules.service", check=False).stdout != "failed\n"
    until(is_as_before)
    assert "door web" not in host.text_of("/etc/iptables/rules.v4", "/etc/iptables/rules.v6")
    until(lambda: found(host, "find /etc /run -xdev -name '.portknock-*' -o -path '*portknock/pending*'") == "")
    assert host.last()["why"] == "the host was restarted before it was confirmed"
    assert host.state("portknock") == ("active", "enabled")
    play_role(user)

    add_script(host, OWN_RULES)
    host.reboot()
    assert hooks(host) == 0
    assert user.gets_in(host=host.address), "the script's own rules let everyone in"
    seen = user.play({"name": "Look", "sesame.portknock.knock_ruleset_info": {}}).only(task="Look").result
    assert seen["drift"], seen
    assert changed(play_role(user))
    assert hooks(host) == 3
