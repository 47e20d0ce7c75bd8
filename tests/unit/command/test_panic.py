# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``portknock panic`` and ``resume``: who gets in, what a boot loads, what confirms it, and what the role's next run says."""

import ipaddress
import json

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change import apply as _apply
from ansible_collections.sesame.portknock.plugins.module_utils._change.guard import Guard
from ansible_collections.sesame.portknock.plugins.module_utils._change.info import inspect
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import plan_change
from ansible_collections.sesame.portknock.plugins.module_utils._command import install, program
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.conntrack import Flow
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.text import read_text
from ansible_collections.sesame.portknock.plugins.module_utils._paths import (
    CLOSED_TABLE,
    OPTIONS,
    PREVIOUS,
    TABLE_FILE,
)
from fake_host import knockd_host
from module_run import DOOR
from nft_model import Model, Sent
from shown_steps import steps_in
from story import MINE, FakeAgent, options
from walker import ACCEPT, Packet, Walker

WEB = {
    "name": "web",
    "knock": ["20100", "20300/udp"],
    "opens": ["8080"],
    "close": ["20500"],
    "sources": ["192.0.2.0/24"],
}
STEPS = ("17005", "19100", "18300", "20100", "20300", "20500")
ALLOW = [{"port": "443", "comment": "the shop"}, {"port": "25", "sources": ["198.51.100.0/24"]}]
TRUSTED, SOMEBODY = "203.0.113.9", "192.0.2.7"
NOT_OURS = "Other ports that rules of others open, or that nat publishes (containers), are as before."
OLD_SSH, NEW_SSH = "203.0.113.9 50000 192.0.2.1 22", "203.0.113.9 50001 192.0.2.1 22"


@pytest.fixture
def agent(monkeypatch):
    made = FakeAgent()
    monkeypatch.setattr(_apply, "Agent", lambda _host, _program: made)
    monkeypatch.setattr(program, "Agent", lambda _host: made)
    return made


@pytest.fixture(params=[("iptables", "reject"), ("knockd", "reject"), ("iptables", "accept")])
def host(request, console, agent, monkeypatch):
    """A host whose doors the role has closed, with the command that it has left there."""
    made = knockd_host(v4=MINE)
    made.tools |= {"nft"}
    monkeypatch.setattr(install, "_build", lambda _python: {})
    made.wanted = dict(
        engine=request.param[0], policy=request.param[1], doors=[DOOR, WEB], allow=ALLOW, trusted_sources=[TRUSTED]
    )
    role(made, agent)
    console.host = made
    return made


every_engine = pytest.mark.parametrize(
    "host",
    [("iptables", "reject"), ("knockd", "reject"), ("nftables", "reject"), ("nftables", "accept")],
    indirect=True,
)
nftables = pytest.mark.parametrize("host", [("nftables", "reject"), ("nftables", "accept")], indirect=True)


def planned(host, **more):
    wanted = options(**dict(host.wanted, guard=False, **more))
    return install.plan_with_command(wanted, host)[0], wanted


def role(host, agent, **more):
    """Do what the role does, and return whether it changed something."""
    change, wanted = planned(host, **more)
    if change.changed:
        guard = Guard(host, agent)
        guard.keep(guard.apply(change, wanted))
    return change.changed


def let_in(text, *packets):
    walker = Walker(parse(text))
    return [walker.send(packet).action == ACCEPT for packet in packets]


def get_in(text):
    """Who gets in: after a knock at the door, at the allowed ports, and a trusted source."""
    walker = Walker(parse(text))
    for step in DOOR["knock"]:
        port, _slash, protocol = step.partition("/")
        walker.send(Packet(SOMEBODY, int(port), protocol or "tcp"))
    words = ((SOMEBODY, 22), (SOMEBODY, 443), ("198.51.100.5", 25), (TRUSTED, 22), (TRUSTED, 443))
    return [walker.send(Packet(*each)).action == ACCEPT for each in words]


def everything(host):
    """The rules that are live, and those that a boot loads."""
    return [
        host.rules["iptables"].save(),
        host.read("/etc/iptables/rules.v4"),
        "*filter\n:INPUT ACCEPT [0:0]\n" + host.read("/etc/portknock/iptables.rules").split("\n", 1)[1],
    ]


def is_kept(path):
    """Whether a file is no copy of what was there before a change, and is not of a boot alone."""
    return not path.startswith(("/run/", PREVIOUS + "/"))


def test_only_the_trusted_get_in_also_after_a_boot(console, host):
    before = everything(host), dict(host.files)
    daemon = host.knockd()
    knocked = host.wanted["engine"] == "iptables"
    assert [get_in(text) for text in before[0]] == [[knocked, True, True, True, True]] * 3
    lines = console.out("panic")
    assert lines[0] == (
        "Panic: all doors and allowed ports are closed, also after a reboot. Trusted sources: {0}.".format(TRUSTED)
    )
    assert lines[1:] == ["To open them again: portknock resume", NOT_OURS]
    assert [get_in(text) for text in everything(host)] == [[False, False, False, True, True]] * 3
    assert "-p tcp -m tcp --dport 443 --syn -j DROP" in host.read("/etc/portknock/iptables.closed")
    assert host.knockd() == daemon
    assert console.out("panic")[0].startswith("This host is in panic already.")
    assert console.out("resume") == ["The doors and allowed ports are as they were before the panic."]
    assert everything(host) == before[0]
    kept = [{path: file for path, file in files.items() if is_kept(path)} for files in (before[1], host.files)]
    assert kept[0] == kept[1]
    assert console.out("resume") == ["This host is not in panic."]


