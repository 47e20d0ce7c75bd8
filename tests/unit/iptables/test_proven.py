# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change is judged before it is made: what would be in the kernel, and what the next boot would load."""

import ipaddress
import json
import re

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change import plan as change_plan
from ansible_collections.sesame.portknock.plugins.module_utils._engine import Connection, Wanted
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables import proven
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import Hook
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.prove_doors import prove_doors
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.proven import prove_change, would_be
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import UNKNOWN, LocalNetwork
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._paths import STATE_FILE
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_host import FakeHost
from fake_iptables import FakeIptables
from module_run import run, settled
from prover_questions import PROMISED, recorded

SPEC = spec_from_options(PROMISED)
RECORDED = recorded()
OPEN = "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT"
SAVE = f"*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{OPEN}\nCOMMIT\n"


def wanted(prove=True, spec=SPEC):
    return Wanted(spec, ("ipv4",), True, False, None, "", {}, prove=prove)


def chains_of(document):
    table = document.table("filter")
    rules = {name: [rule.text.rstrip() for rule in rules] for name, rules in table.chains.items() if rules}
    return [table.policy(name) for name in ("INPUT", "FORWARD", "OUTPUT")], rules


@pytest.mark.parametrize("entry", RECORDED, ids=[entry["file"] for entry in RECORDED])
def test_what_would_be_is_what_the_load_makes(entry):
    host = FakeIptables(entry["text"])
    plan = plan_family(host.save(), SPEC, entry["family"])
    judged = chains_of(would_be(plan.document, plan.then))
    host.restore(plan.change)
    assert judged == chains_of(parse(host.save()))


def misplaced():
    """Return a plan in which the doors' hook stands behind a rule that accepts their port, as no planner should place it."""
    plan = plan_family(SAVE, SPEC, "ipv4")
    hooks = tuple(Hook(1, hook.text) if hook.text.endswith("-j PORTKNOCK") else hook for hook in plan.then.hooks)
    return plan._replace(then=plan.then._replace(hooks=hooks))


def test_a_void_is_refused():
    with pytest.raises(SpecError) as refusal:
        prove_change(wanted(), [misplaced()], {}, UNKNOWN)
    assert str(refusal.value) == (
        "prove: door ssh would be void over ipv4 under the ruleset as it would be. Void: TCP from 203.0.113.77 port 12345 to port 22 "
        f"(SYN) on eth0 gets in without the knock, by {OPEN} in table filter. Nothing was changed. Remove that rule, or trust the "
        "sources that it is for (trusted_sources, trusted_interfaces); with prove set to false this is a finding."
    )


def test_or_is_a_finding():
    done = prove_change(wanted(prove=False), [misplaced()], {}, UNKNOWN)
    assert [(word["door"], word["ruleset"], word["result"]) for word in done.words] == [
        ("ssh", "live", "void"), ("admin", "live", "proved"), ("one", "live", "proved"), *[("", "live", "proved")] * 3,
    ]  # fmt: skip
    assert [(finding.kind, finding.severity, finding.ip_version, finding.rule) for finding in done.findings] == [
        ("void", "error", "ipv4", OPEN)
    ]
    assert done.findings[0].message == (
        "door ssh: Void: TCP from 203.0.113.77 port 12345 to port 22 (SYN) on eth0 gets in without the knock, by "
        f"{OPEN} in table filter. Remove that rule, or trust the sources that it is for (trusted_sources, trusted_interfaces)."
    )


def test_what_a_boot_would_load_is_judged_too():
    plan = plan_family(SAVE, SPEC, "ipv4")
    host = FakeIptables(SAVE)
    host.restore(plan.change)
    boot = {"ipv4": ("/etc/iptables/rules.v4", host.save())}
    assert [(word["ruleset"], word["result"]) for word in prove_change(wanted(), [plan], boot, UNKNOWN).words] == [
        ("live", "proved")
    ] * 6 + [("boot", "proved")] * 6
    host.restore("*filter\n-I INPUT 1 -p tcp -j ACCEPT\nCOMMIT\n")
    with pytest.raises(
        SpecError, match="under /etc/iptables/rules.v4, which a boot loads, as it would be. Void: TCP from"
    ):
        prove_change(wanted(), [plan], {"ipv4": ("/etc/iptables/rules.v4", host.save())}, UNKNOWN)


def test_what_is_taken_out_needs_no_proof():
    assert prove_change(wanted(spec=None), [plan_family(SAVE, None, "ipv4")], {}, UNKNOWN) == ([], (), {})


BOOT_FILE = "/etc/iptables/rules.v4"


def counted(monkeypatch):
    """Return a list that grows with each ruleset that is proved anew."""
    asked = []

    def count(document, *words):
        asked.append(words)
        return prove_doors(document, *words)

    monkeypatch.setattr(proven, "prove_doors", count)
    return asked


