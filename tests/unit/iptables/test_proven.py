# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change is judged before it is made: what would be in the kernel, and what the next boot would load."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._engine import Wanted
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.installed import Hook
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.proven import prove_change, would_be
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.local_network import UNKNOWN
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_host import FakeHost
from fake_iptables import FakeIptables
from module_run import run
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
    proven = prove_change(wanted(prove=False), [misplaced()], {}, UNKNOWN)
    assert [(word["door"], word["ruleset"], word["result"]) for word in proven.words] == [
        ("ssh", "live", "void"), ("admin", "live", "proved"), ("one", "live", "proved"), *[("", "live", "proved")] * 3,
    ]  # fmt: skip
    assert [(finding.kind, finding.severity, finding.ip_version, finding.rule) for finding in proven.findings] == [
        ("void", "error", "ipv4", OPEN)
    ]
    assert proven.findings[0].message == (
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
    assert prove_change(wanted(spec=None), [plan_family(SAVE, None, "ipv4")], {}, UNKNOWN) == ([], ())


def test_in_panic_the_doors_are_closed_and_need_not_open():
    spec = SPEC._replace(panic=True)
    proven = prove_change(wanted(spec=spec), [plan_family(SAVE, spec, "ipv4")], {}, UNKNOWN)
    assert {word["result"] for word in proven.words} == {"proved"}


@pytest.mark.parametrize("check", [True, False])
def test_the_module_says_it(check):
    """Of both families, the kernel and the boot; in check mode as well."""
    host = FakeHost(v4=SAVE)
    result = run(host, check=check, doors=PROMISED["doors"])
    found = {(word["ip_version"], word["ruleset"]): word["result"] for word in result["proof"]}
    assert found == {(family, ruleset): "proved" for family in ("ipv4", "ipv6") for ruleset in ("live", "boot")}
    assert [word["what"] for word in result["proof"][:4]] == ["door ssh", "door admin", "door one", "rest"]
    assert len(result["proof"]) == 16
