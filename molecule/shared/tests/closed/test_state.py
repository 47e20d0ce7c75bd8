# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host itself has, whichever engine it is: with the role applied, and again after every reboot."""

from harness import HOST_VARS, NAME, NFTABLES, knock_ports, secret_pattern

PLACES = "/etc /usr/local /usr/lib/systemd /lib/systemd /var/lib /var/log /run /root /tmp /var/tmp"
KEPT = "/etc/portknock/table.nft" if NFTABLES else HOST_VARS["rules_files"]["iptables"]
"""What a boot loads."""


def test_own_service_is_enabled_and_well(host):
    unit = host.service("portknock.service")
    assert unit.is_enabled
    assert host.run("systemctl is-failed portknock.service").stdout.strip() != "failed"


def test_nothing_failed_at_boot(host):
    assert host.check_output("systemctl list-units --failed --no-legend --plain") == ""


def files_with_secrets(host):
    pattern = "|".join(knock_ports())
    found = host.run(f"find {PLACES} -xdev -type f -print0 | xargs -0 grep -lIwE '{pattern}'").stdout.split()
    return sorted(set(found))


def test_only_root_can_read_a_knock(host):
    found = files_with_secrets(host)
    assert KEPT in found
    for path in found:
        assert host.file(path).user == "root", path
        assert host.file(path).mode & 0o077 == 0, f"{path}: {host.file(path).mode:o}"


def test_journal_has_no_knock(host):
    journal = host.check_output("journalctl --no-pager --output=cat")
    assert len(journal.splitlines()) > 20
    assert secret_pattern().search(journal) is None


def test_host_is_called_what_the_scenario_says(host):
    assert host.check_output("hostname") == NAME
