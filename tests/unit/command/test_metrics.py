# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``portknock metrics``: what it prints, and the timer that writes it."""

import re

import pytest
from ansible_collections.sesame.portknock.plugins.module_utils._change.guard import Guard
from ansible_collections.sesame.portknock.plugins.module_utils._command import install, metrics
from ansible_collections.sesame.portknock.plugins.module_utils._command.metrics import metrics_text
from ansible_collections.sesame.portknock.plugins.module_utils._errors import HostError, SpecError
from ansible_collections.sesame.portknock.plugins.module_utils._paths import METRICS_TIMER
from fake_host import FakeHost, knockd_host
from module_run import DOOR, run
from shown_steps import steps_in
from story import FakeAgent, options

FOUND = dict(
    engine="iptables", backend="nft", drift=["x"], pending={}, panic=0, refused=12, wrong_knocks=3,
    findings=[dict(severity="warning", message="x")],
    lists=[dict(door="ssh", ip_version="ipv4", entries=2, size=4096), dict(door="", ip_version="ipv4", entries=1, size=4096)],
    doors=[dict(name="ssh", ip_version="ipv4", open_for={"192.0.2.7": 9}, let_in=4, knocked=5, refused=8)],
)  # fmt: skip
SAMPLES = """\
portknock_info{engine="iptables",backend="nft"} 1
portknock_state 1
portknock_door_open{door="ssh",ip_version="ipv4"} 1
portknock_knocks_total{door="ssh",ip_version="ipv4"} 5
portknock_let_in_total{door="ssh",ip_version="ipv4"} 4
portknock_door_refused_total{door="ssh",ip_version="ipv4"} 8
portknock_refused_total 12
portknock_wrong_knocks_total 3
portknock_list_entries{door="ssh",ip_version="ipv4"} 2
portknock_list_entries{door="",ip_version="ipv4"} 1
portknock_list_size{door="ssh",ip_version="ipv4"} 4096
portknock_list_size{door="",ip_version="ipv4"} 4096
portknock_drift 1
portknock_pending 0
portknock_panic 0
portknock_findings{severity="error"} 0
portknock_findings{severity="warning"} 1
portknock_findings{severity="info"} 0
"""
SERVICE, TIMER = ("/etc/systemd/system/portknock-metrics." + kind for kind in ("service", "timer"))
WRITTEN = "/var/lib/node/portknock.prom"


def test_the_text():
    lines = metrics_text(FOUND).splitlines(True)
    assert "".join(line for line in lines if not line.startswith("#")) == SAMPLES
    names = re.findall(r"^# TYPE (\w+) (?:gauge|counter)$", "".join(lines), re.M)
    assert names == list(dict.fromkeys(re.match(r"\w+", line).group() for line in SAMPLES.splitlines()))
    assert len(re.findall(r"^# HELP \w+ \S", "".join(lines), re.M)) == len(names)


def test_knockd_counts_no_knocks():
    door = dict(name="ssh", ip_version="ipv4", open_for={}, let_in=4)
    text = metrics_text(dict(FOUND, wrong_knocks=None, doors=[door]))
    assert "knocks_total" not in text


def test_it_is_printed(console):
    run(console.host, doors=[DOOR])
    text = "\n".join(console.out("metrics"))
    assert "portknock_state 0" in text and steps_in(DOOR["knock"], text) == []


def test_it_is_written(console, monkeypatch):
    monkeypatch.setattr(metrics.os.path, "isdir", lambda path: path == "/var/lib/node")
    run(console.host, doors=[DOOR])
    assert console.out("metrics", "--write", "/var/lib/node") == []
    text, mode = console.host.files[WRITTEN]
    assert text.startswith("# HELP portknock_info ") and mode == 0o644
    code, _out, err = console.run("metrics", "--write", "/nowhere")
    assert (code, err) == (1, "portknock: /nowhere is not a directory, so no metrics were written.\n")


# The timer


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setattr(install, "_build", lambda _python: {})
    made = knockd_host()
    made.files["/var/lib/node"] = ("", 0o755)
    made.files["/srv/node"] = ("", 0o755)
    return made


def change(host, directory, **more):
    wanted = options(doors=[DOOR], guard=False, metrics_directory=directory, **more)
    planned = install.plan_with_command(wanted, host)[0]
    if planned.changed:
        guard = Guard(host, FakeAgent())
        guard.keep(guard.apply(planned, wanted))
    return planned.changed


def test_it_comes_and_goes(host):
    change(host, "")
    assert not {SERVICE, TIMER} & set(host.files)
    assert change(host, "/var/lib/node/")
    assert "ExecStart=/usr/local/sbin/portknock metrics --write /var/lib/node\n" in host.read(SERVICE)
    assert METRICS_TIMER in host.wants and ("service", "restart", METRICS_TIMER) in host.done
    assert not change(host, "/var/lib/node")
    host.files[WRITTEN] = ("", 0o644)
    assert change(host, "/srv/node")
    assert WRITTEN not in host.files and "--write /srv/node\n" in host.read(SERVICE)
    assert change(host, "")
    assert not {SERVICE, TIMER} & set(host.files) and METRICS_TIMER not in host.wants
    assert ("service", "stop", METRICS_TIMER) in host.done


def test_it_goes_with_the_rest(host):
    change(host, "/var/lib/node")
    host.files[WRITTEN] = ("", 0o644)
    assert change(host, "/var/lib/node", state="absent")
    assert not {SERVICE, TIMER, WRITTEN} & set(host.files) and METRICS_TIMER not in host.wants


def test_a_timer_that_was_switched_off_is_mended(host):
    change(host, "/var/lib/node")
    host.wants.discard(METRICS_TIMER)
    assert change(host, "/var/lib/node") and METRICS_TIMER in host.wants


def test_what_is_refused(host):
    with pytest.raises(SpecError, match="^metrics_directory: /nowhere is not there. Install node_exporter first"):
        change(host, "/nowhere")
    with pytest.raises(SpecError, match="^metrics_directory: 'node' is not the full path of a directory: use letters"):
        change(host, "node")
    with pytest.raises(SpecError, match="^metrics_directory: '/a;id' "):
        change(host, "/a;id")
    with pytest.raises(SpecError, match="^metrics_directory: needs systemd"):
        change(FakeHost(), "/var/lib/node")


def test_a_service_that_does_not_start_undoes_the_change(host):
    change(host, "")
    before = host.state()
    host.service_refuses = "restart"
    with pytest.raises(HostError, match="systemctl restart portknock-metrics.timer failed"):
        change(host, "/var/lib/node")
    assert host.state() == before and METRICS_TIMER not in host.wants
