# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""sesame.portknock.verify by the real ansible-playbook, against real rulesets: right ones, and ones broken by hand."""

import contextlib
import re

import pytest
from rig import faults
from rig.controller import PING
from rig.engines import ASKED, IN_SOAK
from rig.packets import IPV4, IPV6
from rig.peer import TARGET
from rig.shown import steps_in
from rig.target import COMMANDS, FAMILIES, door

SSH = door(7000, "9100/udp", 3100, window=2)
WEB = door(7500, 2500, name="web", opens=("2222", "3333"), window=3)
STEPS = ("7000", "9100", "3100", "7500", "2500")
ALLOW = [{"port": "80"}, {"port": "443"}]
WAYS = {
    "icmp-port-unreachable": {IPV4: "refused (icmp 3/3)", IPV6: "refused (icmp 1/4)"},
    "tcp-reset": {IPV4: "refused (reset)", IPV6: "refused (reset)"},
    "icmp-admin-prohibited": {IPV4: "refused (icmp 3/13)", IPV6: "refused (icmp 1/1)"},
    "drop": {IPV4: "silent", IPV6: "silent"},
}
JUDGE = "Fail where a door is not as it should be"
LOOK = "Try the doors from the controller"


class Verified:
    """What a run of the playbook found."""

    def __init__(self, run, host="target"):
        """Take a finished run."""
        self.run, self.host = run, host
        looked = run.only(host, LOOK)
        assert looked.kind == "ok", run.output
        self.result = looked.result
        self.rows = {(row["what"], row["ip_version"]): row for row in self.result["rows"]}

    def check_right(self, *unseen):
        """Nothing is wrong, and only what is named cannot be seen."""
        assert self.run.code == 0, self.run.output
        assert self.result["ok"] is True
        assert {key for key, row in self.rows.items() if row["state"] != "ok"} == set(unseen), self.run.output
        assert re.search(r"\b0 wrong, ", self.run.output)

    def check_wrong(self, *wrong, word=""):
        """What is named is wrong and nothing else; each says so with a word, also in the table and in the end."""
        assert self.run.code == 2, self.run.output
        assert self.result["ok"] is False
        found = {key for key, row in self.rows.items() if row["state"] == "wrong"}
        assert found == set(wrong), self.run.output
        for key in wrong:
            assert word in self.rows[key]["note"], self.rows[key]
        assert f"{len(wrong)} wrong, " in self.run.output
        assert self.run.only(self.host, JUDGE).kind == "failed"
        for problem in self.result["problems"]:
            assert problem in self.run.only(self.host, JUDGE).result["msg"]

    def check_secret(self):
        """No step of a knock shows anywhere."""
        for text in (self.run.output, *(str(event.result) for event in self.run.events)):
            assert steps_in(STEPS, text) == []


class Bench:
    """A target with doors, and a controller that knows them."""

    def __init__(self, rig, controller):
        """Take the rig."""
        self.rig, self.controller = rig, controller
        self.options = {}

    def apply(self, *doors, **options):
        """Write the ruleset, for real; verify gets the same options."""
        engine = {"engine": self.rig.target.engine}
        self.options = dict({"doors": list(doors or (SSH, WEB)), "allow": ALLOW, **engine}, **options)
        self.rig.target.module(**self.options)
        return self

    def verify(self, words=(), hosts=None, play=True, **variables):
        """Come in by the door, unless play is false, and run the playbook over that connection."""
        chosen = {f"portknock_{name}": value for name, value in self.options.items()}
        mine = dict(chosen, ansible_knock=SSH["knock"], **variables)
        mine.setdefault("ansible_connection", "sesame.portknock.knock_ssh")
        hosts = hosts or {"target": mine}
        before = [PING] if play else []
        run = self.controller.play(*before, hosts=hosts, words=("sesame.portknock.verify", *words))
        return Verified(run, next(iter(hosts)))

    @contextlib.contextmanager
    def counted(self, port):
        """Within the block count the SYNs that come to a port; yields a function that returns how many."""
        rule = ["PREROUTING", "-p", "tcp", "--syn", "--dport", port]
        self.insert("-t", "raw", "-A", *rule)
        yield lambda: sum(self._count(family, port) for family in FAMILIES)

    def _count(self, family, port):
        text = self.rig.target.namespace.run(COMMANDS[family] + "-save", "-c", "-t", "raw").stdout
        return int(re.search(rf"^\[(\d+):\d+\] -A PREROUTING .*--dport {port} ", text, re.M).group(1))

    def insert(self, *words, families=FAMILIES):
        """Put a rule by hand."""
        for family in families:
            self.rig.target.namespace.run(COMMANDS[family], *words)


