# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No step in what the command prints, nor in the diff of the files that come with it, whatever the doors are."""

import json

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change.host_command import Program
from ansible_collections.sesame.portknock.plugins.module_utils._change.info import inspect
from ansible_collections.sesame.portknock.plugins.module_utils._change.plan import plan_change
from ansible_collections.sesame.portknock.plugins.module_utils._command.metrics import metrics_text
from ansible_collections.sesame.portknock.plugins.module_utils._command.status import check, status_text
from ansible_collections.sesame.portknock.plugins.module_utils._paths import OPTIONS
from fake_host import knockd_host
from module_run import options, run
from shown_steps import steps_in

DOORS = [
    {"name": "ssh", "knock": ["27005", "29100/udp", "28300"], "close": ["31700"], "opens": ["22"]},
    {"name": "web", "knock": ["41000"], "opens": ["443", "8000-8010"], "sources": ["192.0.2.0/24"]},
]
STEPS = ("27005", "29100", "28300", "31700", "41000")


@pytest.mark.parametrize("panic", [None, True])
@pytest.mark.parametrize("engine", ["iptables", "knockd", "nftables"])
def test_no_step_in_any_text(engine, panic):
    host = knockd_host()
    host.tools |= {"nft"}
    wanted = options(doors=DOORS, engine=engine)
    program = Program("code", lambda _python: {}, {"persist": True})
    change = plan_change(wanted, host, command=program, panic=panic)
    assert STEPS[0] in change.files[OPTIONS][0], "it is kept there, for root alone"
    run(host, doors=DOORS, engine=engine)
    # Rules of knocks were removed by hand; the drift shows what is missing.
    if engine == "nftables":
        del host.nft.chains["knock1"]
    else:
        host.rules["iptables"].restore("*filter\n:PORTKNOCK_K1 - [0:0]\nCOMMIT\n")
    found = inspect(host)
    assert found["drift"]
    texts = [json.dumps(change.diff), status_text(found), metrics_text(found), check(found)[1]]
    assert [steps_in(STEPS, text) for text in texts] == [[]] * len(texts)