def loaded(*lines):
    host = FakeIptables(SAVE)
    host.restore(plan_family(SAVE, SPEC, "ipv4").change)
    for line in lines:
        host.restore("*filter\n{0}\nCOMMIT\n".format(line))
    return host.save()


def test_equal_texts_are_proved_once(monkeypatch):
    asked = counted(monkeypatch)
    text = re.sub(r"\[0:0\]", "[12:345]", loaded())
    words = prove_change(wanted(), [plan_family(SAVE, SPEC, "ipv4")], {"ipv4": (BOOT_FILE, text)}, UNKNOWN).words
    assert len(asked) == 1
    assert [word["ruleset"] for word in words] == ["live"] * 6 + ["boot"] * 6
    prove_change(
        wanted(), [plan_family(SAVE, SPEC, "ipv4")], {"ipv4": (BOOT_FILE, loaded("-A INPUT -j DROP"))}, UNKNOWN
    )
    assert len(asked) == 3


OTHERWISE = {
    "nothing": ({}, SAVE, UNKNOWN, 0),
    "the text": ({}, SAVE.replace("-j ACCEPT", "-j DROP"), UNKNOWN, 1),
    "the policy": ({}, SAVE.replace(":INPUT ACCEPT", ":INPUT DROP"), UNKNOWN, 1),
    "another table": ({}, SAVE + "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j DROP\nCOMMIT\n", UNKNOWN, 1),
    "the code": ({"code": "another"}, SAVE, UNKNOWN, 1),
    "code that is not known": ({"code": ""}, SAVE, UNKNOWN, 1),
    "the doors": ({"spec": SPEC._replace(doors=SPEC.doors[:1])}, SAVE, UNKNOWN, 1),
    "the connection": ({"connection": Connection(ipaddress.ip_address("192.0.2.7"), "192.0.2.1", 22)}, SAVE, UNKNOWN, 1),
    "the host's network": ({}, SAVE, LocalNetwork((ipaddress.ip_network("192.0.2.1/32"),), ()), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_was_proved_is_not_proved_anew_unless_anything_differs(name, monkeypatch):
    more, save, local, times = OTHERWISE[name]
    first = wanted()._replace(code="this", prove=False)
    before = prove_change(first, [plan_family(SAVE, SPEC, "ipv4")], {}, UNKNOWN)
    state = json.loads(json.dumps(before.remembered))
    asked = counted(monkeypatch)
    now = first._replace(**dict(more, state=state))
    again = prove_change(now, [plan_family(save, now.spec, "ipv4")], {}, local)
    assert len(asked) == times
    if not times:
        assert again == before


def test_a_void_that_was_remembered_is_refused_all_the_same(monkeypatch):
    reported = prove_change(wanted(prove=False)._replace(code="this"), [misplaced()], {}, UNKNOWN)
    asked = counted(monkeypatch)
    with pytest.raises(SpecError, match="door ssh would be void"):
        prove_change(wanted()._replace(code="this", state=reported.remembered), [misplaced()], {}, UNKNOWN)
    assert asked == []


def test_in_panic_the_doors_are_closed_and_need_not_open():
    spec = SPEC._replace(panic=True)
    done = prove_change(wanted(spec=spec), [plan_family(SAVE, spec, "ipv4")], {}, UNKNOWN)
    assert {word["result"] for word in done.words} == {"proved"}


@pytest.mark.parametrize("check", [True, False])
def test_the_module_says_it(check):
    """Of both families, the kernel and the boot; in check mode as well."""
    host = FakeHost(v4=SAVE)
    result = run(host, check=check, doors=PROMISED["doors"])
    found = {(word["ip_version"], word["ruleset"]): word["result"] for word in result["proof"]}
    assert found == {(family, ruleset): "proved" for family in ("ipv4", "ipv6") for ruleset in ("live", "boot")}
    assert [word["what"] for word in result["proof"][:4]] == ["door ssh", "door admin", "door one", "rest"]
    assert len(result["proof"]) == 16


def test_it_is_kept_on_the_host_and_known_in_the_next_run(monkeypatch):
    """Not while the code is not one file: then nothing tells it from another version."""
    monkeypatch.setattr(change_plan, "digest_of_code", lambda: "this")
    host = FakeHost(v4=SAVE)
    settled(host, doors=PROMISED["doors"])
    asked = counted(monkeypatch)
    result = run(host, doors=PROMISED["doors"])
    assert (result["changed"], asked) == (False, [])
    assert {word["result"] for word in result["proof"]} == {"proved"}
    for step in ("7144", "2791", "9318"):
        assert step not in json.dumps(json.loads(host.read(STATE_FILE))["proved"])
    monkeypatch.setattr(change_plan, "digest_of_code", lambda: "another")
    run(host, doors=PROMISED["doors"])
    # A boot does not bring the foreign rule of IPv4, so it is another ruleset; for IPv6 they are the same.
    assert len(asked) == 3