@pytest.fixture
def bench(rig, controller):
    """The target and the controller that verifies it."""
    return Bench(rig, controller)


def every_time(*ways):
    """Return the ways to refuse as parameters, of which all but these are for soak."""
    return [way if way in ways else pytest.param(way, marks=pytest.mark.soak) for way in WAYS]


DOORS = [(what, family) for what in ("door ssh", "door web") for family in FAMILIES]


@ASKED
@IN_SOAK
@pytest.mark.parametrize("way", every_time("icmp-port-unreachable", "tcp-reset", "drop"))
def test_all_is_well(bench, way):
    """The table says what closed looks like for each way to refuse; the controller's own knock is waited for."""
    seen = bench.apply(reject_with=way).verify(words=("-vvv",))
    seen.check_right()
    seen.check_secret()
    for what, family in DOORS:
        row = seen.rows[what, family]
        assert row["right"] == "open", row
        assert row["without"] == WAYS[way][family], row
        # The host answers one ICMP error a second, so a later refusal may stay away.
        assert {row["wrong"], row["later"]} <= {WAYS[way][family], "silent"}, row
    for family in FAMILIES:
        assert seen.rows["allow 80/tcp", family]["without"] == "open"
        assert seen.rows["rest", family]["without"] == WAYS[way][family]


def test_policy_accept(bench):
    """Only the doors are closed, so that nothing is said of the rest; a port without a service is let in as well."""
    seen = bench.apply(SSH, dict(WEB, opens=["2222", "2230-2231"]), policy="accept", allow=[]).verify()
    seen.check_right()
    assert set(seen.rows) == {*DOORS, ("connection", IPV4)}
    assert seen.rows["connection", IPV4]["proof"] == "proved"
    assert seen.rows["door web", IPV4]["note"] == "nothing listens on 2230/tcp, 2231/tcp"


def test_accept_before_the_doors(bench):
    """The oldest of all mistakes, for one family."""
    bench.apply()
    bench.insert("-I", "INPUT", "-p", "tcp", "--dport", "2222", "-j", "ACCEPT", families=[IPV4])
    seen = bench.verify()
    seen.check_wrong(("door web", IPV4), ("rules", IPV4))
    assert "open without a knock" in seen.rows["door web", IPV4]["note"]
    assert seen.rows["door web", IPV6]["state"] == "ok"


@pytest.mark.parametrize("how", ["flushed", pytest.param("removed", marks=pytest.mark.soak)])
def test_no_rules_for_ipv6(bench, how):
    bench.apply()
    if how == "flushed":
        bench.insert("-F", families=[IPV6])
    else:
        bench.rig.target.restore(
            IPV6, "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
        )
    seen = bench.verify()
    seen.check_wrong(("door ssh", IPV6), ("door web", IPV6), ("rest", IPV6), ("rules", IPV6))
    assert "open without a knock" in seen.rows["door ssh", IPV6]["note"]
    assert seen.rows["door ssh", IPV4]["right"] == "open"


@pytest.mark.parametrize("way", every_time("tcp-reset"))
def test_tail_without_reject(bench, way):
    """The last REJECT is gone: the doors hold, and all else is open. A reset hides it, but not from the host's own account."""
    bench.apply(reject_with=way)
    bench.insert("-F", "PORTKNOCK_TAIL")
    seen = bench.verify()
    rules, rest = ([(what, family) for family in FAMILIES] for what in ("rules", "rest"))
    seen.check_wrong(*rules, *([] if way == "tcp-reset" else rest))
    for key in rules:
        assert "not as they were written" in seen.rows[key]["note"]
    for key in [] if way == "tcp-reset" else rest:
        assert "not refused" in seen.rows[key]["note"]
    assert all(seen.rows[key]["state"] == "ok" for key in DOORS)


