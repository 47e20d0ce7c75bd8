# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whole hosts with a setting or a program of their own: what the role says, and that a change on them ends old or new."""

import contextlib
import os

import pytest
from rig.bare_host import begin_and_leave, play_role, until, user_of
from rig.controller import cores

STEPS = [58391, "61427/udp", 53819]
DOOR = {"name": "shell", "knock": STEPS, "opens": ["22"], "window": 2}
OTHER = {"name": "web", "knock": [57113, 59021], "opens": ["8080"]}
SAVED = "/etc/sysconfig/iptables"
SERVICES = ("iptables.service", "ip6tables.service")
STRICT_SSHD = "PerSourcePenalties noauth:240 authfail:240 min:1 max:600\nLogLevel VERBOSE\n"
KNOCK = "sesame.portknock.knock"

pytestmark = pytest.mark.only("nft")


@pytest.fixture
def user(bare_host):
    with user_of(bare_host, cores()[-1], portknock_doors=[DOOR], portknock_guard_timeout=300) as made:
        yield made


def own_lines(text):
    """Return the rules of the collection in a rules file."""
    return [line for line in text.splitlines() if line.startswith("-A") and "PORTKNOCK" in line]


@pytest.mark.soak
@pytest.mark.image("el-standin")
def test_service_that_saves_when_it_stops(bare_host, user):
    """EL's setting: a restart of the service, or of the host, in the window saves what is not confirmed. It never stays."""
    host = bare_host
    host.run("mkdir", "-p", os.path.dirname(SAVED))
    play_role(user)
    host.run("systemctl", "start", *SERVICES)
    kept, file_before = host.own_rules(), host.text_of(SAVED)
    assert kept
    for name in ("iptables", "ip6tables"):
        host.write(f"{SAVED.replace('iptables', name)}-config", f"{name.upper()}_SAVE_ON_STOP=yes\n", "0600")
    assert f"IPTABLES_SAVE_ON_STOP in {SAVED}-config" in play_role(user).output

    begin_and_leave(user, host, portknock_doors=[DOOR, OTHER], portknock_guard_timeout=20)
    host.run("systemctl", "restart", *SERVICES)
    assert "door web" in host.text_of(SAVED), "the service did not save"
    until(lambda: host.last().get("outcome") == "rolled_back")
    assert host.own_rules() == kept
    assert "door web" not in host.text_of(SAVED)

    begin_and_leave(user, host, portknock_doors=[DOOR, OTHER], portknock_guard_timeout=600)
    host.reboot()
    assert host.last()["why"] == "the host was restarted before it was confirmed"
    assert host.own_rules() == kept
    assert "door web" not in host.text_of(SAVED)
    assert own_lines(host.text_of(SAVED)) == own_lines(file_before)


@contextlib.contextmanager
def undone(host, kept):
    """Wait until the host is as it was before a change that was left."""
    # Where the machine was slow it may have ended already.
    ident = (host.pending() or host.last())["id"]
    yield
    until(lambda: (host.last()["id"], host.last()["undo"]) == (ident, "exact"))
    assert host.last()["outcome"] == "rolled_back"
    assert host.own_rules() == kept
    assert host.pending() == {}


def outlives_what_undoes_it(user, host, soak):
    """The window's programs are taken away with Python, or with all of the user space: the change does not stay."""
    kept = host.own_rules()
    # Debian 12 loses its Python every time, in test_scope.py.
    if soak:
        begin_and_leave(user, host, portknock_doors=[DOOR, OTHER], portknock_guard_timeout=12)
        with undone(host, kept):
            host.run("mv", "/usr/bin/python3.13", "/root/")
        host.run("mv", "/root/python3.13", "/usr/bin/")
    begin_and_leave(user, host, portknock_doors=[DOOR, OTHER], portknock_guard_timeout=600)
    with undone(host, kept):
        host.run("systemctl", "soft-reboot")


def penalties(host):
    """Return what sshd says of connections that it counts."""
    return host.run("journalctl", "--unit=ssh.service", "--output=cat").stdout


@pytest.mark.image("debian-13")
def test_sshd_that_shuts_out_who_does_not_log_in(bare_host, user, soak):
    """Since OpenSSH 9.8: no try of the guard, of verify, of knock or of knock_ssh counts as a connection that did not log in.

    What Debian 13 has as well is a restart of the user space alone, in the window of a change.
    """
    host = bare_host
    host.write("/etc/ssh/sshd_config.d/strict.conf", STRICT_SSHD, "0644")
    host.run("systemctl", "restart", "ssh")
    assert "persourcepenalties crash:90 authfail:240 noauth:240" in host.run("sshd", "-T").stdout
    play_role(user, portknock_verify=True)
    waits = {KNOCK: {"host": host.address, "knock": STEPS, "wait_for": {"port": 22}}, "delegate_to": "localhost"}
    seen = user.play(dict(waits, name="Knock"), {"name": "Reset", "ansible.builtin.meta": "reset_connection"}, {
        "name": "Ping", "ansible.builtin.ping": {},
    })  # fmt: skip
    assert seen.code == 0, seen.output
    host.run("iptables", "-t", "raw", "-A", "PREROUTING", "-p", "udp", "--dport", "61427", "-j", "DROP")
    assert "Rolled back" in play_role(user, code=2, portknock_doors=[DOOR, OTHER], portknock_guard_timeout=5).output
    host.run("iptables", "-t", "raw", "-F")
    assert "penalty" not in penalties(host)
    # Here is one that does not log in.
    host.run("ssh-keyscan", "-t", "ed25519", "127.0.0.1")
    until(lambda: "penalty" in penalties(host))
    outlives_what_undoes_it(user, host, soak)


SET_UP = {
    # It calls the legacy commands, whatever the alternative is; docker has put rules of nft here.
    "ferm": """
        sed -i 's/^ENABLED=.*/ENABLED=yes/' /etc/default/ferm
        iptables-nft -t nat -F
        iptables-nft -t nat -X
        for name in iptables ip6tables; do update-alternatives --quiet --set $name /usr/sbin/$name-legacy; done
    """,
    "shorewall": """
        cd /usr/share/doc/shorewall/examples/one-interface
        for name in interfaces policy zones; do cp $name /etc/shorewall/; done
        printf '?SECTION NEW\nACCEPT net $FW tcp 22\n' >/etc/shorewall/rules
        sed -i 's/^startup=.*/startup=1/' /etc/default/shorewall
    """,
}


@pytest.mark.soak
@pytest.mark.parametrize("name", SET_UP)
def test_firewall_that_loads_rules_of_its_own(bare_host, user, name):
    """Debian's packages of others: named, and the doors are there after each start of theirs and after a boot."""
    host = bare_host
    host.install(name)
    host.run("sh", "-ec", SET_UP[name])
    host.run("systemctl", "enable", "--quiet", name)
    host.run("systemctl", "restart", name)
    assert user.gets_in(host=host.address)
    assert f"{name} is in use on this host" in play_role(user).output
    # Where they stand may differ: what puts them back does not plan.
    rules = sorted(host.own_rules())
    for act in (
        lambda: host.run("systemctl", "restart", name),
        lambda: host.run("systemctl", "reload", name),
        host.reboot,
    ):
        act()
        assert sorted(host.own_rules()) == rules
        until(lambda: not user.gets_in(host=host.address))
    assert host.state(name) == ("active", "enabled")
