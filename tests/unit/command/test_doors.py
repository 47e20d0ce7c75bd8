# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``portknock open`` and ``close``: what is on the lists afterwards, for how long, and what is refused."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._command import doors as _doors
from ansible_collections.sesame.portknock.plugins.module_utils._command.doors import Openings, hold_open
from ansible_collections.sesame.portknock.plugins.module_utils._engine import address_of
from fake_host import knockd_host
from module_run import DOOR, run

WEB = {
    "name": "web",
    "knock": ["20100", "20300/udp"],
    "opens": ["443", "53/udp"],
    "window": 60,
    "once": True,
    "sources": ["192.0.2.0/24"],
}
LISTS = ("pk4_ssh", "pk4_web", "pk6.64_ssh")


@pytest.fixture(params=["iptables", "knockd", "nftables"])
def host(request, console, monkeypatch):
    made = knockd_host()
    made.tools |= {"nft"}
    run(made, doors=[DOOR, WEB], engine=request.param, ipv6_prefix=64)
    made.recent = dict.fromkeys(LISTS, "")
    made.tools |= {"systemd-run"}
    made.detached = []
    monkeypatch.setattr(_doors, "detach", made.detached.append)
    console.host = made
    return made


def sources(host, name):
    if host.nft.exists:
        return list(
            host.nft.elements.get(name.split(".")[0].split("_")[0].replace("pk", "open") + "_" + name.split("_")[1], ())
        )
    return [line.split()[0][len("src=") :] for line in host.recent[name].splitlines()]


def holder(host):
    """The words of the process that was started, without the Python that runs it."""
    started = [list(words) for words in host.commands if words[0].endswith("/systemd-run")] + host.detached
    words = started[-1]
    return words[words.index("hold") + 1 :]


def test_for_the_window(console, host):
    assert console.out("open", "ssh", "198.51.100.7") == ["Door ssh is open to 198.51.100.7 for 15 s: 22/tcp."]
    assert sources(host, "pk4_ssh") == ["198.51.100.7"]
    assert Openings(host).all() == [], "the kernel ends it by itself"
    host.now += 5
    assert "198.51.100.7 10 s" in " ".join(" ".join(console.out("status")).split())


def test_once(console, host):
    ports = "443/tcp 53/udp" if host.nft.exists else "53/udp 443/tcp"
    assert console.out("open", "web", "192.0.2.9") == [
        f"Door web is open to 192.0.2.9 for 60 s: {ports}, for one new connection."
    ]
    assert sources(host, "pk4_web") == ["192.0.2.9"]


def test_ipv6_as_its_prefix_is_looked_at(console, host):
    console.out("open", "ssh", "2001:db8::1:2")
    assert [address_of(each) for each in sources(host, "pk6.64_ssh")] == [address_of("2001:db8::")]


@pytest.mark.parametrize("seconds", [3600, 4])
def test_for_another_time(seconds, console, host, monkeypatch):
    """Refreshed as long as it is to be open, then closed; the status tells the time that is left."""
    console.out("open", "ssh", "198.51.100.7", str(seconds))
    begun, waits = host.now, []
    assert "198.51.100.7 {0} s".format(seconds) in " ".join(" ".join(console.out("status")).split())

    def sleep(wait):
        assert sources(host, "pk4_ssh") == ["198.51.100.7"]
        waits.append(wait)
        host.now += wait

    monkeypatch.setattr(host, "sleep", sleep)
    hold_open(host, *holder(host))
    assert host.now - begun == pytest.approx(seconds)
    assert max(waits) <= 7.5
    assert sources(host, "pk4_ssh") == [] and Openings(host).all() == []


ENDS = {
    "closed by its door": lambda console: console.out("close", "ssh"),
    "closed by its address": lambda console: console.out("close", "198.51.100.7"),
    "opened anew for the window": lambda console: console.out("open", "ssh", "198.51.100.7"),
    "taken off by its close knock": lambda console: _forget(console.host),
    "the doors are gone": lambda console: (console.host.recent.clear(), console.host.nft.forget_all()),
}


def _forget(host):
    host.recent.update(pk4_ssh="")
    host.nft.elements.clear()