@pytest.mark.parametrize("way", every_time("drop"))
def test_knock_that_is_dropped_on_the_way(bench, way):
    """A firewall between drops one step. The host's own count tells that from a service that is down."""
    bench.apply(reject_with=way)
    with faults.way_blocked(bench.rig, 2500):
        seen = bench.verify()
    seen.check_wrong(("door web", IPV4), ("door web", IPV6), word="has not counted the right knock")
    seen.check_secret()


def test_another_knock_than_the_inventory(bench):
    """Somebody changed the vault and did not run site.yml."""
    bench.apply()
    bench.options["doors"] = [SSH, dict(WEB, knock=["7501", "2501"])]
    bench.verify().check_wrong(("door web", IPV4), ("door web", IPV6), word="another knock than the inventory")


def test_a_wrong_knock_that_opens(bench):
    """The host asks for the first steps alone."""
    bench.apply(SSH, dict(WEB, knock=["7500"]))
    bench.options["doors"] = [SSH, WEB]
    seen = bench.verify()
    seen.check_wrong(("door web", IPV4), ("door web", IPV6), word="a wrong knock opens it")


def test_a_window_that_is_longer(bench):
    bench.apply(SSH, dict(WEB, window=20))
    bench.options["doors"] = [SSH, WEB]
    seen = bench.verify()
    seen.check_wrong(("door web", IPV4), ("door web", IPV6), word="still open 3 s after the knock")


def test_allowed_port_that_is_refused(bench):
    bench.apply()
    bench.insert("-I", "INPUT", "-p", "tcp", "--dport", "443", "-j", "REJECT", families=[IPV6])
    seen = bench.verify()
    assert seen.rows["allow 443/tcp", IPV6]["state"] == "wrong"
    assert "allowed, but not let in" in seen.rows["allow 443/tcp", IPV6]["note"]
    assert seen.rows["allow 443/tcp", IPV4]["state"] == "ok"
    assert seen.run.code == 2


def test_doors_of_every_kind(bench):
    """once, close, one step, a long window, UDP, and one that this controller may not use."""
    doors = (
        SSH,
        door(7100, 2600, name="single", opens=("2222",), window=2, once=True),
        door(7200, 2700, name="shuts", opens=("3333",), window=2, close=["2800", "7300"]),
        door(7400, name="step", opens=("8000",), window=2),
        door(7600, 2900, name="long", opens=("8443",), window=600),
        door(7700, 3000, name="names", opens=("5353/udp",), window=2),
        door(7800, 3200, name="others", opens=("2223",), window=2, sources=["10.77.0.3", "fd77::3"]),
    )
    seen = bench.apply(*doors).verify()
    seen.check_right()
    for family in FAMILIES:
        notes = {what: row["note"] for (what, its), row in seen.rows.items() if its == family}
        assert notes["door single"] == "one connection a knock"
        assert notes["door shuts"] == "closed by its close knock"
        assert notes["door long"] == "its window of 600 s is not waited for"
        assert notes["door others"] == "this controller is not in the door's sources: it stays closed for it"
        assert seen.rows["door long", family]["later"] == "not waited for"
        assert seen.rows["door names", family]["right"] == "open"
        assert seen.rows["door others", family]["right"] != "open"


def test_a_host_that_cannot_be_asked(bench):
    """Plain ssh does not get in through the closed door; the doors can be tried all the same, over the family that is known."""
    bench.apply()
    seen = bench.verify(play=False, ansible_connection="ssh")
    seen.check_right(("rules", ""), *((what, IPV6) for what in ("door ssh", "door web")))
    assert seen.rows["door web", IPV4]["right"] == "open"
    assert "could not be asked" in seen.rows["rules", ""]["note"]


def test_a_trusted_controller_sees_nothing(bench):
    """It never needs a knock, so that all doors are open to it: no reason to call them void."""
    seen = bench.apply(trusted_sources=["10.77.0.2"]).verify()
    seen.check_right(("door ssh", IPV4), ("door web", IPV4))
    assert "trusted_sources" in seen.rows["door web", IPV4]["note"]
    assert seen.rows["door web", IPV6]["right"] == "open"


@pytest.mark.parametrize("how", ["variable", "configuration"])
def test_a_jump_host_is_said_to_be_one(bench, how):
    """No knock is sent; the row says why."""
    bench.apply()
    if how == "variable":
        variables = {"ansible_knock_via": "jump"}
    else:
        # A way through a program that comes out here is as good as a jump host.
        variables = {}
        bench.controller.configure("ProxyCommand nc %h %p")
    with bench.counted("2500") as knocks:
        seen = bench.verify(play=False, ansible_connection="ssh", **variables)
    assert knocks() == 0
    assert seen.run.code == 0, seen.run.output
    assert list(seen.rows) == [("all", ""), ("rules", "")]
    assert "jump host" in seen.rows["all", ""]["note"]


