# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run prints at its end, and the table of verify; as a whole, as a person reads it."""

from types import SimpleNamespace

import pytest

pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")

from ansible_collections.sesame.portknock.plugins.action import portknock_report as plugin
from ansible_collections.sesame.portknock.plugins.plugin_utils._report.changed import Moment, report
from ansible_collections.sesame.portknock.plugins.plugin_utils._report.fleet import Fleet
from ansible_collections.sesame.portknock.plugins.plugin_utils._report.show import show
from ansible_collections.sesame.portknock.plugins.plugin_utils._report.verified import table

DOOR = "door ssh: 22/tcp closed; opens for 15 s to the address that knocked"
REST = "everything else: refused (policy reject)"
LOST = dict(
    kind="lost_effect", severity="info", ip_version="ipv4", rule="-A INPUT -j ACCEPT", message="accepts everyone."
)
SMALL = dict(kind="list_size", severity="warning", ip_version="", rule="", message="list_size: remembers 100 sources.")
VOID = dict(kind="void", severity="error", ip_version="ipv4", rule="", message="a packet gets in.")
POSTGRES = dict(port=5432, protocol="tcp", process="postgres", address="0.0.0.0")
TUNNEL = dict(port=51820, protocol="udp", process="", address="0.0.0.0")
CHANGED = {
    "changed": True, "engine": "iptables", "summary": [DOOR, REST], "findings": [], "closes": [],
    "guard": {"state": "confirmed", "knocked": "ssh"}, "services": {"stop": [], "disable": [], "enable": ["netfilter-persistent"]},
}  # fmt: skip
SAME = dict(CHANGED, changed=False, guard={"state": "not_needed"})
PACKAGES = {"installations": [{"packages": ["iptables", "iptables-persistent"]}], "later": []}
REAL, CHECK = Moment(check=False, diff=False, plain_ssh=True), Moment(check=True, diff=False, plain_ssh=True)
PEOPLE = "People: run the playbook sesame.portknock.client_config on the machine that they ssh from."
ANSIBLE = "Ansible: set ansible_connection: sesame.portknock.knock_ssh in the inventory."
LOOK = "Look: portknock status on the host, or sesame.portknock.knock_ruleset_info. Try the doors: the playbook sesame.portknock.verify."
NOW = "changed. From now on:"
WOULD = "would change (check mode)"


REPORTS = {
    "nothing to say": (SAME, {}, REAL, []),
    "nothing changed": (dict(SAME, findings=[SMALL, LOST]), {}, REAL, [
        "findings:", "warning: list_size: remembers 100 sources. [list_size]", "info: -A INPUT -j ACCEPT: accepts everyone. [lost_effect]",
    ]),
    "all is acknowledged": (dict(SAME, findings=[dict(SMALL, acknowledged=True)]), {}, REAL, []),
    "one kind, many times": (dict(SAME, findings=[VOID] * 4 + [SMALL] * 4 + [LOST] * 3), {}, REAL, [
        "findings:", *["error: a packet gets in. [void]"] * 4, *["warning: list_size: remembers 100 sources. [list_size]"] * 2,
        "warning: and 2 more like it (-v shows them) [list_size]",
        *["info: -A INPUT -j ACCEPT: accepts everyone. [lost_effect]"] * 3,
    ]),
    "some is acknowledged": (
        dict(SAME, findings=[dict(SMALL, acknowledged=True), dict(LOST, acknowledged=False)]), {}, REAL,
        ["findings:", "info: -A INPUT -j ACCEPT: accepts everyone. [lost_effect]"],
    ),
    "closed": (CHANGED, PACKAGES, REAL, [NOW, DOOR, REST, "Plain ssh is refused without a knock.", ANSIBLE, PEOPLE, LOOK]),
    "over knock_ssh": (
        CHANGED, {}, REAL._replace(plain_ssh=False),
        [NOW, DOOR, REST, "Plain ssh is refused without a knock.", PEOPLE, LOOK],
    ),
    "trusted": (
        dict(CHANGED, guard={"state": "confirmed", "knocked": ""}), {}, REAL,
        [NOW, DOOR, REST, "Connections to a door's ports are refused without a knock.", ANSIBLE, PEOPLE, LOOK],
    ),
    "another firewall": (
        dict(CHANGED, summary=[REST], services=dict(stop=["ufw"], disable=["ufw", "nftables"], enable=["netfilter-persistent"])),
        {}, REAL, [NOW, REST, "switched off: ufw, nftables", LOOK],
    ),
    "no doors": (dict(CHANGED, summary=[REST]), {}, REAL, [NOW, REST, LOOK]),
    "it closes": (
        dict(CHANGED, closes=[TUNNEL, POSTGRES, dict(POSTGRES, address="::")], summary=[REST]), {}, REAL,
        [NOW, REST, "no longer reachable from outside: 51820/udp, 5432/tcp (postgres)", LOOK],
    ),
    "files alone": (
        dict(CHANGED, guard={"state": "not_needed"}), {}, REAL,
        ["only files and services changed, the rules are as they were"],
    ),
    "permissions alone": (
        dict(CHANGED, guard={"state": "not_needed"}, permissions=["/a has mode 0640 instead of 0600"]), {}, REAL,
        ["only files and services changed, the rules are as they were", "/a has mode 0640 instead of 0600"],
    ),
    "removed": (
        dict(CHANGED, engine="", summary=[]), {}, REAL,
        ["all that the collection wrote is removed; other rules and the installed packages stay"],
    ),
    "check mode": (
        CHANGED, PACKAGES, CHECK,
        [WOULD, DOOR, REST, "Would install iptables, iptables-persistent", "Would enable netfilter-persistent"],
    ),
    "check mode with the diff": (CHANGED, {}, CHECK._replace(diff=True), [WOULD]),
    "in the place of ufw": (
        dict(CHANGED, services=dict(stop=["ufw"], disable=["ufw"], enable=[])),
        {"installations": [], "later": [{"packages": ["iptables-persistent"]}]}, CHECK,
        [WOULD, DOOR, REST, "Would install iptables-persistent, which removes ufw", "Would stop ufw", "Would disable ufw"],
    ),
    "a failed task": ({}, {}, REAL, []),
}  # fmt: skip


