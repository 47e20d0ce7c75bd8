# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Knockers from other projects open the doors."""

import itertools
import re
import subprocess

import pytest
from rig.counter import close_doors
from rig.engines import EVERY_TIME
from rig.knockd import KNOCKD
from rig.packets import IPV4, IPV6
from rig.peer import OPEN, REFUSED, TARGET
from rig.target import ROOT, door

# What differs is what a program sends.
pytestmark = pytest.mark.on_one_backend
ARTICLE = (1000,)
THREE = (7000, 9100, 3100)
WITH_UDP = (7000, "9100/udp", 3100)
PAGE = (ROOT / "docs" / "clients.md").read_text()
DOCUMENTED = re.search(r"^vault_knock: \[(.*)\]$", (ROOT / "docs" / "quick-start.md").read_text(), re.M)[1].split(", ")
BY_HAND = re.findall(r"^\$ (.*); ssh (?:\$h|192\.0\.2\.11)$", PAGE, re.M)
PORT = 2222
# Programs that wait a second a step are slower still on a busy machine; what a timeout does is tested elsewhere.
PATIENT = dict(opens=(PORT,), step_timeout=60, window=120)


def each(line):
    """Return a shell line that runs the given one for each step, as $p, after another."""
    return "for p in {steps}; do " + line + "; done"


KNOCKERS = {
    "nmap": each("nmap -n -Pn {six} -p $p {host}"),
    "nmap, no retries": each("nmap -n -Pn {six} --max-retries 0 --host-timeout 201 -p $p {host}"),
    "nmap by connect": each("nmap -n -Pn -sT {six} -p $p {host}"),
    "telnet": each("timeout 3 telnet {host} $p </dev/null"),
    "nc": each("nc -w 1 -z {host} $p"),
    "nc, hanging": each("timeout 0.5 nc {host} $p </dev/null"),
    "knock": "knock {six} {host} {steps}",
    "knock, slowly": "knock {six} -d 300 {host} {steps}",
    "bash": each("timeout 1 bash -c ': </dev/tcp/{host}/'$p"),
    "curl": each("curl -s --noproxy '*' -m 1 -g http://{url}:$p/"),
    "ssh": each("timeout 2 ssh -F /dev/null -o BatchMode=yes -o ConnectTimeout=1 -p $p {host} true </dev/null"),
    "hping3": each("hping3 -q -c 1 -S -p $p {host}"),
}


def run(rig, family, knocker, steps):
    """Run a knocker from the client; a closed port makes most of them fail, so only the doors tell."""
    host = TARGET[family]
    line = KNOCKERS[knocker].format(
        host=host,
        url=host if family == IPV4 else f"[{host}]",
        six="" if family == IPV4 else "-6",
        steps=" ".join(map(str, steps)),
    )
    done = rig.client.namespace.run("bash", "-c", line, check=False, timeout=600)
    assert done.returncode not in (126, 127), done.stderr
    rig.client.settle()
    return done


def check(rig, family, knocker, steps, reject_with, opens=True):
    """Knock at a door with a knocker; it must be open then and not before, or not even then."""
    rig.target.apply(door(*steps, **PATIENT), reject_with=reject_with)
    assert rig.client.probe(PORT, family, patience=0.2) != OPEN
    done = run(rig, family, knocker, steps)
    assert (rig.client.probe(PORT, family) == OPEN) == opens, (done.stdout, done.stderr)


def pairs(knockers=tuple(KNOCKERS)):
    """Return (family, knocker) pairs, without those that the knocker does not speak."""
    return [pair for pair in itertools.product((IPV4, IPV6), knockers) if pair != (IPV6, "hping3")]


