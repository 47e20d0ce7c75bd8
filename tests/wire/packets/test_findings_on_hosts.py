# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Findings on hosts as there are: what the module says of foreign rules, and what packets say of the same."""

import socket
import subprocess
import sys
import time

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.boot import BOOT_SCRIPT_TEXT, fallback_text
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import build_rules
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from rig.packets import IPV4, IPV6
from rig.peer import OPEN, REFUSED
from rig.target import door

KNOCK = (7000, "9100/udp", 3100)
DOOR = door(*KNOCK, opens=(2222,))
WISH = {"doors": [DOOR], "persist": False}

HARMLESS = """*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
-A PREROUTING -d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 2222 -j DROP
-A PREROUTING ! -i wg0 -d 10.8.0.5/32 -m addrtype ! --src-type LOCAL -m comment --comment "wg-quick(8) rule for wg0" -j DROP
-A PREROUTING -i lo -j CT --notrack
-A PREROUTING -p tcp -m tcp --dport 443 -j CT --notrack
-A OUTPUT -p tcp -m tcp --sport 443 -j CT --notrack
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
-A PREROUTING -f -j DROP
-A PREROUTING -s 224.0.0.0/3 -j DROP
-A PREROUTING -s 240.0.0.0/5 -j DROP
-A PREROUTING -p tcp -m conntrack --ctstate NEW -m tcpmss ! --mss 500:65535 -j DROP
-A PREROUTING -m conntrack --ctstate INVALID -j DROP
-A PREROUTING -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -j DROP
-A PREROUTING -p udp -m comment --comment "wg-quick(8) rule for wg0" -j CONNMARK --restore-mark
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-A - [0:0]
:KUBE-SEP-A - [0:0]
:KUBE-NODEPORTS - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8081 -j DNAT --to-destination 172.17.0.2:80
-A KUBE-SERVICES -d 10.43.7.7/32 -p tcp -m comment --comment "gitlab/shell:ssh cluster IP" -m tcp --dport 2222 -j KUBE-SVC-A
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-SVC-A -j KUBE-SEP-A
-A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination 192.0.2.5:6443
COMMIT
"""


def kinds(result):
    """What was found, but for what these hosts all have: nothing is kept over a reboot, and xt_recent is the machine's."""
    everywhere = ("not_persisted", "list_size")
    return [(each["kind"], each["rule"]) for each in result["findings"] if each["kind"] not in everywhere]


def session_of(peer, family):
    """Knock and connect as a client's kernel does; return the socket."""
    peer.knock(*KNOCK, family=family)
    opened = peer.connect(2222, family)
    assert isinstance(opened, socket.socket), opened
    return opened


def answers(opened):
    """Return whether a session goes on."""
    try:
        opened.sendall(b"x")
        return opened.recv(10) == b"x"
    except OSError:
        return False


def test_rules_that_cannot_meet_the_doors_packets(rig):
    rig.target.restore(IPV4, HARMLESS)
    result = rig.target.module(**WISH, allow=[{"port": 443}])
    assert kinds(result) == []
    assert isinstance(rig.client.connect(2222), ConnectionRefusedError)
    for step in KNOCK:
        # With the options that a kernel sends and a bare SYN lacks, such as the segment size.
        if isinstance(step, int):
            assert isinstance(rig.client.connect(step), ConnectionRefusedError)
        else:
            rig.client.knock(step)
    with rig.client.connect(2222) as opened:
        assert answers(opened)
    with rig.client.connect(443) as opened:
        assert answers(opened)


@pytest.mark.parametrize(
    ("rule", "kind"),
    [
        ("-d 10.77.0.1/32 -p tcp -m tcp --dport 2222 -j REDIRECT --to-ports 80", "unguarded"),
        ("! -i docker0 -p tcp -m tcp --dport 2222 -j REDIRECT --to-ports 80", "unguarded"),
        (
            "-m statistic --mode nth --every 1 --packet 0 -p tcp -m tcp --dport 2222 -j REDIRECT --to-ports 80",
            "may_be_unguarded",
        ),
    ],
)
def test_a_port_that_is_sent_elsewhere_is_open(rig, rule, kind):
    rig.target.restore(IPV4, f"*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING {rule}\nCOMMIT\n")
    result = rig.target.module(**WISH, allow=[{"port": 80}], published="none")
    assert [found for found, _rule in kinds(result)] == [kind]
    assert rig.client.probe(2222) == OPEN, "as the finding says"
    assert kinds(rig.target.module(**WISH, allow=[{"port": 80}])) == []
    assert rig.client.probe(2222) == REFUSED[IPV4], "nat sees who has knocked alone"
    rig.client.knock(*KNOCK)
    assert rig.client.probe(2222) == OPEN


