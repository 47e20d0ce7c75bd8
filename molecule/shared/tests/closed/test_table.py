# Copyright: (c) 2026, sesame.portknock contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of the engine nftables: with the role applied, and again after every reboot."""

import json

from harness import snapshot


def test_table_is_there_and_as_it_was_written(host):
    assert "table inet portknock" in host.check_output("nft list tables")
    status = json.loads(host.check_output("portknock status --json"))
    assert (status["drift"], status["pending"]) == ([], {})


def test_nothing_of_the_other_engine_is(host):
    assert "PORTKNOCK" not in str(snapshot()["live"])
    assert host.run("ls /proc/net/xt_recent/ | grep '^pk'").stdout == ""
    text = host.run("cat /etc/iptables/rules.v4 /etc/iptables/rules.v6").stdout
    assert "PORTKNOCK" not in text