@pytest.mark.usefixtures("engine")
@EVERY_TIME
@pytest.mark.parametrize(("by", "knocker"), pairs())
def test_the_articles_door(rig, by, knocker):
    check(rig, by, knocker, ARTICLE, "icmp-port-unreachable")


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(("by", "knocker"), pairs())
def test_a_door_of_three_steps(rig, by, knocker):
    """Refused with a reset: on a wire without delay most programs see an ICMP refusal only after a second."""
    check(rig, by, knocker, THREE, "tcp-reset")


@pytest.mark.parametrize(("by", "knocker"), pairs(("nmap", "nc, hanging", "knock")))
def test_a_door_of_three_steps_that_is_silent(rig, engine, by, knocker):
    """What gets no answer nmap sends once more, and to knockd a step that comes twice is a wrong one."""
    check(rig, by, knocker, THREE, "drop", opens=(engine, knocker) != (KNOCKD, "nmap"))


@pytest.mark.soak
@pytest.mark.parametrize("reject_with", ["icmp-port-unreachable", "drop", "icmp-admin-prohibited"])
@pytest.mark.parametrize(("by", "knocker"), pairs())
def test_every_way_to_refuse(rig, by, knocker, reject_with):
    for steps in (ARTICLE, THREE):
        rig.target.reset()
        check(rig, by, knocker, steps, reject_with)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "line",
    [
        "knock {six} {host} 7000:tcp 9100:udp 3100:tcp",
        "nc -w 1 -z {host} 7000; echo x | nc -u -w 1 {host} 9100; nc -w 1 -z {host} 3100",
        "nmap -n -Pn {six} -p 7000 {host}; nmap -n -Pn {six} -sU -p 9100 {host}; nmap -n -Pn {six} -p 3100 {host}",
        "{bash} ': </dev/tcp/{host}/7000'; {bash} 'echo x >/dev/udp/{host}/9100'; {bash} ': </dev/tcp/{host}/3100'",
    ],
    ids=["knock", "nc", "nmap", "bash"],
)
def test_opens_with_a_datagram(rig, family, line):
    """Refused with a reset, which ends a program at once: kept for a second, the kernel sends its step again, a wrong one to knockd."""
    rig.target.apply(door(*WITH_UDP, **PATIENT), reject_with="tcp-reset")
    line = line.format(host=TARGET[family], six="" if family == IPV4 else "-6", bash="timeout 1 bash -c")
    done = rig.client.namespace.run("bash", "-c", line, check=False, timeout=600)
    rig.client.settle()
    assert rig.client.probe(PORT, family) == OPEN, (done.stdout, done.stderr)


@pytest.mark.usefixtures("engine")
def test_as_the_article_types_it(rig, family):
    """telnet HOST 1000 ; ssh HOST"""
    key = rig.target.start_sshd()
    rig.target.apply(door(1000, window=120))
    assert rig.client.probe(22, family) == REFUSED[family]
    line = (
        f"timeout 5 telnet {TARGET[family]} 1000 </dev/null; ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=no "
        f"-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -i {key} root@{TARGET[family]} echo like a boss"
    )
    done = subprocess.run(
        rig.client.namespace.words("bash", "-c", line), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.stdout.endswith("like a boss\n"), done.stdout + done.stderr


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("line", BY_HAND, ids=[re.search(r"/dev/|knock|nc|nmap", line)[0] for line in BY_HAND])
def test_the_lines_for_typing_of_the_documents(rig, line):
    """As docs/clients.md has them, in the shells that it names, for the door of the quick start; root needs no sudo."""
    rig.target.apply(door(*DOCUMENTED, **PATIENT), reject_with="tcp-reset")
    for shell in ("bash",) if "/dev/" in line else ("bash", "dash"):
        close_doors(rig)
        assert rig.client.probe(PORT, IPV4) != OPEN
        typed = line.replace("192.0.2.11", TARGET[IPV4]).replace("sudo ", "")
        done = rig.client.namespace.run(shell, "-c", typed, check=False, timeout=600)
        rig.client.settle()
        assert rig.client.probe(PORT, IPV4) == OPEN, (shell, done.stdout, done.stderr)