@pytest.mark.parametrize("end", ENDS.values(), ids=list(ENDS))
def test_what_ends_it_early(end, console, host, monkeypatch):
    console.out("open", "ssh", "198.51.100.7", "3600")
    words = holder(host)
    monkeypatch.setattr(host, "sleep", lambda wait: (setattr(host, "now", host.now + wait), end(console)))
    begun = host.now
    hold_open(host, *words)
    assert host.now - begun < 10
    assert Openings(host).all() == []


def test_another_time_for_the_same_one_takes_its_place(console, host):
    console.out("open", "ssh", "198.51.100.7", "3600")
    first = holder(host)
    console.out("open", "ssh", "198.51.100.7", "1800")
    hold_open(host, *first)
    assert sources(host, "pk4_ssh") == ["198.51.100.7"], "it is not the first one's business any more"
    (opening,) = Openings(host).all()
    assert opening.until == host.now + 1800


def test_without_systemd_a_process_of_its_own_waits(console, host):
    host.runs_systemd = False
    console.out("open", "ssh", "198.51.100.7", "30")
    assert len(host.detached) == 1
    assert holder(host)[1:] == ["ssh", "198.51.100.7"]


def test_close_a_door(console, host):
    console.out("open", "ssh", "198.51.100.7")
    console.out("open", "ssh", "2001:db8::1")
    console.out("open", "web", "192.0.2.9")
    (line,) = console.out("close", "ssh")
    assert line.startswith("Door ssh is closed; taken off its list: ") and "198.51.100.7" in line
    assert (sources(host, "pk4_ssh"), sources(host, "pk6.64_ssh")) == ([], [])
    assert sources(host, "pk4_web") == ["192.0.2.9"]
    assert console.out("close", "ssh") == ["It was open to no address."]


def test_close_an_address(console, host):
    for source in ("192.0.2.9", "198.51.100.7"):
        console.out("open", "ssh", source)
    console.out("open", "web", "192.0.2.9")
    assert console.out("close", "192.0.2.9") == ["Closed to 192.0.2.9: ssh, web. Established connections go on."]
    assert (sources(host, "pk4_ssh"), sources(host, "pk4_web")) == (["198.51.100.7"], [])
    assert console.out("close", "192.0.2.9") == ["No door was open to 192.0.2.9."]


WRONG = {
    "no such door": (["open", "shop", "192.0.2.1"], "DOOR: there is no door 'shop' here. Doors: ssh, web"),
    "no address": (["open", "ssh", "192.0.2.300"], "ADDRESS: '192.0.2.300' is not an IPv4 or IPv6 address"),
    "a network": (["open", "ssh", "192.0.2.0/24"], "ADDRESS: '192.0.2.0/24' is not an IPv4 or IPv6 address"),
    "not for that source": (
        ["open", "web", "198.51.100.7"],
        "ADDRESS: door web cannot be open to 198.51.100.7, only to its sources: 192.0.2.0/24",
    ),
    "not over IPv6": (
        ["open", "web", "2001:db8::1"],
        "ADDRESS: door web cannot be open to 2001:db8::1, only to its sources: 192.0.2.0/24",
    ),
    "no time": (["open", "ssh", "192.0.2.1", "1h"], "SECONDS: '1h' is not a whole number from 1 to 86400"),
    "zero": (["open", "ssh", "192.0.2.1", "0"], "SECONDS: '0' is not a whole number from 1 to 86400"),
    "too long": (["open", "ssh", "192.0.2.1", "86401"], "SECONDS: '86401' is not a whole number from 1 to 86400"),
    "close what": (["close", "shop"], "'shop' is neither a door of this host (ssh, web) nor an IPv4 or IPv6 address"),
}


@pytest.mark.parametrize(("words", "message"), WRONG.values(), ids=list(WRONG))
def test_what_is_refused(words, message, console, host):
    host.frozen = True
    assert console.run(*words) == (2, "", "portknock: {0}. Try: portknock {1} --help\n".format(message, words[0]))
    assert not any(host.recent.values())


def test_a_list_that_is_not_there_is_an_error(console, host):
    host.recent = {}
    host.nft.sets.pop("open4_ssh", None)
    code, out, err = console.run("open", "ssh", "198.51.100.7")
    assert (code, out) == (1, "")
    what = "set" if host.nft.exists else "list"
    assert err == f"portknock: the kernel has no {what} of the sources that have door ssh open. See: portknock status\n"
