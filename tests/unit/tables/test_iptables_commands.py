# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the commands of iptables are called, and what is said when they fail."""

import os

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import build_rules
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.module_utils._tables.commands import Iptables
from fake_host import FakeHost
from module_run import settled

CHAINS = build_rules(
    spec_from_options({"doors": [{"name": "ssh", "knock": ["17005", "19100/udp"], "opens": ["22"]}], "log": True}),
    "ipv4",
).chains


def iptables(host):
    return Iptables(host.run, host.find, host.read)


def failing(err, code=2):
    host = FakeHost()
    host.refuse = lambda _command, _words, _data: (code, "", err)
    return host


@pytest.mark.parametrize(
    ("missing", "wanted"), [(None, True), ("iptables", False), ("iptables-save", False), ("iptables-restore", False)]
)
def test_installed(missing, wanted):
    host = FakeHost()
    host.tools.discard(missing)
    assert iptables(host).installed("ipv4") == wanted
    assert iptables(host).installed("ipv6")


@pytest.mark.parametrize(
    ("version", "wanted"),
    [
        ("iptables v1.8.4 (nf_tables)\n", "nft"),
        ("iptables v1.8.11 (legacy)\n", "legacy"),
        ("iptables v1.6.1\n", "legacy"),
    ],
)
def test_backend(version, wanted):
    host = FakeHost()
    host.version = version
    assert iptables(host).backend == wanted


def test_restore_waits_for_the_lock_and_flushes_nothing():
    host = FakeHost()
    text = "*filter\n:PORTKNOCK - [0:0]\nCOMMIT\n"
    commands = iptables(host)
    commands.restore("ipv6", text, test=True)
    commands.restore("ipv6", text)
    assert host.commands == [
        ("/usr/sbin/iptables", "-V"),
        ("/usr/sbin/ip6tables-restore", "-w", "30", "--noflush", "--test"),
        ("/usr/sbin/ip6tables-restore", "-w", "30", "--noflush"),
    ]


TEXT = (
    "*filter\n:PORTKNOCK_K1 - [0:0]\n-A PORTKNOCK_K1 -p tcp -m tcp --dport 17005 -m recent --set --name pk4_.2\n"
    "-A PORTKNOCK -p udp -m multiport --dports 19100 -g PORTKNOCK_K1\n-A INPUT -j PORTKNOCK\nCOMMIT\n"
)


@pytest.mark.parametrize(
    ("err", "shown"),
    [
        (
            "iptables-restore: line 3 failed\n",
            "-A PORTKNOCK_K1 -p tcp -m tcp --dport **** -m recent --set --name pk4_.2",
        ),
        ("Error occurred at line: 4\n", "-A PORTKNOCK -p udp -m multiport --dports **** -g PORTKNOCK_K1"),
        ("iptables-restore v1.8.9 (nf_tables): \nline 5: CHAIN_USER_ADD failed\n", "-A INPUT -j PORTKNOCK"),
        ("no line at all\n", ""),
        ("line 77 failed\n", ""),
    ],
)
def test_the_failing_line_is_shown_without_steps(err, shown):
    with pytest.raises(HostError) as refusal:
        iptables(failing(err)).restore("ipv4", TEXT)
    message = str(refusal.value)
    assert message.startswith("iptables-restore refused the ruleset, and changed nothing: ")
    assert shown in message
    assert "17005" not in message
    assert "19100" not in message


@pytest.mark.parametrize(
    "err",
    [
        "iptables-restore v1.8.9 (nf_tables): \nline 3: RULE_APPEND failed (No such file or directory): rule in chain PORTKNOCK_K1\n",
        "iptables-restore v1.8.9: invalid port/service `17005' specified\nError occurred at line: 3\n",
        "Bad argument `17005'\nError occurred at line: 3\n",
        "iptables-restore: line 3 failed: -A PORTKNOCK_K1 -p tcp -m tcp --dport 17005 -m recent --set\n",
    ],
)
def test_what_iptables_itself_says_of_a_step_is_masked(err):
    with pytest.raises(HostError) as refusal:
        iptables(failing(err)).restore("ipv4", TEXT)
    assert "17005" not in str(refusal.value)