@nftables
def test_with_nftables_as_well(console, host):
    """The table that is live is the one that a boot loads."""

    def who_gets_in():
        model = Model(host.read(TABLE_FILE))
        for step in DOOR["knock"]:
            port, _slash, protocol = step.partition("/")
            model.send(Sent(SOMEBODY, int(port), protocol or "tcp"))
        words = ((SOMEBODY, 22), (SOMEBODY, 443), ("198.51.100.5", 25), (TRUSTED, 22), (TRUSTED, 443))
        return read_text(host.read(TABLE_FILE)).chains == live(), [model.send(Sent(*each)) for each in words]

    def live():
        return {name: tuple(rules) for name, rules in host.nft.chains.items()}

    before = dict(host.files)
    assert who_gets_in() == (True, [True] * 5)
    assert console.out("panic")[0].startswith("Panic: all doors and allowed ports are closed, also after a reboot.")
    assert who_gets_in() == (True, [False, False, False, True, True])
    assert "tcp dport 443 drop" in host.read(CLOSED_TABLE)
    host.reboot()
    assert who_gets_in() == (True, [False, False, False, True, True])
    assert console.out("panic")[0].startswith("This host is in panic already.")
    assert console.out("resume") == ["The doors and allowed ports are as they were before the panic."]
    assert who_gets_in() == (True, [True] * 5)
    assert host.read(TABLE_FILE) == before[TABLE_FILE][0]
    assert console.out("resume") == ["This host is not in panic."]


def test_it_survives_a_reboot(console, host):
    before = everything(host)[1:]
    console.out("panic")
    host.reboot()
    assert [get_in(text) for text in everything(host)] == [[False, False, False, True, True]] * 3
    console.out("resume")
    assert everything(host)[1:] == before


def test_foreign_rules_stay(console, host):
    console.out("panic")
    assert let_in(host.rules["iptables"].save(), Packet(SOMEBODY, 80)) == [True]


OPEN_TO_ALL = [
    "-A INPUT -p tcp -m tcp --dport 443 -j ACCEPT",
    "-A INPUT -s 198.51.100.0/24 -p tcp -m tcp --dport 25 -j ACCEPT",
    "-A INPUT -s 192.0.2.0/24 -p tcp -j THEIRS",
]


@pytest.mark.parametrize("theirs", OPEN_TO_ALL)
def test_what_others_let_in_at_allowed_ports_is_closed_too(console, host, agent, theirs):
    """Their rule stands in front of our hook, as it decides nothing about doors; a list of particular sources stays in front."""
    block = "-A INPUT -s 192.0.2.66/32 -j DROP"
    inner = "-A THEIRS -p tcp -m tcp --dport 443 -j ACCEPT"
    insert = [line.replace("-A INPUT", "-I INPUT 1") for line in (theirs, block)]
    host.rules["iptables"].restore("\n".join(["*filter", ":THEIRS - [0:0]", inner, *insert, "COMMIT", ""]))
    role(host, agent)
    before = [get_in(text) for text in everything(host)]
    assert before[0][1:] == [True] * 4
    console.out("panic")
    assert [get_in(text) for text in everything(host)] == [[False, False, False, True, True]] * 3
    save = host.rules["iptables"].save()
    assert save.index(block) < save.index("-j PORTKNOCK\n") < save.index(theirs)
    assert inspect(host)["drift"] == []
    console.out("resume")
    assert [get_in(text) for text in everything(host)] == before
    assert role(host, agent) is False


def test_what_is_shown(console, host):
    console.out("panic")
    lines = console.out("status")
    assert lines[0].startswith("PANIC since 20") and lines[0].endswith("To open them: portknock resume")
    assert [line.split()[0] for line in lines if line.startswith(("ssh ", "web "))] == ["ssh", "web"]
    assert "drift: none" in lines
    code, out, _err = console.run("status", "--check")
    assert code == 2 and out.startswith("portknock CRITICAL: PANIC since ")
    found = inspect(host)
    assert found["engine"] == host.wanted["engine"] and found["panic"] > 0 and found["drift"] == []
    assert all(door["let_in"] == 0 for door in found["doors"])


GOING_ON = [
    ("198.51.100.5", 50001, 443),
    (SOMEBODY, 50002, 22),
    (SOMEBODY, 50003, 22),
    (SOMEBODY, 50004, 80),
    (TRUSTED, 50005, 8080),
]


def connections(*flows):
    here = ipaddress.ip_address("192.0.2.1")
    return [Flow(ipaddress.ip_address(source), port, here, to) for source, port, to in flows]


