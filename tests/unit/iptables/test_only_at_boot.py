# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules and policies that stand in the distribution's rules file alone: the next boot brings them, and a finding says so."""

from pathlib import Path

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change.info import inspect
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.only_at_boot import only_at_boot
from ansible_collections.sesame.portknock.plugins.module_utils._netfilter.save_format import parse
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_host import EL, FakeHost
from module_run import options, run

PATH = "/etc/sysconfig/iptables"
SPEC = spec_from_options(options())
WEB = "-A INPUT -p tcp -m tcp --dport 443 -j ACCEPT"


def table(*rules, name="filter", policy="ACCEPT", chain="INPUT"):
    return "".join(["*{0}\n:{1} {2} [0:0]\n".format(name, chain, policy), *[rule + "\n" for rule in rules], "COMMIT\n"])


def brought(at_boot, live):
    return [each.message for each in only_at_boot(PATH, at_boot, "ipv4", parse(live), SPEC)]


SAME = [
    ("by hand", "-A INPUT -p tcp --dport https -j ACCEPT", WEB),
    ("long options", "-A INPUT --protocol tcp --destination-port 443 --jump ACCEPT", WEB),
    ("in another order", "-A INPUT -j ACCEPT -m tcp -p 6 --dport 443", WEB),
    ("inserted", "-I INPUT 1 -p tcp --dport 443 -j ACCEPT", WEB),
    ("with counters", "[5:300] " + WEB, WEB),
    ("an address", "-A INPUT -s 192.0.2.7 -j ACCEPT", "-A INPUT -s 192.0.2.7/32 -j ACCEPT"),
    ("a network", "-A INPUT -s 10.1.2.3/255.0.0.0 -j ACCEPT", "-A INPUT -s 10.0.0.0/8 -j ACCEPT"),
    ("everyone", "-A INPUT -s 0.0.0.0/0 -p all -j ACCEPT", "-A INPUT -j ACCEPT"),
    ("two addresses", "-A INPUT -s 192.0.2.1,192.0.2.2 -j DROP",
     "-A INPUT -s 192.0.2.1/32 -j DROP\n-A INPUT -s 192.0.2.2/32 -j DROP"),
    ("states", "-A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT", "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
    ("ports", "-A INPUT -p tcp -m multiport --dports 80,443,8000:8010 -j ACCEPT",
     "-A INPUT -p tcp -m multiport --dports 80,443,8000:8010 -j ACCEPT"),
    ("an open range", "-A INPUT -p udp --dport 1024: -j DROP", "-A INPUT -p udp -m udp --dport 1024:65535 -j DROP"),
    ("a refusal without its answer", "-A INPUT -j REJECT", "-A INPUT -j REJECT --reject-with icmp-port-unreachable"),
    ("a limit without its burst", "-A INPUT -p icmp --icmp-type echo-request -m limit --limit 1/s -j ACCEPT",
     "-A INPUT -p icmp -m icmp --icmp-type 8 -m limit --limit 1/sec -j ACCEPT"),
    ("a protocol by its number", "-A INPUT -p 47 -j ACCEPT", "-A INPUT -p gre -j ACCEPT"),
    ("ours", "-A INPUT -j PORTKNOCK_HEAD", ""),
]  # fmt: skip


@pytest.mark.parametrize(("at_boot", "live"), [item[1:] for item in SAME], ids=[item[0] for item in SAME])
def test_what_is_in_the_kernel_already(at_boot, live):
    assert brought(table(at_boot), table(live)) == []


OTHER = [
    ("another port", "-A INPUT -p tcp --dport 444 -j ACCEPT"),
    ("another protocol", "-A INPUT -p udp --dport 443 -j ACCEPT"),
    ("another target", "-A INPUT -p tcp --dport 443 -j DROP"),
    ("another source", "-A INPUT -s 192.0.2.1 -p tcp --dport 443 -j ACCEPT"),
    ("one source more", "-A INPUT -s 192.0.2.0/24,0.0.0.0/0 -p tcp --dport 443 -j ACCEPT"),
    ("negated", "-A INPUT -p tcp ! --dport 443 -j ACCEPT"),
    ("another chain", "-A FORWARD -p tcp --dport 443 -j ACCEPT"),
    ("an interface", "-A INPUT -i eth0 -p tcp --dport 443 -j ACCEPT"),
]


@pytest.mark.parametrize("at_boot", [item[1] for item in OTHER], ids=[item[0] for item in OTHER])
def test_what_the_next_boot_brings(at_boot):
    (message,) = brought(table(at_boot), table(WEB))
    assert message == (
        f"persist: {PATH} holds what is not in the kernel now, and the next boot loads it: {at_boot}. What of it is wanted, load now as "
        "well, with iptables, so that it is seen whether it does what it should; take the rest out of the file."
    )


@pytest.mark.parametrize(
    ("at_boot", "live", "shown"),
    [
        (table(policy="DROP"), table(), "-P INPUT DROP."),
        (table(), table(policy="DROP"), "-P INPUT ACCEPT."),
        (table(policy="DROP"), "", "-P INPUT DROP."),
        (table(chain="OUTPUT", name="nat"), "", ""),
        (table("-A PREROUTING -j DROP", name="raw", chain="PREROUTING"), table(), "-t raw -A PREROUTING -j DROP."),
        (table(WEB, WEB.replace("443", "80"), "-A X -j DROP", "-A X -j LOG"), "", "--dport 80 -j ACCEPT; -A X -j DROP; and 1 more."),
        (table(WEB) + table(), table(), ""),
    ],
)  # fmt: skip
def test_policies_tables_and_many_rules(at_boot, live, shown):
    found = brought(at_boot, live)
    assert ["it: " in message and shown in message for message in found] == ([True] if shown else [])


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).resolve().parents[1] / "corpus").glob("*.save")), ids=lambda path: path.stem
)
def test_a_ruleset_that_was_saved_as_it_is_brings_nothing(path):
    text = path.read_text()
    assert only_at_boot(PATH, text, "ipv6" if ".v6." in path.name else "ipv4", parse(text), SPEC) == []


def test_the_administrators_file_and_what_the_kernel_makes_of_it():
    for family in ("v4", "v6"):
        folder = Path(__file__).resolve().parents[1] / "corpus"
        written, live = (
            (folder / f"{name}.{family}.save").read_text() for name in ("hand-written", "hand-written-live")
        )
        assert brought(written, live) == []


def test_a_step_is_not_shown():
    (message,) = brought(table("-A INPUT -p tcp --dport {0} -j ACCEPT".format(SPEC.doors[0].knock[0].port)), table())
    assert str(SPEC.doors[0].knock[0].port) not in message


def kinds(result):
    return [finding["kind"] for finding in result["findings"]]


def test_the_run_that_enables_the_file_says_it_and_info_too():
    host = FakeHost(EL, {PATH: (table(WEB), 0o600)})
    assert "only_at_boot" not in kinds(run(host, check=True, persist=False))
    assert kinds(run(host)).count("only_at_boot") == 1
    assert kinds(run(host)).count("only_at_boot") == 1, "our own rules are no such rules"
    assert kinds(inspect(host)).count("only_at_boot") == 1
    host.rules["iptables"].restore("*filter\n" + WEB + "\nCOMMIT\n", noflush=True)
    assert "only_at_boot" not in kinds(run(host))
    assert "only_at_boot" not in kinds(inspect(host))