@pytest.mark.parametrize("name", REPORTS)
def test_report(name):
    change, host, moment, lines = REPORTS[name]
    assert report(change, host, moment) == lines


ROW = {"what": "door ssh", "ip_version": "ipv4", "without": "refused (icmp 3/3)", "wrong": "refused (icmp 3/3)",
       "right": "open", "later": "refused (icmp 3/3)", "proof": "proved", "state": "ok", "note": ""}  # fmt: skip
OPEN = dict(
    ROW,
    ip_version="ipv6",
    without="open",
    wrong="-",
    right="-",
    later="-",
    proof="void",
    state="wrong",
    note="open without a knock.",
)
BLIND = dict(
    ROW,
    what="all",
    ip_version="",
    without="-",
    wrong="-",
    right="-",
    later="-",
    proof="-",
    state="unseen",
    note="a jump host.",
)


def table_of(seen, check_mode=False, batch=None, gone=()):
    return table(seen, check_mode, Fleet(list(seen), list(seen) if batch is None else batch, gone))


def test_table():
    seen = {"alpha": {"rows": [ROW, OPEN]}, "b": {"rows": []}, "beta": {"rows": [BLIND]}, "off": {}}
    assert "\n".join(table_of(seen)) == (
        """\
host   what      IP    no knock            wrong knock         right knock  afterwards          proof
alpha  door ssh  ipv4  refused (icmp 3/3)  refused (icmp 3/3)  open         refused (icmp 3/3)  proved  ok
alpha  door ssh  ipv6  open                -                   -            -                   void    WRONG: open without a knock.
b      -         -     -                   -                   -            -                   -       nothing to look at: no doors
beta   all             -                   -                   -            -                   -       not seen: a jump host.
off    -         -     -                   -                   -            -                   -       not looked at, see above
1 wrong, 2 not seen"""
    )


def test_table_in_check_mode():
    lines = table_of({"alpha": {}}, check_mode=True)
    assert [line.split("  ")[-1].strip() for line in lines] == [
        "proof", "not looked at in check mode", "0 wrong, 1 not seen",
    ]  # fmt: skip