def test_a_door_that_is_not_tracked(rig, family):
    raw = (
        "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A PREROUTING -p tcp -m tcp --dport 2222 -j CT --notrack\n"
        "-A OUTPUT -p tcp -m tcp --sport 2222 -j CT --notrack\nCOMMIT\n"
    )
    wish = dict(WISH, doors=[dict(DOOR, window=2)])
    rig.target.restore(family, raw)
    result = rig.target.module(**wish)
    assert [found for found, _rule in kinds(result)] == ["untracked"] * 2
    with session_of(rig.client, family) as opened:
        assert answers(opened)
        time.sleep(3)
        assert not answers(opened), "it stops when the window is over, as the finding says"
    rig.target.restore(family, "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n")
    assert kinds(rig.target.module(**wish)) == []
    with session_of(rig.client, family) as opened:
        time.sleep(3)
        assert answers(opened)


def test_answers_that_are_not_tracked(rig):
    """What the host asks others for over UDP, as names are."""
    rules = "-A OUTPUT -p udp -m udp --dport 5300 -j CT --notrack\n-A PREROUTING -p udp -m udp --sport 5300 -j CT --notrack\n"
    rig.target.restore(IPV4, f"*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{rules}COMMIT\n")
    result = rig.target.module(**WISH)
    assert [found for found, _rule in kinds(result)] == ["untracked"] * 2
    with rig.client.namespace.entered():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("10.77.0.2", 5300))
    assert not asked(rig, server), "the host loses what it asks for, as the finding says"
    accepting = "*filter\n-I INPUT 1 -p udp -m udp --sport 5300 -j ACCEPT\nCOMMIT\n"
    rig.target.restore(IPV4, accepting, "--noflush")
    assert kinds(rig.target.module(**WISH)) == []
    assert asked(rig, server)
    server.close()


def asked(rig, server):
    """Return whether the target gets an answer."""
    with rig.target.namespace.entered():
        asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with asking:
        asking.settimeout(1)
        asking.sendto(b"name?", ("10.77.0.2", 5300))
        server.settimeout(1)
        _data, source = server.recvfrom(10)
        server.sendto(b"yes", source)
        try:
            return asking.recv(10) == b"yes"
        except OSError:
            return False


LIMITS = {
    "recent": (
        "-p tcp -m tcp --dport 2222 -m conntrack --ctstate NEW -m recent --set --name SSH --rsource",
        "-p tcp -m tcp --dport 2222 -m conntrack --ctstate NEW -m recent --update --seconds 60 --hitcount 4 --name SSH --rsource -j DROP",
        "-p tcp -m tcp --dport 2222 -j ACCEPT",
    ),
    "hashlimit": (
        "-p tcp -m tcp --dport 2222 -m hashlimit --hashlimit-above 2/min --hashlimit-burst 2 --hashlimit-mode srcip "
        "--hashlimit-name ssh -j DROP",
    ),
}


@pytest.mark.parametrize("name", LIMITS)
def test_an_owner_in_a_hurry_is_not_limited(rig, family, name):
    rig.target.load("\n".join(f"-A INPUT {rule}" for rule in LIMITS[name]), family)
    result = rig.target.module(**WISH)
    assert {found for found, _rule in kinds(result)} == {"lost_effect"}
    for _turn in range(12):
        rig.client.knock(*KNOCK, family=family)
        assert rig.client.probe(2222, family) == OPEN
    assert not rig.target.module(**WISH)["changed"]


def test_what_closes_is_closed(rig, family):
    wish = dict(WISH, allow=[{"port": 443}, {"port": "514", "protocol": "udp"}])
    before = {80: rig.client.probe(80, family), 443: rig.client.probe(443, family)}
    assert set(before.values()) == {OPEN}
    planned = rig.target.module(**wish, check=True)["closes"]
    assert rig.target.module(**wish)["closes"] == planned
    closed = {f"{each['port']}/{each['protocol']}" for each in planned}
    assert {"80/tcp", "8000/tcp", "5353/udp"} <= closed
    assert not {"2222/tcp", "443/tcp", "514/udp"} & closed
    assert rig.client.probe(80, family) == REFUSED[family]
    assert rig.client.probe(443, family) == OPEN
    assert rig.target.module(**wish)["closes"] == []


