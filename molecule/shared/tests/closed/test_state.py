# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host itself has: with the role applied, and again after every reboot."""

import pytest
from harness import HOST_VARS, NAME, before, foreign, knock_ports, secret_pattern, snapshot

COMMANDS = ["iptables", "ip6tables"]
PLACES = "/etc /usr/local /usr/lib/systemd /lib/systemd /var/lib /var/log /run /root /tmp /var/tmp"


def hooks(host, command):
    rules = host.check_output(f"{command} -S INPUT").splitlines()[1:]
    return [rule.split(" -j ")[-1].split()[0] for rule in rules]


@pytest.mark.parametrize("command", COMMANDS)
def test_hooks_stand_in_order(host, command):
    ours = [target for target in hooks(host, command) if target.startswith("PORTKNOCK")]
    assert ours == ["PORTKNOCK_HEAD", "PORTKNOCK", "PORTKNOCK_TAIL"]


@pytest.mark.parametrize("unit", HOST_VARS["firewall_units"])
def test_distribution_s_service_is_enabled(host, unit):
    assert host.service(unit).is_enabled


def test_own_service_is_enabled_and_well(host):
    unit = host.service("portknock.service")
    assert unit.is_enabled
    assert host.run("systemctl is-failed portknock.service").stdout.strip() != "failed"


def test_nothing_failed_at_boot(host):
    assert host.check_output("systemctl list-units --failed --no-legend --plain") == ""


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
    # Our hook for a Docker that comes before it does is there, in a chain that it leaves to others.
    assert not [line for line in text.splitlines() if "DOCKER" in line and "PORTKNOCK" not in line and line[0] != ":"]
    assert [line.split()[0] for line in text.splitlines() if line.startswith(":DOCKER")] == [":DOCKER-USER"]
    assert "f2b-" not in text


def files_with_secrets(host):
    pattern = "|".join(knock_ports())
    found = host.run(f"find {PLACES} -xdev -type f -print0 | xargs -0 grep -lIwE '{pattern}'").stdout.split()
    return sorted(set(found))


def test_only_root_can_read_a_knock(host):
    found = files_with_secrets(host)
    assert HOST_VARS["rules_files"]["iptables"] in found
    for path in found:
        assert host.file(path).user == "root", path
        assert host.file(path).mode & 0o077 == 0, f"{path}: {host.file(path).mode:o}"


def test_lists_of_who_has_knocked_are_root_s_alone(host):
    lines = host.check_output("stat -c '%a %n' /proc/net/xt_recent/pk4_* /proc/net/xt_recent/pk6_*").splitlines()
    assert len(lines) >= 4
    assert [line for line in lines if not line.startswith("600 ")] == []


def test_journal_has_no_knock(host):
    journal = host.check_output("journalctl --no-pager --output=cat")
    assert len(journal.splitlines()) > 20
    assert secret_pattern().search(journal) is None


def test_host_is_called_what_the_scenario_says(host):
    assert host.check_output("hostname") == NAME
