# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry of engines: which parts each has, and that whoever else lists engines lists the same ones."""

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change import engines
from ansible_collections.sesame.portknock.plugins.module_utils._change.engines import ENGINES, PARTS, engine_of
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import plan_change
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import ENGINES as CLIENT_ENGINES
from ansible_collections.sesame.portknock.plugins.module_utils._errors import SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._spec.model import ENGINES as NAMES
from fake_host import FakeHost
from module_run import DOOR, options


def test_all_who_name_engines_name_the_same():
    assert set(ENGINES) == set(NAMES) == set(CLIENT_ENGINES)


def test_parts_have_names_of_their_own():
    assert len({part.name for part in PARTS}) == len(PARTS)


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_which_parts_an_engine_has(engine):
    for part in engines.parts_on(FakeHost()):
        assert engines.takes_part(engine, part) == (
            part.name in ("services", "command") or part.__class__ in ENGINES[engine]
        )


@pytest.mark.parametrize(
    ("installed", "engine"),
    [
        ({}, ""),
        ({"ruleset": True}, "iptables"),
        ({"ruleset": False}, "knockd"),
        ({"ruleset": False, "knockd": True}, "knockd"),
        ({"knockd": True}, ""),
    ],
)
def test_the_engine_that_is_on_a_host(installed, engine):
    assert engine_of(installed) == engine


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_no_engine_takes_a_door_to_this_host_itself(engine):
    host, inside = FakeHost(), dict(DOOR, to=["192.0.2.1"])
    host.tools = host.tools | {"nft", "knockd"}
    host.kernel_files["/proc/net/fib_trie"] = "     |-- 192.0.2.1\n        /32 host LOCAL\n"
    with pytest.raises(SpecError, match="^doors\\[0\\]\\.to: 192.0.2.1 is this host itself"):
        plan_change(options(doors=[inside], engine=engine, policy="accept"), host)
