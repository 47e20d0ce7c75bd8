# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No step of any door in any text that may leave the host, whatever the doors are.

Steps are numbers above 20000 here and no other number is: ports of doors, seconds, line numbers and lengths are smaller. So a
step is found wherever it stands as a word of its own, and nothing else is taken for one.
"""

import json
import re
from types import SimpleNamespace

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change.info import inspect
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError, SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.build import build_rules
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.persistence import LAYOUTS, wanted_files
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.read_back import (
    counters,
    drift,
    expected_rules,
)
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.config import config_text
from ansible_collections.sesame.portknock.plugins.module_utils._knockd.findings import findings as knockd_findings
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._redact import readable_config, without_steps
from ansible_collections.sesame.portknock.plugins.module_utils._spec.findings import spec_findings
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from ansible_collections.sesame.portknock.plugins.module_utils._spec.words import summary
from ansible_collections.sesame.portknock.plugins.module_utils._tables.commands import Commands, Iptables
from ansible_collections.sesame.portknock.plugins.module_utils._tables.installed_doors import read_installed
from ansible_collections.sesame.portknock.plugins.module_utils._tables.readable import readable_file, readable_rule
from fake_host import FakeHost, knockd_host
from fake_iptables import FakeIptables
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from module_run import run

FAMILIES = ("ipv4", "ipv6")
FIRST_STEP = 20001
OPENED = ("22", "443", "8000-8010", "53/udp", "9000")
STEPS = st.builds("{0}{1}".format, st.integers(FIRST_STEP, 64999), st.sampled_from(["", "/tcp", "/udp"]))


def doors(most=4):
    door = st.fixed_dictionaries(
        {
            "knock": st.lists(STEPS, min_size=1, max_size=5),
            "close": st.one_of(st.just([]), st.lists(STEPS, min_size=1, max_size=3)),
            "opens": st.lists(st.sampled_from(OPENED), min_size=1, max_size=3, unique=True),
            "once": st.booleans(),
            "sources": st.sampled_from([[], ["192.0.2.0/24"], ["2001:db8::/32", "198.51.100.7"]]),
        }
    )
    return st.lists(door, min_size=1, max_size=most).map(
        lambda chosen: [dict(door, name="door{0}".format("abcdefghij"[index])) for index, door in enumerate(chosen)]
    )


OPTIONS = st.fixed_dictionaries(
    {
        "doors": doors(),
        "policy": st.sampled_from(["reject", "accept"]),
        "log": st.booleans(),
        "engine": st.sampled_from(["iptables", "knockd", "nftables"]),
        "allow": st.sampled_from([[], [{"port": "80"}], [{"port": "25", "sources": ["192.0.2.1"], "comment": "mail"}]]),
        "ipv6_prefix": st.sampled_from([128, 64]),
    }
)


def steps_of(options):
    """Return the numbers of all steps of some options, as texts."""
    return {
        number
        for door in options["doors"]
        for key in ("knock", "close")
        for step in door.get(key) or []
        for number in re.findall(r"\d+", str(step))
        if len(number) > 3
    }


def shown(text, options):
    """Return the steps that a text shows."""
    return sorted(steps_of(options) & set(re.findall(r"(?<![0-9A-Za-z])\d+(?![0-9A-Za-z])", text)))


def refusal(what, *args):
    """Return what is refused and why, as a text, '' where nothing is."""
    try:
        what(*args)
    except (SpecError, HostError) as error:
        return str(error)
    return ""


def valid(options):
    refused = refusal(spec_from_options, options)
    assert shown(refused, options) == []
    assume(not refused)
    return spec_from_options(options)


def foreign(options):
    """Return a ruleset of others whose rules name the steps, each in another way, and the tables before INPUT."""
    rules, nat = [], []
    for index, number in enumerate(sorted(steps_of(options))):
        rules += [
            "-A INPUT -p tcp -m tcp --dport {0} -j ACCEPT".format(number),
            "-A INPUT -s 192.0.2.77/32 -p udp -m udp --dport {0} -j DROP".format(number),
            "-A INPUT -p tcp -m multiport --dports 22,{0} -j {1}".format(number, ("ACCEPT", "DROP")[index % 2]),
            "-A INPUT -p tcp -m tcp --destination-port {0} -j REJECT".format(number),
        ]
        nat.append("-A PREROUTING -p tcp -m tcp --dport {0} -j REDIRECT --to-ports {0}".format(number))
        nat.append(
            "-A PREROUTING -p tcp -m multiport --dports {0},22 -j DNAT --to-destination 192.0.2.9:{0}".format(number)
        )
    table = ["*nat", ":PREROUTING ACCEPT [0:0]", *nat, "COMMIT", "*filter", ":INPUT ACCEPT [0:0]", *rules, "COMMIT", ""]
    return "\n".join(table)


# Options and errors


@given(OPTIONS)
def test_the_invocation(options):
    assert shown(json.dumps(without_steps(options)), options) == []
    assert [door["name"] for door in without_steps(options)["doors"]] == [door["name"] for door in options["doors"]]


@given(OPTIONS)
def test_the_summary(options):
    assert shown("\n".join(summary(valid(options))), options) == []


SPOILED = (
    "{0}/sctp", "{0}/", "0{0}", "{0}-{1}", "{0}.5", "{0}\t", "\t{0}", "-{0}", "{0},{1}", "port {0}", "{0}/TCP", "{0}0", "tcp/{0}",
    "{0}/{1}",
)  # fmt: skip


@given(OPTIONS, st.sampled_from(SPOILED), st.data())
def test_errors_of_malformed_steps(options, form, data):
    door = data.draw(st.sampled_from(options["doors"]))
    key = data.draw(st.sampled_from(["knock", "close"]))
    steps = list(door[key]) or ["20007"]
    place = data.draw(st.integers(0, len(steps) - 1))
    number = steps[place].partition("/")[0]
    steps[place] = form.format(number, int(number) + 7)
    door[key] = steps
    with pytest.raises(SpecError) as error:
        spec_from_options(options)
    assert shown(str(error.value), options) == []


@given(OPTIONS, st.sampled_from(["step", "float", "dict", "text", "bool", "nested"]))
def test_errors_of_values_of_the_wrong_type(options, kind):
    door = options["doors"][-1]
    number = int(door["knock"][0].partition("/")[0])
    door["knock"] = {
        "step": -number,
        "float": [float(number)],
        "dict": [{"port": number}],
        "text": f"{number} {number}",
        "bool": [True, number, number],
        "nested": [[number, "{0}/udp".format(number)]],
    }[kind]
    with pytest.raises(SpecError) as error:
        spec_from_options(options)
    assert str(number) not in str(error.value)


@given(
    OPTIONS, st.sampled_from(["opened", "allowed", "repeated", "too many", "part of another", "scan", "key"]), st.data()
)
def test_errors_of_steps_that_cannot_be(options, fault, data):
    door = data.draw(st.sampled_from(options["doors"]))
    port, _slash, protocol = door["knock"][0].partition("/")
    if fault == "opened":
        door["opens"] = ["{0}/{1}".format(port, protocol or "tcp")]
    elif fault == "allowed":
        options["allow"] = [{"port": port, "protocol": protocol or "tcp"}]
    elif fault == "repeated":
        door["knock"] = [door["knock"][0]] * 2
    elif fault == "too many":
        door["knock"] = [str(int(port) + 7 * turn) for turn in range(9)]
    elif fault == "part of another":
        options["doors"].append(dict(door, name="other", opens=["9001"]))
    elif fault == "scan":
        door["knock"] = [str(int(port) + turn) for turn in range(3)]
    else:
        door["steps"] = door["knock"]
    with pytest.raises(SpecError) as error:
        spec_from_options(options)
    assert shown(str(error.value), options) == []
    assert port not in re.findall(r"\d+", str(error.value))


# Plans


@given(OPTIONS, st.sampled_from(FAMILIES))
def test_findings(options, family):
    spec = valid(options)
    found = plan_family(foreign(options), spec, family).findings + spec_findings(spec)
    found += knockd_findings(spec, FAMILIES, "eth0", "1")
    assert shown(json.dumps([finding._asdict() for finding in found]), options) == []


@given(OPTIONS, OPTIONS, st.sampled_from(FAMILIES))
def test_the_diff_of_a_plan(options, later, family):
    host = FakeIptables("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT\nCOMMIT\n")
    first = plan_family(host.save(), valid(options), family)
    host.restore(first.change)
    second = plan_family(host.save(), valid(later), family)
    for plan in (first, second):
        assert shown(plan.before() + plan.after(), options) == []
        assert shown(plan.before() + plan.after(), later) == []


@given(OPTIONS, st.sampled_from(sorted(LAYOUTS)))
def test_readable_files(options, layout):
    spec = valid(options)
    owns = {family: build_rules(spec, family) for family in FAMILIES}
    files = wanted_files(spec, owns, LAYOUTS[layout], lambda _path: "")
    texts = [text for text, _mode in files.values() if text]
    assert len(texts) > 6
    assert shown("".join(readable_file(text) for text in texts), options) == []


@given(OPTIONS, st.sampled_from(FAMILIES))
def test_comments_of_rules(options, family):
    own = build_rules(valid(options), family)
    texts = [own.head, own.doors, own.tail, *(text for rules in own.chains.values() for text in rules)]
    comments = " ".join(comment for text in texts for comment in re.findall(r'--comment "[^"]*"', text))
    assert shown(comments, options) == []


@given(OPTIONS, st.sampled_from(FAMILIES))
def test_every_rule_that_names_a_step_is_masked(options, family):
    own = build_rules(valid(options), family)
    for chain, rules in own.chains.items():
        for text in rules:
            assert shown(readable_rule(chain, text), options) == []


# What iptables says

SAID = (
    "iptables-restore v1.8.9 (nf_tables): invalid port/service `{port}' specified\nError occurred at line: {line}",
    "iptables-restore: line {line} failed: {text}",
    "iptables-restore v1.8.4: invalid port/service `{port}:{port}' specified\nError occurred at line: {line}\n{text}",
    "line {line}: RULE_APPEND failed (No such file or directory): rule in chain PORTKNOCK_K1",
    "Bad argument `{port}'\nError occurred at line: {line}",
)


@given(OPTIONS, st.sampled_from(FAMILIES), st.sampled_from(SAID), st.data())
def test_an_error_of_iptables_restore(options, family, said, data):
    change = plan_family("", valid(options), family).change
    lines = change.splitlines()
    line = data.draw(st.integers(1, len(lines)))
    port = data.draw(st.sampled_from(sorted(steps_of(options))))
    assume(options["engine"] != "knockd" and re.search(r"\b{0}\b".format(port), change))
    text = said.format(line=line, port=port, text=lines[line - 1])
    commands = Commands(
        "nft", {"iptables-restore": "/sbin/iptables-restore", "ip6tables-restore": "/sbin/ip6tables-restore"}
    )
    iptables = Iptables(lambda _words, _text: (2, "", text), lambda _name: None, lambda _path: "", commands)
    with pytest.raises(HostError) as error:
        iptables.restore(family, change)
    assert shown(str(error.value), options) == []


@given(OPTIONS, st.sampled_from(FAMILIES))
def test_a_rule_in_the_other_backend(options, family):
    change = plan_family("", valid(options), family).change
    for line in change.splitlines():
        if not line.startswith("-A"):
            continue
        iptables = Iptables(
            lambda _words, _text, line=line: (0, line + "\n", ""), lambda name: "/sbin/" + name, lambda _path: "filter"
        )
        found = iptables.first_rule(family, line + "\n")
        assert found.startswith("iptables" if family == "ipv4" else "ip6tables")
        assert shown(found, options) == []


@given(OPTIONS, st.sampled_from(FAMILIES), st.data())
def test_a_ruleset_that_cannot_be_read(options, family, data):
    change = plan_family("", valid(options), family).change
    lines = change.splitlines()
    place = data.draw(st.integers(1, len(lines) - 2))
    lines[place] = data.draw(st.sampled_from(["-Z {0}", "-R INPUT {0}", "-", "COMMIT\n{0}"])).format(lines[place])
    refused = refusal(parse, "\n".join(lines) + "\n")
    assert refused
    assert shown(refused, options) == []


# What is read back


@given(OPTIONS, st.sampled_from(FAMILIES), st.randoms(use_true_random=False))
def test_drift_and_counters(options, family, random):
    host = FakeIptables("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT\nCOMMIT\n")
    host.restore(plan_family(host.save(), valid(options), family).change)
    own = expected_rules("", plan_family(host.save(), valid(options), family).now)
    for rules in host.tables["filter"].chains.values():
        if rules and random.random() < 0.5:
            rules.insert(random.randrange(len(rules)), rules.pop(random.randrange(len(rules))))
        if rules and random.random() < 0.3:
            rules.pop(random.randrange(len(rules)))
    document = parse(host.save())
    installed = read_installed(own.chains)
    assert {door.name for door in installed.doors} <= {door["name"] for door in options["doors"]}
    assert shown("\n".join(drift(document, own, installed, family)), options) == []
    assert shown(json.dumps(counters(document.table("filter"))), options) == []


@given(OPTIONS)
def test_the_configuration_of_knockd(options):
    text = config_text(valid(dict(options, engine="knockd")), FAMILIES, "eth0", "/etc/portknock")
    assert set(shown(text, options)) == steps_of(options), "the file itself holds them"
    edited = text.replace("sequence = ", "  Sequence=").replace("[open ", "[OPEN ")
    assert shown(readable_config(text), options) == []
    assert shown(readable_config(edited), options) == []
    assert re.search(r"id [0-9a-f]{16}", text)
    assert not re.search(r"id [0-9a-f]{16}", readable_config(text)), "a guess could be checked against it"


# Whole results


@given(OPTIONS, st.sampled_from([22, 2222, 443]), st.booleans())
def test_what_is_said_of_a_connection_that_could_not_be_made(options, port, own):
    pytest.importorskip("ansible", reason="it runs on controllers, and this Python has no ansible-core")
    from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.explain import explain
    from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import SshPath

    doors = options["doors"]
    known = {"knock_doors": doors, "knock": doors[0]["knock"] if own else None, "knock_via": "direct"}
    plugin = SimpleNamespace(get_option={"knock_engine": "iptables", "knock_host": "", **known}.get)
    path = SshPath("192.0.2.7", port, "any", "me", source="192.0.2.2")
    text = explain(plugin, f"ssh: connect to host 192.0.2.7 port {port}: Connection timed out", path, 3)
    assert text
    assert shown(text, options) == []


@pytest.mark.slow
@settings(max_examples=25)
@given(OPTIONS, OPTIONS)
def test_results_of_the_modules(options, later):
    kernel = dict(options, engine="iptables")
    valid(kernel)
    valid(dict(later, engine="knockd"))
    host = knockd_host()
    told = [
        run(host, check=True, **kernel),
        run(host, **kernel),
        inspect(host),
        run(host, **dict(later, engine="knockd")),
    ]
    told += [inspect(host), run(host, **dict(later, engine="knockd", log=not later["log"])), run(host, state="absent")]
    for result in told:
        text = json.dumps(result)
        assert shown(text, options) == []
        assert shown(text, later) == []
    assert told[1]["diff"] and told[3]["diff"]


def test_a_host_with_rules_of_others_that_name_steps():
    options = {"doors": [{"name": "ssh", "knock": ["27005", "29100/udp", "28300"], "opens": ["22"]}]}
    host = FakeHost(v4="*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 27005 -j DROP\nCOMMIT\n")
    run(host, **options)
    assert shown(json.dumps(inspect(host)), options) == []


# The test of the test


def test_what_is_found():
    options = {"doors": [{"name": "ssh", "knock": ["27005", "29100/udp"], "opens": ["22"]}]}
    assert steps_of(options) == {"27005", "29100"}
    assert shown("a port 27005, and 29100/udp", options) == ["27005", "29100"]
    assert shown("--dports 1,27005:27006", options) == ["27005"]
    assert shown("id 27005abc, 127005, a27005, 270055", options) == []
