# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The look for steps in a text finds every way to show one, and no other number."""

import pytest
from shown_steps import steps_in

SHOWN = [
    "port 9100.", "x=9100\n", '{"knock": ["9100"]}',
    "9100", "knock at 9100, then wait", "--dport 9100 -j PORTKNOCK", "9100/udp", "sequence = 7000,9100,3100",
    "['7000', '9100']", '{"port": 9100}', "doors[0].knock[9100]", "port=9100", "192.0.2.1:9100", "9100.", "(9100)", "-9100-",
    "/dev/tcp/192.0.2.1/9100", "tcp:9100", "9100:tcp",
    '{"port":9100}', "7000:9100", "port_9100", "pid 9100 knocked at 9100", "9100 steps", "9100, 3 s",
]  # fmt: skip
OTHERS = [
    "91000 bytes", "took 0.9100 s", "process 19100", "91000", "1795600506.2191007", "1795600506.9100", "9100.25", "'id': 'a9100f'",
    "0x9100", "sshd[9100]:", "pid 9100", "fd17::9100", "fe80::9100:1",
    "'pid': 9100,", '"size": 9100', "9100 bytes", "ended in 9100 s", "'mtime': 9100.5",
    "/root/.ansible/tmp/ansible-tmp-1795600506.2-9100-271828/x.py",
]  # fmt: skip


@pytest.mark.parametrize("text", SHOWN)
@pytest.mark.parametrize("step", ["9100", "9100/udp", 9100, (9100, "udp")])
def test_a_step_is_found(step, text):
    assert steps_in(["7113", step], text) == ["9100"]
    assert steps_in([step], "before\n" + text + "\nbehind") == ["9100"]


@pytest.mark.parametrize("text", OTHERS)
def test_another_number_is_none(text):
    assert steps_in(["9100", "9127/udp"], text) == []
