# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What chains of others refuse of packets to hosts behind, which a door lets through."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._nftables.foreign_forward import findings_behind
from ansible_collections.sesame.portknock.plugins.module_utils._spec.options import spec_from_options

BEHIND = {"name": "behind", "knock": ["4100", "2700"], "opens": ["22"], "to": ["10.9.0.0/24"]}
WEB = {"name": "web", "knock": ["7000", "3100"], "opens": ["8080"]}
SPEC = spec_from_options({"doors": [BEHIND, WEB]})


def asks(protocol, field, right):
    return {"match": {"op": "==", "left": {"payload": {"protocol": protocol, "field": field}}, "right": right}}


def forward(*rules, policy="accept", family="inet", hook="forward", table="t"):
    named = dict(family=family, table=table)
    return [
        {"chain": dict(named, name="c", hook=hook, type="filter", prio=0, policy=policy)},
        *({"rule": dict(named, chain="c", expr=list(rule))} for rule in rules),
    ]


ACCEPT, DROP = {"accept": None}, {"drop": None}
TO_THEM = asks("ip", "daddr", {"prefix": {"addr": "10.9.0.0", "len": 24}})


@pytest.mark.parametrize(
    ("items", "kinds"),
    [
        (forward(policy="drop"), ["policy_drop"]),
        (forward([asks("tcp", "dport", 22), DROP]), ["native_table"]),
        (forward(policy="drop", family="ip", table="filter"), ["policy_drop"]),
        (forward([TO_THEM, ACCEPT], policy="drop"), []),
        (forward([asks("tcp", "dport", 22), ACCEPT], policy="drop"), []),
        (forward([asks("tcp", "dport", 8080), DROP]), []),
        (
            forward(
                [{"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "lan0"}}, ACCEPT], policy="drop"
            ),
            [],
        ),
        (forward([{"xt": None}], policy="drop"), []),
        (forward(policy="drop", family="ip6"), []),
        (forward(policy="drop", hook="input"), []),
        (forward(policy="drop", table="portknock"), []),
    ],
)
def test_what_others_refuse(items, kinds):
    found = findings_behind(items, SPEC, ("ipv4", "ipv6"))
    assert [each.kind for each in found] == kinds
    assert all("that door behind would let through" in each.message for each in found)
    assert findings_behind(items, spec_from_options({"doors": [WEB]}), ("ipv4", "ipv6")) == []
