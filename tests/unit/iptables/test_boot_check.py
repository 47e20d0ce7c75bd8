# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a boot would load is judged before anything is changed: it must load, and this connection must get in under it."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError, SpecError
from fake_host import EL, FakeHost
from module_run import DOOR, run, settled

PATHS = {"ipv4": "/etc/iptables/rules.v4", "ipv6": "/etc/iptables/rules.v6"}
ME = "192.0.2.7 50000 192.0.2.1 22"
ME6 = "2001:db8::7 50000 2001:db8::1 22"
WEB = "-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT\n"
SSH = "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n"
DROP = "*filter\n:INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\n"


def host_with(text, ssh=ME, family="ipv4", **more):
    host = FakeHost(files={PATHS[family]: (text, 0o640)}, **more)
    host.ssh = ssh
    return host


ELSEWHERE = dict(doors=[dict(DOOR, opens=["8080"])], policy="accept")

REFUSED = [
    ("Windows ends of line", "*filter\r\n:INPUT ACCEPT [0:0]\r\n" + WEB[:-1] + "\r\nCOMMIT\r\n", {}, "its lines end with carriage"),
    ("one such line", "*filter\n:INPUT ACCEPT [0:0]\r\n" + WEB + "COMMIT\n", {}, "its lines end with carriage"),
    ("a byte order mark", "\ufeff*filter\n:INPUT ACCEPT [0:0]\n" + WEB + "COMMIT\n", {}, "it begins with a byte order mark"),
    ("a host name", DROP + "-A INPUT -s mail.example.com -j ACCEPT\nCOMMIT\n", {}, "the host name mail.example.com, which"),
    ("a host name in a list", DROP + "-A INPUT -s 192.0.2.1,a.example/24 -j ACCEPT\nCOMMIT\n", {}, "the host name a.example/24"),
    ("a host name, spelled out", DROP + "-A INPUT ! --dst gw -j ACCEPT\nCOMMIT\n", {}, "the host name gw, which"),
    ("a host name in nat", "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -d db -j RETURN\nCOMMIT\n", {}, "the host name db, which"),
    ("what no command takes", DROP + "-A INPUT -j NO_SUCH_TARGET\nCOMMIT\n", {}, "it does not load with the knock rules in it: ip"),
    ("nobody gets in", DROP + WEB + "COMMIT\n", ELSEWHERE, "its chain INPUT refuses this connection, so after a reboot"),
    ("others get in", DROP + SSH.replace("INPUT", "INPUT -s 198.51.100.0/24") + "COMMIT\n", ELSEWHERE, "its chain INPUT refuses"),
    ("a catch-all", "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j REJECT\n" + SSH + "COMMIT\n", ELSEWHERE, "its chain INPUT refuses"),
    ("no answer gets out", "*filter\n:INPUT ACCEPT [0:0]\n:OUTPUT DROP [0:0]\n" + SSH + "COMMIT\n", ELSEWHERE, "its chain OUTPUT lets no"),
    ("raw refuses", "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -j DROP\nCOMMIT\n", {}, "chain PREROUTING of its table raw"),
    ("mangle refuses", "*mangle\n:INPUT DROP [0:0]\nCOMMIT\n", {}, "chain INPUT of its table mangle refuses"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "more", "why"), [item[1:] for item in REFUSED], ids=[item[0] for item in REFUSED])
def test_it_is_refused_before_anything_is_changed(text, more, why):
    host = host_with(text)
    before = host.state()
    with pytest.raises(SpecError) as error:
        run(host, **more)
    said = str(error.value)
    assert said.startswith("persist: /etc/iptables/rules.v4 is what a boot loads, and ")
    assert why in said
    assert said.endswith("Nothing was changed.")
    assert host.state() == before
    assert not host.writes()
    run(host, **dict(more, persist=False))


TAKEN = [
    ("no file", "", {}),
    ("a door lets us in", DROP + WEB + "COMMIT\n", {}),
    ("an exception lets us in", DROP + "COMMIT\n", dict(ELSEWHERE, allow=[{"port": "22"}])),
    ("we are trusted", DROP + "COMMIT\n", dict(ELSEWHERE, trusted_sources=["192.0.2.0/24"])),
    ("a foreign rule lets us in", DROP + SSH + "COMMIT\n", ELSEWHERE),
    ("nothing is refused", "*filter\n:INPUT ACCEPT [0:0]\n" + WEB + "COMMIT\n", ELSEWHERE),
    ("addresses of all kinds", DROP + "-A INPUT -s 10.0.0.0/255.0.0.0 -d 192.0.2.1 -j ACCEPT\nCOMMIT\n", {}),
    ("another filter table counts", DROP + "COMMIT\n*filter\n:INPUT ACCEPT [0:0]\n" + WEB + "COMMIT\n", ELSEWHERE),
    ("raw lets us through", "*raw\n:PREROUTING DROP [0:0]\n-A PREROUTING -p tcp -j ACCEPT\nCOMMIT\n", {}),
]


@pytest.mark.parametrize(("text", "more"), [item[1:] for item in TAKEN], ids=[item[0] for item in TAKEN])
def test_it_is_kept(text, more):
    settled(host_with(text), **more)


def test_the_file_of_a_family_that_is_not_managed_counts_where_one_service_loads_both():
    text = DROP + WEB + "COMMIT\n"
    with pytest.raises(SpecError, match=r"rules.v6 is what a boot loads, and its chain INPUT refuses"):
        run(host_with(text, ME6, "ipv6"), ip_versions=["ipv4"])
    host = FakeHost(EL, files={"/etc/sysconfig/ip6tables": (text, 0o600)})
    host.ssh = ME6
    run(host, ip_versions=["ipv4"])


def test_another_connection_is_none_of_its_business():
    run(host_with(DROP + "COMMIT\n", ME6), **ELSEWHERE)
    run(host_with(DROP + "COMMIT\n", None), **ELSEWHERE)


def test_rules_that_this_kernel_lacks_are_told_as_such():
    """The probe says which package is missing; that the file does not load either is no news."""
    host = host_with("*filter\n:INPUT ACCEPT [0:0]\n" + WEB + "COMMIT\n")
    host.refuse = lambda _command, _words, data: (2, "", "no such match") if "-m recent" in data else None
    with pytest.raises(HostError, match="cannot use the recent match"):
        run(host)


def test_a_run_that_changes_nothing_tests_no_file():
    host = host_with(DROP + WEB + "COMMIT\n")
    settled(host)
    host.commands = []
    assert run(host)["changed"] is False
    assert not [words for words in host.commands if "--test" in words]


def test_check_mode_tests_no_file_with_a_command_and_judges_it_all_the_same():
    host = host_with(DROP + WEB + "COMMIT\n")
    run(host, check=True)
    assert not [words for words in host.commands if "--test" in words]
    with pytest.raises(SpecError, match="its chain INPUT refuses"):
        run(host, check=True, **ELSEWHERE)
