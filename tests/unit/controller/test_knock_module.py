# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module knock, run as Ansible does, against sockets on this machine's loopback."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("ansible", reason="a module is run by ansible-core, and this Python has none")

from ansible_collections.sesame.portknock.plugins.module_utils._client.answers import MEANINGS
from ansible_collections.sesame.portknock.plugins.module_utils._client.knock import PAUSE, SETTLE
from ansible_collections.sesame.portknock.plugins.modules import knock
from shown_steps import steps_in

HOST = "127.0.0.1"
HIDDEN = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
STEPS = ["17005", "19100/udp", "18300"]
DRIVER = (
    "import runpy, sys; sys.path[:0] = sys.argv.pop(1).split(':'); "
    "runpy.run_module('ansible_collections.sesame.portknock.plugins.modules.knock', run_name='__main__')"
)


def run(check=False, **options):
    """Run the module in a process of its own; return (exit code, result)."""
    arguments = dict({"host": HOST, "knock": STEPS, "pause": 0.01}, **options)
    data = json.dumps({"ANSIBLE_MODULE_ARGS": dict(arguments, _ansible_check_mode=check)})
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, ":".join(sys.path)], input=data, capture_output=True, text=True,
        timeout=600, check=False, env=dict(os.environ, LC_ALL="C"),
    )  # fmt: skip
    assert done.stdout, done.stderr
    assert steps_in(STEPS, done.stdout + done.stderr) == []
    return done.returncode, json.loads(done.stdout)


def udp_step():
    """Return a socket, and the step that reaches it."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.bind((HOST, 0))
    opened.settimeout(30)
    return opened, "{0}/udp".format(opened.getsockname()[1])


def closed_port():
    with socket.socket() as opened:
        opened.bind((HOST, 0))
        return opened.getsockname()[1]


def test_it_knocks_once_in_order():
    first, one = udp_step()
    second, two = udp_step()
    with first, second:
        code, result = run(knock=[one, two])
        assert (code, result["changed"], result["addresses"], result["opened"]) == (0, True, [HOST], {})
        assert 0.02 <= result["seconds"] < 3
        for opened in (first, second):
            assert opened.recv(9) == b"\0"
            opened.setblocking(False)
            with pytest.raises(BlockingIOError):
                opened.recv(9)


def test_check_mode_sends_nothing():
    receiver, step = udp_step()
    with receiver:
        code, result = run(check=True, knock=[step], wait_for={"port": closed_port()})
        assert (code, result["changed"], result["addresses"], result["opened"]) == (0, True, [HOST], {})
        receiver.setblocking(False)
        with pytest.raises(BlockingIOError):
            receiver.recv(9)


def test_steps_are_masked_in_the_invocation_and_nowhere_else():
    _code, result = run(knock=["7", *STEPS])
    # Newer releases of ansible-core leave it out, unless they are configured otherwise.
    if "invocation" in result:
        assert result["invocation"]["module_args"]["knock"] == HIDDEN
    assert not [step for step in STEPS if step.split("/", 1)[0] in json.dumps(result)]
    assert result["addresses"] == [HOST], "a step as short as 7 must not spoil the address"


def test_a_port_that_is_open():
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(4)
        code, result = run(wait_for={"port": listener.getsockname()[1], "timeout": 3})
    assert code == 0
    assert (result["opened"]["address"], result["opened"]["tries"]) == (HOST, 1)
    assert result["opened"]["seconds"] <= result["seconds"]


def test_a_port_that_opens_to_the_third_knock():
    receiver, step = udp_step()
    port = closed_port()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, port))

    def door():
        for _knock in range(3):
            receiver.recv(9)
        listener.listen(4)

    with receiver, listener:
        thread = threading.Thread(target=door)
        thread.start()
        code, result = run(knock=[step], wait_for={"port": port})
        thread.join()
    assert code == 0
    assert result["opened"]["tries"] >= 3


@pytest.mark.parametrize(("engine", "settle"), [("iptables", 0), ("knockd", SETTLE)])
def test_the_engine_has_its_time_and_its_steps(engine, settle):
    """Written down by a port that never opens: what each try sends, and when the connection comes after it."""
    first, one = udp_step()
    second, two = udp_step()
    port = closed_port()
    with first, second:
        begun = time.monotonic()
        code, result = run(knock=[one, two], engine=engine, pause=0, wait_for={"port": port, "timeout": 1})
        took = time.monotonic() - begun
        counts = [_received(opened) for opened in (first, second)]
    assert code == 1
    tries = int(re.search(r"and (\d+) knock", result["msg"]).group(1))
    assert tries > 1
    assert counts == [tries, tries if engine == "iptables" else 2 * tries - 1]
    assert took >= settle * tries


def _received(opened):
    opened.setblocking(False)
    count = 0
    while True:
        try:
            opened.recv(9)
        except BlockingIOError:
            return count
        count += 1


def test_refused_is_told():
    port = closed_port()
    code, result = run(wait_for={"port": port, "timeout": 1})
    assert (code, result["failed"], result["changed"]) == (1, True, True)
    assert 0.2 <= result["seconds"] < 5
    # How many knocks there is time for depends on the machine.
    assert re.sub(r"[2-9] knocks", "N knocks", result["msg"]) == (
        f"port {port} of {HOST} did not open within 1 s and N knocks: {MEANINGS['reset']}.{knock._CHECK}"
    )


def test_silence_is_told():
    """A listener whose queue is full drops what comes, as a firewall does."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        kept = [socket.socket() for _number in range(8)]
        for client in kept:
            client.setblocking(False)
            client.connect_ex((HOST, port))
        code, result = run(wait_for={"port": port, "timeout": 1})
        for client in kept:
            client.close()
    assert code == 1
    assert result["msg"] == (
        f"port {port} of {HOST} did not open within 1 s and 1 knock: {MEANINGS['dropped']}.{knock._CHECK}"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"knock": []}, "knock: has 0 steps. Give it 1 to 8."),
        ({"knock": ["17005", "118300"]}, "knock[1]: "),
        ({"engine": "ipset"}, "value of engine must be one of: iptables, knockd, nftables"),
        ({"pause": 61}, "pause: 61.0 is out of range. Give seconds, 0 to 60."),
        ({"pause": "nan"}, "pause: nan is out of range. Give seconds, 0 to 60."),
        ({"wait_for": {"port": 0}}, "wait_for.port: 0 is out of range. Give a port, 1 to 65535."),
        ({"wait_for": {"port": 22, "timeout": 0}}, "wait_for.timeout: 0 is out of range. Give seconds, 1 to 3600."),
        ({"host": "no.such.host.invalid"}, "no.such.host.invalid has no address to knock at: "),
        ({"host": "127.0.0.1", "ip_version": "ipv6"}, "127.0.0.1 has no address to knock at: "),
    ],
)
def test_what_cannot_be(options, message):
    code, result = run(**options)
    assert code == 1
    assert result["msg"].startswith(message)
    assert result.get("changed", False) is False


def test_the_documented_defaults_are_those_of_the_code():
    spec = knock.argument_spec()
    assert spec["pause"]["default"] == PAUSE == 0.1
    assert spec["knock"]["no_log"] is True
