# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Through a door at the end of a slow, lossy path: what is lost is made up for by a new knock, not by longer pauses."""

import concurrent.futures
import ipaddress
import time
from pathlib import Path as File

import pytest
from rig.packets import IPV4
from rig.relay import FAR, SOURCES, Path, Relay, near
from rig.target import door, use_collection

use_collection()
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import PAUSE, send_knock  # noqa: E402
from ansible_collections.sesame.portknock.plugins.plugin_utils import send_knock as sending  # noqa: E402
from ansible_collections.sesame.portknock.plugins.plugin_utils._ssh.path import SshPath  # noqa: E402

pytestmark = pytest.mark.on_one_backend

STEPS = ((7000, "tcp"), (9100, "udp"), (3100, "tcp"))
DOOR = door(*("/".join(map(str, step)) for step in STEPS), window=15)
TRIES = 4
HOLD = 0.05
"""A quarter of the packets are late by up to this: many times what paths on the Internet do."""
REORDERING = Path(delay=0.02, late=0.25, hold=HOLD)


def lossy(delay):
    """Return a path of so many seconds each way, that loses and reorders."""
    return Path(delay=delay, loss=0.02, late=0.25, hold=HOLD)


def forget(rig, source):
    """Take a source off all lists, as if it had never knocked."""
    for path in File(f"/proc/{rig.target.namespace.pid}/net/xt_recent").iterdir():
        if path.name.startswith("pk4_" if "." in source else "pk6_"):
            path.write_text(f"-{source}\n")


def each_source(count, work):
    """Do the work so many times, on all sources beside each other; return the results."""

    def of_source(number):
        return [work(number) for _turn in range(number, count, SOURCES)]

    with concurrent.futures.ThreadPoolExecutor(SOURCES) as pool:
        return [result for results in pool.map(of_source, range(SOURCES)) for result in results]


def knock_by_ssh_path(rig, family, source, pause):
    """Knock as the connection plugin does."""
    path = SshPath(FAR[family], 22, "any", "root", source=source)
    with rig.client.namespace.entered():
        sending.send(None, sending.Knock(STEPS, pause), path)


def gets_in(rig, key, family, number):
    """Knock and connect, each further time with a new knock; return how many it took, or a number above TRIES."""
    source = near(number, family)
    forget(rig, source)
    for turn in range(1, TRIES + 1):
        knock_by_ssh_path(rig, family, source, PAUSE)
        words = ["ssh", "-F", "/dev/null", "-i", key, "-b", source]
        for option in (
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "ConnectTimeout=10",
        ):
            words += ["-o", option]
        done = rig.client.namespace.run(*words, f"root@{FAR[family]}", "echo in", check=False)
        if done.stdout == "in\n":
            return turn
    return TRIES + 1


@pytest.mark.parametrize("delay", [0.05, 0.2], ids=["50 ms each way", "200 ms each way"])
def test_gets_in_over_a_lossy_path(rig, family, delay, soak):
    count, enough = (100, 99) if soak else (12, 12)
    key = rig.target.start_sshd()
    rig.target.apply(DOOR)
    with Relay(rig, lossy(delay)):
        tries = each_source(count, lambda number: gets_in(rig, key, family, number))
    print(f"{delay} s each way, {family}: knocks needed:", {n: tries.count(n) for n in sorted(set(tries))})
    assert len(tries) == count
    assert sum(turn <= TRIES for turn in tries) >= enough, tries


def opened_by_one_knock(rig, family, number, pause):
    """Knock once and tell whether that opened the door."""
    source = near(number, family)
    forget(rig, source)
    with rig.client.namespace.entered():
        send_knock([FAR[family]], STEPS, pause, source)
    time.sleep(REORDERING.delay + HOLD + 0.05)
    return source in _sources_in(rig, family)


def _sources_in(rig, family):
    listed = rig.target.listed("pk4_ssh" if family == IPV4 else "pk6_ssh")
    return listed if family == IPV4 else {_short(text) for text in listed}


def _short(text):
    return str(ipaddress.ip_address(text))


def share_opened(rig, family, pause, count):
    """Return the share of single knocks that open a door which answers nothing, over a path that reorders."""
    rig.target.apply(DOOR, reject_with="drop")
    with Relay(rig, REORDERING):
        opened = each_source(count, lambda number: opened_by_one_knock(rig, family, number, pause))
    assert len(opened) == count
    return sum(opened) / count


def test_reordering_breaks_knocks_without_a_pause(rig, family):
    assert share_opened(rig, family, 0, 60) < 0.9


def test_reordering_breaks_no_knock_with_the_default_pause(rig, family, soak):
    assert share_opened(rig, family, PAUSE, 600 if soak else 60) == 1
