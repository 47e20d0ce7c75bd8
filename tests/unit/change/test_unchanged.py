# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that meets what the one before it met: when its result is taken, and that it never is where anything differs."""

import json

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change import unchanged
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import plan_change, result_of
from ansible_collections.sesame.portknock.plugins.module_utils._change.unchanged import Recorder, known_result, remember
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError
from ansible_collections.sesame.portknock.plugins.module_utils._host.host import Host
from ansible_collections.sesame.portknock.plugins.module_utils._paths import STATE_FILE, UNCHANGED
from fake_host import knockd_host
from fake_kernel import FakeNftables
from module_run import DOOR, options, run

SSH = "192.0.2.7 50000 192.0.2.1 22"


@pytest.fixture(autouse=True)
def code(monkeypatch):
    """As in a module's zip file."""
    made = [["plugins/module_utils/_spec/model.py", 1]]
    monkeypatch.setattr(unchanged, "code_of_module", lambda: made)
    return made


def parts_of(host):
    """The FakeHost as a Host."""
    return Host(*[getattr(host, name) for name in Host._fields])


def plan(host, **more):
    """Do what the module does on a host where nothing is to be done."""
    recorder = Recorder(parts_of(host))
    wanted = options(**more)
    change = plan_change(wanted, recorder.host)
    assert not change.changed
    remember(host, wanted, recorder, result_of(change))
    return json.loads(json.dumps(result_of(change)))


@pytest.fixture(params=["iptables", "knockd"])
def settled(request):
    """A host on which nothing is to be done, and what the run said that found it so."""
    host = knockd_host()
    host.ssh = SSH
    run(host, engine=request.param)
    return host, plan(host, engine=request.param), request.param


def test_the_result_is_the_same(settled):
    host, result, engine = settled
    host.frozen = True
    wanted = options(engine=engine)
    assert known_result(parts_of(host), wanted) == result
    assert known_result(parts_of(host), dict(wanted, guard_id="another", guard_owner="somebody")) == result
    host.ssh = "192.0.2.7 61234 192.0.2.1 22"
    assert known_result(parts_of(host), wanted) == result, "another connection from there"
    assert host.mode(UNCHANGED) == 0o600


def write(host, path, text):
    host.files[path] = (text, host.mode(path) or 0o600)


def test_what_is_cheaper_to_read_stands_for_the_rest(settled):
    """No command prints the ruleset or its version, no file of the host's command is read whole, and no service is asked about."""
    host, result, engine = settled
    asked = Asked(host)
    assert known_result(asked.host, options(engine=engine)) == result
    assert ["nftables", "generation", []] in asked.calls
    assert ["marks", "network", []] in asked.calls
    few = {"rules", "tables", "chains", "digest", "states", "is_ready", "listening", "local_network", "of_tunnel"}
    assert few.isdisjoint(method for _part, method, _words in asked.calls)
    run = [words[0] for part, method, words in asked.calls if (part, method) == ("command", "run")]
    assert not [words for words in run if "-V" in words or words[0].endswith(("nft-save", "/nft"))], run
    assert len(asked.calls) == len({json.dumps(call) for call in asked.calls}), "nothing is read twice"


class Asked:
    """What is asked of a FakeHost."""

    def __init__(self, host):
        self.calls = []
        self._real = parts_of(host)
        self.host = Host(*[unchanged._Part(name, getattr(self._real, name), self._read) for name in Host._fields])

    def _read(self, part, method, words):
        self.calls.append([part, method, words])
        return unchanged._called(self._real, [part, method, words])


MARKS = (("nftables", "generation"), ("marks", "network"), ("marks", "units"), ("marks", "interface"))


@pytest.mark.parametrize(("part", "mark"), MARKS)
def test_where_a_mark_differs_what_it_stands_for_is_read(part, mark, settled, monkeypatch):
    """A container that came and went changes no rule that matters: the next run has its mark again."""
    host, result, engine = settled
    fake = type(getattr(host, part))
    real = getattr(fake, mark)
    monkeypatch.setattr(fake, mark, lambda self, *words: real(self, *words) + "another")
    before, asked = host.read(UNCHANGED), Asked(host)
    assert known_result(asked.host, options(engine=engine)) == result
    assert host.read(UNCHANGED) != before
    again = Asked(host)
    assert known_result(again.host, options(engine=engine)) == result
    assert len(again.calls) < len(asked.calls)


def test_a_change_between_two_reads_with_one_mark_is_a_difference(settled):
    """What was read before it, and what after it, are not of the same host."""
    host, _result, engine = settled
    recorder = Recorder(parts_of(host))
    recorder.host.nftables.chains()
    host.chains = None
    recorder.host.nftables.rules("ip")
    assert [mark[:2] for mark in recorder.marks] == [["nftables", "generation"]]
    remember(host, options(engine=engine), recorder, {})
    assert known_result(parts_of(host), options(engine=engine)) is None
    host.chains = []
    assert known_result(parts_of(host), options(engine=engine)) == {}


def test_what_no_mark_tells_is_read_whole_each_time(settled, monkeypatch):
    """Also where the mark could be read once, and could not twice after it."""
    host, result, engine = settled

    def refuse(_self):
        raise HostError("no")

    monkeypatch.setattr(FakeNftables, "generation", refuse)
    for _turn in range(3):
        assert known_result(parts_of(host), options(engine=engine)) == result
    host.rules["iptables"].tables["filter"].chains["PORTKNOCK"].pop()
    assert known_result(parts_of(host), options(engine=engine)) is None