@every_engine
def test_what_stays_open_is_shown(console, host):
    assert json.loads("\n".join(console.out("status", "--json")))["in_panic"] == {}
    host.connected = connections(*GOING_ON)
    console.out("panic")
    lines = console.out("status")
    assert lines[1:7] == [
        "  closed: 22/tcp (door ssh), 8080/tcp (door web), 443/tcp (allowed: the shop), 25/tcp (allowed)",
        "  still let in: 203.0.113.9",
        "  still answered: ping",
        "  established connections to closed ports, which go on: 2 to 22/tcp from 192.0.2.7, 1 to 443/tcp from 198.51.100.5, "
        "1 to 8080/tcp from 203.0.113.9",
        f"  {NOT_OURS}",
        "",
    ]
    told = json.loads("\n".join(console.out("status", "--json")))
    assert told["panic"] > 0 and told["in_panic"] == {
        "closed": [
            {"ports": "22/tcp", "door": "ssh"},
            {"ports": "8080/tcp", "door": "web"},
            {"ports": "443/tcp", "allowed": "the shop"},
            {"ports": "25/tcp", "allowed": ""},
        ],
        "trusted_sources": ["203.0.113.9"],
        "trusted_interfaces": ["lo"],
        "icmp": True,
        "connections": [
            {"port": "22/tcp", "source": SOMEBODY, "count": 2},
            {"port": "443/tcp", "source": "198.51.100.5", "count": 1},
            {"port": "8080/tcp", "source": TRUSTED, "count": 1},
        ],
    }
    console.out("resume")
    assert not console.out("status")[0].startswith("PANIC")


@every_engine
def test_that_nobody_gets_in_is_shown(console, host, agent):
    role(host, agent, trusted_sources=[], trusted_interfaces=["lo", "wg0"], icmp=False)
    console.out("panic")
    assert console.out("status")[2:4] == [
        "  still let in: interface wg0",
        "  established connections to closed ports, which go on: none",
    ]
    console.out("resume")
    role(host, agent, trusted_sources=[])
    console.out("panic")
    assert console.out("status")[2] == "  still let in: no source, so only the console gets in"


@every_engine
def test_no_step_is_shown(console, host):
    change, _wanted = planned(dict_host(host))
    said = [json.dumps(change.diff)] + [
        console.run(*words)[1] for words in (["panic"], ["status"], ["status", "--json"], ["resume"])
    ]
    assert not any(steps_in(STEPS, text) for text in said)
    assert host.mode(OPTIONS) == 0o600


def dict_host(host):
    """A host as bare as ours was."""
    made = knockd_host(v4=MINE)
    made.tools, made.wanted = host.tools, host.wanted
    return made


def test_over_ssh_it_waits_for_a_new_connection(console, host, agent):
    before = everything(host)
    host.ssh = OLD_SSH
    lines = console.out("panic")
    assert lines[1].startswith("This is undone in 60 s, unless you confirm it: log in again")
    assert agent.armed[-1][1] == 60
    assert get_in(everything(host)[0]) == [False, False, False, True, True]
    assert everything(host)[1:] == before[1:], "a boot would undo it"
    assert console.run("confirm")[0] == 1, "the connection that it was made over proves nothing"
    host.now += 1
    host.ssh = NEW_SSH
    assert console.out("confirm") == ["The change is confirmed and kept."]
    assert [get_in(text) for text in everything(host)] == [[False, False, False, True, True]] * 3


def test_over_ssh_it_is_undone_unless_it_is_confirmed(console, host, agent):
    before = everything(host)
    host.ssh = OLD_SSH
    console.out("panic")
    host.now += 61
    Guard(host, agent).undo("", "nobody confirmed it in time")
    assert everything(host) == before
    assert console.out("resume") == ["This host is not in panic."]


def test_the_role_does_not_end_it(console, host, agent):
    console.out("panic")
    host.frozen = True
    for more in ({}, {"log": True}, {"state": "absent"}):
        with pytest.raises(
            HostError, match="^this host is in panic since .* run 'portknock resume' on the host; then run this again"
        ):
            planned(host, **more)
    with pytest.raises(HostError, match="in panic"):
        plan_change(options(**host.wanted), host, may_lack=True)
    host.frozen = False
    console.out("resume")
    assert role(host, agent) is False
    assert role(host, agent, state="absent") and OPTIONS not in host.files


@pytest.mark.usefixtures("host")
def test_no_door_is_opened_by_hand_meanwhile(console):
    console.out("panic")
    code, out, err = console.run("open", "ssh", SOMEBODY)
    assert (code, out) == (1, "") and err.startswith("portknock: this host is in panic since ")


def test_without_what_was_asked_for(console, agent):
    console.host.frozen = True
    for verb in ("panic", "resume"):
        assert console.run(verb)[0] == (1 if verb == "panic" else 0)
    assert agent.armed == []


def test_the_options_are_kept_in_one_form(host, agent):
    """However they are written, so that nothing is to be done for it."""
    host.wanted = dict(
        host.wanted,
        doors=[dict(DOOR, opens=["22/tcp"], window=15), WEB],
        allow=[dict(ALLOW[0], protocol="tcp"), ALLOW[1]],
    )
    assert role(host, agent) is False