@pytest.mark.parametrize("broken", [False, True], ids=["right", "broken"])
def test_the_role_verifies_after_an_apply(bench, broken):
    """The guard has knocked just before. A door that another program keeps open fails the host, with what to do."""
    bench.apply()
    if broken:
        bench.insert(
            "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "3333", "-j", "REDIRECT", "--to-ports", "80"
        )
    role = {"roles": [{"role": "sesame.portknock.portknock", "tags": ["portknock_ruleset"]}]}
    variables = {f"portknock_{name}": value for name, value in bench.options.items()}
    variables.update(
        portknock_verify=True, portknock_persist=False, portknock_doors=[SSH, dict(WEB, window=2)],
        ansible_connection="sesame.portknock.knock_ssh",
        # Else the doors stand in front of what nat redirects.
        portknock_published="none" if broken else "doors",
    )  # fmt: skip
    seen = Verified(
        bench.controller.play(hosts={"target": variables}, play=role, words=("--tags", "portknock_ruleset"))
    )
    if not broken:
        seen.check_right()
        return
    assert seen.run.code == 2, seen.run.output
    assert "open without a knock" in seen.run.only(task=JUDGE).result["msg"]
    assert "door web" in seen.run.only(task=JUDGE).result["msg"]


def test_hosts_side_by_side(bench):
    """One that is right, one with nothing to look at, one that is off: one table, hosts sorted, exit code not zero."""
    bench.apply()
    mine = {f"portknock_{name}": value for name, value in bench.options.items()}
    mine.update(ansible_connection="sesame.portknock.knock_ssh")
    off = dict(mine, ansible_host="10.77.0.99", ansible_timeout=1)
    hosts = {"target": mine, "nothing": dict(mine, portknock_doors=[], portknock_policy="accept", portknock_allow=[],
             ansible_knock=SSH["knock"]), "off": off}  # fmt: skip
    seen = bench.verify(hosts=hosts, play=False)
    assert seen.run.code == 2, seen.run.output
    assert seen.rows["door ssh", IPV4]["state"] == "ok"
    table = seen.run.output.split("Show what was seen", 1)[1].split("TASK [", 1)[0]
    lines = re.findall(r"^(nothing|off|target) ", table, re.M)
    assert lines == sorted(lines)
    assert set(lines) == {"nothing", "off", "target"}
    assert re.search(r"nothing .*doors that the inventory does not have \(ssh, web\)", table)
    assert re.search(r"off .*door web .*WRONG", table)


def test_check_mode_sends_nothing(bench):
    bench.apply()
    mine = dict({f"portknock_{name}": value for name, value in bench.options.items()}, ansible_knock=SSH["knock"],
                ansible_connection="sesame.portknock.knock_ssh")  # fmt: skip
    with bench.counted("2500") as knocks:
        run = bench.controller.play(PING, hosts={"target": mine}, words=("sesame.portknock.verify", "--check"))
    assert knocks() == 0
    assert run.code == 0, run.output
    assert "not looked at in check mode" in run.output


def test_two_names_of_one_host(bench):
    """At the same time each would see the doors that the other one opens; by whichever address it comes."""
    bench.apply(SSH)
    variables = {f"portknock_{name}": value for name, value in bench.options.items()}
    variables.update(ansible_connection="sesame.portknock.knock_ssh", ansible_knock=SSH["knock"])
    hosts = {name: dict(variables, ansible_host=TARGET[family]) for name, family in (("web", IPV4), ("db", IPV6))}
    found = bench.verify(hosts=hosts)
    found.check_right()
    Verified(found.run, "db").check_right()


def test_nobody_accepts_what_is_looked_at(rig, bench):
    """sshd shuts out whoever connects and does not log in (PerSourcePenalties)."""
    bench.apply(SSH)
    before = (rig.target.folder / "sshd.log").read_text()
    bench.verify().check_right()
    told = (rig.target.folder / "sshd.log").read_text()[len(before) :]
    assert "Accepted publickey" in told
    assert "[preauth]" not in told
