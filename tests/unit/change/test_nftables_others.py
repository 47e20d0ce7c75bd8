# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What others have beside the table of engine nftables, in whole runs: said, listed as closed, or refused before anything is touched."""

import json

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change.info import inspect
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import OPTIONS
from ansible_collections.sesame.portknock.plugins.module_utils._spec.canonical import options_of
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options
from fake_host import FakeHost
from module_run import options, run, settled

FILTER = "*filter\n:INPUT {0} [0:0]\n{1}COMMIT\n"
FROM_OUTSIDE = "198.51.100.7 50000 192.0.2.1 22"


def dport(port):
    return {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": port}}


def a_host(*rules, v4="", ssh=None):
    """Return a host with a table of others, whose chain stands behind the collection's."""
    host = FakeHost(v4=v4)
    host.tools = host.tools | {"nft"}
    host.listens = {
        ("tcp", "0.0.0.0", 22, 1): "sshd",
        ("tcp", "0.0.0.0", 443, 3): "nginx",
        ("tcp", "0.0.0.0", 5432, 4): "postgres",
    }
    host.ssh = ssh
    chain = dict(family="inet", table="t", name="c", hook="input", type="filter", prio=0, policy="accept")
    found = [{"rule": dict(family="inet", table="t", chain="c", expr=[*rule])} for rule in rules]
    host.nft.others = {"inet t": [{"chain": chain}, *found]} if rules else {}
    return host


def closed(result):
    return ["{port}/{protocol} {process}".format(**each) for each in result["closes"]]


def kinds(findings):
    return [each["kind"] if isinstance(each, dict) else each.kind for each in findings]


@pytest.mark.parametrize("check", [True, False])
def test_what_others_accept_closes_all_the_same(check):
    """An exception of theirs is none from a refusal that stands in front of it."""
    accepts = FILTER.format("ACCEPT", "-A INPUT -p tcp -m tcp --dport 5432 -j ACCEPT\n")
    host = a_host([dport(443), {"accept": None}], v4=accepts)
    assert closed(run(host, check=check, engine="nftables")) == ["443/tcp nginx", "5432/tcp postgres"]
    assert closed(run(a_host(), check=check, engine="nftables", policy="accept")) == []


def test_what_is_closed_already_does_not_close_again():
    host = a_host([dport(443), {"drop": None}])
    assert closed(run(host, engine="nftables")) == ["5432/tcp postgres"]
    assert closed(run(host, engine="nftables")) == []


def test_a_change_of_engines_closes_nothing_that_was_closed():
    host = a_host()
    assert closed(settled(host)) == ["443/tcp nginx", "5432/tcp postgres"]
    assert closed(settled(host, engine="nftables")) == []


def test_what_cuts_this_connection_is_refused_before_anything_is_touched():
    host = a_host([dport(22), {"drop": None}], ssh=FROM_OUTSIDE)
    before = host.state()
    with pytest.raises(
        SpecError, match="chain c of table inet t .* refuses new connections from 198.51.100.7 to port 22"
    ):
        run(host, engine="nftables")
    assert host.state() == before
    assert not host.nft.loaded
    assert run(a_host([dport(23), {"drop": None}], ssh=FROM_OUTSIDE), engine="nftables")["changed"]


def test_a_door_that_others_keep_shut_is_said_and_goes_on_being_said():
    host = a_host([dport(22), {"drop": None}])
    assert "native_table" in kinds(settled(host, engine="nftables")["findings"])
    host.files[OPTIONS] = (
        json.dumps(dict(options_of(spec_from_options(options(engine="nftables"))), persist=True)),
        0o600,
    )
    (finding,) = [each for each in inspect(host)["findings"] if each["kind"] == "native_table"]
    assert "the chain c of table inet t drops packets to door ssh, and a packet must pass both." in finding["message"]
    assert "native_table" in kinds(run(host, engine="nftables")["findings"]), "a run that changes nothing"
    host.nft.others = {}
    assert "native_table" not in kinds(inspect(host)["findings"])