def test_a_kernel_that_does_not_tell_is_read_whole(settled, monkeypatch):
    host, _result, engine = settled

    def refuse(_self):
        raise HostError("no")

    monkeypatch.setattr(FakeNftables, "generation", refuse)
    result = plan(host, engine=engine)
    assert known_result(parts_of(host), options(engine=engine)) == result
    host.rules["iptables"].tables["filter"].chains["PORTKNOCK"].pop()
    assert known_result(parts_of(host), options(engine=engine)) is None


DIFFERENCES = [
    ("a rule is gone", lambda host: host.rules["iptables"].tables["filter"].chains["PORTKNOCK"].pop()),
    ("a foreign rule", lambda host: host.rules["ip6tables"].restore("*filter\n-A INPUT -p tcp -j ACCEPT\nCOMMIT\n")),
    ("a file was edited", lambda host: write(host, "/etc/iptables/rules.v4", "*filter\nCOMMIT\n")),
    ("a file is gone", lambda host: host.files.pop("/etc/portknock/ip6tables.rules")),
    (
        "other permissions",
        lambda host: host.files.update({"/etc/iptables/rules.v6": (host.read("/etc/iptables/rules.v6"), 0o644)}),
    ),
    ("our unit failed", lambda host: setattr(host, "unit", False)),
    ("no IPv6 any more", lambda host: setattr(host, "speaks", ("ipv4",))),
    ("another list size", lambda host: setattr(host, "size", 100)),
    ("xt_recent is a module", lambda host: setattr(host, "module", True)),
    ("a file that was not there", lambda host: write(host, STATE_FILE, '{"modes": {}}')),
    (
        "the service saves by itself",
        lambda host: write(host, "/etc/sysconfig/iptables-config", "IPTABLES_SAVE_ON_STOP=yes\n"),
    ),
    ("another source", lambda host: setattr(host, "ssh", "192.0.2.8 50000 192.0.2.1 22")),
    ("another port", lambda host: setattr(host, "ssh", "192.0.2.7 50000 192.0.2.1 2222")),
    ("no session", lambda host: setattr(host, "ssh", None)),
    ("another distribution", lambda host: write(host, "/etc/os-release", "ID=rocky\n")),
    ("iptables is gone", lambda host: host.tools.discard("iptables-restore")),
]


@pytest.mark.parametrize("change", [item[1] for item in DIFFERENCES], ids=[item[0] for item in DIFFERENCES])
def test_any_difference_on_the_host_counts(change, settled):
    host, _result, engine = settled
    change(host)
    assert known_result(parts_of(host), options(engine=engine)) is None


@pytest.mark.parametrize(
    "harm",
    [
        lambda host: setattr(host, "daemon", None),
        lambda host: host.wants.clear(),
        lambda host: host.files.pop("/etc/portknock/knockd.conf"),
    ],
)
def test_so_does_one_of_knockd(harm):
    host = knockd_host()
    run(host, engine="knockd")
    plan(host, engine="knockd")
    assert known_result(parts_of(host), options(engine="knockd")) is not None
    harm(host)
    assert known_result(parts_of(host), options(engine="knockd")) is None


@pytest.mark.parametrize(
    "more", [{"log": True}, {"doors": [dict(DOOR, window=16)]}, {"guard_timeout": 31}, {"state": "absent"}]
)
def test_other_options_count(more, settled):
    host, _result, engine = settled
    assert known_result(parts_of(host), options(**dict({"engine": engine}, **more))) is None


def test_other_code_counts(settled, code):
    host, _result, engine = settled
    code[0][1] = 2
    assert known_result(parts_of(host), options(engine=engine)) is None


def test_code_that_cannot_be_told_is_never_the_same(settled, code):
    host, _result, engine = settled
    del code[:]
    assert known_result(parts_of(host), options(engine=engine)) is None
    host.frozen = True
    remember(host, options(engine=engine), Recorder(parts_of(host)), {})


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"asked": ""}', '{"asked": "x"}', "null"])
def test_what_cannot_be_read_is_nothing(text, settled):
    host, _result, engine = settled
    write(host, UNCHANGED, text)
    assert known_result(parts_of(host), options(engine=engine)) is None


def test_a_read_that_is_not_there_is_a_difference(settled):
    host, _result, engine = settled
    noted = json.loads(host.read(UNCHANGED))
    noted["reads"][0][1] = "no_such_method"
    write(host, UNCHANGED, json.dumps(noted))
    assert known_result(parts_of(host), options(engine=engine)) is None


def test_counters_and_the_time_of_a_save_are_no_difference():
    save = "# Generated by iptables-save v1.8.9 on {0}\n*filter\n:INPUT ACCEPT [{1}:{1}]\n-A INPUT -j ACCEPT\nCOMMIT\n"
    one, other = ((0, save.format(*words), "") for words in (("Mon", 1), ("Tue", 2)))
    assert unchanged._digest_of("run", one) == unchanged._digest_of("run", other)
    assert unchanged._digest_of("run", one) != unchanged._digest_of(
        "run", (0, one[1].replace("ACCEPT\nC", "DROP\nC"), "")
    )