def test_who_listens_is_named(rig):
    rig.target.start_sshd(2244)
    found = [each for each in rig.target.module(**WISH, check=True)["closes"] if each["port"] == 2244]
    assert [(each["process"], each["address"]) for each in found] == [("sshd", "0.0.0.0"), ("sshd", "::")]
    rig.target.stop_sshd(2244)


def test_everybody_comes_in_by_the_default_route(rig):
    rig.target.namespace.run("ip", "route", "add", "default", "via", "10.77.0.3", "dev", "eth0")
    try:
        for name in ("eth0", "e+"):
            refused = rig.target.module(**WISH, trusted_interfaces=["lo", name], expect=1)["msg"]
            assert refused.startswith(
                f"trusted_interfaces[1]: {name} takes in eth0, by which this host's default route of ipv4 leads"
            )
        assert rig.target.save(IPV4).count("PORTKNOCK") == 0
    finally:
        rig.target.namespace.run("ip", "route", "del", "default")


def test_behind_another_firewall_the_doors_come_back(rig, family, tmp_path):
    """As ferm, shorewall and their like do: in place of all that was there. Their service then calls our script."""
    rig.target.apply(DOOR)
    rig.target.load(
        "-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 2222 -j ACCEPT\n-A INPUT -p tcp -j DROP", family
    )
    assert rig.client.probe(2222, family) == OPEN, "the doors are gone"
    spec = spec_from_options({"doors": [DOOR]})
    for each, command in ((IPV4, "iptables"), (IPV6, "ip6tables")):
        (tmp_path / f"{command}.rules").write_text(fallback_text(build_rules(spec, each)))
    script = tmp_path / "portknock-boot"
    script.write_text(BOOT_SCRIPT_TEXT.replace("/etc/portknock", str(tmp_path)))
    command = {IPV4: "iptables", IPV6: "ip6tables"}[family]
    rig.target.restore(family, "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n")
    done = rig.target.namespace.run("sh", script, "again")
    assert done.stderr == (
        f"portknock: another firewall has loaded rules of its own; the doors of {command} are put back\n"
        f"portknock: the rules of {command} for published ports were not in table nat; they are loaded now\n"
    )
    assert rig.target.save(family).count("-A PREROUTING ") == 1
    assert rig.client.probe(2222, family) == REFUSED[family]
    rig.client.knock(*KNOCK, family=family)
    assert rig.client.probe(2222, family) == OPEN
    assert rig.target.namespace.run("sh", script, "again").stderr == ""


TUNNEL = """
import fcntl, socket, struct, sys
device = open("/dev/net/tun", "r+b", buffering=0)
fcntl.ioctl(device, 0x400454CA, struct.pack("16sH", b"tun7", 0x1001))
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 1194))
print("ready", flush=True)
sys.stdin.read()
"""


def test_the_tunnel_that_this_connection_comes_through(rig):
    """As OpenVPN serves one: a process that holds the interface, and listens for packets from outside."""
    with rig.target.namespace.start(
        sys.executable, "-c", TUNNEL, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout.readline() == b"ready\n"
        # That of the machine shows the machine's interfaces.
        rig.target.namespace.run("mount", "-t", "sysfs", "sysfs", "/sys")
        rig.target.namespace.run("ip", "address", "add", "10.9.0.1/24", "dev", "tun7")
        rig.target.namespace.run("ip", "link", "set", "tun7", "up")
        through = {"SSH_CONNECTION": "10.9.0.7 50000 10.9.0.1 2222"}
        result = rig.target.module(**WISH, check=True, env=through)
        first = result["closes"][0]
        assert (first["port"], first["protocol"], first["address"]) == (1194, "udp", "0.0.0.0")
        assert first["process"].startswith("python")
        found = [each for each in result["findings"] if each["kind"] == "tunnel_closes"]
        assert "comes through tun7, a tunnel that ends on this host at port 1194/udp" in found[0]["message"]
        allowed = rig.target.module(**WISH, allow=[{"port": "1194", "protocol": "udp"}], check=True, env=through)
        assert "tunnel_closes" not in [each["kind"] for each in allowed["findings"]]
        beside = rig.target.module(**WISH, check=True, env={"SSH_CONNECTION": "10.77.0.2 50000 10.77.0.1 2222"})
        assert "tunnel_closes" not in [each["kind"] for each in beside["findings"]]
        rig.target.namespace.run("umount", "/sys")
        server.stdin.close()
