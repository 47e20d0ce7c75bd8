# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After the removal: the host is as it was, but for the packages."""

import re

import pytest
from harness import EPHEMERAL, HOST_VARS, before, secret_pattern, snapshot

COMMANDS = ["iptables", "ip6tables"]
# What package managers keep about what is installed.
REGISTERS = re.compile(
    r"/etc/(ld\.so\.cache|alternatives(/.*)?|dpkg/.*|passwd-?|group-?|shadow-?|gshadow-?|mailcap)$"
    r"|/etc/networks|/etc/sysconfig/.*\.rpmnew|/etc/rc\w\.d/.*|/var/lib/misc/.*"
)


@pytest.mark.parametrize("command", COMMANDS)
def test_live_rules_are_those_of_the_rules_file(command):
    path = HOST_VARS["rules_files"][command]
    assert snapshot()["live"][command] == before()["stored"][command][path]


@pytest.mark.parametrize("command", COMMANDS)
def test_rules_file_is_as_it_was(command):
    path = HOST_VARS["rules_files"][command]
    assert snapshot()["stored"][command] == before()["stored"][command]
    assert snapshot()["files"].get(path) == before()["files"].get(path)


def test_no_file_from_before_is_gone_or_changed():
    now = snapshot()["files"]
    was = before()["files"]
    changed = [path for path in was if now.get(path) != was[path] and not REGISTERS.match(path)]
    assert changed == []


def belongs_to_a_package(host, path):
    return host.run(f"dpkg-query --search '{path}' || rpm --query --file '{path}'").rc == 0


def test_every_new_file_is_a_package_s(host):
    now = snapshot()["files"]
    # A link that enables a unit is a package's if the unit is.
    origin = {path: now[path][1] if now[path][0] == "link" else path for path in now if path not in before()["files"]}
    assert [path for path in origin if not REGISTERS.match(path) and not belongs_to_a_package(host, origin[path])] == []


def test_nothing_is_left_in_the_kernel(host):
    assert host.run("ls /proc/net/xt_recent/ | grep '^pk'").stdout == ""
    assert "portknock" not in host.run("nft list tables").stdout
    # A lock that a process may be waiting for cannot be deleted; it goes with the next boot.
    left = host.run("find /run /etc /usr/local /var/lib -iname '*portknock*' ! -path '/run/portknock.d*'").stdout
    assert left == ""
    assert host.run("systemctl list-unit-files --no-legend 'portknock*'").stdout == ""


def test_former_door_is_as_open_as_before(visitor):
    assert visitor.finds_open(7007) is HOST_VARS["open_without_us"]


def test_no_run_has_shown_a_knock():
    log = (EPHEMERAL / "ansible.log").read_text()
    assert "EXEC" in log, "the log has less than -vvv shows"
    assert "PORTKNOCK" in log, "the log has no diff"
    assert secret_pattern().search(log) is None
