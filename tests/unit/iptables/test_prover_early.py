# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rule of table raw that asks for a state: connection tracking has not seen the packet there, and the kernel says INVALID."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._iptables.plan import plan_family
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_iptables import FakeIptables
from prover_questions import PROMISED, word_of

SPEC = spec_from_options(PROMISED)
FILTER = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"


def word(table, rule):
    """Return what is said of a door that somebody has opened to all, where there is another rule in front of it."""
    host = FakeIptables(FILTER)
    host.restore(plan_family(host.save(), SPEC, "ipv4").change)
    host.restore("*filter\n-I INPUT 1 -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n")
    return word_of(f"*{table}\n:PREROUTING ACCEPT [0:0]\n{rule}\nCOMMIT\n{host.save()}", SPEC, "ipv4", "ssh")


@pytest.mark.parametrize(
    "match", ["-m conntrack --ctstate NEW", "-m conntrack ! --ctstate ESTABLISHED", "-m state --state NEW"]
)
def test_it_proves_nothing(match):
    said = word("raw", f"-A PREROUTING {match} -j DROP")
    assert said["result"] == "not proved"
    assert "what packets meet is not known: -A PREROUTING" in said["message"]
    # Behind connection tracking it refuses.
    assert "is refused although" in word("mangle", f"-A PREROUTING {match} -j DROP")["message"]
    assert "gets in without the knock" in word("raw", "-A PREROUTING -p udp -j ACCEPT")["message"]


def test_a_step_that_it_names_is_not_shown():
    said = word("raw", "-A PREROUTING -p tcp -m tcp --dport 7144 -m conntrack --ctstate NEW -j DROP")
    assert said["result"] == "not proved"
    assert "7144" not in repr(said)


def test_a_chain_to_which_nothing_comes_is_no_matter():
    said = word("raw", ":aside - [0:0]\n-A aside -m conntrack --ctstate NEW -j DROP")
    assert "gets in without the knock" in said["message"]