def test_save_that_fails():
    host = FakeHost()
    seams = Iptables(
        lambda _words, _data: (1, "", "modprobe: not permitted\n"), host.find, host.read, iptables(host).commands
    )
    with pytest.raises(HostError) as refusal:
        seams.save("ipv6")
    assert str(refusal.value) == "ip6tables-save failed: modprobe: not permitted. Run it by hand to see why."


@pytest.mark.parametrize(
    ("lacking", "name"),
    [("-m recent", "the recent match"), ("-m multiport", "the multiport match"), ("-m pkttype", "the pkttype match"),
     ("-m limit", "the limit match"), ("-j LOG", "the LOG target"), ("-j REJECT", "the REJECT target"),
     ("-m comment", "the comment match"), ("-m conntrack", "the conntrack match")],
)  # fmt: skip
def test_probe_names_what_is_missing(lacking, name):
    host = FakeHost()

    def refuse(_command, _words, data):
        return (2, "", "Couldn't load match\n") if lacking in data else None

    host.refuse = refuse
    before = host.state()
    with pytest.raises(HostError) as refusal:
        iptables(host).probe("ipv4", CHAINS)
    assert "this host's iptables cannot use {0} (Couldn't load match).".format(name) in str(refusal.value)
    assert "kernel-modules-extra" in str(refusal.value)
    host.rules["iptables"].tables.clear()
    assert host.state() == before


def test_probe_leaves_nothing_and_holds_no_secret():
    host, texts = FakeHost(), []
    run = host.run
    Iptables(lambda words, data: (data and texts.append(data)) or run(words, data), host.find, host.read).probe(
        "ipv4", CHAINS
    )
    assert "PORTKNOCK" not in host.rules["iptables"].save()
    assert "17005" not in "".join(texts)
    assert [text.split("\n")[0] for text in texts] == ["*nat", "*nat", "*filter", "*filter"], (
        "one round, and one to clean up"
    )


@pytest.mark.parametrize(
    ("backend", "family", "files", "save", "there"),
    [
        ("nf_tables", "ipv6", {}, "", True),
        ("nf_tables", "ipv6", {"modules.dep": "kernel/net/netfilter/nft_compat.ko:\n"}, "", False),
        ("nf_tables", "ipv6", {"modules.dep": "kernel/net/netfilter/nft_compat.ko:\n"}, "*nat\nCOMMIT\n", True),
        ("nf_tables", "ipv6", {"modules.dep": "kernel/net/netfilter/nft_chain_nat.ko.xz: x.ko.xz\n"}, "", True),
        ("nf_tables", "ipv4", {"modules.dep": "kernel/x.ko:\n", "modules.builtin": "kernel/net/nft_chain_nat.ko\n"}, "", True),
        ("legacy", "ipv6", {"modules.dep": "kernel/net/ipv4/netfilter/iptable_nat.ko:\n"}, "", False),
        ("legacy", "ipv4", {"modules.dep": "kernel/net/ipv4/netfilter/iptable_nat.ko:\n"}, "", True),
    ],
)  # fmt: skip
def test_whether_there_is_a_table_nat(backend, family, files, save, there):
    host = FakeHost()
    host.version = f"iptables v1.8.9 ({backend})\n"
    modules = f"/lib/modules/{os.uname().release}/"
    host.kernel_files.update({modules + name: text for name, text in files.items()})
    assert iptables(host).has_nat(family, save) is there


def test_without_table_nat_published_ports_are_guarded_in_forward_alone():
    host = FakeHost()
    host.kernel_files[f"/lib/modules/{os.uname().release}/modules.dep"] = "kernel/net/netfilter/nft_compat.ko:\n"
    settled(host)
    for save in host.state()[:2]:
        assert "PORTKNOCK_NAT" not in save
        assert "-A DOCKER-USER " in save


def test_a_table_nat_that_does_not_load_is_named():
    host = FakeHost()
    host.refuse = lambda _command, _words, data: (3, "", "Table does not exist\n") if "*nat" in data else None
    with pytest.raises(HostError, match=r"this kernel has no table nat for iptables \(Table does not exist\)"):
        iptables(host).probe("ipv4", CHAINS)
