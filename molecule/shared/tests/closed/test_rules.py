# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of the engine iptables, and the files that a boot loads them from: with the role applied, and after every reboot."""

import re

import pytest
from harness import HOST_VARS, before, foreign, snapshot

COMMANDS = ["iptables", "ip6tables"]


def hooks(host, command):
    rules = host.check_output(f"{command} -S INPUT").splitlines()[1:]
    return [rule.split(" -j ")[-1].split()[0] for rule in rules]


@pytest.mark.parametrize("command", COMMANDS)
def test_hooks_stand_in_order(host, command):
    ours = [target for target in hooks(host, command) if target.startswith("PORTKNOCK")]
    assert ours == ["PORTKNOCK_HEAD", "PORTKNOCK", "PORTKNOCK_TAIL"]


@pytest.mark.parametrize("unit", HOST_VARS.get("firewall_units", []))
def test_distribution_s_service_is_enabled(host, unit):
    assert host.service(unit).is_enabled


@pytest.mark.parametrize("command", COMMANDS)
def test_administrator_s_lines_stay_in_the_rules_file(command):
    path = HOST_VARS["rules_files"][command]
    was, now = before()["stored"][command][path], snapshot()["stored"][command][path]
    assert "filter" in now
    assert foreign(now) == was


@pytest.mark.parametrize("command", COMMANDS)
def test_passing_rules_are_not_frozen_into_the_rules_file(host, command):
    text = host.file(HOST_VARS["rules_files"][command]).content_string
    assert "PORTKNOCK" in text
    # Our hooks for a Docker that comes are there before it does.
    assert re.search("^-A PREROUTING .*-j PORTKNOCK_NAT$", text, re.M)
    docker = [line for line in text.splitlines() if "DOCKER" in line]
    assert [line.split()[0] for line in docker if line.startswith(":")] == [":DOCKER-USER"]
    rules = [line for line in docker if not line.startswith(":")]
    assert len(rules) == 1 and re.search(r"^-A DOCKER-USER .*-j PORTKNOCK_FWD\w*$", rules[0]), rules
    assert "f2b-" not in text


def test_lists_of_who_has_knocked_are_root_s_alone(host):
    lines = host.check_output("stat -c '%a %n' /proc/net/xt_recent/pk4_* /proc/net/xt_recent/pk6_*").splitlines()
    assert len(lines) >= 4
    assert [line for line in lines if not line.startswith("600 ")] == []