RIGHT, BAD = {"rows": [ROW], "ok": True}, {"rows": [OPEN], "ok": False}
BATCHES = {
    "more are to come": ({"a": RIGHT, "b": {}}, ["a"], [], []),
    "more are to come after one that is down": ({"a": {}, "b": RIGHT, "c": {}}, ["b"], ["a"], []),
    "one is wrong": ({"a": BAD, "b": {}}, ["a"], [], ["not begun", "1 wrong, 0 not seen, 1 not begun"]),
    "one of an earlier batch is wrong": ({"a": BAD, "b": RIGHT, "c": {}}, ["b"], ["a"], []),
    "the last ones": (
        {"a": BAD, "b": RIGHT, "c": {}}, ["b"], ["a", "c"],
        ["WRONG: open without a knock.", "ok", "not looked at, see above", "1 wrong, 1 not seen"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BATCHES)
def test_table_of_batches(name):
    seen, batch, gone, ends = BATCHES[name]
    lines = table_of(seen, batch=batch, gone=gone)
    assert [line.split("  ")[-1].strip() for line in lines][-len(ends) :] == ends if ends else lines == []


@pytest.mark.parametrize(
    "callback", ["default", "ansible.builtin.default", "community.general.yaml", "json", "ansible.posix.jsonl"]
)
def test_what_programs_read_stays_theirs(callback):
    shown = []
    show(["one", "  two"], shown.append, callback)
    assert shown == ([] if "json" in callback else ["one\n  two"])
    show([], shown.append, "default")
    assert len(shown) < 2, "nothing to say, and something was printed"


@pytest.fixture
def run(monkeypatch):
    """Run the action plugin with some arguments; returns its result and what it printed."""

    def made(args, check_mode=False, connection="ssh", **task_vars):
        shown = []
        monkeypatch.setattr(plugin, "display", SimpleNamespace(display=shown.append))
        task = SimpleNamespace(
            args=args, check_mode=check_mode, async_val=0, diff=False, action="sesame.portknock.portknock_report"
        )
        link = SimpleNamespace(ansible_name=connection, _shell=SimpleNamespace(tmpdir=None))
        templar = SimpleNamespace(template=lambda value: value)
        action = plugin.ActionModule(task, link, SimpleNamespace(), None, templar, None)
        return action.run(None, task_vars), shown

    return made


FIRST = [f"alpha: {NOW}", DOOR, REST, "Plain ssh is refused without a knock."]
WOULD_INSTALL = [f"alpha: {WOULD}", "Would install iptables, iptables-persistent", "Would enable netfilter-persistent"]
SEEN = {"alpha": {"__portknock_seen": {"rows": [ROW]}}, "beta": {}}
RUNS = {
    "the first line has the name of the host": ({"change": CHANGED}, {}, [*FIRST, ANSIBLE, PEOPLE, LOOK], False),
    "knock_ssh needs no advice": (
        {"change": CHANGED}, {"connection": "sesame.portknock.knock_ssh"}, [*FIRST, PEOPLE, LOOK], False,
    ),
    "nothing to say": ({"change": SAME, "host": PACKAGES}, {}, [], False),
    "packages of check mode are a change": ({"change": SAME, "host": PACKAGES}, {"check_mode": True}, WOULD_INSTALL, True),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_run(run, name):
    args, how, lines, changed = RUNS[name]
    result, shown = run(args, inventory_hostname="alpha", **how)
    assert shown == (["\n    ".join(lines)] if lines else [])
    assert "\n".join(result["msg"]) == "".join(shown)
    assert result["changed"] is changed


PLAY = {key: ["alpha", "beta"] for key in ("ansible_play_hosts_all", "ansible_play_hosts", "ansible_play_batch")}


def test_the_table_of_some_hosts(run):
    _result, shown = run({"verified": ["alpha", "beta"]}, hostvars=SEEN, **PLAY)
    assert shown == ["\n".join(table_of({"alpha": {"rows": [ROW]}, "beta": {}}))]
    _result, shown = run(
        {"verified": ["alpha", "beta"]},
        hostvars=SEEN,
        **{**PLAY, "ansible_play_batch": ["alpha"]},
    )
    assert shown == []


def test_the_table_of_a_roll_out(run):
    rolled_back = {"__portknock_failed": {"rolled_back": True, "why": "no way in"}}
    hostvars = {"alpha": {"__portknock_result": SAME}, "beta": rolled_back, "gamma": {}, "delta": {}}
    names = {
        "ansible_play_hosts_all": list(hostvars),
        "ansible_play_hosts": ["alpha", "beta", "delta"],
        "ansible_play_batch": ["beta"],
    }
    result, shown = run({"fleet": True}, hostvars=hostvars, inventory_hostname="beta", **names, **rolled_back)
    assert result["failed"] is True
    assert result["msg"] == "Rolled back, for the reason above. Hosts that were not begun are as they were."
    assert shown[0].splitlines()[1:] == [
        "alpha  unchanged    -",
        "beta   rolled back  -         no way in",
        "gamma  not reached  -",
        "delta  not begun    -",
        "1 unchanged, 1 rolled back, 1 not reached, 1 not begun",
    ]


def test_one_host_of_a_batch_shows_the_table(run):
    hostvars = {host: {"__portknock_result": SAME} for host in PLAY["ansible_play_batch"]}
    shown = [run({"fleet": True}, hostvars=hostvars, inventory_hostname=host, **PLAY)[1] for host in hostvars]
    assert [len(texts) for texts in shown] == [1, 0]


def test_an_unknown_option(run):
    result, shown = run({"changes": {}})
    assert (result["failed"], shown) == (True, [])
    assert (
        result["msg"]
        == "changes: there is no such option. Did you mean change? The options are change, fleet, host, verified."
    )
